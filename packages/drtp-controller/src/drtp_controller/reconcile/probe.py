"""Asks the kernel whether a public port can be bound.

Rules: the answer is true for this moment only; the gateway's own bind decides.
"""

from __future__ import annotations

import socket

from drtp_api.resources import Protocol
from drtp_controller.planners.ports import IsFree, PortState

__all__ = ["bind_probe", "free_port"]


def bind_probe(host: str) -> IsFree:
    """Return a probe that binds on ``host`` and lets go at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def probe(protocol: Protocol, port: int) -> PortState:
        kind = socket.SOCK_DGRAM if protocol is Protocol.UDP else socket.SOCK_STREAM
        with socket.socket(family, kind) as sock:
            if protocol is not Protocol.UDP:
                # connections in TIME_WAIT do not hinder a listener; another listener still does
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except PermissionError:
                return PortState.FORBIDDEN
            except OSError:
                return PortState.TAKEN
        return PortState.FREE

    return probe


def free_port(host: str, wanted: int = 0) -> int:
    """Return ``wanted`` if it can be bound now, else a port that can.

    Raises:
        OSError: nothing can be bound on this host.
    """
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError:
                if port == 0:
                    raise
                continue
            return int(sock.getsockname()[1])
    raise AssertionError  # the second round returns or raises
