"""What is told as Events: differences only, counted, bounded, and visible to kubectl describe."""

from __future__ import annotations

import asyncio
import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.errors import DrtpError
from drtp_api.kube import DRTP_SERVICES, EVENTS, LEASES
from drtp_api.registration import RegisterRequest, ServiceName
from drtp_api.resources import ClientStatus, Condition, Protocol, Role, ServerBinding
from drtp_api.wire import object_to_wire
from drtp_controller.planners.events import (
    BURST,
    EventBook,
    Happening,
    Subject,
    connection_events,
    server_events,
    service_events,
)
from drtp_controller.testing import control_plane, make_connection, make_server, make_service

SUBJECT = Subject("DRTPService", "web", "default", "uid-web")


def reasons(happenings):
    return [h.reason for h in happenings]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def with_conditions(service, *conditions, **status):
    return attrs.evolve(service, status=attrs.evolve(service.status, conditions=conditions, **status))


def test_a_server_is_told_of_when_it_comes_drains_and_goes():
    up, down = make_server(), make_server(online=False)
    draining = attrs.evolve(
        up,
        status=attrs.evolve(up.status, conditions=(Condition(type="Ready", status="False", reason="Draining"),)),
    )
    assert reasons(server_events(None, up)) == ["ServerReady"]
    assert reasons(server_events(up, up)) == []
    assert reasons(server_events(up, draining)) == ["ServerDraining"]
    assert reasons(server_events(draining, up)) == ["ServerReady"]
    assert reasons(server_events(draining, down)) == ["ServerLost"]
    assert reasons(server_events(None, down)) == []


def test_a_conflict_is_told_once_and_again_only_when_it_is_another():
    taken = Condition(type="Accepted", status="False", reason="PortTaken", message="DRTP-2011 held by a")
    other = attrs.evolve(taken, message="DRTP-2011 held by b")
    name = attrs.evolve(taken, reason="HostnameTaken", message="DRTP-2013 x")
    plain = make_service()
    first = with_conditions(plain, taken)
    assert reasons(service_events(plain, first)) == ["PortConflict"]
    assert reasons(service_events(first, first)) == []
    assert reasons(service_events(first, with_conditions(plain, other))) == ["PortConflict"]
    assert reasons(service_events(first, with_conditions(plain, name))) == ["HostnameConflict"]


def test_a_tunnel_that_comes_and_goes_is_told_with_its_server():
    plain = make_connection()

    def at(status):
        binding = ServerBinding(role=Role.PRIMARY, name="edge-a", client_status=status)
        return attrs.evolve(plain, status=attrs.evolve(plain.status, servers=(binding,)))

    up, down = at(ClientStatus.CONNECTED), at(ClientStatus.DISCONNECTED)
    assert [(h.reason, h.message) for h in connection_events(plain, up)] == [
        ("ConnectionConnected", "the tunnel to edge-a is up")
    ]
    assert reasons(connection_events(up, down)) == ["ConnectionLost"]
    assert reasons(connection_events(down, down)) == []
    # one that moved to another server is told as an assignment, not as a loss
    assert reasons(connection_events(up, plain)) == []


@given(st.lists(st.sampled_from("abc"), max_size=60))
def test_the_book_counts_every_admitted_repetition_and_writes_each_event_once(messages):
    book, admitted = EventBook(), {}
    for index, message in enumerate(messages):
        if book.record(Happening(SUBJECT, "Reason", message), float(index)):
            admitted[message] = admitted.get(message, 0) + 1
    written = {}
    while (work := book.next_write()) is not None:
        assert work[0]["message"] not in written
        written[work[0]["message"]] = work[0]["count"]
    assert written == admitted
    assert sum(admitted.values()) + book.dropped == len(messages)
    assert book.next_write() is None


def test_a_noisy_reason_is_silenced_without_silencing_the_others():
    book = EventBook()
    noise = [book.record(Happening(SUBJECT, "AgentRefused", f"{n}"), 0.0) for n in range(BURST + 5)]
    assert noise.count(True) == BURST
    assert book.record(Happening(SUBJECT, "ServiceProgrammed", "x"), 0.0)
    assert book.record(Happening(SUBJECT, "AgentRefused", "later"), 61.0)


def test_an_old_event_is_given_up_and_a_waiting_one_is_not():
    book = EventBook()
    book.record(Happening(SUBJECT, "A", "x"), 0.0)
    assert book.expired(4000.0, 3600.0) == []
    book.next_write()
    ((namespace, name),) = book.expired(4000.0, 3600.0)
    assert (namespace, name.startswith("web.")) == ("default", True)
    assert book.expired(4000.0, 3600.0) == []


async def told(plane, kind=""):
    await plane.settle()
    items = (await plane.kube.list(EVENTS)).items
    return [e for e in items if kind in {"", e["involvedObject"]["kind"]}]


@contextlib.asynccontextmanager
async def served(directory):
    """A control plane with one edge, one public TCP service and its agent's tunnel."""
    async with control_plane(directory) as plane:
        await plane.edge("edge-a", "NYC")
        wire = object_to_wire(make_service("pg", protocol=Protocol.TCP, port=20777))
        wire["metadata"].pop("uid")
        await plane.kube.create(DRTP_SERVICES, wire, "default")
        request = RegisterRequest(
            service=ServiceName(name="pg"), instance_id="a" * 32, epoch=1, public_key="A" * 43, version="1"
        )
        stored = await plane.kube.get(DRTP_SERVICES, "pg", "default")
        await plane.settle()
        yield plane, request, stored


def test_the_life_of_a_service_is_told_and_silence_follows(tmp_path):
    async def scenario():
        async with served(tmp_path) as (plane, _, stored):
            events = await told(plane)
            found = {(e["involvedObject"]["kind"], e["reason"]) for e in events}
            assert {("DRTPServer", "ServerReady"), ("DRTPService", "PortVended")} <= found
            assert ("DRTPService", "ServiceProgrammed") in found
            about = next(e for e in events if e["reason"] == "PortVended")
            assert about["involvedObject"]["uid"] == stored["metadata"]["uid"]
            assert about["message"] == "public TCP port 20777"
            revision = plane.server.store.revision
            await asyncio.sleep(0.1)
            assert plane.server.store.revision == revision
            await plane.kube.delete(LEASES, "edge-a", "drtp-system")
            lost = [e for e in await told(plane, "DRTPServer") if e["reason"] == "ServerLost"]
            assert [e["type"] for e in lost] == ["Warning"]

    run(scenario())


def test_a_restarted_controller_tells_nothing_and_goes_on_counting(tmp_path):
    async def scenario():
        happening = Happening(SUBJECT, "AgentRefused", "same")
        async with control_plane(tmp_path) as plane:
            plane.controller.recorder.record([happening, happening])
            assert len(await told(plane)) == 1
        async with control_plane(tmp_path) as plane:
            (event,) = await told(plane)
            assert event["count"] == 2
            plane.controller.recorder.record([happening])
            (event,) = await told(plane)
            assert event["count"] == 3

    run(scenario())


def test_a_refused_agent_is_told_to_the_owner_of_the_service(tmp_path):
    async def scenario():
        async with served(tmp_path) as (plane, request, _):
            with pytest.raises(DrtpError, match="DRTP-2005"):
                await plane.registrar.register(
                    attrs.evolve(request, public_key="A" * 43, secret="wrong"), wan_ip="198.51.100.7", identity=None
                )
            refused = [e for e in await told(plane, "DRTPService") if e["reason"] == "AgentRefused"]
            assert "198.51.100.7" in refused[0]["message"]

    run(scenario())
