"""The command ``datumctl-serve``: a face for ``drtp_agent``, and a plugin of datumctl."""
