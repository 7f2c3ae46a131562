"""A whole agent against real edges over TLS and a registration API over HTTP, in one loop."""

from __future__ import annotations

import asyncio
import socket

import attrs

from drtp_agent.config import AgentConfig
from drtp_agent.events import (
    ErrorOccurred,
    TunnelDegraded,
    TunnelProgress,
    TunnelReady,
    TunnelRecovered,
    TunnelStopped,
    to_dict,
)
from drtp_api.errors import ExitCode
from drtp_api.registration import ErrorBody, ServiceName
from drtp_api.resources import Address, Protocol
from drtp_protocol import ErrorCode

from .conftest import until


async def ask(address, payload=b"GET / HTTP/1.0\r\n\r\n"):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(payload)
    answer = await reader.read()
    writer.close()
    return answer


def test_ready_comes_after_a_visit_through_the_public_address_and_names_both_servers(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            ready = await running.event(TunnelReady)
            assert ready.verified == "service"
            assert ready.private is False
            assert ready.addresses == (Address(protocol=Protocol.TCP, host="127.0.0.1", port=cloud.public[1]),)
            assert [s.name for s in ready.servers] == ["nyc", "ams"]
            assert {s.transport for s in ready.servers} == {"tcp"}
            assert local.heard[-1] == b"", "a TCP service hears nothing of the check"
            assert b"200 OK" in await ask(cloud.public, b"GET / HTTP/1.1\r\n\r\n")
            steps = [e.step for e in running.events if isinstance(e, TunnelProgress)]
            assert steps == ["target", "register", "connect", "connect", "gateway", "verify"]
            running.agent.stop(drain=5)
            outcome = await running.task
            assert (outcome.reason, outcome.error) == ("stopped", None)
        assert isinstance(running.events[-1], TunnelStopped)
        assert ("DELETE", "/v1alpha1/connections/web-0123456789?namespace=default", None) in cloud.requests

    world(scenario)


def test_an_http_service_is_verified_by_its_own_answer_under_its_public_name(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"localhost:{local.port}") as running:
            ready = await running.event(TunnelReady)
            assert ready.verified == "service"
            heard = next(h for h in local.heard if h)
            assert heard.startswith(b"GET / HTTP/1.1\r\n")
            assert f"Host: web.prism.localhost:{cloud.public[1]}\r\n".encode() in heard

    world(scenario, protocol=Protocol.HTTP)


def test_an_answer_that_the_gateway_makes_up_is_never_taken_for_the_service(world):
    async def scenario(cloud, local, agents):
        async def pretend(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfake")
            writer.close()

        fake = await asyncio.start_server(pretend, "127.0.0.1", 0)
        real = cloud.edges["nyc"].public
        cloud.edges["nyc"].public = fake.sockets[0].getsockname()
        async with agents(cloud, f"localhost:{local.port}") as running:
            await until(lambda: any("by itself" in getattr(e, "message", "") for e in running.events))
            assert running.count(TunnelReady) == 0
            cloud.change()
            cloud.edges["nyc"].public = real
            cloud.change()
            assert (await running.event(TunnelReady)).verified == "service"
        fake.close()

    world(scenario, protocol=Protocol.HTTP)


def test_a_service_that_leaves_http_requests_unanswered_is_verified_as_far_as_the_tunnel(world):
    async def scenario(cloud, local, agents):
        local.answer = b""  # it closes without a word
        async with agents(cloud, f"localhost:{local.port}") as running:
            assert (await running.event(TunnelReady)).verified == "tunnel"

    world(scenario, protocol=Protocol.HTTP)


def test_a_private_service_is_ready_without_a_visit_and_ready_again_once_published(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            ready = await running.event(TunnelReady)
            assert (ready.private, ready.verified, ready.addresses) == (True, "tunnel", ())
            assert len(local.heard) == 1, "only the check of the target before the start"
            cloud.change(private=False)
            await until(lambda: running.count(TunnelReady) == 2)
            again = [e for e in running.events if isinstance(e, TunnelReady)][1]
            assert (again.private, again.verified) == (False, "service")

    world(scenario, private=True)


def test_an_allow_list_that_turns_the_check_away_ends_it_at_the_gateway(world):
    async def scenario(cloud, local, agents):
        for edge in cloud.edges.values():
            edge.admits = False
        async with agents(cloud, f"tcp://localhost:{local.port}", restricted=True) as running:
            assert (await running.event(TunnelReady)).verified == "gateway"

    world(scenario)


def test_behind_address_translation_the_visit_is_still_found(world):
    async def scenario(cloud, local, agents):
        from drtp_protocol import Address as WireAddress

        for edge in cloud.edges.values():
            edge.source_of = lambda peer: WireAddress.from_host("203.0.113.9", 40000)
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            assert (await running.event(TunnelReady)).verified == "service"

    world(scenario)


def test_a_lost_edge_is_told_replaced_and_told_again(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            cloud.edges["ams"].live[0].tunnel.abort()
            degraded = await running.event(TunnelDegraded)
            assert degraded.missing == ("ams",)
            assert [s.name for s in degraded.servers] == ["nyc"]
            recovered = await running.event(TunnelRecovered)
            assert [s.name for s in recovered.servers] == ["nyc", "ams"]

    world(scenario)


def test_a_draining_edge_is_replaced_by_the_one_the_control_plane_names_and_its_stream_finishes(world):
    async def scenario(cloud, local, agents):
        local.answer = None  # echo
        cloud.edges["syd"] = type(cloud.edges["nyc"])(cloud, "syd")
        await cloud.edges["syd"].start()
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            reader, writer = await asyncio.open_connection(*cloud.edges["ams"].public)
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            old = cloud.edges["ams"].live[0]
            cloud.assigned = ["nyc", "syd"]
            old.tunnel.go_away(ErrorCode.DRAINING, drain=20)
            await until(lambda: cloud.edges["syd"].live, "the replacement")
            writer.write(b"after")
            assert await reader.readexactly(5) == b"after"
            assert old.up, "the old tunnel lives as long as its stream"
            writer.close()
            await until(lambda: old.closed)
            await running.event(TunnelRecovered)

    world(scenario)


def test_a_newer_process_of_the_same_identity_ends_this_one_for_good(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            cloud.edges["nyc"].live[0].tunnel.go_away(ErrorCode.SUPERSEDED, drain=5)
            outcome = await running.task
            assert (outcome.reason, outcome.error) == ("superseded", None)
            assert running.events[-1] == TunnelStopped(reason="superseded")
            assert not any(method == "DELETE" for method, _, _ in cloud.requests), "the winner's connection stays"

    world(scenario)


def test_a_revoked_connection_ends_the_agent_with_its_code(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            cloud.change(revoked=True)
            for edge in cloud.edges.values():
                edge.refuse = ErrorCode.AUTH_FAILED
                edge.live[0].tunnel.close(ErrorCode.REVOKED)
            outcome = await running.task
            assert outcome.reason == "revoked"
            assert outcome.error.code == "DRTP-2010"
            assert outcome.error.exit_code is ExitCode.DENIED

    world(scenario)


def test_an_edge_that_cannot_be_trusted_is_told_by_code_and_the_other_serves(world):
    async def scenario(cloud, local, agents):
        real = cloud.tunnel_servers
        type(cloud).tunnel_servers = lambda self: tuple(
            attrs.evolve(s, server_name="someone.else") if s.name == "nyc" else s for s in real()
        )
        try:
            async with agents(cloud, f"tcp://localhost:{local.port}") as running:
                await until(lambda: any(getattr(e, "code", "") == "DRTP-4003" for e in running.events))
                await until(lambda: cloud.edges["ams"].live)
                assert not cloud.edges["nyc"].live
        finally:
            type(cloud).tunnel_servers = _TUNNEL_SERVERS

    world(scenario)


def test_the_absent_local_service_is_told_once_and_served_again_when_it_is_back(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            await local.stop()
            for _ in range(5):
                reader, writer = await asyncio.open_connection(*cloud.public)
                writer.write(b"x")
                try:
                    assert await reader.read() == b"", "nobody answered"
                    raise AssertionError("a refused visitor saw a clean end")
                except ConnectionResetError:
                    pass
                writer.close()
            errors = [e for e in running.events if isinstance(e, ErrorOccurred)]
            assert [e.code for e in errors] == ["DRTP-4001"]
            assert "refused" in errors[0].message.lower()
            await local.start()
            assert b"200 OK" in await ask(cloud.public, b"GET / HTTP/1.1\r\n\r\n")
            link = cloud.edges["nyc"].live[0]
            assert [(r.code, r.detail) for r in link.resets].count((ErrorCode.DIAL_FAILED, 1)) == 5

    world(scenario)


def test_nothing_listening_before_the_start_is_refused_before_registering(world):
    async def scenario(cloud, local, agents):
        await local.stop()
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            outcome = await running.task
        assert outcome.error.code == "DRTP-4001"
        assert outcome.error.exit_code is ExitCode.UNAVAILABLE
        assert cloud.requests == []

    world(scenario)


def test_a_restart_during_an_outage_of_the_control_plane_serves_with_the_kept_grants(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            cloud.change(down=True)
        for edge in cloud.edges.values():
            await until(lambda edge=edge: not edge.live)
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            ready = await running.event(TunnelReady)
            assert (ready.verified, len(ready.servers)) == ("service", 2)
            assert [e.code for e in running.events if isinstance(e, ErrorOccurred)] == ["DRTP-2002"]
            registered = len(cloud.requests)
            cloud.change(down=False)
            await until(lambda: len(cloud.requests) > registered, "it registers once the control plane is back")

    world(scenario)


def test_without_kept_grants_an_outage_ends_the_start_with_its_code(world):
    async def scenario(cloud, local, agents):
        cloud.down = True
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            outcome = await running.task
        assert (outcome.error.code, outcome.error.exit_code) == ("DRTP-2002", ExitCode.UNAVAILABLE)

    world(scenario)


def test_the_refusal_of_the_control_plane_is_the_agents(world):
    async def scenario(cloud, local, agents):
        cloud.refusal = 409, ErrorBody(code="DRTP-2007", message="another agent serves", hint="stop it")
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            outcome = await running.task
        assert (outcome.error.code, outcome.error.hint) == ("DRTP-2007", "stop it")
        assert running.count(TunnelReady) == 0

    world(scenario)


def test_a_final_fault_of_the_gateway_ends_the_start_with_its_code(world):
    async def scenario(cloud, local, agents):
        cloud.programmed = False
        cloud.fault = ErrorBody(code="DRTP-2011", message="port 5432 is taken", hint="choose another")
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            outcome = await running.task
        assert (outcome.error.code, outcome.error.exit_code) == ("DRTP-2011", ExitCode.CONFIGURATION)

    world(scenario)


def test_a_service_that_is_not_ready_in_time_ends_with_provisioning(world):
    async def scenario(cloud, local, agents):
        cloud.programmed = False
        async with agents(cloud, f"tcp://localhost:{local.port}", start_timeout=0.5) as running:
            outcome = await running.task
        assert (outcome.error.code, outcome.error.exit_code) == ("DRTP-4007", ExitCode.PROVISIONING)

    world(scenario)


def test_where_server_sent_events_do_not_get_through_polling_does(world):
    async def scenario(cloud, local, agents):
        cloud.sse = False
        cloud.programmed = False
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await until(lambda: sum(m == "GET" for m, _, _ in cloud.requests) >= 2)
            cloud.programmed = True
            assert (await running.event(TunnelReady)).verified == "service"

    world(scenario)


def test_grants_are_renewed_at_half_their_life(world):
    async def scenario(cloud, local, agents):
        cloud.lifetime = 2
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            await until(lambda: any(path.partition("?")[0].endswith("/grants") for _, path, _ in cloud.requests))

    world(scenario)


def test_the_edge_may_ask_for_proof_again_and_the_tunnel_stays(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            link = cloud.edges["nyc"].live[0]
            first, link.hello = link.hello, None
            link.tunnel.connection.challenge(b"n" * 32, now=link.tunnel.engine.now())
            link.tunnel.wake()
            await until(lambda: link.hello is not None)
            assert link.hello == first
            assert b"200" in await ask(cloud.public, b"GET / HTTP/1.1\r\n\r\n")
            assert link.up

    world(scenario)


def test_a_stream_for_a_service_that_is_not_ours_is_refused(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            before = len(local.heard)
            edge = cloud.edges["nyc"]
            link = edge.live[0]
            ours, theirs = socket.socketpair()
            stream_id = edge.visit(link, ours, ("127.0.0.1", 1), service="default/other")
            await until(lambda: any(r.stream_id == stream_id for r in link.resets))
            assert next(r for r in link.resets if r.stream_id == stream_id).code is ErrorCode.REFUSED
            assert len(local.heard) == before
            theirs.close()

    world(scenario)


def test_stopping_lets_a_visitor_finish(world):
    async def scenario(cloud, local, agents):
        local.answer = None
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            reader, writer = await asyncio.open_connection(*cloud.public)
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            running.agent.stop(drain=20)
            await asyncio.sleep(0.05)
            assert not running.task.done()
            writer.write(b"two")
            assert await reader.readexactly(3) == b"two"
            writer.close()
            assert (await running.task).reason == "stopped"

    world(scenario)


def test_the_agent_does_not_dial_its_service_while_nobody_visits(world):
    async def scenario(cloud, local, agents):
        async with agents(cloud, f"tcp://localhost:{local.port}") as running:
            await running.event(TunnelReady)
            before = len(local.heard)
            await asyncio.sleep(0.3)
            assert len(local.heard) == before

    world(scenario)


def test_a_secret_without_a_target_needs_a_definition_that_names_one(world):
    async def scenario(cloud, local, agents):
        async with agents(
            cloud,
            f"tcp://localhost:{local.port}",
            target=None,
            definition=None,
            secret="s",
            service=ServiceName(name="web"),
        ) as running:
            outcome = await running.task
        assert outcome.error.code == "DRTP-1004"
        assert "TARGET" in outcome.error.hint

    world(scenario)


def test_events_have_the_fields_that_scripts_rely_on():
    ready = TunnelReady(name="w", url=None, hostnames=(), addresses=(), servers=(), private=True, verified="tunnel")
    assert to_dict(ready) == {
        "type": "tunnel_ready", "name": "w", "url": None, "hostnames": [], "addresses": [], "servers": [],
        "private": True, "verified": "tunnel",
    }  # fmt: skip
    assert set(to_dict(ErrorOccurred(code="DRTP-4001", message="m", hint="h"))) == {
        "type", "code", "message", "hint", "retryable",
    }  # fmt: skip
    assert attrs.fields(AgentConfig).secret.repr is False


from .conftest import Cloud  # noqa: E402

_TUNNEL_SERVERS = Cloud.tunnel_servers
