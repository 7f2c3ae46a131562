"""What drives sockets: the contract every engine keeps, and the choice between them.

Rules:

- One thread, one asyncio loop, one engine. Handlers are called synchronously and never await.
- Readiness is *edge-triggered*: a handler hears of it once and then owns it. It reads until the socket is dry, or
  schedules itself, or remembers that bytes wait. A level-triggered engine keeps that promise
  through :meth:`Engine.rearm`.
- A handler that raises loses its descriptor and nothing else.

What must not live here: any knowledge of streams, tunnels or TLS, and any policy about how much to move.
"""

import asyncio
import gc
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Literal, Protocol

SCRATCH_SIZE = 256 * 1024
"""Payload bytes of each shared buffer. Larger calls are cheaper calls; beyond 256 KiB the processor's cache is lost."""

SCRATCH_HEADROOM = 4096
"""Bytes beyond the payload in the send buffer, for headers and a few control frames."""


class Handler(ABC):
    """Base of everything that an engine drives.

    Subclasses that exist once per connection declare ``__slots__``; this class adds one slot.
    """

    __slots__ = ("scheduled",)

    scheduled: bool
    """Whether the engine will call :meth:`on_turn`. Engines write it, handlers only initialise it to False."""

    @abstractmethod
    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:
        """Learn what changed on the descriptor.

        Spurious calls are possible: a handler must survive a socket that is not ready after all. ``hangup`` says that
        the peer closed or failed, so a short read is not the end of what can be read; engines that cannot tell pass
        False and report the descriptor as readable again.
        """

    def on_turn(self) -> None:  # noqa: B027 - most handlers never schedule themselves
        """Go on with work left by an earlier call, asked for with :meth:`Engine.schedule`.

        One call may still come after the descriptor was removed.
        """

    def on_fault(self, error: Exception) -> None:  # noqa: B027 - a handler may own nothing
        """Release what this handler owns: one of its methods raised ``error`` and its descriptor was removed."""


class TimerHandle(Protocol):
    """A pending call that can be cancelled."""

    def cancel(self) -> None:
        """Forget the call; harmless when it already happened."""


ErrorSink = Callable[[Handler, Exception], None]
"""Told of every contained failure, for the log."""


class Engine(Protocol):
    """Edge-triggered readiness for many descriptors inside one asyncio loop."""

    edge_triggered: bool
    """Whether :meth:`rearm` is unnecessary. Hot paths test this instead of calling it."""

    scratch: "Scratch"
    """The buffers shared by everything on this engine; contents last until control returns to the engine."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop this engine lives in."""

    @property
    def watched(self) -> int:
        """How many descriptors are watched; 0 once everything said its goodbye, so that the engine may be closed."""

    def add(self, sock: socket | int, handler: Handler) -> None:
        """Watch a non-blocking socket or descriptor for reading and writing; its present state is reported soon.

        Raises:
            ValueError: the descriptor is already watched.
        """

    def remove(self, sock: socket | int, *, closing: bool = False) -> None:
        """Stop watching; harmless when the descriptor is not watched. Call it before closing.

        ``closing`` promises that the descriptor is closed next and has no duplicate, which saves a system call.
        """

    def replace(self, sock: socket | int, handler: Handler) -> None:
        """Hand a watched descriptor to another handler, which must assume that it may be ready."""

    def rearm(self, sock: socket | int, *, read: bool = False, write: bool = False) -> None:
        """Ask to hear again of readiness, after the socket ran dry (read) or full (write)."""

    def schedule(self, handler: Handler) -> None:
        """Call ``handler.on_turn`` once, after the events at hand; calling this twice before then is the same."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` in ``delay`` seconds."""

    def now(self) -> float:
        """Monotonic seconds, the clock of every core driven here."""

    def close(self) -> None:
        """Stop watching everything. Descriptors stay open: they belong to their handlers."""


class Scratch:
    """Two buffers that all tunnels of an engine share, so that an idle connection costs none."""

    __slots__ = ("receive", "send")

    def __init__(self, size: int = SCRATCH_SIZE) -> None:
        self.receive = memoryview(bytearray(size))
        """What a carrier's bytes are read into."""
        self.send = memoryview(bytearray(size + SCRATCH_HEADROOM))
        """What frames are assembled in."""


def file_number(sock: socket | int) -> int:
    """Return the descriptor of a socket, or the number itself."""
    return sock if isinstance(sock, int) else sock.fileno()


def on_battery(supplies: Path = Path("/sys/class/power_supply")) -> bool:
    """Tell whether this machine runs on a discharging battery; False wherever that cannot be known."""
    try:
        return any(
            (supply / "status").read_text(encoding="ascii", errors="replace").strip() == "Discharging"
            for supply in supplies.iterdir()
            if (supply / "status").exists()
        )
    except OSError:
        return False


SPIN_US = 100
"""Microseconds to spin for. A round trip through both ends and a quick service takes some 70; a bet on less is lost."""


def default_spin_us() -> int:
    """Microseconds worth spinning for: :data:`SPIN_US` where another processor can do the peer's work, else 0."""
    return SPIN_US if (os.cpu_count() or 1) > 1 and not on_battery() else 0


def settle() -> None:
    """Tell the garbage collector that start-up is over; daemons call it once.

    What exists by now stays, and the data plane makes no cycles: looking for them every 700 objects would cost each
    new connection some 5 %.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def create_engine(
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    kind: Literal["auto", "epoll", "portable"] = "auto",
    spin_us: int | None = None,
    on_error: ErrorSink | None = None,
) -> Engine:
    """Create the best engine this platform has.

    Args:
        loop: the loop to live in; the running one by default.
        kind: ``epoll`` needs Linux, ``portable`` runs on every loop with ``add_reader``.
        spin_us: how long to poll for the next event before sleeping; None chooses, 0 never spins.
        on_error: told of handlers that raised; by default the loop's exception handler.

    Raises:
        OSError: the platform lacks the engine asked for.
    """
    from drtp_api.dataplane import epoll, portable

    loop = loop or asyncio.get_running_loop()
    if kind == "epoll" or (kind == "auto" and epoll.available()):
        return epoll.EpollEngine(loop, spin_us=default_spin_us() if spin_us is None else spin_us, on_error=on_error)
    return portable.PortableEngine(loop, on_error=on_error)


def loop_error_sink(loop: asyncio.AbstractEventLoop) -> ErrorSink:
    """Report contained failures to the loop's exception handler."""

    def report(handler: Handler, error: Exception) -> None:
        loop.call_exception_handler({"message": f"{type(handler).__name__} raised and was removed", "exception": error})

    return report
