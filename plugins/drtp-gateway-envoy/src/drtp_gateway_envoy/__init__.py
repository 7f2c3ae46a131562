"""DRTP gateway programmer for a local Envoy, driven by files."""
