"""The edge over real sockets: real TLS transport, real tunnels, a small agent at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct

import attrs
import pytest

from drtp_api.acl import Decision, Verdict
from drtp_api.dataplane.engine import create_engine
from drtp_api.dataplane.testing import make_certificate
from drtp_api.transports import DialTarget, ListenConfig
from drtp_edge.catalog import Catalog
from drtp_edge.edge import Edge, EdgeOptions
from drtp_edge.limits import EdgeLimits
from drtp_edge.policy import HandshakePolicy, PresharedKey
from drtp_edge.testing import LabAgent
from drtp_protocol import Address, AuthMethod, ErrorCode, ProxyHeader, encode_v1, encode_v2
from drtp_transport_tcp import TcpTransport

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

    def __init__(self, engine, certificate, *, backends=(), limits=None, **options):
        self.engine = engine
        self.certificate = certificate
        self.log = Recorder()
        self.catalog = Catalog("edge-1")
        self.catalog.put_service(service("web"))
        self.catalog.put_service(service("db"))
        self.policy = HandshakePolicy(
            methods=(AuthMethod.PSK,), keys={b"lab": PresharedKey(key=KEY, services=(WEB, DB))}
        )
        self.edge = Edge(
            engine,
            EdgeOptions(name="edge-1", **options),
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

    async def close(self):
        for agent in self.agents:
            agent.tunnel.abort()
        await self.edge.close()
        self.echo.close()
        self.engine.close()


def lab(scenario, tmp_path, **options):
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


def test_a_visitor_reaches_the_local_service_and_its_address_travels(tmp_path):
    async def scenario(here):
        agent = await here.agent()
        reader, writer = await here.visit(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await until(lambda: here.log.named("access"))
        metadata = agent.opened[0]
        assert str(metadata.source) == "203.0.113.7:4711"
        assert str(metadata.destination) == "192.0.2.1:443"
        (record,) = here.log.named("access")
        assert record["connection_id"] == metadata.edge_conn_id.hex()
        assert (record["outcome"], record["closed_by"]) == ("served", "visitor")
        assert (record["bytes_in"], record["bytes_out"]) == (5, 5)
        assert record["source"] == "203.0.113.7:4711"

    lab(scenario, tmp_path)


def test_megabytes_survive_the_way_there_and_back(tmp_path):
    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit()
        payload = bytes(range(256)) * 16 * 1024

        async def send():
            writer.write(payload)
            await writer.drain()
            writer.write_eof()

        task = asyncio.ensure_future(send())
        assert await reader.read(-1) == payload
        await task
        writer.close()

    lab(scenario, tmp_path)


def test_a_service_without_a_tunnel_has_no_port_and_gets_the_same_number_back(tmp_path):
    async def scenario(here):
        first = await here.agent()
        port = here.edge.ports.port(WEB)
        first.tunnel.close()
        await until(lambda: here.edge.ports.port(WEB) is None)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        await here.agent(epoch=2)
        assert here.edge.ports.port(WEB) == port

    lab(scenario, tmp_path)


def test_health_probes_are_accepted_quietly_and_open_nothing(tmp_path):
    async def scenario(here):
        agent = await here.agent()
        for probe in (encode_v2(ProxyHeader(local=True)), b""):
            reader, writer = await here.visit(header=probe)
            if not probe:
                writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert here.edge.stats.probes == 2
        assert agent.opened == []
        assert here.log.named("access") == []

    lab(scenario, tmp_path)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no_header"),
        (HEADER[:20], "truncated_header"),
        (
            encode_v1(
                ProxyHeader(source=Address.from_host("203.0.113.7", 1), destination=Address.from_host("192.0.2.1", 2))
            ),
            "version_1",
        ),
    ],
)
def test_who_brings_no_proxy_v2_header_is_reset(tmp_path, sent, fault):
    async def scenario(here):
        agent = await here.agent()
        reader, writer = await here.visit(header=sent)
        if fault == "truncated_header":
            writer.write_eof()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert here.edge.stats.intake_faults[fault] == 1
        assert agent.opened == []

    lab(scenario, tmp_path)


def test_a_header_in_pieces_is_read_and_what_follows_is_the_visitors(tmp_path):
    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(header=HEADER[:3])
        await asyncio.sleep(0.05)
        writer.write(HEADER[3:] + b"first")
        assert await reader.readexactly(5) == b"first"
        writer.write(b"second")
        assert await reader.readexactly(6) == b"second"
        writer.close()

    lab(scenario, tmp_path)


def test_a_header_that_does_not_come_in_time_is_not_waited_for(tmp_path):
    async def scenario(here):
        await here.agent()
        await is_reset(here, header=HEADER[:3])
        assert here.edge.hits.counts["proxy_header_timeout"] == 1

    lab(scenario, tmp_path, limits=EdgeLimits(proxy_header_timeout=0.1))


def test_only_listed_gateways_may_use_data_ports(tmp_path):
    import ipaddress

    async def scenario(here):
        await here.agent()
        await is_reset(here)
        assert here.edge.stats.intake_faults["gateway"] == 1

    lab(scenario, tmp_path, gateways=(ipaddress.ip_network("10.0.0.0/8"),))


def test_a_denied_visitor_is_reset_and_the_agent_never_hears_of_it(tmp_path):
    async def scenario(here):
        agent = await here.agent()
        await is_reset(here, b"hello")
        assert agent.opened == []
        (record,) = here.log.named("access")
        assert (record["outcome"], record["rule"], record["reason"]) == ("denied", "only/others", "not the one")

    lab(scenario, tmp_path, backends=(OnlyFrom("198.51.100.1"),))


def test_an_unknown_source_is_denied_wherever_rules_may_hold(tmp_path):
    async def scenario(here):
        await here.agent()
        await is_reset(here, header=encode_v2(ProxyHeader()))
        assert here.log.named("access")[0]["rule"] == "source/unknown"

    lab(scenario, tmp_path, backends=(OnlyFrom("203.0.113.7"),))


def test_a_refusal_is_retried_on_another_agent_with_the_first_bytes(tmp_path):
    async def scenario(here):
        def refuse(metadata):
            return ErrorCode.REFUSED, 0

        await here.agent(instance=b"a" * 16, accept=refuse)
        second = await here.agent(instance=b"b" * 16)
        for _ in range(4):
            reader, writer = await here.visit(b"payload")
            assert await reader.readexactly(7) == b"payload"
            writer.close()
        await until(lambda: len(here.log.named("access")) == 4)
        assert here.edge.stats.retries >= 2
        assert len(second.opened) == 4

    lab(scenario, tmp_path)


def test_a_tunnel_lost_before_accept_costs_the_visitor_time_only(tmp_path):
    async def scenario(here):
        stuck = await here.agent(instance=b"a" * 16, accept=lambda _: None, target=("127.0.0.1", here.echo_port))
        # The first agent hears of the stream and dies before it answers.
        stuck._accept = lambda _: stuck.tunnel.abort() or (ErrorCode.CANCEL, 0)
        await here.agent(instance=b"b" * 16)
        for _ in range(2):
            reader, writer = await here.visit(b"payload")
            assert await reader.readexactly(7) == b"payload"
            writer.close()
        assert here.edge.stats.retries == 1

    lab(scenario, tmp_path)


def test_a_service_that_nothing_listens_on_resets_the_visitor(tmp_path):
    async def scenario(here):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            await here.agent(target=unused.getsockname())
            await is_reset(here, b"x")
        (record,) = here.log.named("access")
        assert (record["outcome"], record["code"]) == ("unreachable", "DIAL_FAILED")

    lab(scenario, tmp_path)


def test_an_agent_that_never_answers_is_given_up_at_the_deadline(tmp_path):
    async def scenario(here):
        agent = await here.agent()
        agent.on_tunnel_event = lambda tunnel, event: None
        await is_reset(here, b"x")
        assert here.edge.hits.counts["accept_timeout"] == 1
        assert here.log.named("access")[0]["reason"].startswith("no answer in")

    lab(scenario, tmp_path, limits=EdgeLimits(accept_timeout=0.2))


def test_a_reset_of_the_visitor_resets_the_service_and_is_recorded_as_its_doing(tmp_path):
    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        reset(writer)
        await until(lambda: here.log.named("access"))
        assert here.log.named("access")[0]["closed_by"] == "visitor"

    lab(scenario, tmp_path)


def test_losing_the_tunnel_resets_spliced_visitors(tmp_path):
    async def scenario(here):
        agent = await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        agent.tunnel.abort()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert here.log.named("access")[0]["closed_by"] == "tunnel"

    lab(scenario, tmp_path)


def test_a_newer_process_supersedes_and_the_older_learns_why(tmp_path):
    async def scenario(here):
        old = await here.agent(epoch=1)
        new = await here.agent(epoch=2)
        await until(lambda: old.goaways or old.ended is not None)
        assert old.goaways[0].code is ErrorCode.SUPERSEDED if old.goaways else old.ended is ErrorCode.SUPERSEDED
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        assert (len(old.opened), len(new.opened)) == (0, 1)

    lab(scenario, tmp_path)


def test_an_older_process_is_told_that_it_was_superseded(tmp_path):
    async def scenario(here):
        await here.agent(epoch=2)
        old = await here.agent(epoch=1, wait=False)
        await asyncio.wait_for(old.closed.wait(), 5)
        assert old.ended is ErrorCode.SUPERSEDED

    lab(scenario, tmp_path)


@pytest.mark.parametrize("psk", [(b"lab", b"x" * 32), (b"nobody", KEY)])
def test_a_wrong_key_hears_auth_failed_and_the_log_knows_more(tmp_path, psk):
    async def scenario(here):
        agent = await here.agent(psk=psk, wait=False)
        await asyncio.wait_for(agent.closed.wait(), 5)
        assert agent.ended is ErrorCode.AUTH_FAILED
        assert here.log.named("agent_refused")[0]["reason"]
        assert here.edge.stats.handshakes["auth_failed"] == 1

    lab(scenario, tmp_path)


def test_a_drain_closes_doors_tells_agents_and_lets_streams_finish(tmp_path):
    async def scenario(here):
        agent = await here.agent()
        port = here.edge.ports.port(WEB)
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        drain = asyncio.ensure_future(here.edge.drain(5.0))
        await asyncio.wait_for(agent.went_away.wait(), 5)
        assert agent.goaways[0].code is ErrorCode.DRAINING
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        assert not drain.done()
        writer.close()
        await asyncio.wait_for(drain, 5)
        assert here.log.named("access")[0]["outcome"] == "served"

    lab(scenario, tmp_path)


def test_a_drain_does_not_wait_longer_than_told(tmp_path):
    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        await asyncio.wait_for(here.edge.drain(0.1), 2)
        await here.edge.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    lab(scenario, tmp_path)


def test_visitors_beyond_the_pending_limit_are_reset_and_counted(tmp_path):
    async def scenario(here):
        agent = await here.agent()
        agent.on_tunnel_event = lambda tunnel, event: None
        first = await here.visit(b"x")
        await until(lambda: here.edge.visitors.pending == 1)
        await is_reset(here, b"x")
        assert here.edge.hits.counts["pending_visitors"] == 1
        reset(first[1])
        await until(lambda: here.edge.visitors.pending == 0)
        assert here.log.named("access")[0]["outcome"] == "left"

    lab(scenario, tmp_path, limits=EdgeLimits(pending_visitors=1))


def test_near_the_end_of_descriptors_visitors_are_turned_away(tmp_path):
    async def scenario(here):
        await here.agent()
        here.edge.visitors._limits = EdgeLimits(descriptors=1)
        await is_reset(here, b"x")
        assert here.edge.hits.counts["descriptors"] == 1

    lab(scenario, tmp_path)


def test_sessions_and_metrics_show_what_is_there(tmp_path):
    from drtp_edge.metrics import EdgeCollector, exposition

    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        shown = json.loads(json.dumps(here.edge.snapshot()))
        (tunnel,) = shown["tunnels"]
        assert tunnel["services"] == [WEB]
        assert tunnel["streams"][0]["source"] == "203.0.113.7:4711"
        assert shown["ports"][WEB] == here.edge.ports.port(WEB)
        writer.close()
        await until(lambda: here.edge.stats.outcomes["served"])
        here.edge.hits.hit("visitors")
        text = exposition(EdgeCollector("edge-1", "1", here.edge.stats, here.edge.hits, here.edge.gauges)).decode()
        assert 'drtp_edge_visitors_closed_total{outcome="served"} 1.0' in text
        assert 'drtp_limit_hits_total{limit="visitors"} 1.0' in text
        assert "drtp_edge_tunnels 1.0" in text
        assert 'drtp_edge_visitor_bytes_total{direction="in"} 1.0' in text

    lab(scenario, tmp_path)
