"""Starting a connection to a local service without waiting for it.

Rules: one system call sequence, no name resolution, no retry; the tunnel finishes what is started here.
What must not live here: where to dial, and what a failure means.
"""

import socket as _socket
from errno import EINPROGRESS
from os import strerror
from socket import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, socket

from drtp_api.dataplane.sockopt import tune_listener

_NONBLOCKING: int = getattr(_socket, "SOCK_NONBLOCK", 0)
"""Saves a call for every socket where the kernel makes them non-blocking at birth."""

Address = tuple[str, int] | str
"""Host and port, numeric, or the path of a Unix socket."""


def start_connect(address: Address) -> tuple[socket, bool]:
    """Begin to connect and return the socket, and whether it is still connecting.

    On loopback the connection is there at once, though the kernel says that it is in progress; knowing saves a report
    and lets the first bytes go without being kept.

    Raises:
        OSError: it failed at once, such as a Unix socket without a listener; nothing is left open.
    """
    family = AF_UNIX if isinstance(address, str) else AF_INET6 if ":" in address[0] else AF_INET
    sock = socket(family, SOCK_STREAM | _NONBLOCKING)
    if not _NONBLOCKING:
        sock.setblocking(False)
    tune_listener(sock)
    number = sock.connect_ex(address)
    if number == EINPROGRESS:
        try:
            sock.getpeername()
        except OSError:
            return sock, True
        return sock, False
    if number:
        sock.close()
        raise OSError(number, strerror(number))
    return sock, False
