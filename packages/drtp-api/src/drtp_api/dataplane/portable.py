"""The engine for platforms without epoll: asyncio's readers and writers, made edge-triggered.

Rules:

- asyncio reports readiness for as long as it lasts, so each report switches that direction off until the handler says
  through :meth:`PortableEngine.rearm` that the socket ran dry or full.
- It keeps the same promises as the epoll engine and passes the same tests; it is slower and never spins.

What must not live here: anything the other engine does not promise.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from socket import socket

from drtp_api.dataplane.engine import (
    ErrorSink,
    Handler,
    Scratch,
    TimerHandle,
    file_number,
    loop_error_sink,
)


class PortableEngine:
    """Engine on ``add_reader`` and ``add_writer``; see :class:`drtp_api.dataplane.engine.Engine`.

    Args:
        loop: the asyncio loop to live in.
        on_error: told of handlers that raised; by default the loop's exception handler.
    """

    edge_triggered = False
    now = staticmethod(time.monotonic)

    def __init__(self, loop: asyncio.AbstractEventLoop, *, on_error: ErrorSink | None = None) -> None:
        self._loop = loop
        self._handlers: dict[int, Handler] = {}
        self._ready: deque[Handler] = deque()
        self.scratch = Scratch()
        self._on_error = on_error or loop_error_sink(loop)
        self._asked = False
        self._closed = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop this engine lives in."""
        return self._loop

    @property
    def watched(self) -> int:
        """How many descriptors are watched."""
        return len(self._handlers)

    def add(self, sock: socket | int, handler: Handler) -> None:
        """Watch a descriptor; see :meth:`Engine.add`."""
        number = file_number(sock)
        if number in self._handlers:
            raise ValueError(f"descriptor {number} is already watched")
        self._handlers[number] = handler
        self.rearm(number, read=True, write=True)

    def remove(self, sock: socket | int, *, closing: bool = False) -> None:  # noqa: ARG002 - asyncio must be told
        """Stop watching a descriptor."""
        number = file_number(sock)
        if self._handlers.pop(number, None) is not None:
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)

    def replace(self, sock: socket | int, handler: Handler) -> None:
        """Hand a watched descriptor to another handler."""
        self._handlers[file_number(sock)] = handler

    def rearm(self, sock: socket | int, *, read: bool = False, write: bool = False) -> None:
        """Listen again for the directions named."""
        number = file_number(sock)
        if number not in self._handlers:
            return
        if read:
            self._loop.add_reader(number, self._readable, number)
        if write:
            self._loop.add_writer(number, self._writable, number)

    def schedule(self, handler: Handler) -> None:
        """Call ``handler.on_turn`` in the loop's next iteration."""
        if not handler.scheduled:
            handler.scheduled = True
            self._ready.append(handler)
            if not self._asked and not self._closed:
                self._asked = True
                self._loop.call_soon(self._run)

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` in ``delay`` seconds."""
        return self._loop.call_later(delay, callback)

    def close(self) -> None:
        """Stop watching everything."""
        self._closed = True
        for number in list(self._handlers):
            self.remove(number)
        self._ready.clear()

    def _readable(self, number: int) -> None:
        self._loop.remove_reader(number)
        self._deliver(number, readable=True, writable=False)

    def _writable(self, number: int) -> None:
        self._loop.remove_writer(number)
        self._deliver(number, readable=False, writable=True)

    def _deliver(self, number: int, *, readable: bool, writable: bool) -> None:
        handler = self._handlers.get(number)
        if handler is None:
            return
        try:
            handler.on_io(readable, writable, False)
        except Exception as error:
            self._contain(handler, error, number)

    def _run(self) -> None:
        self._asked = False
        for _ in range(len(self._ready)):
            handler = self._ready.popleft()
            handler.scheduled = False
            try:
                handler.on_turn()
            except Exception as error:
                self._contain(handler, error, None)
        if self._ready and not self._asked and not self._closed:
            self._asked = True
            self._loop.call_soon(self._run)

    def _contain(self, handler: Handler, error: Exception, number: int | None) -> None:
        for other, owner in list(self._handlers.items()) if number is None else [(number, handler)]:
            if owner is handler:
                self.remove(other)
        self._on_error(handler, error)
        try:
            handler.on_fault(error)
        except Exception as second:
            self._on_error(handler, second)
