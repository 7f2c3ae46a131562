"""An end of a carrier for tests: sends what it is given when there is room, keeps what comes.

Rules:
- It drives a carrier exactly as the contract of ``drtp_api.dataplane.carrier`` says, on any engine, and no better.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.engine import Engine, Handler

__all__ = ["CarrierEnd"]


class CarrierEnd(Handler):
    """One end of a carrier. ``reading`` may be switched off to play a stalled reader."""

    def __init__(self, engine: Engine, carrier: Carrier) -> None:
        self.scheduled = False
        self.engine = engine
        self.carrier = carrier
        self.received = bytearray()
        self.reading = True
        self.ended: str | None = None
        """``eof`` for the peer's orderly end, else the name of the error that ended the stream."""
        self._to_send = memoryview(b"")
        self._changed = asyncio.Event()
        self._buffer = memoryview(bytearray(65536))
        carrier.start(self)

    @property
    def unsent(self) -> int:
        """Bytes that the carrier has not taken yet."""
        return len(self._to_send)

    def send(self, data: bytes) -> None:
        """Send this after what waits already."""
        self._to_send = memoryview(bytes(self._to_send) + data)
        self._write()

    def resume(self) -> None:
        """Read again."""
        self.reading = True
        self._read()

    async def until(self, condition: Callable[[], object], *, seconds: float = 10.0) -> None:
        """Wait until the condition holds; it is looked at whenever something happened here.

        Raises:
            TimeoutError: It did not hold in time.
        """
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    # The condition may look at the other end, too, which does not tell us of its changes.
                    await asyncio.wait_for(self._changed.wait(), 0.01)

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:  # noqa: ARG002
        """Move bytes."""
        if writable:
            self._write()
        if readable:
            self._read()
        self._changed.set()

    def on_turn(self) -> None:
        """Go on."""
        self.on_io(True, True, False)

    def on_fault(self, error: Exception) -> None:
        """Keep what went wrong."""
        self.ended = type(error).__name__
        self._changed.set()

    def _write(self) -> None:
        try:
            while self._to_send and self.ended is None:
                self._to_send = self._to_send[self.carrier.send(self._to_send) :]
        except BlockingIOError:
            self.carrier.rearm(write=True)
        except OSError as error:
            self.ended = type(error).__name__

    def _read(self) -> None:
        try:
            while self.reading and self.ended is None:
                count = self.carrier.recv_into(self._buffer)
                if count == 0:
                    self.ended = "eof"
                self.received += self._buffer[:count]
        except BlockingIOError:
            self.carrier.rearm(read=True)
        except OSError as error:
            self.ended = type(error).__name__
