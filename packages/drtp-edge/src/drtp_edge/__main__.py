"""``python -m drtp_edge``."""

from __future__ import annotations

from drtp_edge.cli import main

if __name__ == "__main__":
    main()
