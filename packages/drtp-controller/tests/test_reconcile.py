"""The controller over a real store: objects appear, are mended, go away, and a quiet cloud writes nothing."""

from __future__ import annotations

import asyncio
import contextlib

import attrs
import pytest

from drtp_api.errors import DrtpError
from drtp_api.gateways import ExposureStatus
from drtp_api.kube import (
    DRTP_CONNECTIONS,
    DRTP_SERVERS,
    DRTP_SERVICES,
    ENDPOINT_SLICES,
    GATEWAYS,
    HTTP_ROUTES,
    LEASES,
    LISTENER_SETS,
    SERVICES,
    TCP_ROUTES,
)
from drtp_api.resources import Protocol
from drtp_api.wire import object_to_wire
from drtp_controller.apiserver.rbac import Role, User
from drtp_controller.planners.conditions import find, is_true
from drtp_controller.reconcile.controller import Controller
from drtp_controller.testing import control_plane, make_connection, make_service


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


@contextlib.asynccontextmanager
async def cloud(directory, **options):
    """A control plane with two edges in two cities."""
    async with control_plane(directory, **options) as plane:
        await plane.edge("edge-a", "NYC")
        await plane.edge("edge-b", "AMS")
        await plane.settle()
        yield plane


async def create(plane, service, *, connect=True, instance="a" * 32):
    """Create a service as a user does, and its connection as the registration does."""
    wire = object_to_wire(service)
    wire["metadata"].pop("uid")
    stored = await plane.kube.create(DRTP_SERVICES, wire, "default")
    if not connect:
        await plane.settle()
        return None
    connection = object_to_wire(make_connection(service.metadata.name, instance))
    connection["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "drtp.datumapis.com/v1alpha1",
            "kind": "DRTPService",
            "name": service.metadata.name,
            "uid": stored["metadata"]["uid"],
        }
    ]
    await plane.kube.create(DRTP_CONNECTIONS, connection, "default")
    await plane.settle()
    return connection["metadata"]["name"]


async def status_of(plane, resource, name, namespace="default"):
    return (await plane.kube.get(resource, name, namespace)).get("status") or {}


def condition(status, kind):
    return next(c for c in status["conditions"] if c["type"] == kind)


async def names(plane, resource):
    return [o["metadata"]["name"] for o in (await plane.kube.list(resource, "default")).items]


