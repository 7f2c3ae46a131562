"""The DRTP agent as a library: supervisor, dialler of local services, Python SDK."""
