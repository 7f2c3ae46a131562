"""The dialler behind a real tunnel: where it dials, what it refuses, and what the edge hears of it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from drtp_agent.dialler import Dialler, LocalService, proxy_header
from drtp_agent.target import Target, parse_target
from drtp_api.dataplane.carrier import SocketCarrier
from drtp_api.dataplane.engine import create_engine
from drtp_api.dataplane.testing import SERVICE, TrustingEnd, tcp_pair
from drtp_api.resources import Protocol as Speaks
from drtp_protocol import (
    Address,
    ConnectionEstablished,
    DialDetail,
    ErrorCode,
    OpenMetadata,
    Protocol,
    Role,
    StreamAccepted,
    StreamOpened,
    StreamReset,
)
from drtp_protocol.proxyproto import decode_proxy

from .conftest import until

SOURCE = Address.from_host("203.0.113.9", 40000)
DESTINATION = Address.from_host("198.51.100.1", 443)


class AgentEnd(TrustingEnd):
    """The agent's end: streams go to the dialler."""

    dialler = None

    def on_tunnel_event(self, tunnel, event):
        super().on_tunnel_event(tunnel, event)
        match event:
            case StreamOpened():
                self.dialler.open(tunnel, event.stream_id, event.metadata, self)
            case StreamReset():
                self.dialler.cancel(tunnel, event.stream_id)

    def on_tunnel_closed(self, tunnel, error):
        self.dialler.cancel_all(tunnel)

    def stream_accepted(self, stream_id):
        self.told.append((stream_id, "accepted"))

    def stream_failed(self, stream_id, failure):
        self.told.append((stream_id, failure.detail))


class EdgeEnd(TrustingEnd):
    """The edge's end: remembers what became of its streams."""

    def on_tunnel_event(self, tunnel, event):
        super().on_tunnel_event(tunnel, event)
        match event:
            case ConnectionEstablished():
                self.up = True
            case StreamAccepted() | StreamReset():
                self.fates[event.stream_id] = event


def dialling(scenario, target, *, timeout=5.0, proxy_protocol=None):
    """Run a scenario with a tunnel whose agent serves the target."""

    async def body():
        engine = create_engine(spin_us=0)
        ours, theirs = tcp_pair()
        edge = EdgeEnd(engine, SocketCarrier(engine, ours), Role.EDGE)
        agent = AgentEnd(engine, SocketCarrier(engine, theirs), Role.AGENT)
        edge.fates, edge.up, agent.told = {}, False, []
        service = LocalService(key=SERVICE, target=target, proxy_protocol=proxy_protocol)
        agent.dialler = Dialler(engine, {SERVICE: service}, timeout=timeout)
        edge.tunnel.start()
        agent.tunnel.start()
        await until(lambda: edge.up)
        try:
            await scenario(edge, agent)
        finally:
            edge.tunnel.abort()
            agent.tunnel.abort()
            await until(lambda: engine.watched == 0)
            engine.close()

    asyncio.run(body())


def metadata(**values):
    return OpenMetadata(**{"service": SERVICE, "source": SOURCE, "destination": DESTINATION, **values})


