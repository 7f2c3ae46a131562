from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drtp_api.acl import Decision, Verdict
from drtp_edge.session import (
    AskAcl,
    DeadlinePassed,
    Decided,
    Finish,
    OpenFailed,
    OpenStream,
    Phase,
    ResetStream,
    ResetVisitor,
    Session,
    StreamAccepted,
    StreamEnded,
    StreamRefused,
    TunnelLost,
    VisitorLeft,
)
from drtp_protocol import Address
from drtp_protocol.errors import DialDetail, ErrorCode

ALLOWED = Decision(Verdict.ALLOW, "office")
DENIED = Decision(Verdict.DENY, "cidr/deny", "203.0.113.7 is not listed")


def test_an_admitted_visitor_is_spliced_and_recorded(playbook, session):
    book = playbook(session) << AskAcl()
    book.at(100.1) >> Decided(ALLOWED, (1, 2)) << OpenStream(1, b"")
    book.at(100.3) >> StreamAccepted() << ()
    assert session.phase is Phase.SPLICED
    book.at(105.0) >> StreamEnded(10, 20, "visitor", ErrorCode.NO_ERROR) << "served"
    record = book.record
    assert (record.bytes_in, record.bytes_out, record.rule, record.closed_by) == (10, 20, "office", "visitor")
    assert record.duration == 5.0
    assert record.accept_latency == pytest.approx(0.2)
    assert record.connection_id == bytes(range(16))


def test_a_denied_visitor_is_reset_and_no_stream_is_opened(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(DENIED, (1,)) << (ResetVisitor(ErrorCode.DENIED), "denied")
    assert book.record.rule == "cidr/deny"
    assert book.record.attempts == 0


def test_abstaining_backends_do_not_admit(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(Decision(Verdict.ABSTAIN, "none"), (1,)) << (ResetVisitor(ErrorCode.DENIED), "denied")


def test_without_a_tunnel_the_visitor_is_reset(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, ()) << (ResetVisitor(ErrorCode.REFUSED), "unreachable")


@pytest.mark.parametrize(
    "failure",
    [
        StreamRefused(ErrorCode.REFUSED, 0, b"GET /", (1, 2)),
        StreamRefused(ErrorCode.OVER_CAPACITY, 0, b"GET /", (1, 2)),
        StreamRefused(ErrorCode.DRAINING, 0, b"GET /", (1, 2)),
        StreamRefused(ErrorCode.DIAL_FAILED, DialDetail.CONNECTION_REFUSED, b"GET /", (1, 2)),
        StreamRefused(ErrorCode.DIAL_FAILED, DialDetail.TIMEOUT, b"GET /", (1, 2)),
        StreamRefused(ErrorCode.DIAL_FAILED, DialDetail.UNREACHABLE, b"GET /", (2, 1)),
        TunnelLost(b"GET /", (2,)),
        OpenFailed(b"GET /", (1, 2)),
    ],
)
def test_what_was_not_accepted_is_opened_on_the_other_tunnel_with_the_same_bytes(playbook, session, failure):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1, 2)) << OpenStream(1, b"")
    book >> failure << OpenStream(2, b"GET /")
    book >> StreamAccepted() << ()
    book >> StreamEnded(5, 5, "agent", ErrorCode.NO_ERROR) << "served"
    assert book.record.attempts == 2


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        (ErrorCode.DIAL_FAILED, DialDetail.UNKNOWN),
        (ErrorCode.DIAL_FAILED, DialDetail.DNS),
        (ErrorCode.DIAL_FAILED, DialDetail.TLS),
        (ErrorCode.DENIED, 0),
        (ErrorCode.INTERNAL, 0),
        (ErrorCode.CANCEL, 0),
        (ErrorCode.UNSUPPORTED, 0),
    ],
)
def test_a_final_answer_of_the_agent_is_not_asked_for_twice(playbook, session, code, detail):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1, 2)) << OpenStream(1, b"")
    book >> StreamRefused(code, detail, b"x", (1, 2)) << (ResetVisitor(code), "refused")


