"""DRTP gateway programmer that uses the listeners of the edge itself."""
