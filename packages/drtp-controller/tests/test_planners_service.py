"""What a service is promised, and what the gateway is told of it."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.gateways import Backend, Exposure, ExposureStatus
from drtp_api.kube import ENDPOINT_SLICES, HTTP_ROUTES, LISTENER_SETS, SERVICES, TCP_ROUTES, key_of
from drtp_api.resources import (
    AccessControlList,
    AccessControlListSpec,
    AclMode,
    AclRule,
    Action,
    ClientStatus,
    LocalReference,
    Metadata,
    Protocol,
    Role,
    ServerAssignment,
    ServerBinding,
    ServiceServers,
)
from drtp_controller.planners.conditions import fault_of, find, is_true
from drtp_controller.planners.connection import Applied
from drtp_controller.planners.exposures import GatewayObjects, allow_list, plan_exposures
from drtp_controller.planners.gateway import GatewayConfig, child_name, plan_gateway, plan_shared
from drtp_controller.planners.hostnames import HostnameBook
from drtp_controller.planners.ports import PortAllocator, PortState
from drtp_controller.planners.service import Front, plan_service
from drtp_controller.testing import always_free, make_connection, make_server, make_service

CONFIG = GatewayConfig(controller_name="drtp.datumapis.com/gateway-test", http_port=8880)
SERVERS = {n: make_server(n, city=c) for n, c in (("edge-a", "NYC"), ("edge-b", "AMS"))}


class World:
    """One service with its books, planned as often as a test likes."""

    def __init__(self, is_free=always_free) -> None:
        self.ports = PortAllocator(20000, 20010, is_free)
        self.names = HostnameBook("installation", "prism.test")

    def plan(self, service, connections=(), applied=None, now=1.0):
        front = Front(host="127.0.0.1", http_port=8880)
        return plan_service(
            service, connections, SERVERS, applied, ports=self.ports, names=self.names, front=front, now=now
        )


def connected(service="web", *, up=("edge-a", "edge-b"), instance="a" * 32):
    connection = make_connection(service, instance)
    roles = list(zip(Role, SERVERS, strict=False))
    bindings = tuple(
        ServerBinding(
            role=role,
            name=name,
            client_status=ClientStatus.CONNECTED if name in up else ClientStatus.DISCONNECTED,
            pod_ip="127.0.0.1",
            pod_port=50000 + i,
        )
        for i, (role, name) in enumerate(roles)
    )
    spec = attrs.evolve(connection.spec, servers=tuple(ServerAssignment(role=r, name=n) for r, n in roles))
    return attrs.evolve(connection, spec=spec, status=attrs.evolve(connection.status, servers=bindings))


def objects(service, plan, connections):
    made = plan_gateway(service, plan, connections, SERVERS, CONFIG)

    def of(resource):
        return [o for r, o in made if r == resource]

    return GatewayObjects(
        listener_sets={key_of(o): o for o in of(LISTENER_SETS)},
        http_routes=of(HTTP_ROUTES),
        tcp_routes=of(TCP_ROUTES),
        slices=of(ENDPOINT_SLICES),
        services={f"default/{service.metadata.name}": service},
        connections={f"default/{service.metadata.name}": connections},
        servers=SERVERS,
    )


def test_an_http_service_gets_a_name_a_url_and_an_address_that_can_be_dialled():
    status = World().plan(make_service()).status
    assert status.canonical_hostname is not None
    assert status.canonical_hostname.endswith(".prism.test")
    assert status.url == f"http://{status.canonical_hostname}:8880/"
    assert [(a.host, a.port) for a in status.addresses] == [("127.0.0.1", 8880)]
    assert status.external_port is None


def test_a_tcp_service_gets_the_port_it_asked_for():
    status = World().plan(make_service("pg", protocol=Protocol.TCP, port=54321)).status
    assert (status.external_port, status.url) == (54321, "tcp://127.0.0.1:54321")


def test_a_private_service_has_no_address_but_keeps_its_port_for_later():
    world = World()
    public = make_service("pg", protocol=Protocol.TCP)
    port = world.plan(public).status.external_port
    private = attrs.evolve(make_service("pg", protocol=Protocol.TCP, public=False), status=world.plan(public).status)
    plan = world.plan(private)
    assert plan.status.addresses == ()
    assert not plan.exposed
    again = attrs.evolve(public, status=plan.status)
    assert world.plan(again).status.external_port == port


def test_a_port_that_is_taken_is_a_fault_with_its_code_and_no_address():
    world = World(lambda protocol, port: PortState.TAKEN)
    plan = world.plan(make_service("pg", protocol=Protocol.TCP, port=54321))
    accepted = find(plan.status.conditions, "Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "PortTaken")
    fault = fault_of(plan.status.conditions)
    assert fault is not None
    assert fault.code == "DRTP-2011"
    assert plan.status.addresses == ()
    assert not plan.exposed


def test_a_host_name_of_another_service_is_a_fault():
    world = World()
    world.plan(make_service("first", hostnames=("shop.test",)))
    fault = fault_of(world.plan(make_service("second", hostnames=("shop.test",))).status.conditions)
    assert fault is not None
    assert fault.code == "DRTP-2013"


def test_the_requested_host_name_comes_first_in_the_url():
    plan = World().plan(make_service(hostnames=("shop.test",)))
    assert plan.status.url == "http://shop.test:8880/"
    assert plan.hostnames == ("shop.test", plan.status.canonical_hostname)


def applied(plan, protocol=Protocol.HTTP, **status):
    exposure = Exposure(service="default/web", protocol=protocol, port=plan.port, hostnames=plan.hostnames)
    return Applied(exposure, ExposureStatus(**({"programmed": True} | status)))


def test_a_service_is_ready_when_it_is_programmed_and_an_agent_is_there():
    world, service = World(), make_service()
    plan = world.plan(service)
    status = world.plan(service, [connected()], applied(plan)).status
    assert is_true(status.conditions, "Programmed")
    assert is_true(status.conditions, "Ready")
    alone = world.plan(service, [], applied(plan)).status
    assert is_true(alone.conditions, "Programmed")
    assert not is_true(alone.conditions, "Ready")


def test_the_gateways_word_for_an_earlier_wish_does_not_count():
    world = World()
    old = applied(world.plan(make_service()))
    status = world.plan(make_service(hostnames=("shop.test",)), [connected()], old).status
    found = find(status.conditions, "Programmed")
    assert found is not None
    assert (found.status, found.reason) == ("False", "Pending")


def test_a_requested_port_that_the_gateway_cannot_bind_is_the_users_to_change():
    world, service = World(), make_service("pg", protocol=Protocol.TCP, port=54321)
    refused = applied(world.plan(service), Protocol.TCP, programmed=False, code="DRTP-5003", message="in use")
    fault = fault_of(world.plan(service, (), refused).status.conditions)
    assert fault is not None
    assert fault.code == "DRTP-2011"
    denied = applied(world.plan(service), Protocol.TCP, programmed=False, code="DRTP-5003", message="Permission denied")
    fault = fault_of(world.plan(service, (), denied).status.conditions)
    assert fault is not None
    assert fault.code == "DRTP-2012"


@given(
    protocol=st.sampled_from(Protocol), public=st.booleans(), port=st.sampled_from([0, 20003, 99]), up=st.booleans(),
    confirmed=st.booleans(), hostnames=st.sampled_from([(), ("shop.test",)]),
)  # fmt: skip
def test_planning_a_service_twice_changes_nothing(protocol, public, port, up, confirmed, hostnames):
    world = World(lambda protocol, port: PortState.FREE if port > 1000 else PortState.FORBIDDEN)
    service = make_service(protocol=protocol, public=public, port=port, hostnames=hostnames)
    connections = [connected()] if up else []
    word = applied(world.plan(service), protocol) if confirmed else None
    once = world.plan(service, connections, word, now=5.0)
    again = world.plan(attrs.evolve(service, status=once.status), connections, word, now=99.0)
    assert again == once


def test_an_http_service_becomes_one_exposure_with_a_backend_per_connected_edge():
    service, connections = make_service(), [connected(up=("edge-a",))]
    plan = World().plan(service)
    (exposure,) = plan_exposures(objects(service, plan, connections))
    assert exposure == Exposure(
        service="default/web",
        protocol=Protocol.HTTP,
        port=None,
        hostnames=plan.hostnames,
        backends=(
            Backend(address="127.0.0.1", port=50000),
            Backend(address="127.0.0.1", port=50001, ready=False),
        ),
    )


def test_a_tcp_service_listens_on_its_port_also_without_an_agent():
    service = make_service("pg", protocol=Protocol.TCP, port=54321)
    (exposure,) = plan_exposures(objects(service, World().plan(service), []))
    assert (exposure.port, exposure.backends) == (54321, ())


def test_a_private_service_has_no_gateway_objects():
    service = make_service(public=False)
    assert plan_gateway(service, World().plan(service), [connected()], SERVERS, CONFIG) == ()


def test_with_standby_only_the_first_connected_role_is_ready():
    service = make_service(servers=ServiceServers(standby=True))
    plan = World().plan(service)
    for up, ready in ((("edge-a", "edge-b"), [True, False]), (("edge-b",), [False, True])):
        (exposure,) = plan_exposures(objects(service, plan, [connected(up=up)]))
        assert [b.ready for b in exposure.backends] == ready


def test_two_agents_on_one_edge_share_its_slice_and_one_of_them_is_enough():
    service = make_service()
    connections = [connected(up=()), connected(instance="b" * 32)]
    (exposure,) = plan_exposures(objects(service, World().plan(service), connections))
    assert [(b.port, b.ready) for b in exposure.backends] == [(50000, True), (50001, True)]


def test_children_are_owned_by_the_service_and_named_after_it():
    service = make_service("my.shop")
    made = plan_gateway(service, World().plan(service), [connected()], SERVERS, CONFIG)
    assert {r for r, _ in made} == {SERVICES, ENDPOINT_SLICES, HTTP_ROUTES}
    for _, obj in made:
        (owner,) = obj["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("DRTPService", "uid-my.shop")
        assert "." not in obj["metadata"]["name"]


def test_long_names_become_labels_and_stay_apart():
    long = "a" * 80
    assert len(child_name(long)) <= 63
    assert child_name(long) != child_name(long + "b")
    assert child_name("a.b") != child_name("a-b")


def test_the_shared_gateway_admits_listeners_of_every_namespace():
    (_, klass), (_, gateway) = plan_shared(CONFIG)
    assert klass["metadata"]["name"] == gateway["spec"]["gatewayClassName"] == "datum-external-global-proxy"
    assert gateway["spec"]["allowedListeners"] == {"namespaces": {"from": "All"}}


def acl(name="list", *, rules=(), mode=AclMode.ENFORCE, default=Action.DENY):
    spec = AccessControlListSpec(mode=mode, default_action=default, rules=rules)
    return AccessControlList(metadata=Metadata(name=name, namespace="default"), spec=spec)


def rule(*cidrs, action=Action.ALLOW):
    return AclRule(name="r", action=action, client_cidrs=cidrs)


def test_the_allow_list_is_what_every_list_admits():
    service = make_service(edge_allowlist_cidrs=("10.0.0.0/8",), acl_ref=LocalReference(name="list"))
    assert allow_list(make_service(), []) is None
    assert allow_list(service, []) == ("10.0.0.0/8",)
    both = [acl(rules=(rule("10.1.0.0/16", "192.0.2.0/24"),))]
    assert allow_list(service, both) == ("10.1.0.0/16",)
    assert allow_list(service, [acl(rules=(rule("192.0.2.0/24"),))]) == ()


def test_what_prefixes_cannot_say_is_left_to_the_edge():
    service = make_service(acl_ref=LocalReference(name="list"))
    for found in (
        acl(rules=(rule("10.0.0.0/8", action=Action.DENY),)),
        acl(rules=(rule("10.0.0.0/8"),), default=Action.ALLOW),
        acl(rules=(rule("10.0.0.0/8"),), mode=AclMode.OBSERVE),
        acl("another", rules=(rule("10.0.0.0/8"),)),
    ):
        assert allow_list(service, [found]) is None


def test_the_address_that_an_edge_owns_itself_reaches_the_direct_gateway():
    connection = connected()
    owned = tuple(
        attrs.evolve(b, public_address="198.51.100.7:54321" if b.name == "edge-b" else None)
        for b in connection.status.servers
    )
    connection = attrs.evolve(connection, status=attrs.evolve(connection.status, servers=owned))
    service = make_service()
    (exposure,) = plan_exposures(objects(service, World().plan(service), [connection]))
    assert exposure.public_address == "198.51.100.7:54321"