def test_a_service_with_an_agent_becomes_reachable_and_every_object_says_so(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            name = await create(plane, make_service())
            await plane.tunnel(name, "edge-a", port=50001)
            await plane.tunnel(name, "edge-b", port=50002)
            await plane.settle()
            connection = await status_of(plane, DRTP_CONNECTIONS, name)
            service = await status_of(plane, DRTP_SERVICES, "web")
            route = await status_of(plane, HTTP_ROUTES, "drtp-web")
            assert condition(connection, "Ready")["status"] == "True"
            assert [b["programmingStatus"] for b in connection["servers"]] == ["Programmed", "Programmed"]
            assert condition(service, "Ready")["status"] == "True"
            assert condition(route["parents"][0], "Programmed")["status"] == "True"
            assert len(await names(plane, ENDPOINT_SLICES)) == 2
            (exposure,) = plane.gateway.applied[-1]
            assert [(b.port, b.ready) for b in exposure.backends] == [(50001, True), (50002, True)]

    run(scenario())


def test_a_quiet_cloud_is_not_written_to_and_reconciles_nothing(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            name = await create(plane, make_service("pg", protocol=Protocol.TCP))
            await plane.tunnel(name, "edge-a")
            await plane.settle()
            before = (plane.controller.applier.writes, plane.controller.queue.runs, len(plane.gateway.applied))
            revision = plane.server.store.revision
            await plane.heartbeat("edge-a")
            await asyncio.sleep(0.3)
            after = (plane.controller.applier.writes, plane.controller.queue.runs, len(plane.gateway.applied))
            assert after == before
            assert plane.server.store.revision == revision + 1  # the heartbeat itself

    run(scenario())


def test_a_child_that_somebody_deletes_or_changes_is_mended(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await create(plane, make_service("pg", protocol=Protocol.TCP, port=54321))
            await plane.kube.delete(TCP_ROUTES, "drtp-pg", "default")
            listeners = {"spec": {"listeners": [{"name": "x", "port": 1, "protocol": "TCP"}]}}
            await plane.kube.merge_patch(LISTENER_SETS, "drtp-pg", listeners, "default")
            await plane.settle()
            assert await names(plane, TCP_ROUTES) == ["drtp-pg"]
            mended = await plane.kube.get(LISTENER_SETS, "drtp-pg", "default")
            assert [x["port"] for x in mended["spec"]["listeners"]] == [54321]

    run(scenario())


def test_unpublishing_removes_the_children_and_publishing_gives_the_same_address(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await create(plane, make_service("pg", protocol=Protocol.TCP))
            port = (await status_of(plane, DRTP_SERVICES, "pg"))["externalPort"]
            await plane.kube.merge_patch(DRTP_SERVICES, "pg", {"spec": {"exposure": {"enabled": False}}}, "default")
            await plane.settle()
            for resource in (SERVICES, ENDPOINT_SLICES, LISTENER_SETS, TCP_ROUTES):
                assert await names(plane, resource) == []
            assert plane.gateway.applied[-1] == []
            await plane.kube.merge_patch(DRTP_SERVICES, "pg", {"spec": {"exposure": {"enabled": True}}}, "default")
            await plane.settle()
            assert (await status_of(plane, DRTP_SERVICES, "pg"))["addresses"][0]["port"] == port

    run(scenario())


def test_deleting_a_service_removes_everything_that_belongs_to_it(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await create(plane, make_service())
            await plane.kube.delete(DRTP_SERVICES, "web", "default")
            await plane.settle()
            for resource in (SERVICES, ENDPOINT_SLICES, HTTP_ROUTES, DRTP_CONNECTIONS):
                assert await names(plane, resource) == []
            assert plane.gateway.applied[-1] == []

    run(scenario())


def test_an_edge_whose_heartbeats_end_is_not_ready_and_its_agents_move(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            name = await create(plane, make_service())
            await plane.edge("edge-c", "SIN", lease_seconds=30)
            await plane.tunnel(name, "edge-a")
            await plane.settle()
            await plane.kube.delete(LEASES, "edge-a", "drtp-system")
            await plane.settle()
            assert (await status_of(plane, DRTP_SERVERS, "edge-a", None))["health"] == 0
            spec = (await plane.kube.get(DRTP_CONNECTIONS, name, "default"))["spec"]
            assert [s["name"] for s in spec["servers"]] == ["edge-b", "edge-c"]
            # the binding of the server that is gone has gone with its role
            bindings = (await status_of(plane, DRTP_CONNECTIONS, name))["servers"]
            assert [b["name"] for b in bindings] == ["edge-b", "edge-c"]

    run(scenario())


def test_a_lease_that_runs_out_is_noticed_without_any_event(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            await plane.edge("edge-a", "NYC", lease_seconds=2)
            await plane.until(lambda: not plane._ready("edge-a"))
            found = find(plane.controller.caches.servers.objects["", "edge-a"].status.conditions, "Ready")
            assert found is not None
            assert found.reason == "AgentOffline"

    run(scenario())


def test_an_agent_without_enough_servers_gets_more_when_they_come(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            await plane.edge("edge-a", "NYC")
            name = await create(plane, make_service())
            assert len((await plane.kube.get(DRTP_CONNECTIONS, name, "default"))["spec"]["servers"]) == 1
            await plane.edge("edge-b", "AMS")
            await plane.settle()
            spec = (await plane.kube.get(DRTP_CONNECTIONS, name, "default"))["spec"]
            assert [s["name"] for s in spec["servers"]] == ["edge-a", "edge-b"]

    run(scenario())


def test_a_vended_port_that_the_gateway_cannot_bind_is_replaced(tmp_path):
    async def scenario():
        async with cloud(tmp_path, ports=(20000, 20001)) as plane:
            refusal = ExposureStatus(programmed=False, reason="PortTaken", message="in use", code="DRTP-5003")
            await create(plane, make_service("first", protocol=Protocol.TCP), connect=False)
            first = (await status_of(plane, DRTP_SERVICES, "first"))["externalPort"]
            other = 20001 if first == 20000 else 20000
            plane.gateway.refuse[other] = refusal
            plane.gateway.refuse[first] = refusal
            del plane.gateway.refuse[other]
            await plane.kube.merge_patch(
                DRTP_SERVICES, "first", {"spec": {"edgeAllowlistCIDRs": ["10.0.0.0/8"]}}, "default"
            )
            await plane.until(lambda: plane.controller.ports.owned("default/first") == other)
            await plane.settle()
            status = await status_of(plane, DRTP_SERVICES, "first")
            assert status["externalPort"] == other
            assert condition(status, "Programmed")["status"] == "True"

    run(scenario())


def test_a_requested_port_that_the_gateway_cannot_bind_is_a_fault(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            plane.gateway.refuse[54321] = ExposureStatus(programmed=False, message="in use", code="DRTP-5003")
            await create(plane, make_service("pg", protocol=Protocol.TCP, port=54321), connect=False)
            found = condition(await status_of(plane, DRTP_SERVICES, "pg"), "Programmed")
            assert found["reason"] == "PortTaken"
            assert found["message"].startswith("DRTP-2011 in use. ")

    run(scenario())


def test_promises_outlive_a_restart_of_the_controller(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await create(plane, make_service(), connect=False)
            await create(plane, make_service("pg", protocol=Protocol.TCP), connect=False)
            before = [(await status_of(plane, DRTP_SERVICES, n)) for n in ("web", "pg")]
        async with control_plane(tmp_path) as plane:
            await plane.settle()
            assert plane.controller.applier.writes == 0
            after = [(await status_of(plane, DRTP_SERVICES, n)) for n in ("web", "pg")]
            assert after == before

    run(scenario())


def test_two_services_that_ask_for_one_port_get_it_in_turn(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            for name in ("first", "second"):
                await create(plane, make_service(name, protocol=Protocol.TCP, port=54321), connect=False)
            status = await status_of(plane, DRTP_SERVICES, "second")
            assert condition(status, "Accepted")["reason"] == "PortTaken"
            assert "addresses" not in status
            assert plane.controller.ports.owned("default/first") == 54321

    run(scenario())


def test_the_shared_gateway_is_there_and_programmed(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            gateway = await plane.kube.get(GATEWAYS, "drtp-gateway", "drtp-system")
            assert condition(gateway["status"], "Programmed")["status"] == "True"

    run(scenario())


def test_an_object_of_the_same_name_that_is_not_ours_is_left_alone(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            mine = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "drtp-web", "namespace": "default"},
                "spec": {"ports": [{"port": 9}]},
            }
            await plane.kube.create(SERVICES, mine, "default")
            await create(plane, make_service(), connect=False)
            found = await plane.kube.get(SERVICES, "drtp-web", "default")
            assert [p["port"] for p in found["spec"]["ports"]] == [9]
            await plane.kube.delete(DRTP_SERVICES, "web", "default")
            await plane.settle()
            assert await names(plane, SERVICES) == ["drtp-web"]

    run(scenario())


def test_a_gateway_plugin_that_raises_is_a_condition_and_is_tried_again(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            good = plane.gateway.apply
            calls = 0

            async def broken(exposures):
                nonlocal calls
                calls += 1
                if calls == 1:
                    raise RuntimeError("out of order")
                return await good(exposures)

            plane.gateway.apply = broken
            await create(plane, make_service(), connect=False)
            await plane.until(
                lambda: is_true(
                    plane.controller.caches.services.objects["default", "web"].status.conditions, "Programmed"
                )
            )
            assert calls >= 2

    run(scenario())


def test_a_controller_without_a_permission_ends_and_names_it(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            stranger = plane.server.kube(User("stranger", Role.EDGE))
            controller = Controller(stranger, plane.controller.config, plane.gateway)
            with pytest.raises(DrtpError, match=r"DRTP-2008 the controller cannot read .*stranger"):
                await controller.run()

    run(scenario())


def test_a_controller_without_a_definition_ends_and_says_what_to_install(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            missing = attrs.evolve(TCP_ROUTES, version="v1alpha2")
            config = plane.controller.config
            config = attrs.evolve(config, gateway=attrs.evolve(config.gateway, tcp_routes=missing))
            with pytest.raises(DrtpError, match=r"DRTP-2031 the controller cannot read tcproutes") as caught:
                await Controller(plane.server.kube(), config, plane.gateway).run()
            assert "drtp crds" in caught.value.hint

    run(scenario())


def test_an_unschedulable_server_is_emptied_without_a_moment_without_it(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            name = await create(plane, make_service())
            for server in ("edge-a", "edge-b"):
                await plane.tunnel(name, server)
            await plane.edge("edge-c", "SIN")
            await plane.kube.merge_patch(DRTP_SERVERS, "edge-a", {"spec": {"unschedulable": True}})
            await plane.settle()

            async def servers():
                spec = (await plane.kube.get(DRTP_CONNECTIONS, name, "default"))["spec"]
                return [s["name"] for s in spec["servers"]]

            assert await servers() == ["edge-b", "edge-c", "edge-a"]
            await plane.tunnel(name, "edge-c")
            await plane.settle()
            assert await servers() == ["edge-b", "edge-c"]
            # and no new agent goes there
            other = await create(plane, make_service("other"), instance="b" * 32)
            spec = (await plane.kube.get(DRTP_CONNECTIONS, other, "default"))["spec"]
            assert "edge-a" not in [s["name"] for s in spec["servers"]]

    run(scenario())
