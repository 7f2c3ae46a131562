"""DRTP/1 as a sans-IO state machine: framing, multiplexing, flow control, authentication transcript.

Everything public is named here. Nothing in this package does I/O, reads a clock, draws randomness or logs: bytes and
times are handed in, events and bytes are handed out.
"""

from __future__ import annotations

from .errors import *  # noqa: F403
