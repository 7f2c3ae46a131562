from __future__ import annotations

from drtp_edge.policy import Admission
from drtp_edge.roster import Entered, Roster, TooOld

A, B = b"a" * 16, b"b" * 16


def admission(instance=A, epoch=1, services=("default/web",)):
    return Admission(services=services, connection="default/web-1", instance=instance, epoch=epoch, lease=0.0)


def test_a_newer_epoch_supersedes_the_older_at_once():
    roster = Roster()
    roster.enter(1, admission(epoch=5), 0.0)
    assert roster.enter(2, admission(epoch=6), 1.0) == Entered((1,), ())
    assert roster.candidates("default/web") == (2,)


def test_an_older_epoch_is_turned_away_even_after_the_newer_one_left():
    roster = Roster()
    roster.enter(1, admission(epoch=6), 0.0)
    assert roster.enter(2, admission(epoch=5), 1.0) == TooOld(6)
    roster.leave(1)
    assert roster.enter(3, admission(epoch=5), 2.0) == TooOld(6)
    assert roster.candidates("default/web") == ()


def test_the_same_process_may_come_back_and_replaces_its_old_tunnel():
    roster = Roster()
    roster.enter(1, admission(epoch=5), 0.0)
    assert roster.enter(2, admission(epoch=5), 1.0) == Entered((), (1,))
    assert roster.candidates("default/web") == (2,)


def test_another_instance_stands_beside_and_they_take_turns():
    roster = Roster()
    roster.enter(1, admission(), 0.0)
    assert roster.enter(2, admission(instance=B), 0.0) == Entered((), ())
    firsts = {roster.candidates("default/web")[0] for _ in range(4)}
    assert firsts == {1, 2}


def test_an_instance_that_serves_another_service_supersedes_nothing():
    roster = Roster()
    roster.enter(1, admission(epoch=1), 0.0)
    assert roster.enter(2, admission(epoch=2, services=("default/db",)), 0.0) == Entered((), ())


def test_a_draining_tunnel_gets_no_visitors_and_the_last_one_takes_the_service_away():
    roster = Roster()
    roster.enter(1, admission(), 0.0)
    assert roster.services() == ("default/web",)
    roster.drain(1)
    assert roster.services() == ()
    assert 1 in roster
    roster.leave(1)
    assert len(roster) == 0


def test_what_is_asked_for_by_service_and_connection_follows_every_change():
    roster = Roster()
    roster.enter(1, admission(services=("default/web", "default/db")), 0.0)
    roster.enter(2, admission(instance=B), 0.0)
    assert {e.id for e in roster.of_service("default/web")} == {1, 2}
    assert {e.id for e in roster.of_connection("default/web-1")} == {1, 2}
    roster.drain(1)
    assert not roster.serves("default/db")
    assert {e.id for e in roster.of_service("default/db")} == {1}
    roster.leave(1)
    roster.leave(2)
    roster.leave(2)
    assert roster.of_service("default/web") == roster.of_connection("default/web-1") == ()
    assert roster.connections() == roster.services() == ()


def test_a_tunnel_for_more_services_supersedes_one_for_fewer():
    roster = Roster()
    roster.enter(1, admission(epoch=1, services=("default/web", "default/db")), 0.0)
    assert roster.enter(2, admission(epoch=2, services=("default/db",)), 0.0) == Entered((1,), ())
    assert roster.candidates("default/web") == ()
    assert roster.candidates("default/db") == (2,)
