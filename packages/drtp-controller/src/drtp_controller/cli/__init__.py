"""The operator's command ``drtp``.

Rules:
- Nothing heavy is imported before a subcommand runs.
- A refusal is one line with a code, one with the next step; a traceback only under ``--debug``.
"""

from __future__ import annotations

from drtp_controller.cli.main import main

__all__ = ["main"]