def test_a_dial_failure_with_no_second_tunnel_resets_the_visitor_with_its_code(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1,)) << OpenStream(1, b"")
    book >> StreamRefused(ErrorCode.DIAL_FAILED, 1, b"", (1,)) << (ResetVisitor(ErrorCode.DIAL_FAILED), "unreachable")
    assert book.record.code is ErrorCode.DIAL_FAILED


def test_a_tunnel_that_appeared_meanwhile_takes_the_visitor_over(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1,)) << OpenStream(1, b"")
    book >> TunnelLost(b"abc", (9,)) << OpenStream(9, b"abc")


def test_no_tunnel_is_tried_twice(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1, 2)) << OpenStream(1, b"")
    book >> StreamRefused(ErrorCode.REFUSED, 0, b"", (1, 2)) << OpenStream(2, b"")
    book >> StreamRefused(ErrorCode.REFUSED, 0, b"", (1, 2)) << (ResetVisitor(ErrorCode.REFUSED), "unreachable")


def test_bytes_that_came_behind_the_header_travel_with_the_first_open(playbook, make_session):
    book = playbook(make_session(b"hello")) << AskAcl()
    book >> Decided(ALLOWED, (1,)) << OpenStream(1, b"hello")


def test_after_accept_a_lost_tunnel_ends_the_visitor(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1, 2)) << OpenStream(1, b"")
    book >> StreamAccepted() << ()
    book >> TunnelLost(b"", (2,)) << ()
    book >> StreamEnded(1, 1, "tunnel", ErrorCode.INTERNAL) << "served"
    assert book.record.closed_by == "tunnel"


def test_the_deadline_resets_stream_and_visitor(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1, 2)) << OpenStream(1, b"")
    (
        book.at(110.0)
        >> DeadlinePassed()
        << (
            ResetStream(ErrorCode.CANCEL),
            ResetVisitor(ErrorCode.DIAL_FAILED),
            "unreachable",
        )
    )
    assert book.record.reason == "no answer in 10.0 s"


def test_the_deadline_during_the_decision_denies(playbook, session):
    book = playbook(session) << AskAcl()
    book >> DeadlinePassed() << (ResetVisitor(ErrorCode.DENIED), "unreachable")
    book >> Decided(ALLOWED, (1,)) << ()


def test_the_deadline_after_accept_is_nothing(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1,)) << OpenStream(1, b"")
    book >> StreamAccepted() << ()
    book >> DeadlinePassed() << ()


def test_a_visitor_that_leaves_early_is_recorded_and_nothing_is_retried(playbook, session):
    book = playbook(session) << AskAcl()
    book >> Decided(ALLOWED, (1, 2)) << OpenStream(1, b"")
    book >> VisitorLeft(3) << "left"
    book >> TunnelLost(b"abc", (2,)) << ()
    assert book.record.bytes_in == 3


