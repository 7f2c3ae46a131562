"""Two connections joined by a wire, with the clock in the test's hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import pytest

from drtp_protocol import (
    AuthMethod,
    AuthReceived,
    AuthRequired,
    Binding,
    Budget,
    Capability,
    Challenge,
    Connection,
    DatagramReceived,
    DataReceived,
    Event,
    Frame,
    Hello,
    Limits,
    OpenMetadata,
    Protocol,
    Role,
    Tuning,
    Welcome,
    psk_auth,
    verify_psk,
)
from drtp_protocol.frames import HEADER, parse, serialize

KEY = b"k" * 32
SERVICE = "default/shop"
TCP = OpenMetadata(service=SERVICE)
UDP = OpenMetadata(service=SERVICE, protocol=Protocol.UDP)


class Duo:
    """An agent and an edge, a wire between them, one clock, and what each end told its shell."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        tuning: Tuning | None = None,
        edge_tuning: Tuning | None = None,
        capabilities: Capability = Capability.NONE,
        budget: Budget | None = None,
        agent_budget: Budget | None = None,
        lease: int = 0,
        keepalive: tuple[int, int] | None = None,
        nonce: bytes = b"\x80" * 32,
    ) -> None:
        self.now = 100.0
        self.lease = lease
        self.keepalive = keepalive
        self.seen: dict[Connection, list[Event]] = {}
        tuning = tuning or Tuning()
        self.agent = Connection(
            Role.AGENT,
            now=self.now,
            nonce=nonce,
            hello=Hello(
                instance_id=b"i" * 16, epoch=7, services=(SERVICE,), agent="agent/1", capabilities=capabilities
            ),
            limits=limits or Limits(),
            tuning=tuning,
            budget=agent_budget,
        )
        self.edge = Connection(
            Role.EDGE,
            now=self.now,
            nonce=nonce,
            challenge=Challenge(edge_id="edge-1", methods=(AuthMethod.PSK,), capabilities=capabilities),
            limits=limits or Limits(),
            tuning=edge_tuning or tuning,
            budget=budget,
        )
        self.seen = {self.agent: [], self.edge: []}

    def other(self, end: Connection) -> Connection:
        return self.edge if end is self.agent else self.agent

    def drain(self, end: Connection) -> None:
        """Note the events of one end; answer those of the handshake."""
        for event in end.events():
            match event:
                case AuthRequired():
                    auth, proof = psk_auth(b"id", KEY, event.transcript)
                    end.authenticate(auth, expected_edge_proof=proof, now=self.now)
                case AuthReceived():
                    edge_proof = verify_psk(KEY, event.auth, event.transcript)
                    assert edge_proof is not None
                    end.accept(self.welcome(edge_proof), now=self.now)
                case DataReceived():
                    self.seen[end].append(attrs.evolve(event, data=bytes(event.data)))
                case DatagramReceived():
                    self.seen[end].append(attrs.evolve(event, data=bytes(event.data)))
                case _:
                    self.seen[end].append(event)

    def welcome(self, edge_proof: bytes | None = None) -> Welcome:
        return Welcome(
            session_id=b"s" * 16,
            lease=self.lease,
            bindings=(Binding(SERVICE),),
            edge_proof=edge_proof,
            keepalive=self.keepalive,
        )

    def pump(self, *, step: int = 1 << 20) -> None:
        """Carry bytes both ways, `step` at a time, until none are left. Nobody acknowledges."""
        moved = True
        while moved:
            moved = False
            for end in (self.agent, self.edge):
                self.drain(end)
                data = end.data_to_send(now=self.now)
                moved = moved or bool(data)
                for start in range(0, len(data), step):
                    self.other(end).receive_data(data[start : start + step], now=self.now)
                    self.drain(self.other(end))

    def establish(self) -> Duo:
        self.pump()
        assert self.agent.established
        assert self.edge.established
        self.take(self.agent)
        self.take(self.edge)
        return self

    def take(self, end: Connection) -> list[Event]:
        """Return what an end has told since the last time."""
        self.drain(end)
        seen, self.seen[end] = self.seen[end], []
        return seen

    def give(self, end: Connection, *frames: Frame | bytes) -> list[Event]:
        """Let an end receive frames that its peer never sent; return what it tells."""
        for frame in frames:
            end.receive_data(frame if isinstance(frame, bytes) else serialize(frame), now=self.now)
        return self.take(end)

    def sent(self, end: Connection) -> list[Frame]:
        """Take what an end has to send, as frames, off the wire."""
        data = end.data_to_send(now=self.now)
        frames = []
        while data:
            size = 8 + (HEADER.unpack_from(data)[0] & 0xFFFFFF)
            frames.append(parse(data[:size]))
            data = data[size:]
        return frames

    def open(self, metadata: OpenMetadata = TCP, *, accept: bool = True) -> int:
        """Open a stream from the edge and, unless told otherwise, accept it; events are taken away."""
        stream_id = self.edge.open_stream(metadata, now=self.now)
        self.pump()
        if accept:
            self.agent.accept_stream(stream_id)
            self.pump()
        self.take(self.agent)
        self.take(self.edge)
        return stream_id

    def advance(self, seconds: float, *ends: Connection) -> None:
        """Let time pass, calling timers when they are due; the wire is carried only between `ends` if given."""
        target = self.now + seconds
        while True:
            due = [end.next_timeout() for end in (ends or (self.agent, self.edge))]
            soonest = min((time for time in due if time is not None), default=math.inf)
            if soonest > target:
                break
            self.now = max(self.now, soonest)
            for end in ends or (self.agent, self.edge):
                timeout = end.next_timeout()
                if timeout is not None and timeout <= self.now:
                    end.handle_timeout(now=self.now)
                    after = end.next_timeout()
                    assert after is None or after > self.now
            if not ends:
                self.pump()
        self.now = target


@pytest.fixture
def make_duo() -> Callable[..., Duo]:
    """Return the class, for tests with their own limits."""
    return Duo


@pytest.fixture
def duo() -> Duo:
    """Return an established pair with the default limits."""
    return Duo().establish()


@pytest.fixture
def tcp() -> OpenMetadata:
    return TCP


@pytest.fixture
def udp() -> OpenMetadata:
    return UDP
