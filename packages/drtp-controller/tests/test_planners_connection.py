"""Who carries an agent: sticky, spread over cities, and never decided by a server that is not there."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.gateways import Backend, Exposure, ExposureStatus
from drtp_api.pickers import Place, city_of
from drtp_api.resources import (
    ClientStatus,
    Protocol,
    Role,
    ServerAssignment,
    ServerBinding,
)
from drtp_controller.planners.conditions import find, is_true
from drtp_controller.planners.connection import Applied, assign_servers, is_live, plan_connection
from drtp_controller.planners.servers import has_room, is_online
from drtp_controller.testing import ByName, make_connection, make_server, make_service

CITIES = ("NYC", "AMS", "SIN")
PLACE = Place()

servers_strategy = st.lists(
    st.tuples(st.sampled_from(CITIES), st.booleans(), st.booleans(), st.sampled_from((0, 10_000))), max_size=6
).map(
    lambda rows: {
        f"edge-{i}": make_server(f"edge-{i}", city=c, online=o, unschedulable=u, connections=n)
        for i, (c, o, u, n) in enumerate(rows)
    }
)


def named(*servers):
    return {s.metadata.name: s for s in servers}


def assigned(*names):
    return tuple(ServerAssignment(role=r, name=n) for r, n in zip(Role, names, strict=False))


@given(servers=servers_strategy, count=st.integers(1, 3), present=st.lists(st.integers(0, 7), max_size=3, unique=True))
def test_assigning_twice_changes_nothing_and_roles_are_distinct(servers, count, present):
    current = assigned(*(f"edge-{i}" for i in present))
    once = assign_servers(current, servers, ByName(), PLACE, count=count)
    assert assign_servers(once, servers, ByName(), PLACE, count=count) == once
    assert len({a.name for a in once}) == len(once) <= count
    assert [a.role for a in once] == list(Role)[: len(once)]


@given(
    servers=servers_strategy,
    count=st.integers(1, 3),
    present=st.lists(st.integers(0, 5), max_size=3, unique=True),
    up=st.frozensets(st.integers(0, 5).map(lambda i: f"edge-{i}")),
)
def test_a_draining_servers_tunnel_is_left_only_when_every_other_place_has_one(servers, count, present, up):
    current = assigned(*(f"edge-{i}" for i in present))
    once = assign_servers(current, servers, ByName(), PLACE, count=count, connected=up)
    assert assign_servers(once, servers, ByName(), PLACE, count=count, connected=up) == once
    assert len(once) <= 3
    settled = assign_servers(once, servers, ByName(), PLACE, count=count, connected=frozenset(servers))
    assert len(settled) <= count
    extra = {a.name for a in once[count:]}
    assert all(servers[n].spec.unschedulable and n in up for n in extra)
    # whoever has a place for good keeps it when the extra one goes
    assert [a.name for a in settled] == [a.name for a in once[:count]]


def test_a_drained_server_is_replaced_before_it_is_left():
    servers = named(make_server("a", unschedulable=True), make_server("b", city="AMS"), make_server("c", city="SIN"))
    before = assigned("a", "b")
    making = assign_servers(before, servers, ByName(), PLACE, count=2, connected=frozenset("ab"))
    assert making == assigned("b", "c", "a")
    assert assign_servers(making, servers, ByName(), PLACE, count=2, connected=frozenset("abc")) == assigned("b", "c")
    # a drained server that nobody can replace stays
    alone = named(servers["a"], servers["b"])
    assert assign_servers(before, alone, ByName(), PLACE, count=2, connected=frozenset("ab")) == assigned("b", "a")


@given(servers=servers_strategy, count=st.integers(1, 3))
def test_new_agents_get_servers_with_room_only_and_as_many_as_there_are(servers, count):
    chosen = assign_servers((), servers, ByName(), PLACE, count=count)
    room = [s for s in servers.values() if has_room(s)]
    assert all(has_room(servers[a.name]) for a in chosen)
    assert len(chosen) == min(count, len(room))
    assert len({city_of(servers[a.name]) for a in chosen}) == min(len(chosen), len({city_of(s) for s in room}))


@given(servers=servers_strategy, count=st.integers(1, 3), present=st.lists(st.integers(0, 5), max_size=3, unique=True))
def test_a_server_that_works_is_never_taken_away_from_its_agent(servers, count, present):
    current = assigned(*(f"edge-{i}" for i in present))
    good = [
        a.name
        for a in current
        if a.name in servers and is_online(servers[a.name]) and not servers[a.name].spec.unschedulable
    ]
    chosen = {a.name for a in assign_servers(current, servers, ByName(), PLACE, count=count)}
    assert set(good[:count]) <= chosen


def test_the_second_server_stands_in_another_city():
    servers = named(make_server("a", city="NYC"), make_server("b", city="NYC"), make_server("c", city="AMS"))
    assert [a.name for a in assign_servers((), servers, ByName(), PLACE, count=2)] == ["a", "c"]


def test_when_the_primary_is_lost_the_survivor_takes_its_role_and_a_new_one_follows():
    servers = named(make_server("a", online=False), make_server("b"), make_server("c", city="AMS"))
    chosen = assign_servers(assigned("a", "b"), servers, ByName(), PLACE, count=2)
    assert chosen == assigned("b", "c")


def test_an_offline_server_is_kept_while_no_other_is_free():
    servers = named(make_server("a"), make_server("b", online=False))
    assert assign_servers(assigned("a", "b"), servers, ByName(), PLACE, count=2) == assigned("a", "b")


def test_a_draining_server_is_replaced_where_another_is_free():
    servers = named(make_server("a", unschedulable=True), make_server("b"), make_server("c"))
    assert assign_servers(assigned("a", "b"), servers, ByName(), PLACE, count=2) == assigned("b", "c")


def connected(*names, port=50000):
    connection = make_connection()
    bindings = tuple(
        ServerBinding(role=r, name=n, client_status=ClientStatus.CONNECTED, pod_ip="127.0.0.1", pod_port=port + i)
        for i, (r, n) in enumerate(zip(Role, names, strict=False))
    )
    return attrs.evolve(
        connection,
        spec=attrs.evolve(connection.spec, servers=assigned(*names)),
        status=attrs.evolve(connection.status, servers=bindings),
    )


def applied(*ports, programmed=True, code=None):
    backends = tuple(Backend(address="127.0.0.1", port=p) for p in ports)
    exposure = Exposure(service="default/web", protocol=Protocol.HTTP, port=None, backends=backends)
    return Applied(exposure, ExposureStatus(programmed=programmed, code=code, message="why", reason="GatewayFailed"))


def test_a_connection_is_ready_when_the_gateway_sends_visitors_to_one_of_its_tunnels():
    servers = named(make_server("a"), make_server("b"))
    status = plan_connection(connected("a", "b"), make_service(), servers, applied(50000), now=1.0)
    assert all(
        is_true(status.conditions, k) for k in ("Accepted", "ServersAssigned", "Programmed", "Connected", "Ready")
    )
    assert [b.programming_status.value for b in status.servers] == ["Programmed", "Init"]


def test_a_gateway_that_sends_visitors_elsewhere_does_not_make_a_connection_ready():
    status = plan_connection(connected("a"), make_service(), named(make_server("a")), applied(60000), now=1.0)
    assert not is_true(status.conditions, "Programmed")
    assert not is_true(status.conditions, "Ready")


def test_connected_is_not_believed_of_a_server_that_is_offline_and_not_rewritten_either():
    servers = named(make_server("a", online=False))
    status = plan_connection(connected("a"), make_service(), servers, applied(50000), now=1.0)
    found = find(status.conditions, "Connected")
    assert found is not None
    assert (found.status, found.reason) == ("False", "AgentOffline")
    assert status.servers[0].client_status is ClientStatus.CONNECTED


def test_a_private_service_is_ready_without_a_gateway():
    status = plan_connection(connected("a"), make_service(public=False), named(make_server("a")), None, now=1.0)
    assert is_true(status.conditions, "Ready")
    assert not is_true(status.conditions, "Programmed")


def test_a_gateway_fault_is_told_with_its_code():
    fault = applied(50000, programmed=False, code="DRTP-5004")
    status = plan_connection(connected("a"), make_service(), named(make_server("a")), fault, now=1.0)
    found = find(status.conditions, "Programmed")
    assert found is not None
    assert found.message.startswith("DRTP-5004 why. ")
    assert status.servers[0].programming_status.value == "Failed"


def test_bindings_follow_their_server_when_roles_change():
    connection = connected("a", "b")
    swapped = attrs.evolve(connection, spec=attrs.evolve(connection.spec, servers=assigned("b", "c")))
    status = plan_connection(swapped, make_service(), named(make_server("b"), make_server("c")), None, now=1.0)
    assert [(b.role, b.name, b.pod_port) for b in status.servers] == [
        (Role.PRIMARY, "b", 50001),
        (Role.SECONDARY, "c", None),
    ]


@given(
    servers=servers_strategy, public=st.booleans(), ports=st.lists(st.integers(50000, 50003)), programmed=st.booleans(),
    names=st.lists(st.sampled_from([f"edge-{i}" for i in range(4)]), unique=True, max_size=3), there=st.booleans(),
)  # fmt: skip
def test_planning_a_connection_twice_changes_nothing(servers, public, ports, programmed, names, there):
    service = make_service(public=public) if there else None
    connection, gateway = connected(*names), applied(*ports, programmed=programmed)
    once = plan_connection(connection, service, servers, gateway, now=5.0)
    again = plan_connection(attrs.evolve(connection, status=once), service, servers, gateway, now=99.0)
    assert again == once
    assert all(c.observed_generation == 1 for c in once.conditions)


def test_an_agent_that_has_just_registered_counts_as_live_until_its_tunnels_fail():
    fresh = make_connection()
    assert is_live(fresh, {}, registered_at=100.0, now=105.0)
    assert not is_live(fresh, {}, registered_at=100.0, now=111.0)
    down = ServerBinding(role=Role.PRIMARY, name="a", client_status=ClientStatus.DISCONNECTED)
    failed = attrs.evolve(fresh, status=attrs.evolve(fresh.status, servers=(down,)))
    assert not is_live(failed, {}, registered_at=100.0, now=101.0)
