"""The Playbook (a visitor's session as a transcript) and the Lab (an edge over real sockets)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import types

import attrs
import pytest

from drtp_api.acl import Decision, Verdict
from drtp_api.dataplane.engine import create_engine
from drtp_api.dataplane.testing import make_certificate
from drtp_api.transports import DialTarget, ListenConfig
from drtp_edge.catalog import Catalog
from drtp_edge.edge import Edge, EdgeOptions
from drtp_edge.policy import HandshakePolicy, PresharedKey
from drtp_edge.session import Command, Event, Finish, Session
from drtp_edge.testing import LabAgent
from drtp_protocol import Address, AuthMethod, ProxyHeader, encode_v2
from drtp_transport_tcp import TcpTransport

CONN_ID = bytes(range(16))


class Playbook:
    """Feeds a session and compares what it commands.

    Each step is ``playbook >> event << (command, ...)``; a ``Finish`` may be named by its outcome as a string. Time
    moves only by ``playbook.at(seconds)``.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.now = session.arrived
        self.commands: list[Command] = list(session.start())
        self.record = None

    def at(self, now: float) -> Playbook:
        self.now = now
        return self

    def __rshift__(self, event: Event) -> Playbook:
        assert not self.commands, f"not expected: {self.commands}"
        self.commands = list(self.session.receive(event, now=self.now))
        return self

    def __lshift__(self, expected: object) -> Playbook:
        steps = expected if isinstance(expected, tuple) else (expected,)
        for step in steps:
            assert self.commands, f"missing: {step}"
            command = self.commands.pop(0)
            if isinstance(command, Finish):
                self.record = command.record
            if isinstance(step, str):
                assert isinstance(command, Finish), command
                assert command.record.outcome == step
            else:
                assert command == step
        assert not self.commands, f"more than expected: {self.commands}"
        return self


@pytest.fixture
def playbook() -> type[Playbook]:
    return Playbook


def new_session(early: bytes = b"") -> Session:
    return Session(CONN_ID, "default/web", Address.from_host("203.0.113.7", 4711), 100.0, early)


@pytest.fixture
def session() -> Session:
    return new_session()


@pytest.fixture
def make_session():
    return new_session


KEY = b"0123456789abcdef0123456789abcdef"
WEB, DB = "default/web", "default/db"
HEADER = encode_v2(
    ProxyHeader(source=Address.from_host("203.0.113.7", 4711), destination=Address.from_host("192.0.2.1", 443))
)


@attrs.define
class Recorder:
    """A log that keeps its lines."""

    lines: list[dict] = attrs.field(factory=list)

    def info(self, event, **values):
        self.lines.append({"event": event, **values})

    warning = info

    def named(self, event):
        return [line for line in self.lines if line["event"] == event]


@attrs.define
class OnlyFrom:
    """An access backend that admits one address."""

    address: str
    name: str = "only"

    def decide(self, visitor):
        if str(visitor.source) == self.address:
            return Decision(Verdict.ALLOW, f"only/{self.address}")
        return Decision(Verdict.DENY, "only/others", "not the one")

    async def aclose(self):
        pass


def service(name, protocol="TCP", **status):
    spec = {"application": {"protocol": protocol}, "exposure": {"enabled": True}}
    return {"metadata": {"namespace": "default", "name": name}, "spec": spec, "status": status}


class Lab:
    """An edge, an echo service, and agents for it."""

    def __init__(self, engine, certificate, *, name="edge-1", backends=(), limits=None, policy=None, **options):
        self.engine = engine
        self.certificate = certificate
        self.log = Recorder()
        self.catalog = Catalog(name)
        self.catalog.put_service(service("web"))
        self.catalog.put_service(service("db"))
        self.policy = policy or HandshakePolicy(
            methods=(AuthMethod.PSK,), keys={b"lab": PresharedKey(key=KEY, services=(WEB, DB))}
        )
        self.edge = Edge(
            engine,
            EdgeOptions(name=name, **options),
            policy=self.policy,
            catalog=self.catalog,
            backends=backends,
            log=self.log,
            limits=limits,
        )
        self.agents = []

    async def start(self):
        config = ListenConfig(
            host="127.0.0.1",
            port=0,
            certificate_file=str(self.certificate.certificate_file),
            key_file=str(self.certificate.key_file),
        )
        self.address = await self.edge.listen(TcpTransport(), config)
        self.echo = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.echo_port = self.echo.sockets[0].getsockname()[1]

    async def _echo(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

    async def dial(self):
        target = DialTarget(
            address=self.address[0], port=self.address[1], server_name="edge.test", ca_pem=self.certificate.pem
        )
        return await TcpTransport().dial(self.engine, target, timeout=5)

    async def agent(self, *, wait=True, target=None, **options):
        agent = LabAgent(
            self.engine,
            await self.dial(),
            target or ("127.0.0.1", self.echo_port),
            **{"psk": (b"lab", KEY), "services": (WEB,), **options},
        )
        self.agents.append(agent)
        if wait:
            async with asyncio.timeout(5):
                await agent.established.wait()
                while not self.edge.ports.port(agent.tunnel.connection.welcome.bindings[0].service):
                    await asyncio.sleep(0.005)
        return agent

    async def visit(self, data=b"", *, header=HEADER, port=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.edge.ports.port(WEB))
        writer.write(header + data)
        return reader, writer

    async def close(self, *, engine=True):
        for agent in self.agents:
            agent.tunnel.abort()
        await self.edge.close()
        self.echo.close()
        if engine:
            self.engine.close()


def run(scenario, tmp_path, **options):
    """Run a scenario in a lab."""

    async def main():
        async with asyncio.timeout(30):
            here = Lab(create_engine(spin_us=0), make_certificate(tmp_path), **options)
            await here.start()
            try:
                await scenario(here)
            finally:
                await here.close()
            assert here.edge.stats.visitors_now == 0, "a visitor was forgotten"
            assert here.edge.visitors.pending == 0
            assert here.edge.hub.links == {}
            assert here.edge.hub._unauthenticated == 0

    asyncio.run(main())


def reset(writer):
    """Close with a RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def is_reset(here, data=b"", **options):
    """Visit and be reset, perhaps before the connection was seen to be there."""

    async def visit():
        reader, writer = await here.visit(data, **options)
        try:
            await reader.read()
        finally:
            writer.close()

    with pytest.raises(ConnectionResetError):
        await visit()


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def lab():
    """What tests over real sockets need."""
    return types.SimpleNamespace(
        Lab=Lab,
        OnlyFrom=OnlyFrom,
        Recorder=Recorder,
        run=run,
        service=service,
        until=until,
        is_reset=is_reset,
        reset=reset,
        HEADER=HEADER,
        KEY=KEY,
        WEB=WEB,
        DB=DB,
    )
