"""Servers are as alive as their heartbeats, and get agents only while they want them."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.resources import Condition, ServerStatus
from drtp_controller.planners.conditions import find
from drtp_controller.planners.servers import LeaseBook, has_room, is_online, plan_server
from drtp_controller.testing import make_server


def ready(status: ServerStatus) -> Condition:
    found = find(status.conditions, "Ready")
    assert found is not None
    return found


def test_a_server_whose_lease_expired_is_not_ready_and_has_no_health():
    status = plan_server(make_server(), alive=False, now=100.0)
    assert (ready(status).status, ready(status).reason, status.health) == ("False", "AgentOffline", 0)


def test_a_server_that_heartbeats_again_is_ready_again():
    offline = attrs.evolve(make_server(), status=plan_server(make_server(), alive=False, now=100.0))
    status = plan_server(offline, alive=True, now=200.0)
    assert (ready(status).status, status.health) == ("True", 100)
    assert ready(status).last_transition_time == "1970-01-01T00:03:20Z"


def test_a_draining_server_keeps_its_tunnels_and_takes_no_new_ones():
    draining = make_server(unschedulable=True)
    planned = attrs.evolve(draining, status=plan_server(draining, alive=True, now=1.0))
    assert ready(planned.status).reason == "Draining"
    assert is_online(planned)
    assert not has_room(planned)


def test_health_that_the_edge_reports_itself_is_left_alone():
    server = make_server()
    tired = attrs.evolve(server, status=attrs.evolve(server.status, health=40))
    assert plan_server(tired, alive=True, now=1.0).health == 40


@given(
    alive=st.booleans(),
    online=st.booleans(),
    unschedulable=st.booleans(),
    first=st.floats(0, 1e9),
    later=st.floats(0, 1e9),
)
def test_planning_a_server_twice_changes_nothing(alive, online, unschedulable, first, later):
    server = make_server(online=online, unschedulable=unschedulable)
    once = plan_server(server, alive=alive, now=first)
    again = plan_server(attrs.evolve(server, status=once), alive=alive, now=first + later)
    assert again == once


def test_the_first_sight_of_a_lease_trusts_its_time_and_later_ones_trust_our_clock():
    book = LeaseBook()
    book.observe("edge", renew_time=1000.0, duration=30.0, now=5000.0)
    assert not book.alive("edge", 5000.0)
    # the edge's clock is more than an hour behind ours, but it does renew
    book.observe("edge", renew_time=1010.0, duration=30.0, now=5010.0)
    assert book.alive("edge", 5039.0)
    assert not book.alive("edge", 5040.0)


def test_a_lease_from_the_future_does_not_live_longer_than_its_duration():
    book = LeaseBook()
    book.observe("edge", renew_time=9000.0, duration=30.0, now=5000.0)
    assert not book.alive("edge", 5031.0)


def test_seeing_the_same_lease_again_is_no_heartbeat():
    book = LeaseBook()
    book.observe("edge", 1000.0, 30.0, now=1000.0)
    book.observe("edge", 1000.0, 30.0, now=1029.0)
    assert not book.alive("edge", 1031.0)
    assert book.next_expiry(1031.0) == (float("inf"), ("edge",))


def test_a_lease_that_is_deleted_ends_the_server_at_once():
    book = LeaseBook()
    book.observe("edge", 1000.0, 30.0, now=1000.0)
    book.forget("edge")
    assert not book.alive("edge", 1000.0)


def test_a_clock_that_is_wrong_is_told_once_it_is_known_and_without_a_changing_number():
    book = LeaseBook()
    book.observe("edge", 1000.0, 30.0, 1000.0)
    assert book.skewed("edge") is None  # the first sight may be of an old lease
    book.observe("edge", 1101.0, 30.0, 1010.0)
    assert book.skewed("edge") is True
    status = plan_server(make_server("edge"), alive=True, skewed=True, now=1010.0)
    clock = find(status.conditions, "ClockInSync")
    assert (clock.status, clock.reason, clock.message[:9]) == ("False", "ClockSkewed", "DRTP-2004")
    book.observe("edge", 1121.0, 30.0, 1021.0)
    again = attrs.evolve(make_server("edge"), status=status)
    assert plan_server(again, alive=True, skewed=book.skewed("edge"), now=1021.0) == status
    book.observe("edge", 1031.0, 30.0, 1031.0)
    assert book.skewed("edge") is False
    healed = plan_server(again, alive=True, skewed=False, now=1031.0)
    assert find(healed.conditions, "ClockInSync").status == "True"
