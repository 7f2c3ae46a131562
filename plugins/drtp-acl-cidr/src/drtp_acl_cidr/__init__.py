"""DRTP access control by client network (CIDR)."""
