"""The Linux engine: a private edge-triggered epoll watched by the asyncio loop.

Rules:

- The loop watches one descriptor, the epoll's own. Each call it makes runs one bounded turn and comes back by
  ``call_soon`` while work is left, so that the control plane in the same loop is never starved.
- An event that was polled is delivered: the kernel will not repeat it.
- Spinning is a bet on the peer answering within microseconds. It is made only after productive turns and only while
  it keeps paying; it yields the processor each time round, and ends where the processor turns out to be wanted.

What must not live here: what handlers do with readiness.
"""

import asyncio
import os
import select
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

_BATCH = 128
"""Events taken by one poll: enough to batch a crowd, few enough to come round to scheduled work soon."""

_ROUNDS = 16
"""Polls in one turn before the asyncio loop gets its chance, about 1 ms of bulk work."""

_HOLD = 0.001
"""Seconds a paying spin may keep the asyncio loop waiting."""

_FREE_BETS = 2
"""Bets that may be lost in a row without consequence: a pause in a conversation is not its end."""

_MAX_BACKOFF = 6
"""After so many lost bets beyond that, only one productive turn in 2**6 spins again."""


def available() -> bool:
    """Tell whether this platform has epoll."""
    return hasattr(select, "epoll")


class EpollEngine:
    """Edge-triggered engine on a private ``select.epoll``; see :class:`drtp_api.dataplane.engine.Engine`.

    Args:
        loop: the asyncio loop to live in.
        spin_us: microseconds to poll for a next event after a productive turn; 0 switches spinning off.
        on_error: told of handlers that raised; by default the loop's exception handler.
    """

    edge_triggered = True
    now = staticmethod(time.monotonic)

    def __init__(self, loop: asyncio.AbstractEventLoop, *, spin_us: int = 0, on_error: ErrorSink | None = None) -> None:
        if not available():
            raise OSError("this platform has no epoll; use the portable engine")
        self._loop = loop
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._ready: deque[Handler] = deque()
        self.scratch = Scratch()
        self._on_error = on_error or loop_error_sink(loop)
        self._spin = spin_us / 1e6 if (os.cpu_count() or 1) > 1 else 0.0
        self._lost_bets = 0
        self._turns_to_skip = 0
        self._busy = False
        self._asked = False
        self._closed = False
        self._mask = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
        loop.add_reader(self._epoll.fileno(), self._run)

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
        number = sock if type(sock) is int else sock.fileno()  # type: ignore[union-attr]
        if number in self._handlers:
            raise ValueError(f"descriptor {number} is already watched")
        self._epoll.register(number, self._mask)
        self._handlers[number] = handler

    def remove(self, sock: socket | int, *, closing: bool = False) -> None:
        """Stop watching a descriptor; the kernel forgets closed ones by itself."""
        number = sock if type(sock) is int else sock.fileno()  # type: ignore[union-attr]
        if self._handlers.pop(number, None) is not None and not closing:
            self._epoll.unregister(number)

    def replace(self, sock: socket | int, handler: Handler) -> None:
        """Hand a watched descriptor to another handler."""
        self._handlers[file_number(sock)] = handler

    def rearm(self, sock: socket | int, *, read: bool = False, write: bool = False) -> None:
        """Do nothing: the kernel remembers."""

    def schedule(self, handler: Handler) -> None:
        """Call ``handler.on_turn`` after the events at hand."""
        if not handler.scheduled:
            handler.scheduled = True
            self._ready.append(handler)
            if not self._busy:
                self._ask_again()

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` in ``delay`` seconds."""
        return self._loop.call_later(delay, callback)

    def close(self) -> None:
        """Stop watching everything."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._epoll.fileno())
        self._handlers.clear()
        self._ready.clear()
        self._epoll.close()

    def _ask_again(self) -> None:
        if not self._asked and not self._closed:
            self._asked = True
            self._loop.call_soon(self._run_again)

    def _run_again(self) -> None:
        self._asked = False
        self._run()

    def _run(self) -> None:
        if self._closed:
            return
        events = self._epoll.poll(0, _BATCH)
        self._busy = True
        try:
            self._turn(events)
            if self._spin and not self._ready:
                self._spin_for_more()
        finally:
            self._busy = False
            if self._ready:
                self._ask_again()

    def _turn(self, events: list[tuple[int, int]]) -> None:
        """Deliver ``events``, then run scheduled handlers and poll again, for a bounded number of rounds."""
        handlers = self._handlers
        ready = self._ready
        poll = self._epoll.poll
        for remaining in range(_ROUNDS, 0, -1):
            for number, mask in events:
                handler = handlers.get(number)
                if handler is None:
                    continue
                try:
                    handler.on_io(mask & ~_OUT != 0, mask & _OUT != 0, mask & _HANGUP != 0)
                except Exception as error:
                    self._contain(handler, error, number)
            for _ in range(len(ready)):
                handler = ready.popleft()
                handler.scheduled = False
                try:
                    handler.on_turn()
                except Exception as error:
                    self._contain(handler, error, None)
            if not ready or remaining == 1 or self._closed:
                return
            events = poll(0, _BATCH)

    def _contain(self, handler: Handler, error: Exception, number: int | None) -> None:
        for other, owner in list(self._handlers.items()) if number is None else [(number, handler)]:
            if owner is handler:
                self.remove(other)
        self._on_error(handler, error)
        try:
            handler.on_fault(error)
        except Exception as second:
            self._on_error(handler, second)

    def _spin_for_more(self) -> None:
        """Poll without sleeping for as long as events keep coming within the spin time."""
        if self._turns_to_skip:
            self._turns_to_skip -= 1
            return
        clock = time.perf_counter
        poll = self._epoll.poll
        give_way = os.sched_yield
        now = clock()
        hold = now + _HOLD
        while not self._closed:
            end = now + self._spin
            while True:
                give_way()
                events = poll(0, _BATCH)
                now = clock()
                if events or now >= end:
                    break
            if now > end + 4 * self._spin:
                # Somebody else wanted the processor and had it for a while: there is little to burn.
                self._lost_bets = min(self._lost_bets + 2, _FREE_BETS + _MAX_BACKOFF)
            elif events:
                self._lost_bets = 0
            else:
                self._lost_bets = min(self._lost_bets + 1, _FREE_BETS + _MAX_BACKOFF)
            if self._lost_bets > _FREE_BETS:
                self._turns_to_skip = (1 << (self._lost_bets - _FREE_BETS)) - 1
            if events:
                self._turn(events)
            if self._lost_bets or self._ready:
                return
            now = clock()
            if now >= hold:
                self._ask_again()
                return


_OUT = getattr(select, "EPOLLOUT", 0)
_HANGUP = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)
