"""The controller with this plugin over a real store; the test plays the cluster's implementation."""

from __future__ import annotations

import asyncio
import contextlib

from drtp_api.kube import (
    DRTP_SERVICES,
    GATEWAY_CLASSES,
    GATEWAYS,
    HTTP_ROUTES,
    LISTENER_SETS,
    TCP_ROUTES,
    UDP_ROUTES,
)
from drtp_api.resources import Protocol
from drtp_api.wire import object_to_wire
from drtp_controller.testing import control_plane, make_service
from drtp_gateway_kubernetes.gateway import KubernetesGateway, KubernetesOptions
from drtp_gateway_kubernetes.policies import BACKEND_TRAFFIC_POLICIES, SECURITY_POLICIES

CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"


def definition(resource):
    """A small definition of one of Envoy Gateway's kinds."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": free, "status": free}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.qualified},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
            },
            "versions": [
                {
                    "name": resource.version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


DEFINITIONS = (definition(SECURITY_POLICIES), definition(BACKEND_TRAFFIC_POLICIES))


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


@contextlib.asynccontextmanager
async def cluster(directory, *, envoy_gateway=True):
    gateway = KubernetesGateway(KubernetesOptions(implementation_class="eg", cidrs_per_rule=2))
    definitions = DEFINITIONS if envoy_gateway else ()
    async with control_plane(directory, cluster=gateway, definitions=definitions) as plane:
        await plane.edge("edge-a", "NYC")
        await plane.settle()
        yield plane


async def create(plane, service):
    wire = object_to_wire(service)
    wire["metadata"].pop("uid")
    await plane.kube.create(DRTP_SERVICES, wire, "default")
    await plane.settle()


async def names(plane, resource):
    return [o["metadata"]["name"] for o in (await plane.kube.list(resource, "default")).items]


async def conditions(plane, resource, name):
    status = (await plane.kube.get(resource, name, "default")).get("status") or {}
    source = status["parents"][0] if status.get("parents") else status
    return {c["type"]: (c["status"], c["reason"]) for c in source.get("conditions") or ()}


def yes(obj, *kinds):
    generation = obj["metadata"].get("generation") or 0
    time = "2026-01-01T00:00:00Z"
    return [
        {
            "type": k, "status": "True", "reason": k, "message": "", "observedGeneration": generation,
            "lastTransitionTime": time,
        }
        for k in kinds
    ]  # fmt: skip


async def implement(plane, *, policies=True):
    """Accept and program everything that is of the implementation's class, as Envoy Gateway would."""
    for resource in (GATEWAYS, LISTENER_SETS, HTTP_ROUTES, TCP_ROUTES, UDP_ROUTES):
        for obj in (await plane.kube.list(resource)).items:
            spec = obj["spec"]
            if resource is GATEWAYS and spec["gatewayClassName"] != "eg":
                continue
            if resource in {GATEWAYS, LISTENER_SETS}:
                entries = [
                    {"name": x["name"], "attachedRoutes": 1, "conditions": yes(obj, "Accepted", "Programmed")}
                    for x in spec["listeners"]
                ]
                status = {"conditions": yes(obj, "Accepted", "Programmed"), "listeners": entries}
                if resource is GATEWAYS:
                    status["addresses"] = [{"type": "IPAddress", "value": "192.0.2.10"}]
            else:
                if any(r.get("kind") == "DRTPService" for r in spec["rules"][0]["backendRefs"]):
                    continue
                status = {
                    "parents": [
                        {
                            "parentRef": p,
                            "controllerName": CONTROLLER,
                            "conditions": yes(obj, "Accepted", "ResolvedRefs"),
                        }
                        for p in spec["parentRefs"]
                    ]
                }
            await plane.kube.update_status(resource, {**obj, "status": status})
    for resource in (SECURITY_POLICIES, BACKEND_TRAFFIC_POLICIES) if policies else ():
        for obj in (await plane.kube.list(resource)).items:
            status = {"ancestors": [{"controllerName": CONTROLLER, "conditions": yes(obj, "Accepted")}]}
            await plane.kube.update_status(resource, {**obj, "status": status})
    await plane.settle()
    await asyncio.sleep(0.1)  # the runtime reads the caches a moment after they changed
    await plane.settle()


def test_a_service_is_programmed_when_the_implementation_says_so_and_not_before(tmp_path):
    async def scenario():
        async with cluster(tmp_path) as plane:
            shared = await plane.kube.get(GATEWAYS, "drtp-gateway", "drtp-system")
            assert shared["spec"]["gatewayClassName"] == "eg"
            assert "status" not in shared
            service = make_service(
                "pg", protocol=Protocol.TCP, port=20777, edge_allowlist_cidrs=("10.0.0.0/8", "192.0.2.0/24", "::1/128")
            )
            await create(plane, service)
            policy = await plane.kube.get(SECURITY_POLICIES, "drtp-pg", "default")
            assert [len(r["principal"]["clientCIDRs"]) for r in policy["spec"]["authorization"]["rules"]] == [2, 1]
            assert policy["metadata"]["ownerReferences"][0]["kind"] == "DRTPService"
            assert await names(plane, BACKEND_TRAFFIC_POLICIES) == ["drtp-pg"]
            before = await conditions(plane, DRTP_SERVICES, "pg")
            assert before["Programmed"] == ("False", "Pending")
            assert "status" not in await plane.kube.get(TCP_ROUTES, "drtp-pg", "default")
            await implement(plane)
            after = await conditions(plane, DRTP_SERVICES, "pg")
            assert after["Programmed"] == ("True", "Programmed")
            assert after["ACLProgrammed"] == ("True", "Programmed")
            status = (await plane.kube.get(DRTP_SERVICES, "pg", "default"))["status"]
            assert status["addresses"] == [{"protocol": "TCP", "host": "192.0.2.10", "port": 20777}]
            # a changed allow-list is not in force until it is confirmed again
            change = {"spec": {"edgeAllowlistCIDRs": ["10.0.0.0/8"]}}
            await plane.kube.merge_patch(DRTP_SERVICES, "pg", change, "default")
            await plane.settle()
            await asyncio.sleep(0.1)
            await plane.settle()
            assert (await conditions(plane, DRTP_SERVICES, "pg"))["Programmed"] == ("False", "Pending")
            await implement(plane)
            assert (await conditions(plane, DRTP_SERVICES, "pg"))["Programmed"] == ("True", "Programmed")
            await plane.kube.delete(DRTP_SERVICES, "pg", "default")
            await plane.settle()
            assert await names(plane, SECURITY_POLICIES) == []

    run(scenario())


