"""Listening sockets driven by an engine: accepting in bounded batches, surviving a full descriptor table.

Rules:

- A listener never stops because descriptors ran out. It gives up its reserve descriptor to accept one connection and
  reset it, takes the reserve back, and pauses, so that the kernel's backlog and not this process carries the crowd.
- What to do with a connection is the caller's decision; it receives a non-blocking socket that it owns.

What must not live here: who may connect, and what is spoken afterwards.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from socket import (
    AF_INET6,
    AF_UNIX,
    IPPROTO_IPV6,
    IPV6_V6ONLY,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from typing import Any

from drtp_api.dataplane.engine import Engine, Handler, TimerHandle
from drtp_api.dataplane.sockopt import reset_close, tune_listener

BACKLOG = 4096
"""Connections the kernel may queue; it lowers this to its own limit."""

_BATCH = 32
"""Connections accepted before other work gets its turn."""

_PAUSE = 0.1
"""Seconds without accepting after the descriptor table was full."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

OnAccept = Callable[[socket, Any], None]
"""Receives a connected non-blocking socket and the peer's address as ``accept`` gives it."""


def bind_tcp(host: str, port: int, *, reuse_port: bool = False, backlog: int = BACKLOG) -> socket:
    """Return a non-blocking listening TCP socket, whose connections are tuned as by :func:`tune_stream`.

    Args:
        host: an IPv4 or IPv6 address.
        port: 0 lets the kernel choose.
        reuse_port: let other processes listen on the same port and share the connections.
        backlog: connections the kernel may queue.

    Raises:
        OSError: the address cannot be bound.
    """
    family = AF_INET6 if ":" in host else 2
    sock = socket(family, SOCK_STREAM)
    try:
        sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        if family == AF_INET6:
            sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        sock.bind((host, port))
        tune_listener(sock)
        sock.listen(backlog)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class Listener(Handler):
    """Accepts connections for as long as it lives.

    Args:
        engine: drives the socket.
        sock: bound, listening and non-blocking; the listener owns it from now on.
        on_accept: receives each connection. What it raises is reported and costs that connection only.
    """

    __slots__ = ("_closed", "_engine", "_held", "_on_accept", "_reserve", "_sock", "_timer", "exhausted")

    def __init__(self, engine: Engine, sock: socket, on_accept: OnAccept) -> None:
        self.scheduled = False
        self.exhausted = 0
        self._engine = engine
        self._sock = sock
        self._on_accept = on_accept
        self._closed = False
        self._held = False
        self._timer: TimerHandle | None = None
        self._reserve: int | None = _open_reserve()
        sock.setblocking(False)
        engine.add(sock, self)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port listened on; a Unix socket's path with port 0."""
        name = self._sock.getsockname()
        return (str(name), 0) if self._sock.family == AF_UNIX else (str(name[0]), int(name[1]))

    @property
    def paused(self) -> bool:
        """Whether accepting rests because descriptors ran out; :attr:`exhausted` counts how often."""
        return self._timer is not None

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:  # noqa: ARG002
        """Accept a batch."""
        if readable:
            self.on_turn()

    def on_turn(self) -> None:
        """Accept a batch, and ask for another turn if there may be more."""
        if self._closed or self._held or self._timer is not None:
            return
        accept = self._sock.accept
        for _ in range(_BATCH):
            try:
                sock, peer = accept()
            except BlockingIOError:
                self._engine.rearm(self._sock, read=True)
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._give_way()
                    return
                # The connection failed before it was accepted (ECONNABORTED and its kin): the next one is unharmed.
                continue
            sock.setblocking(False)
            try:
                self._on_accept(sock, peer)
            except Exception as error:
                reset_close(sock)
                self._engine.loop.call_exception_handler(
                    {"message": f"a connection from {peer} was dropped", "exception": error}
                )
            if self._closed or self._held:
                return
        self._engine.schedule(self)

    def on_fault(self, error: Exception) -> None:  # noqa: ARG002
        """Close."""
        self.close()

    def _give_way(self) -> None:
        """Turn one waiting visitor away with the reserve descriptor, then rest."""
        self.exhausted += 1
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            with contextlib.suppress(OSError):
                reset_close(self._sock.accept()[0])
            self._reserve = _open_reserve()
        self._timer = self._engine.call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._timer = None
        if not self._closed:
            if self._reserve is None:
                self._reserve = _open_reserve()
            self._engine.schedule(self)

    def hold(self) -> None:
        """Leave further connections in the kernel's backlog until :meth:`release`."""
        self._held = True

    def release(self) -> None:
        """Go on accepting after :meth:`hold`."""
        if self._held:
            self._held = False
            self._engine.schedule(self)

    def close(self) -> None:
        """Stop accepting and close the socket; connections the kernel had queued are reset. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._engine.remove(self._sock)
        self._sock.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
