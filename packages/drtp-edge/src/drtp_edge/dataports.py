"""Data listeners: one per service that has a live tunnel, on the pod's address and a vended port.

Rules:
- No live tunnel, no listener: a gateway meets a refused connection and goes elsewhere at once.
- Before a listener closes, what the kernel accepted already is taken, so that no visitor is lost to a close.

What must not live here: which numbers are free to use (``ports``), and what is done with connections.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from socket import socket
from typing import Any

import attrs

from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.listen import Listener, bind_tcp
from drtp_api.dataplane.sockopt import tune_stream
from drtp_edge.ports import PortBook

__all__ = ["DataPorts", "Listening"]

OnAccept = Callable[[socket, Any], None]


@attrs.define(eq=False)
class Listening:
    """One listening port."""

    sock: socket
    listener: Listener
    on_accept: OnAccept

    @classmethod
    def open(cls, engine: Engine, host: str, port: int, on_accept: OnAccept) -> Listening:
        """Bind and listen.

        Raises:
            OSError: the address cannot be had.
        """
        sock = bind_tcp(host, port)
        # Accepted connections inherit these, which saves calls for each of them.
        tune_stream(sock)
        return cls(sock, Listener(engine, sock, on_accept), on_accept)

    @property
    def port(self) -> int:
        """The port listened on."""
        return self.listener.address[1]

    def close(self, *, take_rest: bool) -> None:
        """Stop listening.

        Args:
            take_rest: Accept what waits in the kernel first; else it is reset.
        """
        while take_rest:
            try:
                sock, peer = self.sock.accept()
            except OSError:
                break
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                self.on_accept(sock, peer)
        self.listener.close()


@attrs.define(kw_only=True, eq=False)
class DataPorts:
    """The data listeners of one edge.

    Args:
        engine: Drives them.
        host: The pod's address.
        book: Vends numbers.
        door: Makes what accepts for a service.
        on_change: Told of services whose port changed.
        on_failure: Told of services for which no port can be had, and why.
    """

    engine: Engine
    host: str
    book: PortBook
    door: Callable[[str], OnAccept]
    on_change: Callable[[str], None] = lambda _service: None
    on_failure: Callable[[str, str], None] = lambda _service, _why: None
    _open: dict[str, Listening] = attrs.field(factory=dict)
    _last: dict[str, int] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self._open)

    def port(self, service: str) -> int | None:
        """Return the port a service listens on now."""
        listening = self._open.get(service)
        return listening.port if listening is not None else None

    def last_port(self, service: str) -> int | None:
        """Return the port a service listens on or listened on last."""
        return self._last.get(service)

    def sync(self, services: AbstractSet[str]) -> None:
        """Listen for exactly these services."""
        for service in [s for s in self._open if s not in services]:
            self._close(service, take_rest=False)
        for service in services:
            self.follow(service, lives=True)

    def follow(self, service: str, *, lives: bool) -> None:
        """Listen for a service, or not."""
        if lives and service not in self._open:
            self._listen(service)
        elif not lives and service in self._open:
            self._close(service, take_rest=False)

    def close(self) -> None:
        """Stop listening for every service, taking what the kernel accepted already."""
        for service in list(self._open):
            self._close(service, take_rest=True)

    def _close(self, service: str, *, take_rest: bool) -> None:
        self._open.pop(service).close(take_rest=take_rest)
        self.book.release(service, self.engine.now())
        self.on_change(service)

    def _listen(self, service: str) -> None:
        failure = "every number of the range is taken"
        now = self.engine.now()
        for number in self.book.candidates(service, now):
            try:
                listening = Listening.open(self.engine, self.host, number, self.door(service))
            except OSError as error:
                failure = f"{self.host}:{number}: {error.strerror or error}"
                continue
            port = listening.port
            if number == 0 and not self.book.may_use(port, service, now):
                listening.close(take_rest=False)
                continue
            self.book.take(port, service)
            self._open[service] = listening
            self._last[service] = port
            self.on_change(service)
            return
        self.on_failure(service, failure)