WINDOW = 8


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_visitor_is_lost_only_without_tunnels_or_after_accept_and_bytes_arrive_once(data):
    """Random refusals, losses and arrivals of tunnels around one visitor, with a model of who got which bytes."""
    alive = set(range(data.draw(st.integers(0, 4))))
    fresh = 100
    sent = data.draw(st.binary(max_size=WINDOW))
    session = Session(bytes(16), "default/db", Address(bytes(4), 1), 0.0, sent[: data.draw(st.integers(0, len(sent)))])
    open_on: int | None = None
    delivered: dict[int, bytes] = {}
    read = len(session.early)
    accepted = False
    reset = finished = False
    refused: set[int] = set()

    def run(commands):
        nonlocal open_on, reset, finished
        for command in commands:
            match command:
                case OpenStream(tunnel, early):
                    assert open_on is None, "two opens at once"
                    assert not accepted, "opened after ACCEPT"
                    assert tunnel in alive
                    assert tunnel not in refused, "a tunnel was tried twice"
                    assert early == sent[:read], "the first bytes were not replayed exactly once"
                    assert len(early) <= WINDOW
                    open_on = tunnel
                    delivered[tunnel] = early
                case ResetStream():
                    open_on = None
                case ResetVisitor():
                    reset = True
                case Finish():
                    assert not finished, "finished twice"
                    finished = True

    def candidates():
        return tuple(sorted(alive, reverse=data.draw(st.booleans())))

    run(session.start())
    run(session.receive(Decided(ALLOWED, candidates()), now=0.0))
    for _ in range(data.draw(st.integers(0, 12))):
        if finished:
            break
        step = data.draw(st.sampled_from(["refuse", "lose", "accept", "arrive", "read", "fail", "die elsewhere"]))
        if step == "arrive":
            alive.add(fresh)
            fresh += 1
        elif step == "die elsewhere":
            alive -= {t for t in alive if t != open_on and data.draw(st.booleans())}
        elif step == "read" and open_on is not None:
            read = data.draw(st.integers(read, len(sent)))
            delivered[open_on] = sent[:read]
        elif step == "accept" and open_on is not None and not accepted:
            run(session.receive(StreamAccepted(), now=1.0))
            accepted = True
        elif open_on is not None and not accepted:
            failed, open_on = open_on, None
            refused.add(failed)
            if step == "lose":
                alive.discard(failed)
                event = TunnelLost(sent[:read], candidates())
            elif step == "fail":
                event = OpenFailed(sent[:read], candidates())
            else:
                event = StreamRefused(ErrorCode.REFUSED, 0, sent[:read], candidates())
            run(session.receive(event, now=1.0))
        elif open_on is not None and step == "lose":
            alive.discard(open_on)
            open_on = None
            run(session.receive(StreamEnded(0, 0, "tunnel", ErrorCode.INTERNAL), now=2.0))
    assert not (reset and accepted), "reset by the edge after ACCEPT"
    if reset:
        assert not alive - refused, "given up although an untried tunnel lived"
    if finished and not accepted:
        assert reset, "a visitor that was not served must see a reset"
    if accepted and open_on is not None:
        assert delivered[open_on] == sent[:read]


EVENTS = [
    Decided(ALLOWED, (1, 2)),
    Decided(DENIED, ()),
    OpenFailed(b"", (2,)),
    StreamAccepted(),
    StreamRefused(ErrorCode.REFUSED, 0, b"", (2,)),
    StreamRefused(ErrorCode.INTERNAL, 0, b"", (2,)),
    TunnelLost(b"", (2,)),
    VisitorLeft(),
    DeadlinePassed(),
    StreamEnded(0, 0, "agent", ErrorCode.NO_ERROR),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("phase", list(Phase), ids=lambda phase: phase.value)
def test_every_event_in_every_phase_is_an_answer_or_nothing_and_the_end_is_the_end(make_session, phase, event):
    session = make_session()
    session.start()
    if phase in {Phase.OPENING, Phase.SPLICED}:
        session.receive(Decided(ALLOWED, (1,)), now=100.0)
    if phase is Phase.SPLICED:
        session.receive(StreamAccepted(), now=100.0)
    if phase is Phase.CLOSED:
        session.receive(VisitorLeft(), now=100.0)
    commands = session.receive(event, now=101.0)
    opened = [c for c in commands if isinstance(c, OpenStream)]
    finished = [c for c in commands if isinstance(c, Finish)]
    assert len(opened) + len(finished) <= 1
    assert bool(finished) == (session.phase is Phase.CLOSED and phase is not Phase.CLOSED)
    if phase in {Phase.SPLICED, Phase.CLOSED}:
        assert not opened, "opened again after ACCEPT"
    if phase is Phase.CLOSED:
        assert commands == ()
