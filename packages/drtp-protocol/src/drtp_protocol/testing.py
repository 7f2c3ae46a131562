"""Two connections joined by a wire, for tests of anything that drives or uses a connection.

Rules: the wire hands over as many bytes as the test says, so cuts fall anywhere; the buffer that was handed over is
overwritten afterwards, because that is what a shell does with it; time is a number that the test moves.
What must not be here: an opinion on what a connection should do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from .connection import Connection
from .events import AuthReceived, AuthRequired, DatagramReceived, DataReceived, Event
from .flow import Budget
from .handshake import AuthMethod, Binding, Capability, Challenge, Hello, Welcome, psk_auth, verify_psk
from .limits import Limits, Tuning
from .status import Role

__all__ = ["KEY", "KEY_ID", "SERVICE", "Pair"]

KEY: Final = bytes(range(32))
KEY_ID: Final = b"test"
SERVICE: Final = "default/shop"

_ROUNDS: Final = 10_000
"""More turns than any exchange of a test needs: beyond it the two answer each other for ever."""


class Pair:
    """An agent, an edge, and what is on its way between them.

    Attributes:
        now: The clock of both.
        ends: The two connections.
        wire: Bytes that an end has sent and the other has not received yet.
        welcome: What the edge answers a good proof with.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        edge_limits: Limits | None = None,
        tuning: Tuning | None = None,
        edge_tuning: Tuning | None = None,
        capabilities: Capability = Capability.AGENT_OPEN | Capability.REPORT,
        services: tuple[str, ...] = (SERVICE,),
        lease: int = 0,
        budget: Budget | None = None,
        now: float = 0.0,
    ) -> None:
        """Make both ends; nothing is exchanged yet. The edge's limits and tuning are the agent's if not given."""
        limits = limits or Limits()
        tuning = tuning or Tuning()
        hello = Hello(instance_id=bytes(16), epoch=1, services=services, agent="test", capabilities=capabilities)
        challenge = Challenge(edge_id="edge.test", methods=(AuthMethod.PSK,), capabilities=capabilities)
        self.now = now
        self.ends = {
            Role.AGENT: Connection(
                Role.AGENT, now=now, nonce=b"\xa0" * 32, hello=hello, limits=limits, tuning=tuning, budget=budget
            ),
            Role.EDGE: Connection(
                Role.EDGE,
                now=now,
                nonce=b"\xe0" * 32,
                challenge=challenge,
                limits=edge_limits or limits,
                tuning=edge_tuning or tuning,
                budget=budget,
            ),
        }
        self.wire = {role: bytearray() for role in Role}
        self.welcome = Welcome(
            session_id=bytes(range(16)), lease=lease, bindings=tuple(Binding(service) for service in services)
        )

    @property
    def agent(self) -> Connection:
        """The agent's end."""
        return self.ends[Role.AGENT]

    @property
    def edge(self) -> Connection:
        """The edge's end."""
        return self.ends[Role.EDGE]

    def transmit(self, role: Role, max_bytes: int = 65_536) -> int:
        """Put what an end has to send on the wire; return how many bytes."""
        data = self.ends[role].data_to_send(max_bytes, now=self.now)
        self.wire[role] += data
        return len(data)

    def pull(self, role: Role, payload: bytes, *, fin: bool = False) -> tuple[int, int] | None:
        """Commit at most `payload` to the stream whose turn it is; return stream id and size, or None."""
        connection = self.ends[role]
        while connection.wants_write and self.transmit(role):
            pass
        turn = connection.next_send(self.now)
        if turn is None:
            return None
        stream_id, allowance = turn
        size = min(allowance, len(payload))
        frame = bytearray(8) + payload[:size]
        connection.commit(stream_id, size, frame, fin=fin and size == len(payload))
        self.wire[role] += frame
        return stream_id, size

    def deliver(self, sender: Role, size: int | None = None) -> list[Event]:
        """Hand the other end up to `size` bytes (default all) of the wire; return its events, with data copied."""
        wire = self.wire[sender]
        buffer = wire[: len(wire) if size is None else size]
        del wire[: len(buffer)]
        receiver = self.ends[other(sender)]
        receiver.receive_data(memoryview(buffer), now=self.now)
        events = [_kept(event) for event in receiver.events()]
        buffer[:] = b"\xee" * len(buffer)
        return events

    def settle(self) -> dict[Role, list[Event]]:
        """Exchange bytes and answer the handshake until both ends are quiet; return each end's other events."""
        seen: dict[Role, list[Event]] = {role: [_kept(event) for event in self.ends[role].events()] for role in Role}
        for _ in range(_ROUNDS):
            moved = 0
            for role in Role:
                moved += self.transmit(role)
                moved += len(self.wire[role])
                seen[other(role)] += [event for event in self.deliver(role) if not self.answer(other(role), event)]
                seen[role] += [_kept(event) for event in self.ends[role].events()]
            if not moved:
                return seen
        raise AssertionError(f"the ends do not come to rest: {seen}")

    def establish(self) -> dict[Role, list[Event]]:
        """Make the handshake; return what else was seen."""
        seen = self.settle()
        assert self.agent.established, seen
        assert self.edge.established, seen
        return seen

    def answer(self, role: Role, event: Event) -> bool:
        """Answer an event of the handshake with the right key; False if it is another event.

        The end may be closed already, by what came right behind: then there is nobody to answer.
        """
        if self.ends[role].close_after_send:
            return isinstance(event, (AuthRequired, AuthReceived))
        match event:
            case AuthRequired():
                auth, expected = psk_auth(KEY_ID, KEY, event.transcript)
                self.ends[role].authenticate(auth, expected_edge_proof=expected, now=self.now)
            case AuthReceived():
                proof = verify_psk(KEY, event.auth, event.transcript)
                if proof is None:
                    self.ends[role].reject(now=self.now)
                else:
                    self.ends[role].accept(attrs.evolve(self.welcome, edge_proof=proof), now=self.now)
            case _:
                return False
        return True

    def tick(self, until: float) -> Iterator[float]:
        """Move the clock to every time that either end asked for, and at last to `until`; call timers at each."""
        while True:
            due = [deadline for end in self.ends.values() if (deadline := end.next_timeout()) is not None]
            self.now = max(self.now, min([until, *due]))
            for end in self.ends.values():
                deadline = end.next_timeout()
                if deadline is not None and deadline <= self.now:
                    end.handle_timeout(now=self.now)
            yield self.now
            if self.now >= until:
                return


def other(role: Role) -> Role:
    """Return the opposite role."""
    return Role.EDGE if role is Role.AGENT else Role.AGENT


def _kept(event: Event) -> Event:
    """Copy the data out of the receive buffer, so that the event may be kept."""
    if isinstance(event, (DataReceived, DatagramReceived)):
        return attrs.evolve(event, data=memoryview(bytes(event.data)))
    return event
