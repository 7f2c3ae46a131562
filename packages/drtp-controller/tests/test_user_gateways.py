"""A user's own Gateway and routes: programmed where they can be, answered in the Gateway API's words where not."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drtp_api.gateways import ExposureStatus
from drtp_api.kube import (
    DRTP_SERVICES,
    ENDPOINT_SLICES,
    GATEWAYS,
    HTTP_ROUTES,
    LISTENER_SETS,
    REFERENCE_GRANTS,
    TCP_ROUTES,
    TLS_ROUTES,
    Key,
)
from drtp_api.resources import Protocol
from drtp_controller.planners.hostnames import HostnameBook
from drtp_controller.planners.listeners import matches_selector, plan_doors
from drtp_controller.planners.ports import PortAllocator
from drtp_controller.planners.userroutes import plan_routes
from drtp_controller.testing import always_free, control_plane, make_service

CLASS = "datum-external-global-proxy"
HTTP_PORT = 8880


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def gateway(*listeners, name="mine", **spec):
    return {
        "apiVersion": GATEWAYS.api_version,
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"gatewayClassName": CLASS, "listeners": list(listeners), **spec},
    }


def listener(name="db", protocol="TCP", port=54321, **more):
    return {"name": name, "protocol": protocol, "port": port, **more}


def backend(name, **more):
    return {"group": "drtp.datumapis.com", "kind": "DRTPService", "name": name, **more}


def route(resource, name, *backends, parent="mine", parent_kind="Gateway", section=None, namespace="default", **spec):
    reference = {"group": "gateway.networking.k8s.io", "kind": parent_kind, "name": parent, "namespace": "default"}
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [reference | ({"sectionName": section} if section else {})],
            "rules": [{"backendRefs": list(backends)}],
            **spec,
        },
    }


@contextlib.asynccontextmanager
async def cloud(directory):
    """A control plane with one edge and two private services, pg with an agent's tunnel."""
    async with control_plane(directory) as plane:
        await plane.edge("edge-a", "NYC")
        for service in (make_service("pg", protocol=Protocol.TCP, public=False), make_service("web", public=False)):
            await put(plane, DRTP_SERVICES, wire(service))
        await plane.settle()
        yield plane


def wire(service):
    from drtp_api.wire import object_to_wire

    found = object_to_wire(service)
    found["metadata"].pop("uid")
    return found


async def put(plane, resource, *objects):
    for obj in objects:
        await plane.kube.create(resource, obj, obj["metadata"]["namespace"])
    await plane.settle()


async def conditions(plane, resource, name, namespace="default"):
    """The conditions of a route's first parent, or of the object itself: type to (status, reason)."""
    status = (await plane.kube.get(resource, name, namespace)).get("status") or {}
    source = status["parents"][0] if status.get("parents") else status
    return {c["type"]: (c["status"], c["reason"]) for c in source.get("conditions") or ()}


async def listener_conditions(plane, name, index=0, resource=GATEWAYS):
    entry = (await plane.kube.get(resource, name, "default"))["status"]["listeners"][index]
    return {c["type"]: (c["status"], c["reason"]) for c in entry["conditions"]} | {"routes": entry["attachedRoutes"]}


async def service_status(plane, name):
    return (await plane.kube.get(DRTP_SERVICES, name, "default"))["status"]


