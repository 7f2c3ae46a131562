"""The command datumctl-serve, a datumctl plugin: expose a local service."""
