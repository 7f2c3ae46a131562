"""A small cloud in the test's own loop: a registration API, edges with real tunnels over TLS, and local services.

The edges here know nothing of policy but the grant: they are the other end of the wire, not another implementation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable

import attrs
import pytest

from drtp_agent.agent import Agent
from drtp_agent.config import AgentConfig
from drtp_agent.control import ControlPlane
from drtp_agent.events import AgentEvent
from drtp_agent.sdk import definition_of
from drtp_agent.state import AgentState
from drtp_agent.supervisor import Policy
from drtp_agent.target import parse_target
from drtp_agent.tokens import StaticToken
from drtp_api.dataplane.engine import create_engine
from drtp_api.dataplane.listen import Listener, bind_tcp
from drtp_api.dataplane.testing import make_certificate
from drtp_api.dataplane.tunnel import Tunnel
from drtp_api.errors import DrtpError
from drtp_api.grants import Grant, GrantIssuer, GrantVerifier, b64url_decode, generate_key, thumbprint, verify_signature
from drtp_api.registration import (
    ConnectionGrants,
    ConnectionView,
    ErrorBody,
    RegisterResponse,
    ServerView,
    ServiceName,
    TunnelEndpoint,
    TunnelServer,
)
from drtp_api.resources import Address, Protocol, Role
from drtp_api.transports import ListenConfig
from drtp_api.wire import to_wire
from drtp_protocol import Address as WireAddress
from drtp_protocol import (
    AuthMethod,
    AuthReceived,
    Binding,
    Challenge,
    ChannelBinding,
    Connection,
    ConnectionEstablished,
    ErrorCode,
    OpenMetadata,
    StreamReset,
    Welcome,
    grant_message,
)
from drtp_protocol import Role as WireRole
from drtp_transport_tcp import TcpTransport

SERVICE = "default/web"
TOKEN = "a-user's-token"


async def until(condition: Callable[[], object], what: str = "", seconds: float = 10.0) -> None:
    """Wait for something that other tasks bring about; this is no decision's clock."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def abandon(writers: set) -> None:
    """Cut connections and let their handlers end."""
    for writer in writers:
        writer.transport.abort()
    writers.clear()
    await asyncio.sleep(0.02)


class Link:
    """The edge's end of one tunnel."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.tunnel: Tunnel | None = None
        self.up = False
        self.hello = None
        self.resets = []
        self.closed = False

    def on_tunnel_event(self, tunnel, event):
        match event:
            case AuthReceived():
                self.hello = event.hello
                code = self.edge.judge(event, tunnel.carrier.info.channel_binding)
                now = tunnel.engine.now()
                if code is None:
                    welcome = Welcome(session_id=bytes(16), lease=3600, bindings=tuple(map(Binding, self.edge.bound)))
                    tunnel.connection.accept(welcome, now=now)
                else:
                    tunnel.connection.reject(code, now=now)
                tunnel.wake()
            case ConnectionEstablished():
                self.up = True
            case StreamReset():
                self.resets.append(event)
            case _:
                pass

    def on_connect_failed(self, tunnel, stream_id, error):
        raise AssertionError("edges attach connected sockets only")

    def on_stream_closed(self, tunnel, stream_id, summary):
        pass

    def on_tunnel_closed(self, tunnel, error):
        self.up = False
        self.closed = True


class Edge:
    """A tunnel server with a public port, in this process."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.cloud = cloud
        self.name = name
        self.links: list[Link] = []
        self.refuse: ErrorCode | None = None
        self.admits = True
        self.bound = (SERVICE, "default/other")
        self.source_of = lambda peer: WireAddress.from_host(peer[0], peer[1])

    async def start(self) -> None:
        certificate = self.cloud.certificate
        self.listener = await TcpTransport().listen(
            self.cloud.engine,
            ListenConfig(
                host="127.0.0.1",
                port=0,
                certificate_file=str(certificate.certificate_file),
                key_file=str(certificate.key_file),
            ),
            self._on_carrier,
        )
        sock = bind_tcp("127.0.0.1", 0)
        self.public = sock.getsockname()
        self.gateway = Listener(self.cloud.engine, sock, self._on_visitor)
        self.verifier = GrantVerifier(self.name)
        self.verifier.load_keys(self.cloud.issuer.key_set())

    async def close(self) -> None:
        for link in self.links:
            link.tunnel.abort()
        self.gateway.close()
        await self.listener.close()

    @property
    def live(self) -> list[Link]:
        return [link for link in self.links if link.up]

    def _on_carrier(self, carrier):
        link = Link(self)
        challenge = Challenge(
            edge_id=self.name,
            methods=(AuthMethod.GRANT,),
            binding_types=(ChannelBinding.TLS_SERVER_END_POINT,),
            server_time=0,
        )
        connection = Connection(WireRole.EDGE, now=self.cloud.engine.now(), nonce=os.urandom(32), challenge=challenge)
        link.tunnel = Tunnel(self.cloud.engine, carrier, connection, link)
        self.links.append(link)
        link.tunnel.start()

    def judge(self, event, binding):
        if self.refuse is not None:
            return self.refuse
        auth = event.auth
        self.verifier.verify(auth.credential, public_key=auth.public_key, now=time.time())
        message = grant_message(event.transcript.hash(auth.binding_type, binding), auth.credential)
        return None if verify_signature(auth.public_key, auth.proof, message) else ErrorCode.AUTH_FAILED

    def _on_visitor(self, sock, peer):
        if not self.admits or not self.live:
            sock.close()
            return
        self.visit(self.live[-1], sock, peer)

    def visit(self, link: Link, sock: socket.socket, peer, **metadata) -> int:
        sock.setblocking(False)
        opened = OpenMetadata(
            **{
                "service": SERVICE,
                "source": self.source_of(peer),
                "destination": WireAddress.from_host(*self.public),
                **metadata,
            }
        )
        stream_id = link.tunnel.open(opened)
        link.tunnel.attach(stream_id, sock)
        return stream_id