def test_a_users_gateway_and_tcp_route_make_a_private_service_reachable(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await put(plane, GATEWAYS, gateway(listener()))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg")))
            (exposure,) = plane.gateway.applied[-1]
            assert (exposure.service, exposure.port) == ("default/pg", 54321)
            assert exposure.key == "default/pg@TCPRoute/default/to-pg:54321"
            found = await conditions(plane, TCP_ROUTES, "to-pg")
            assert found == {
                "Accepted": ("True", "Accepted"),
                "ResolvedRefs": ("True", "ResolvedRefs"),
                "Conflicted": ("False", "NoConflicts"),
                "Programmed": ("True", "Programmed"),
            }
            front = await conditions(plane, GATEWAYS, "mine")
            assert (front["Accepted"][0], front["Programmed"][0]) == ("True", "True")
            obj = await plane.kube.get(GATEWAYS, "mine", "default")
            assert obj["status"]["addresses"] == [{"type": "IPAddress", "value": "127.0.0.1"}]
            assert (await listener_conditions(plane, "mine"))["routes"] == 1
            status = await service_status(plane, "pg")
            assert status["addresses"] == [{"protocol": "TCP", "host": "127.0.0.1", "port": 54321}]
            assert next(c for c in status["conditions"] if c["type"] == "Programmed")["status"] == "True"
            # and taken away again, nothing is left
            await plane.kube.delete(TCP_ROUTES, "to-pg", "default")
            await plane.settle()
            assert plane.gateway.applied[-1] == []
            assert (await listener_conditions(plane, "mine"))["routes"] == 0
            assert "addresses" not in await service_status(plane, "pg")
            await plane.kube.delete(GATEWAYS, "mine", "default")
            await plane.settle()
            assert plane.controller.ports.owners() == ()

    run(scenario())


def test_the_backends_of_a_users_route_are_the_edges_data_ports(tmp_path):
    from drtp_api.kube import DRTP_CONNECTIONS
    from drtp_api.wire import object_to_wire
    from drtp_controller.testing import make_connection

    async def scenario():
        async with cloud(tmp_path) as plane:
            connection = object_to_wire(make_connection("pg"))
            await put(plane, DRTP_CONNECTIONS, connection)
            await put(plane, GATEWAYS, gateway(listener()))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg")))
            await plane.tunnel(connection["metadata"]["name"], "edge-a", port=50001)
            await plane.settle()
            (exposure,) = plane.gateway.applied[-1]
            assert [(b.port, b.ready) for b in exposure.backends] == [(50001, True)]
            found = await conditions(plane, DRTP_CONNECTIONS, connection["metadata"]["name"])
            assert found["Ready"] == ("True", "Ready")
            assert (
                next(c for c in (await service_status(plane, "pg"))["conditions"] if c["type"] == "Ready")["status"]
                == "True"
            )
            assert len((await plane.kube.list(ENDPOINT_SLICES, "default")).items) == 1

    run(scenario())


def test_a_host_name_of_a_users_http_route_leads_to_the_service(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            door = listener("web", "HTTP", HTTP_PORT, hostname="*.example.com")
            await put(plane, GATEWAYS, gateway(door))
            await put(
                plane, HTTP_ROUTES, route(HTTP_ROUTES, "to-web", backend("web"), hostnames=["a.example.com", "b.org"])
            )
            (exposure,) = plane.gateway.applied[-1]
            assert (exposure.hostnames, exposure.port) == (("a.example.com",), None)
            assert (await service_status(plane, "web"))["url"] == f"http://a.example.com:{HTTP_PORT}/"
            other = route(HTTP_ROUTES, "nowhere", backend("web"), hostnames=["b.org"])
            await put(plane, HTTP_ROUTES, other)
            found = await conditions(plane, HTTP_ROUTES, "nowhere")
            assert found["Accepted"] == ("False", "NoMatchingListenerHostname")

    run(scenario())


def test_a_route_to_a_service_that_does_not_exist_heals_when_it_comes(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await put(plane, GATEWAYS, gateway(listener()))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "to-late", backend("late")))
            found = await conditions(plane, TCP_ROUTES, "to-late")
            assert found["Accepted"] == ("True", "Accepted")
            assert found["ResolvedRefs"] == ("False", "BackendNotFound")
            assert found["Programmed"][0] == "False"
            await put(plane, DRTP_SERVICES, wire(make_service("late", protocol=Protocol.TCP, public=False)))
            assert (await conditions(plane, TCP_ROUTES, "to-late"))["Programmed"] == ("True", "Programmed")

    run(scenario())


def test_a_port_that_a_service_has_is_a_conflict_of_the_listener_until_it_is_given_back(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await put(plane, DRTP_SERVICES, wire(make_service("first", protocol=Protocol.TCP, port=54321)))
            await put(plane, GATEWAYS, gateway(listener(), listener("spare", port=54322)))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg"), section="db"))
            door = await listener_conditions(plane, "mine")
            assert door["Conflicted"] == ("True", "PortConflict")
            assert door["Accepted"] == ("False", "PortUnavailable")
            entry = (await plane.kube.get(GATEWAYS, "mine", "default"))["status"]["listeners"][0]
            message = next(c["message"] for c in entry["conditions"] if c["type"] == "Conflicted")
            assert message.startswith("DRTP-2011 TCP port 54321 belongs to the service default/first; choose")
            assert (await conditions(plane, GATEWAYS, "mine"))["Accepted"] == ("True", "ListenersNotValid")
            found = await conditions(plane, TCP_ROUTES, "to-pg")
            assert found["Accepted"] == ("False", "NoReadyListeners")
            await plane.kube.delete(DRTP_SERVICES, "first", "default")
            await plane.settle()
            plane.controller._users_changed()
            await plane.settle()
            assert (await conditions(plane, TCP_ROUTES, "to-pg"))["Programmed"] == ("True", "Programmed")

    run(scenario())


def test_a_service_that_asks_for_a_listeners_port_is_told_whose_it_is(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await put(plane, GATEWAYS, gateway(listener()))
            await put(plane, DRTP_SERVICES, wire(make_service("late", protocol=Protocol.TCP, port=54321)))
            found = next(c for c in (await service_status(plane, "late"))["conditions"] if c["type"] == "Accepted")
            assert found["reason"] == "PortTaken"
            assert "the Gateway default/mine listener db" in found["message"]

    run(scenario())


def test_the_later_of_two_routes_on_one_listener_or_host_is_told(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await put(plane, DRTP_SERVICES, wire(make_service("other", protocol=Protocol.TCP, public=False)))
            await put(plane, GATEWAYS, gateway(listener(), listener("web", "HTTP", HTTP_PORT)))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "a", backend("pg"), section="db"))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "b", backend("other"), section="db"))
            found = await conditions(plane, TCP_ROUTES, "b")
            assert found["Accepted"] == ("False", "PortConflict")
            assert found["Conflicted"] == ("True", "PortConflict")
            assert (await conditions(plane, TCP_ROUTES, "a"))["Programmed"][0] == "True"
            for name in ("h1", "h2"):
                await put(
                    plane, HTTP_ROUTES,
                    route(HTTP_ROUTES, name, backend("web"), section="web", hostnames=["x.example.com"]),
                )  # fmt: skip
            assert (await conditions(plane, HTTP_ROUTES, "h2"))["Conflicted"] == ("True", "HostnameConflict")
            assert (await conditions(plane, HTTP_ROUTES, "h1"))["Conflicted"] == ("False", "NoConflicts")

    run(scenario())


