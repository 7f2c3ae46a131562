"""DRTP server picker by great-circle distance."""