@attrs.define
class Cloud:
    """The registration API and the edges."""

    certificate: object
    protocol: Protocol = Protocol.TCP
    issuer: GrantIssuer = attrs.field(factory=lambda: GrantIssuer(generate_key()))
    edges: dict[str, Edge] = attrs.field(factory=dict)
    assigned: list[str] = attrs.field(factory=list)
    requests: list[tuple[str, str, dict | None]] = attrs.field(factory=list)
    agent_key: bytes = b""
    instance: str = ""
    down: bool = False
    private: bool = False
    programmed: bool = True
    revoked: bool = False
    sse: bool = True
    fault: ErrorBody | None = None
    refusal: tuple[int, ErrorBody] | None = None
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)
    engine: object = None
    url: str = ""
    server: asyncio.Server | None = None
    port: int = 0
    lifetime: int = 3600
    writers: set = attrs.field(factory=set)

    async def start(self, edges: int = 2) -> None:
        self.engine = create_engine(spin_us=0)
        for name in ("nyc", "ams", "syd")[:edges]:
            self.edges[name] = Edge(self, name)
            await self.edges[name].start()
        self.assigned = list(self.edges)[:2]
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self.server.close()
        self.change(down=True)
        await abandon(self.writers)
        for edge in self.edges.values():
            await edge.close()
        await until(lambda: self.engine.watched == 0)
        self.engine.close()

    def change(self, **values) -> None:
        for name, value in values.items():
            setattr(self, name, value)
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def public(self) -> tuple[str, int]:
        return self.edges[self.assigned[0]].public

    def view(self) -> ConnectionView:
        host, port = self.public
        url = f"http://web.prism.localhost:{port}/" if self.protocol is Protocol.HTTP else f"tcp://{host}:{port}"
        return ConnectionView(
            name="web-0123456789",
            namespace="default",
            service="web",
            private=self.private,
            programmed=self.programmed and not self.private,
            url=None if self.private else url,
            hostnames=("web.prism.localhost",) if self.protocol is Protocol.HTTP else (),
            addresses=() if self.private else (Address(protocol=self.protocol, host=host, port=port),),
            servers=tuple(
                ServerView(name=n, role=Role.PRIMARY, city=n.upper(), connected=True, programmed=True)
                for n in self.assigned
            ),
            fault=self.fault,
        )

    def tunnel_servers(self) -> tuple[TunnelServer, ...]:
        roles = list(Role)
        return tuple(
            TunnelServer(
                name=name,
                role=roles[i],
                city=name.upper(),
                endpoints=(
                    TunnelEndpoint(address="127.0.0.1", port=self.edges[name].listener.address[1], transport="tcp"),
                ),
                server_name="edge.test",
                ca_pem=self.certificate.pem,
                grant=self.grant(name),
            )
            for i, name in enumerate(self.assigned)
        )

    def grant(self, server: str) -> str:
        now = int(time.time())
        return self.issuer.issue(
            Grant(
                connection="default/web-0123456789", server=server, service=SERVICE, protocol="tcp",
                instance_id=self.instance, key_thumbprint=thumbprint(self.agent_key), issued_at=now,
                expires_at=now + 3600, token_id="t",
            )
        )  # fmt: skip

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *fields = head.split("\r\n")
                method, path, _ = line.split(" ")
                headers = {k.lower(): v.strip() for k, _, v in (f.partition(":") for f in fields if f)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if self.down:
                    break
                data = json.loads(body) if body else None
                self.requests.append((method, path, data))
                if path.partition("?")[0].endswith("/events") and self.sse and not self.revoked:
                    await self._stream(writer)
                    break
                status, answer = self._answer(method, path.partition("?")[0], headers, data)
                text = b"" if answer is None else json.dumps(to_wire(answer)).encode()
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (status, len(text), text)
                )
        writer.close()

    async def _stream(self, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while not self.down:
            changed = self.changed
            if self.revoked:
                gone = ErrorBody(code="DRTP-2010", message="revoked", hint="ask")
                writer.write(b"event: error\ndata: %s\n\n" % json.dumps(to_wire(gone)).encode())
                return
            writer.write(b": keepalive\n\nevent: connection\ndata: %s\n\n" % json.dumps(to_wire(self.view())).encode())
            await changed.wait()

    def _answer(self, method, path, headers, data):
        if self.refusal is not None:
            return self.refusal
        if self.revoked:
            return 404, ErrorBody(code="DRTP-2010", message="there is no such connection", hint="ask")
        match method, path.removeprefix("/v1alpha1/connections").split("/")[-1]:
            case "POST", "":
                if data.get("secret") is None and headers.get("authorization") != f"Bearer {TOKEN}":
                    return 401, ErrorBody(code="DRTP-2003", message="no token", hint="sign in")
                self.agent_key = b64url_decode(data["publicKey"])
                self.instance = data["instanceID"]
                return 201, RegisterResponse(
                    connection=self.view(), servers=self.tunnel_servers(), expires_in_seconds=self.lifetime,
                    application=None,
                )  # fmt: skip
            case "POST", "grants":
                text = f"drtp grant renewal\0default/web-0123456789\0{data['issuedAt']}"
                assert verify_signature(self.agent_key, b64url_decode(data["proof"]), text.encode())
                return 200, ConnectionGrants(servers=self.tunnel_servers(), expires_in_seconds=self.lifetime)
            case "GET", _:
                return 200, self.view()
            case "DELETE", _:
                return 204, None
        raise AssertionError((method, path))


class Local:
    """A local service on loopback that records what it hears."""

    def __init__(self, answer: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.port = 0
        self.writers: set = set()

    async def start(self, port: int = 0) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port or self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()
        await abandon(self.writers)

    async def _serve(self, reader, writer):
        self.writers.add(writer)
        index = len(self.heard)
        self.heard.append(b"")
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.heard[index] += data
                if self.answer is None:
                    writer.write(data)
                elif b"\r\n\r\n" in self.heard[index]:
                    writer.write(self.answer)
                    break
                await writer.drain()
        writer.close()


class Running:
    """An agent under test and what it told."""

    def __init__(self, agent: Agent, events: list[AgentEvent], task: asyncio.Task) -> None:
        self.agent = agent
        self.events = events
        self.task = task

    async def event(self, kind: type, seconds: float = 10.0):
        """Return the first event of a kind."""
        await until(lambda: any(isinstance(e, kind) for e in self.events) or self.task.done(), kind.__name__, seconds)
        found = [e for e in self.events if isinstance(e, kind)]
        assert found, f"{kind.__name__} never came: {self.events}"
        return found[0]

    def count(self, kind: type) -> int:
        return sum(isinstance(e, kind) for e in self.events)


FAST = Policy(base_delay=0.02, max_delay=0.2, control_base=0.05, refresh_gap=0.05, unreachable_patience=0.3)


@pytest.fixture
def world(tmp_path):
    """Return a function that runs a scenario in a cloud with two edges, and a starter of agents in it."""
    certificate = make_certificate(tmp_path)

    @contextlib.asynccontextmanager
    async def agents(cloud: Cloud, where: str, **options) -> AsyncIterator[Running]:
        parsed = parse_target(where)
        config = AgentConfig(
            **{
                "service": ServiceName(name="web"),
                "target": parsed,
                "definition": definition_of(parsed, public=not cloud.private),
                "policy": FAST,
                "start_timeout": 10.0,
                **options,
            }
        )
        events: list[AgentEvent] = []
        with AgentState.open(tmp_path / "serve", "one") as state:
            async with ControlPlane(cloud.url, tokens=StaticToken(TOKEN)) as control:
                agent = Agent(config, control, state, events.append)
                task = asyncio.get_running_loop().create_task(agent.run())
                try:
                    yield Running(agent, events, task)
                finally:
                    if not task.done():
                        agent.stop(drain=0.0)
                    await task

    def run(scenario, **values):
        async def body():
            cloud = Cloud(certificate, **values)
            await cloud.start()
            local = Local()
            await local.start()
            try:
                async with asyncio.timeout(60):
                    await scenario(cloud, local, agents)
            finally:
                await local.stop()
                await cloud.stop()

        asyncio.run(body())

    return run


__all__ = ["Cloud", "DrtpError", "Edge", "Local", "Running", "until"]
