"""Engines, carriers, tunnels and recording handlers for the data plane's tests."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from drtp_api.dataplane.carrier import SocketCarrier
from drtp_api.dataplane.engine import Engine, create_engine
from drtp_api.dataplane.testing import SERVICE, TestCertificate, TrustingEnd, make_certificate, tcp_pair
from drtp_api.dataplane.tls import tls_handshake
from drtp_protocol import ConnectionEstablished, OpenMetadata, Role, StreamOpened

Scenario = Callable[[Engine], Awaitable[None]]


@pytest.fixture(params=["epoll", "epoll-spin", "portable"])
def run(request) -> Callable[[Scenario], None]:
    """Run a coroutine function with each kind of engine in its own loop."""

    def run_scenario(scenario: Scenario) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            faults: list[dict] = []
            loop.set_exception_handler(lambda _, context: faults.append(context))
            kind = request.param.partition("-")[0]
            engine = create_engine(kind=kind, spin_us=50 if "spin" in request.param else 0)
            engine.faults = faults
            try:
                async with asyncio.timeout(30):
                    await scenario(engine)
                    while engine._handlers and not engine._closed:
                        # Carriers that were closed politely linger for their peer; nothing else may be left.
                        await asyncio.sleep(0.005)
            finally:
                engine.close()
            expected = getattr(engine, "expected_faults", 0)
            assert len(faults) == expected, faults

        asyncio.run(main())

    return run_scenario


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> TestCertificate:
    directory: Path = tmp_path_factory.mktemp("tls")
    return make_certificate(directory)


class Recording(TrustingEnd):
    """Remembers what it was told."""

    def __init__(self, engine, carrier, role, **options):
        super().__init__(engine, carrier, role, **options)
        self.events, self.summaries, self.ended = [], {}, None
        self.established = asyncio.Event()

    def on_tunnel_event(self, tunnel, event):
        super().on_tunnel_event(tunnel, event)
        self.events.append(event)
        if isinstance(event, ConnectionEstablished):
            self.established.set()

    def on_stream_closed(self, tunnel, stream_id, summary):
        assert stream_id not in self.summaries
        self.summaries[stream_id] = summary

    def on_tunnel_closed(self, tunnel, error):
        assert self.ended is None
        self.ended = (error,)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class EdgeEnd(Recording):
    """Opens a stream for a visitor."""

    def visit(self, sock, **options):
        stream_id = self.tunnel.open(OpenMetadata(service=SERVICE))
        self.tunnel.attach(stream_id, sock, **options)
        return stream_id


class AgentEnd(Recording):
    """Answers every stream with a socket of its service; ``connect`` may be replaced."""

    def __init__(self, engine, carrier, role, **options):
        super().__init__(engine, carrier, role, **options)
        self.peers, self.failures = {}, {}

    def connect(self, stream_id):
        ours, theirs = tcp_pair()
        self.peers[stream_id] = theirs
        self.tunnel.attach(stream_id, ours)

    def on_tunnel_event(self, tunnel, event):
        super().on_tunnel_event(tunnel, event)
        if isinstance(event, StreamOpened):
            self.connect(event.stream_id)

    def on_connect_failed(self, tunnel, stream_id, error):
        self.failures[stream_id] = error


class Rig:
    """An edge's tunnel and an agent's, connected; ``visit`` gives both outer sockets of a new stream."""

    def __init__(self, engine, edge, agent):
        self.engine, self.edge, self.agent = engine, edge, agent
        self.socks = []

    async def visit(self, **options):
        inner, visitor = tcp_pair()
        self.socks.append(visitor)
        stream_id = self.edge.visit(inner, **options)
        await until(lambda: stream_id in self.agent.peers or stream_id in self.agent.failures)
        service = self.agent.peers.get(stream_id)
        if service is not None:
            self.socks.append(service)
        return stream_id, visitor, service

    async def over(self, stream_id):
        await until(lambda: stream_id in self.edge.summaries and stream_id in self.agent.summaries)
        return self.edge.summaries[stream_id], self.agent.summaries[stream_id]

    async def finish(self):
        for end in (self.edge, self.agent):
            end.tunnel.close()
        for sock in self.socks:
            sock.close()


@pytest.fixture(params=["plain", "tls"])
def rig(request, certificate):
    """Return a coroutine function that makes a :class:`Rig` on an engine."""

    async def make(engine, *, edge_type=EdgeEnd, agent_type=AgentEnd, **options):
        a, b = tcp_pair()
        if request.param == "plain":
            carriers = SocketCarrier(engine, a), SocketCarrier(engine, b)
        else:
            carriers = await asyncio.gather(
                tls_handshake(
                    engine, a, certificate.client_context(), server_side=False, server_hostname="edge.test", timeout=5
                ),
                tls_handshake(engine, b, certificate.server_context(), server_side=True, timeout=5),
            )
        edge = edge_type(engine, carriers[1], Role.EDGE, **options)
        agent = agent_type(engine, carriers[0], Role.AGENT, **options)
        edge.raw = b
        edge.tunnel.start()
        agent.tunnel.start()
        await edge.established.wait()
        await agent.established.wait()
        return Rig(engine, edge, agent)

    return make


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def send_all(sock, data):
    """Send from outside the engine, with the socket's own pace."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view[:100_000]) :]
        except BlockingIOError:
            await asyncio.sleep(0.0005)


async def receive(sock, size):
    """Receive exactly so many bytes."""
    data = bytearray()
    while len(data) < size:
        try:
            part = sock.recv(min(size - len(data), 1 << 18))
        except BlockingIOError:
            await asyncio.sleep(0.0005)
            continue
        assert part, f"end after {len(data)} of {size} bytes"
        data += part
    return data


async def receive_end(sock):
    """Return how a stream ends: what came before, and ``eof`` or ``reset``."""
    data = bytearray()
    while True:
        try:
            part = sock.recv(1 << 18)
        except BlockingIOError:
            await asyncio.sleep(0.0005)
        except ConnectionResetError:
            return data, "reset"
        else:
            if not part:
                return data, "eof"
            data += part
