"""Socket options of the data plane, one function per intent.

Rules:

- An option that this platform lacks, or that this kind of socket refuses, is skipped: the data plane works without it.
- Sizes of kernel buffers are left to the kernel's own tuning unless a setting says otherwise: a fixed size caps the
  throughput of long paths.

What must not live here: creating, connecting or accepting sockets.
"""

import contextlib
import os
import socket
import struct

TUNNEL_USER_TIMEOUT = 10.0
"""Seconds that sent bytes may stay unacknowledged on a tunnel; keepalive of the protocol has the same patience."""

STREAM_USER_TIMEOUT = 150.0
"""Seconds that sent bytes may stay unacknowledged by a visitor or a local service.

Linux counts a closed receive window, too: a paused download or a pager would be cut off after this, although its end
still answers. So it must exceed the 120 s after which the protocol itself calls a reader stalled.
"""

NOTSENT_LOWAT = 128 * 1024
"""Unsent bytes in the kernel beyond which a tunnel is not writable, so that control frames stay quick."""

_RESET = struct.pack("ii", 1, 0)
_ORDERLY = struct.pack("ii", 0, 0)
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def _set(sock: socket.socket, level: int, option: int | None, value: int) -> None:
    if option is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)


def _is_tcp(sock: socket.socket) -> bool:
    return sock.family in {socket.AF_INET, socket.AF_INET6}


def tune_stream(sock: socket.socket, *, keepalive: bool = False) -> None:
    """Make a visitor's or local service's socket non-blocking and quick.

    ``keepalive`` costs five more calls; use it where connections live long.
    """
    sock.setblocking(False)
    tune_listener(sock)
    if keepalive:
        tune_keepalive(sock, idle=60, interval=15, count=4)


def tune_listener(sock: socket.socket) -> None:
    """Give a listening socket the options of :func:`tune_stream`; what it accepts inherits them without a call each."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _TCP_USER_TIMEOUT is not None:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(STREAM_USER_TIMEOUT * 1000))
    except OSError:
        # Not TCP; asking for the family first would cost more than trying.
        return


def tune_tunnel(
    sock: socket.socket, *, send_buffer: int | None = None, notsent_lowat: int | None = NOTSENT_LOWAT
) -> None:
    """Make a tunnel's socket non-blocking, quick, and impatient with a dead path.

    Args:
        sock: a connected TCP socket.
        send_buffer: bytes for the kernel's send buffer; None leaves it to the kernel, which is right on long paths.
        notsent_lowat: unsent bytes that make the socket count as full; None leaves it unlimited.
    """
    sock.setblocking(False)
    if not _is_tcp(sock):
        return
    _set(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _set(sock, socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(TUNNEL_USER_TIMEOUT * 1000))
    tune_keepalive(sock, idle=10, interval=5, count=3)
    if notsent_lowat is not None:
        _set(sock, socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, notsent_lowat)
    if send_buffer is not None:
        _set(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)


def tune_keepalive(sock: socket.socket, *, idle: int, interval: int, count: int) -> None:
    """Let the kernel probe a silent peer: after ``idle`` seconds, every ``interval`` seconds, ``count`` times."""
    _set(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    _set(sock, socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None), idle)
    _set(sock, socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), interval)
    _set(sock, socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), count)


def arm_reset(sock: socket.socket) -> None:
    """Let the kernel reset the connection if this process dies: a killed process must not look like a clean end.

    From now on only :func:`orderly_close` ends it with FIN.
    """
    try:  # suppress() would cost more than the call it guards
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        return


def orderly_close(sock: socket.socket) -> None:
    """Close with FIN after what is still to be sent, also after :func:`arm_reset`."""
    try:  # noqa: SIM105 - as above
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY)
    except OSError:
        # Nothing to undo: such a socket knows no lingering.
        pass
    sock.close()


def reset_close(sock: socket.socket) -> None:
    """Close with a real RST, so that the peer cannot take a truncated stream for a whole one."""
    arm_reset(sock)
    sock.close()


def pending_error(sock: socket.socket) -> OSError | None:
    """Return, and clear, the error the kernel holds for a socket."""
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OSError(number, os.strerror(number)) if number else None