def test_what_this_gateway_cannot_do_is_refused_by_name(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            doors = (
                listener(),
                listener("web", "HTTP", HTTP_PORT),
                listener("http80", "HTTP", 80),
                listener("tls", "TLS", 8443, tls={"mode": "Passthrough"}),
            )
            await put(plane, GATEWAYS, gateway(*doors))
            assert (await listener_conditions(plane, "mine", 2))["Accepted"] == ("False", "PortUnavailable")
            assert (await listener_conditions(plane, "mine", 3))["Accepted"] == ("False", "UnsupportedProtocol")
            matches = [{"backendRefs": [backend("web")], "matches": [{"path": {"type": "Exact", "value": "/x"}}]}]
            bad = {
                "paths": route(HTTP_ROUTES, "paths", section="web", hostnames=["p.example.com"]),
                "nameless": route(HTTP_ROUTES, "nameless", backend("web"), section="web"),
                "plain": route(HTTP_ROUTES, "plain", {"name": "x", "port": 1}, hostnames=["q.example.com"]),
                "wrong": route(HTTP_ROUTES, "wrong", backend("pg"), section="web", hostnames=["w.example.com"]),
                "lost": route(HTTP_ROUTES, "lost", backend("web"), section="none", hostnames=["l.example.com"]),
                "kind": route(HTTP_ROUTES, "kind", backend("web"), section="db", hostnames=["k.example.com"]),
            }
            bad["paths"]["spec"]["rules"] = matches
            await put(plane, HTTP_ROUTES, *bad.values())
            await put(plane, TLS_ROUTES, route(TLS_ROUTES, "tls", backend("pg"), section="tls"))
            seen = {n: await conditions(plane, HTTP_ROUTES, n) for n in bad}
            assert seen["paths"]["Accepted"] == ("False", "UnsupportedValue")
            assert seen["nameless"]["Accepted"] == ("False", "UnsupportedValue")
            assert seen["plain"]["ResolvedRefs"] == ("False", "InvalidKind")
            assert seen["wrong"]["ResolvedRefs"] == ("False", "UnsupportedProtocol")
            assert seen["lost"]["Accepted"] == ("False", "NoMatchingParent")
            assert seen["kind"]["Accepted"] == ("False", "NotAllowedByListeners")
            assert (await conditions(plane, TLS_ROUTES, "tls"))["Accepted"] == ("False", "UnsupportedValue")
            assert plane.gateway.applied[-1] == []

    run(scenario())


def test_a_gateway_of_another_class_and_its_routes_are_left_alone(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            foreign = gateway(listener())
            foreign["spec"]["gatewayClassName"] = "somebody-else"
            await put(plane, GATEWAYS, foreign)
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg")))
            assert "status" not in await plane.kube.get(GATEWAYS, "mine", "default")
            assert "status" not in await plane.kube.get(TCP_ROUTES, "to-pg", "default")

    run(scenario())


def test_a_listener_set_needs_the_gateways_leave(tmp_path):
    def listeners(name, port):
        return {
            "apiVersion": LISTENER_SETS.api_version,
            "kind": "ListenerSet",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"parentRef": {"name": "mine"}, "listeners": [listener("extra", port=port)]},
        }

    async def scenario():
        async with cloud(tmp_path) as plane:
            await put(plane, GATEWAYS, gateway(listener()))
            await put(plane, LISTENER_SETS, listeners("more", 54333))
            assert (await conditions(plane, LISTENER_SETS, "more"))["Accepted"] == ("False", "NotAllowed")
            leave = {"spec": {"allowedListeners": {"namespaces": {"from": "Same"}}}}
            await plane.kube.merge_patch(GATEWAYS, "mine", leave, "default")
            await put(
                plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg"), parent="more", parent_kind="ListenerSet")
            )
            assert (await conditions(plane, LISTENER_SETS, "more"))["Programmed"] == ("True", "Programmed")
            assert (await conditions(plane, TCP_ROUTES, "to-pg"))["Programmed"] == ("True", "Programmed")
            assert (await plane.kube.get(GATEWAYS, "mine", "default"))["status"]["attachedListenerSets"] == 1

    run(scenario())


def test_a_service_in_another_namespace_needs_a_grant(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            from drtp_api.kube import NAMESPACES

            await plane.kube.create(
                NAMESPACES,
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": {"team": "yes"}}},
            )
            places = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "yes"}}}}
            await put(plane, GATEWAYS, gateway(listener(allowedRoutes=places)))
            await put(
                plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg", namespace="default"), namespace="team")
            )
            found = await conditions(plane, TCP_ROUTES, "to-pg", "team")
            assert found["ResolvedRefs"] == ("False", "RefNotPermitted")
            grant = {
                "apiVersion": REFERENCE_GRANTS.api_version,
                "kind": "ReferenceGrant",
                "metadata": {"name": "team", "namespace": "default"},
                "spec": {
                    "from": [{"group": "gateway.networking.k8s.io", "kind": "TCPRoute", "namespace": "team"}],
                    "to": [{"group": "drtp.datumapis.com", "kind": "DRTPService"}],
                },
            }
            await put(plane, REFERENCE_GRANTS, grant)
            assert (await conditions(plane, TCP_ROUTES, "to-pg", "team"))["Programmed"][0] == "True"

    run(scenario())


