"""The edge over real sockets: real TLS transport, real tunnels, a small agent at the other end."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from drtp_edge.limits import EdgeLimits
from drtp_protocol import Address, ErrorCode, ProxyHeader, encode_v1, encode_v2


def test_a_visitor_reaches_the_local_service_and_its_address_travels(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        reader, writer = await here.visit(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await lab.until(lambda: here.log.named("access"))
        metadata = agent.opened[0]
        assert str(metadata.source) == "203.0.113.7:4711"
        assert str(metadata.destination) == "192.0.2.1:443"
        (record,) = here.log.named("access")
        assert record["connection_id"] == metadata.edge_conn_id.hex()
        assert (record["outcome"], record["closed_by"]) == ("served", "visitor")
        assert (record["bytes_in"], record["bytes_out"]) == (5, 5)
        assert record["source"] == "203.0.113.7:4711"

    lab.run(scenario, tmp_path)


def test_visitors_sockets_send_small_writes_at_once(lab, tmp_path):
    """The options stand on the listening socket; a system that does not hand them down must fail here."""

    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        (link,) = here.edge.hub.links.values()
        (splice,) = link.tunnel._streams.values()
        assert splice.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert splice.sock.getblocking() is False
        writer.close()

    lab.run(scenario, tmp_path)


def test_megabytes_survive_the_way_there_and_back(lab, tmp_path):
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

    lab.run(scenario, tmp_path)


def test_a_service_without_a_tunnel_has_no_port_and_gets_the_same_number_back(lab, tmp_path):
    async def scenario(here):
        first = await here.agent()
        port = here.edge.ports.port(lab.WEB)
        first.tunnel.close()
        await lab.until(lambda: here.edge.ports.port(lab.WEB) is None)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        await here.agent(epoch=2)
        assert here.edge.ports.port(lab.WEB) == port

    lab.run(scenario, tmp_path)


def test_health_probes_are_accepted_quietly_and_open_nothing(lab, tmp_path):
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

    lab.run(scenario, tmp_path)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no_header"),
        (encode_v2(ProxyHeader(local=True))[:14], "truncated_header"),
        (
            encode_v1(
                ProxyHeader(source=Address.from_host("203.0.113.7", 1), destination=Address.from_host("192.0.2.1", 2))
            ),
            "version_1",
        ),
    ],
)
def test_who_brings_no_proxy_v2_header_is_reset(lab, tmp_path, sent, fault):
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

    lab.run(scenario, tmp_path)


def test_a_header_in_pieces_is_read_and_what_follows_is_the_visitors(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(header=lab.HEADER[:3])
        await asyncio.sleep(0.05)
        writer.write(lab.HEADER[3:] + b"first")
        assert await reader.readexactly(5) == b"first"
        writer.write(b"second")
        assert await reader.readexactly(6) == b"second"
        writer.close()

    lab.run(scenario, tmp_path)


def test_a_header_that_does_not_come_in_time_is_not_waited_for(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        await lab.is_reset(here, header=lab.HEADER[:3])
        assert here.edge.hits.counts["proxy_header_timeout"] == 1

    lab.run(scenario, tmp_path, limits=EdgeLimits(proxy_header_timeout=0.1))


def test_only_listed_gateways_may_use_data_ports(lab, tmp_path):
    import ipaddress

    async def scenario(here):
        await here.agent()
        await lab.is_reset(here)
        assert here.edge.stats.intake_faults["gateway"] == 1

    lab.run(scenario, tmp_path, gateways=(ipaddress.ip_network("10.0.0.0/8"),))


def test_a_denied_visitor_is_reset_and_the_agent_never_hears_of_it(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        await lab.is_reset(here, b"hello")
        assert agent.opened == []
        (record,) = here.log.named("access")
        assert (record["outcome"], record["rule"], record["reason"]) == ("denied", "only/others", "not the one")

    lab.run(scenario, tmp_path, backends=(lab.OnlyFrom("198.51.100.1"),))


def test_an_unknown_source_is_denied_wherever_rules_may_hold(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        await lab.is_reset(here, header=encode_v2(ProxyHeader()))
        assert here.log.named("access")[0]["rule"] == "source/unknown"

    lab.run(scenario, tmp_path, backends=(lab.OnlyFrom("203.0.113.7"),))


def test_a_refusal_is_retried_on_another_agent_with_the_first_bytes(lab, tmp_path):
    async def scenario(here):
        def refuse(metadata):
            return ErrorCode.REFUSED, 0

        await here.agent(instance=b"a" * 16, accept=refuse)
        second = await here.agent(instance=b"b" * 16)
        for _ in range(4):
            reader, writer = await here.visit(b"payload")
            assert await reader.readexactly(7) == b"payload"
            writer.close()
        await lab.until(lambda: len(here.log.named("access")) == 4)
        assert here.edge.stats.retries >= 2
        assert len(second.opened) == 4

    lab.run(scenario, tmp_path)


def test_a_tunnel_lost_before_accept_costs_the_visitor_time_only(lab, tmp_path):
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

    lab.run(scenario, tmp_path)


def test_a_service_that_nothing_listens_on_resets_the_visitor(lab, tmp_path):
    async def scenario(here):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            await here.agent(target=unused.getsockname())
            await lab.is_reset(here, b"x")
        (record,) = here.log.named("access")
        assert (record["outcome"], record["code"]) == ("unreachable", "DIAL_FAILED")

    lab.run(scenario, tmp_path)


def test_an_agent_that_never_answers_is_given_up_at_the_deadline(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        agent.on_tunnel_event = lambda tunnel, event: None
        await lab.is_reset(here, b"x")
        assert here.edge.hits.counts["accept_timeout"] == 1
        assert here.log.named("access")[0]["reason"].startswith("no answer in")

    lab.run(scenario, tmp_path, limits=EdgeLimits(accept_timeout=0.2))


def test_a_reset_of_the_visitor_resets_the_service_and_is_recorded_as_its_doing(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        lab.reset(writer)
        await lab.until(lambda: here.log.named("access"))
        assert here.log.named("access")[0]["closed_by"] == "visitor"

    lab.run(scenario, tmp_path)


def test_losing_the_tunnel_resets_spliced_visitors(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        agent.tunnel.abort()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert here.log.named("access")[0]["closed_by"] == "tunnel"

    lab.run(scenario, tmp_path)


def test_a_newer_process_supersedes_and_the_older_learns_why(lab, tmp_path):
    async def scenario(here):
        old = await here.agent(epoch=1)
        new = await here.agent(epoch=2)
        await lab.until(lambda: old.goaways or old.ended is not None)
        assert old.goaways[0].code is ErrorCode.SUPERSEDED if old.goaways else old.ended is ErrorCode.SUPERSEDED
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        assert (len(old.opened), len(new.opened)) == (0, 1)

    lab.run(scenario, tmp_path)


def test_an_older_process_is_told_that_it_was_superseded(lab, tmp_path):
    async def scenario(here):
        await here.agent(epoch=2)
        old = await here.agent(epoch=1, wait=False)
        await asyncio.wait_for(old.closed.wait(), 5)
        assert old.ended is ErrorCode.SUPERSEDED

    lab.run(scenario, tmp_path)


@pytest.mark.parametrize("psk", [(b"lab", b"x" * 32), (b"nobody", b"0123456789abcdef" * 2)])
def test_a_wrong_key_hears_auth_failed_and_the_log_knows_more(lab, tmp_path, psk):
    async def scenario(here):
        agent = await here.agent(psk=psk, wait=False)
        await asyncio.wait_for(agent.closed.wait(), 5)
        assert agent.ended is ErrorCode.AUTH_FAILED
        assert here.log.named("agent_refused")[0]["reason"]
        assert here.edge.stats.handshakes["auth_failed"] == 1

    lab.run(scenario, tmp_path)


def test_a_drain_closes_doors_tells_agents_and_lets_streams_finish(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        port = here.edge.ports.port(lab.WEB)
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

    lab.run(scenario, tmp_path)


def test_a_drain_does_not_wait_longer_than_told(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        await asyncio.wait_for(here.edge.drain(0.1), 2)
        await here.edge.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    lab.run(scenario, tmp_path)


def test_visitors_beyond_the_pending_limit_are_reset_and_counted(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        agent.on_tunnel_event = lambda tunnel, event: None
        first = await here.visit(b"x")
        await lab.until(lambda: here.edge.visitors.pending == 1)
        await lab.is_reset(here, b"x")
        assert here.edge.hits.counts["pending_visitors"] == 1
        lab.reset(first[1])
        await lab.until(lambda: here.edge.visitors.pending == 0)
        assert here.log.named("access")[0]["outcome"] == "left"

    lab.run(scenario, tmp_path, limits=EdgeLimits(pending_visitors=1))


def test_near_the_end_of_descriptors_visitors_are_turned_away(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        here.edge.visitors._limits = EdgeLimits(descriptors=1)
        await lab.is_reset(here, b"x")
        assert here.edge.hits.counts["descriptors"] == 1

    lab.run(scenario, tmp_path)


def test_sessions_and_metrics_show_what_is_there(lab, tmp_path):
    from drtp_edge.metrics import EdgeCollector, exposition

    async def scenario(here):
        await here.agent()
        reader, writer = await here.visit(b"x")
        assert await reader.readexactly(1) == b"x"
        shown = json.loads(json.dumps(here.edge.snapshot()))
        (tunnel,) = shown["tunnels"]
        assert tunnel["services"] == [lab.WEB]
        assert tunnel["streams"][0]["source"] == "203.0.113.7:4711"
        assert shown["ports"][lab.WEB] == here.edge.ports.port(lab.WEB)
        writer.close()
        await lab.until(lambda: here.edge.stats.outcomes["served"])
        here.edge.hits.hit("visitors")
        text = exposition(EdgeCollector("edge-1", "1", here.edge.stats, here.edge.hits, here.edge.gauges)).decode()
        assert 'drtp_edge_visitors_closed_total{outcome="served"} 1.0' in text
        assert 'drtp_limit_hits_total{limit="visitors"} 1.0' in text
        assert "drtp_edge_tunnels 1.0" in text
        assert 'drtp_edge_visitor_bytes_total{direction="in"} 1.0' in text

    lab.run(scenario, tmp_path)