def test_without_envoy_gateway_a_condition_says_that_the_edge_enforces_alone(tmp_path):
    async def scenario():
        async with cluster(tmp_path, envoy_gateway=False) as plane:
            await create(plane, make_service("pg", protocol=Protocol.TCP, edge_allowlist_cidrs=("10.0.0.0/8",)))
            await implement(plane, policies=False)
            found = await conditions(plane, DRTP_SERVICES, "pg")
            assert found["ACLProgrammed"] == ("False", "UnsupportedByGatewayClass")
            assert found["Programmed"] == ("True", "Programmed")

    run(scenario())


def test_udp_with_an_allow_list_is_not_exposed_until_the_list_is_gone(tmp_path):
    async def scenario():
        async with cluster(tmp_path) as plane:
            await create(
                plane, make_service("dns", protocol=Protocol.UDP, port=20053, edge_allowlist_cidrs=("10.0.0.0/8",))
            )
            assert (await conditions(plane, DRTP_SERVICES, "dns"))["Programmed"] == ("False", "UDPACLUnsupported")
            assert await names(plane, UDP_ROUTES) == []
            await plane.kube.merge_patch(DRTP_SERVICES, "dns", {"spec": {"edgeAllowlistCIDRs": []}}, "default")
            await plane.settle()
            await implement(plane)
            assert (await conditions(plane, DRTP_SERVICES, "dns"))["Programmed"] == ("True", "Programmed")

    run(scenario())


def test_a_users_route_becomes_a_route_of_ours_and_hears_what_the_implementation_says(tmp_path):
    async def scenario():
        async with cluster(tmp_path) as plane:
            await create(
                plane, make_service("pg", protocol=Protocol.TCP, public=False, edge_allowlist_cidrs=("10.0.0.0/8",))
            )
            klass = await plane.kube.get(GATEWAY_CLASSES, "datum-external-global-proxy")
            assert klass["spec"]["controllerName"].startswith("drtp.datumapis.com/")
            mine = {
                "apiVersion": GATEWAYS.api_version,
                "kind": "Gateway",
                "metadata": {"name": "mine", "namespace": "default"},
                "spec": {
                    "gatewayClassName": "datum-external-global-proxy",
                    "listeners": [{"name": "db", "protocol": "TCP", "port": 54321}],
                },
            }
            route = {
                "apiVersion": TCP_ROUTES.api_version,
                "kind": "TCPRoute",
                "metadata": {"name": "to-pg", "namespace": "default"},
                "spec": {
                    "parentRefs": [{"name": "mine"}],
                    "rules": [{"backendRefs": [{"group": "drtp.datumapis.com", "kind": "DRTPService", "name": "pg"}]}],
                },
            }
            await plane.kube.create(GATEWAYS, mine, "default")
            await plane.kube.create(TCP_ROUTES, route, "default")
            await plane.settle()
            (derived,) = [n for n in await names(plane, TCP_ROUTES) if n != "to-pg"]
            assert await names(plane, LISTENER_SETS) == [derived]
            assert await names(plane, SECURITY_POLICIES) == [derived]
            made = await plane.kube.get(TCP_ROUTES, derived, "default")
            assert made["spec"]["rules"][0]["backendRefs"][0]["name"] == "drtp-pg"
            listeners = await plane.kube.get(LISTENER_SETS, derived, "default")
            assert listeners["spec"]["parentRef"]["name"] == "drtp-gateway"
            assert listeners["spec"]["listeners"][0]["port"] == 54321
            found = await conditions(plane, TCP_ROUTES, "to-pg")
            assert (found["Accepted"][0], found["Programmed"]) == ("True", ("False", "Pending"))
            await implement(plane)
            assert (await conditions(plane, TCP_ROUTES, "to-pg"))["Programmed"] == ("True", "Programmed")
            assert (await conditions(plane, GATEWAYS, "mine"))["Programmed"] == ("True", "Programmed")
            assert (await conditions(plane, DRTP_SERVICES, "pg"))["Programmed"] == ("True", "Programmed")
            gateway = await plane.kube.get(GATEWAYS, "mine", "default")
            assert gateway["status"]["addresses"][0]["value"] == "192.0.2.10"
            await plane.kube.delete(TCP_ROUTES, "to-pg", "default")
            await plane.settle()
            assert await names(plane, TCP_ROUTES) == []
            assert await names(plane, LISTENER_SETS) == []

    run(scenario())


def test_a_quiet_cluster_is_not_written_to(tmp_path):
    async def scenario():
        async with cluster(tmp_path) as plane:
            await create(plane, make_service("pg", protocol=Protocol.TCP, edge_allowlist_cidrs=("10.0.0.0/8",)))
            await implement(plane)
            before = (plane.server.store.revision, plane.controller.queue.runs)
            await asyncio.sleep(0.3)
            assert (plane.server.store.revision, plane.controller.queue.runs) == before

    run(scenario())