def test_what_the_gateway_refuses_is_not_programmed_and_says_why(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            plane.gateway.refuse[54321] = ExposureStatus(
                programmed=False, reason="PortUnavailable", message="in use", code="DRTP-5003"
            )
            await put(plane, GATEWAYS, gateway(listener()))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg")))
            assert (await conditions(plane, TCP_ROUTES, "to-pg"))["Programmed"] == ("False", "PortUnavailable")
            assert (await listener_conditions(plane, "mine"))["Programmed"] == ("False", "PortUnavailable")
            found = next(c for c in (await service_status(plane, "pg"))["conditions"] if c["type"] == "Programmed")
            assert found["message"].startswith("DRTP-5003 in use. ")

    run(scenario())


def test_nothing_is_written_over_a_restart_and_ports_stay_with_their_listeners(tmp_path):
    async def scenario():
        async with cloud(tmp_path) as plane:
            await put(plane, GATEWAYS, gateway(listener(), listener("web", "HTTP", HTTP_PORT)))
            await put(plane, TCP_ROUTES, route(TCP_ROUTES, "to-pg", backend("pg"), section="db"))
            await put(plane, HTTP_ROUTES, route(HTTP_ROUTES, "to-web", backend("web"), hostnames=["x.example.com"]))
        async with control_plane(tmp_path) as plane:
            await plane.settle()
            plane.controller._users_changed()
            await plane.settle()
            assert plane.controller.applier.writes == 0
            assert plane.controller.ports.owned("Gateway default/mine listener db") == 54321
            assert len(plane.gateway.applied[-1]) == 2

    run(scenario())


# the planners alone

NAMES = st.sampled_from(["a", "b", "c"])
PORTS = st.sampled_from([1001, 1002, HTTP_PORT])
LISTENERS = st.builds(listener, name=NAMES, protocol=st.sampled_from(["TCP", "HTTP", "UDP", "HTTPS"]), port=PORTS)
GATEWAY_LISTS = st.lists(
    st.builds(
        lambda name, doors: gateway(*{d["name"]: d for d in doors}.values(), name=name),
        NAMES,
        st.lists(LISTENERS, min_size=1, max_size=3),
    ),
    max_size=3,
    unique_by=lambda g: g["metadata"]["name"],
)
ROUTE_LISTS = st.lists(
    st.builds(
        lambda name, service, parent, section: (
            "TCPRoute",
            route(TCP_ROUTES, name, backend(service), parent=parent, section=section),
        ),
        NAMES,
        st.sampled_from(["pg", "none"]),
        NAMES,
        st.one_of(st.none(), NAMES),
    )
    | st.builds(
        lambda name, service, parent, host: (
            "HTTPRoute",
            route(HTTP_ROUTES, name, backend(service), parent=parent, hostnames=[host]),
        ),
        NAMES,
        st.sampled_from(["web", "pg"]),
        NAMES,
        st.sampled_from(["x.test", "*.y.test", "a.y.test"]),
    ),
    max_size=5,
    unique_by=lambda pair: (pair[0], pair[1]["metadata"]["name"]),
)
SERVICES = {f"default/{s.metadata.name}": s for s in (make_service("pg", protocol=Protocol.TCP), make_service("web"))}


def planned(gateways, routes, ports, names):
    doors = plan_doors(
        gateways, (), class_name=CLASS, shared=Key("drtp-system", "drtp-gateway"), http_port=HTTP_PORT,
        namespaces={}, ports=ports, now=0.0,
    )  # fmt: skip
    return plan_routes(routes, doors, SERVICES, grants=(), namespaces={}, names=names)


@settings(max_examples=150, deadline=None)
@given(GATEWAY_LISTS, ROUTE_LISTS, st.randoms(use_true_random=False))
def test_one_port_and_one_host_have_one_way_and_planning_again_changes_nothing(gateways, routes, random):
    ports, names = PortAllocator(2000, 2999, always_free), HostnameBook("i", "prism.test")
    plan = planned(gateways, routes, ports, names)
    claims = plan.claims
    slots = [(c.protocol, c.port) for c in claims if c.port is not None]
    assert len(slots) == len(set(slots))
    owners = {}
    for claim in claims:
        for host in claim.hostnames:
            assert owners.setdefault(host, claim.route) == claim.route
    assert planned(gateways, routes, ports, names) == plan
    # the order in which the API lists things does not matter
    shuffled, reordered = list(gateways), list(routes)
    random.shuffle(shuffled)
    random.shuffle(reordered)
    again = planned(shuffled, reordered, PortAllocator(2000, 2999, always_free), HostnameBook("i", "prism.test"))
    assert again == plan
    # and what is gone leaves nothing behind
    planned((), (), ports, names)
    assert (ports.owners(), names.owners()) == ((), frozenset())


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
    ],
)
def test_a_selector_means_what_kubernetes_means(selector, matches):
    assert matches_selector(selector, {"a": "1"}) is matches