async def fate(edge, **values):
    stream_id = edge.tunnel.open(metadata(**values))
    await until(lambda: stream_id in edge.fates)
    return edge.fates[stream_id]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_localhost_is_loopback_of_either_family(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")

    async def scenario(edge, agent):
        event = await fate(edge)
        assert isinstance(event, StreamAccepted)
        assert agent.told == [(event.stream_id, "accepted")]

    with listener:
        dialling(scenario, parse_target(f"tcp://localhost:{listener.getsockname()[1]}"))


def test_nobody_listening_is_told_as_refused():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        target = parse_target(f"tcp://localhost:{sock.getsockname()[1]}")

        async def scenario(edge, agent):
            event = await fate(edge)
            assert (event.code, event.detail) == (ErrorCode.DIAL_FAILED, DialDetail.CONNECTION_REFUSED)
            assert "refused" in event.reason.lower()
            assert agent.told == [(event.stream_id, DialDetail.CONNECTION_REFUSED)]

        dialling(scenario, target)


def test_a_unix_socket_without_a_listener_is_told_as_refused(tmp_path):
    async def scenario(edge, agent):
        event = await fate(edge)
        assert (event.code, event.detail) == (ErrorCode.DIAL_FAILED, DialDetail.CONNECTION_REFUSED)

    dialling(scenario, Target(protocol=Speaks.TCP, path=str(tmp_path / "absent")))


def resolving(monkeypatch, answers):
    """Let names resolve to the answers, one after the other; an exception is raised."""
    asked = []

    async def getaddrinfo(self, host, port, **_):
        asked.append(host)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            return await answer()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_is_resolved_for_each_visitor_and_its_addresses_are_tried_in_turn(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = resolving(monkeypatch, [["127.0.0.2", "127.0.0.1"], ["127.0.0.3"]])

        async def scenario(edge, agent):
            assert isinstance(await fate(edge), StreamAccepted)
            assert (await fate(edge)).detail == DialDetail.CONNECTION_REFUSED
            assert asked == ["db.test", "db.test"]

        dialling(scenario, parse_target(f"tcp://db.test:{listener.getsockname()[1]}"))


def test_a_name_that_leads_to_the_machines_provider_is_not_dialled(monkeypatch):
    resolving(monkeypatch, [["169.254.169.254"]])

    async def scenario(edge, agent):
        event = await fate(edge)
        assert (event.code, event.detail) == (ErrorCode.DIAL_FAILED, DialDetail.UNREACHABLE)
        assert "169.254.169.254" in event.reason

    dialling(scenario, parse_target("tcp://rebound.test:80"))


def test_a_name_without_an_address_is_told_as_such(monkeypatch):
    resolving(monkeypatch, [socket.gaierror(socket.EAI_NONAME, "unknown")])

    async def scenario(edge, agent):
        assert (await fate(edge)).detail == DialDetail.DNS

    dialling(scenario, parse_target("tcp://absent.test:80"))


def test_a_dial_that_takes_too_long_is_given_up(monkeypatch):
    resolving(monkeypatch, [asyncio.Event().wait])

    async def scenario(edge, agent):
        assert (await fate(edge)).detail == DialDetail.TIMEOUT
        assert not agent.dialler._dials

    dialling(scenario, parse_target("tcp://slow.test:80"), timeout=0.05)


def test_a_visitor_that_leaves_during_the_dial_ends_it(monkeypatch):
    resolving(monkeypatch, [asyncio.Event().wait])

    async def scenario(edge, agent):
        stream_id = edge.tunnel.open(metadata())
        await until(lambda: agent.dialler._dials)
        edge.tunnel.reset(stream_id, ErrorCode.CANCEL)
        await until(lambda: not agent.dialler._dials)
        assert agent.told == []

    dialling(scenario, parse_target("tcp://slow.test:80"))


def test_a_tunnel_that_is_lost_during_the_dial_ends_it(monkeypatch):
    resolving(monkeypatch, [asyncio.Event().wait])

    async def scenario(edge, agent):
        edge.tunnel.open(metadata())
        await until(lambda: agent.dialler._dials)
        edge.tunnel.abort()
        await until(lambda: not agent.dialler._dials)

    dialling(scenario, parse_target("tcp://slow.test:80"))


def test_datagrams_are_declined_not_dialled():
    async def scenario(edge, agent):
        assert (await fate(edge, protocol=Protocol.UDP)).code is ErrorCode.UNSUPPORTED

    dialling(scenario, parse_target("tcp://localhost:9"))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_local_service_reads_its_visitor_before_the_visitors_bytes(version):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def scenario(edge, agent):
            visitor, far = socket.socketpair()
            visitor.setblocking(False)
            stream_id = edge.tunnel.open(metadata(edge_conn_id=b"c" * 16))
            edge.tunnel.attach(stream_id, visitor)
            far.sendall(b"hello")
            loop = asyncio.get_running_loop()
            sock, _ = await loop.sock_accept(listener)
            with sock, far:
                sock.setblocking(False)
                got = b""
                while not got.endswith(b"hello"):
                    got += await loop.sock_recv(sock, 4096)
            header, size = decode_proxy(got)
            assert (header.source, header.destination) == (SOURCE, DESTINATION)
            assert got[size:] == b"hello"
            assert (b"c" * 16 in dict(header.tlvs).values()) is (version == "v2")

        dialling(scenario, parse_target(f"tcp://localhost:{listener.getsockname()[1]}"), proxy_protocol=version)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    "values",
    [{"source": None}, {"destination": None}, {"source": Address(b"", 0)}, {"source": Address.from_host("::1", 1)}],
)
def test_a_visitor_who_is_not_known_makes_a_header_that_says_so(version, values):
    header, _ = decode_proxy(proxy_header(version, metadata(**values)))
    assert (header.source, header.destination, header.local) == (None, None, False)


def test_no_header_is_sent_unasked():
    assert proxy_header(None, metadata()) == b""
