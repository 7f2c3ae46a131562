"""The supervisor, told as transcripts: what happened, and what it commanded."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drtp_agent.decisions import (
    Abort,
    Connected,
    Degraded,
    Dial,
    Drain,
    Fault,
    Finish,
    GoingAway,
    Ping,
    ReadyAnnounced,
    Recovered,
    Register,
    Registered,
    RegistrationFailed,
    RenewGrants,
    Started,
    StopRequested,
    TunnelDown,
    TunnelUp,
)
from drtp_agent.supervisor import Supervisor
from drtp_protocol import ErrorCode

UNREACHABLE = RegistrationFailed("DRTP-2002", "no answer", "check", retryable=True)


def brain(cached=(), random=lambda: 0.5):
    return Supervisor(now=0.0, awake=0.0, random=random, cached=cached)


def served(*, random=lambda: 0.5):
    """A brain with tunnels 1 and 2 up to a and b, announced as ready, at time 0."""
    supervisor = brain(random=random)
    assert supervisor.handle(Started(), now=0) == [Register()]
    assert supervisor.handle(Registered(("a", "b"), 3600), now=0) == [Dial(1, "a"), Dial(2, "b")]
    assert supervisor.handle(TunnelUp(1), now=0) == [Connected("a", 1)]
    assert supervisor.handle(TunnelUp(2), now=0) == [Connected("b", 2)]
    assert supervisor.handle(ReadyAnnounced(), now=0) == []
    return supervisor


def run_until(supervisor, end, *, offset=0.0):
    """Let time pass as a shell would, and return what was commanded on the way."""
    commands = []
    while (at := supervisor.next_timeout()) is not None and at <= end:
        commands += supervisor.handle_timeout(now=at, awake=at + offset)
    return commands


def test_every_assigned_server_is_connected():
    assert served().connected == ("a", "b")


def test_a_lost_tunnel_is_redialled_within_the_jitter_and_the_user_hears_of_both():
    supervisor = served()
    assert supervisor.handle(TunnelDown(1, ErrorCode.IDLE_TIMEOUT), now=100) == [Degraded(("a",))]
    assert supervisor.connected == ("b",)
    assert run_until(supervisor, 100.24) == []
    assert run_until(supervisor, 100.26) == [Dial(3, "a")]
    assert supervisor.handle(TunnelUp(3), now=100.3) == [Connected("a", 3), Recovered()]


def test_the_order_of_preference_survives_a_reconnect():
    supervisor = served()
    supervisor.handle(TunnelDown(1), now=100)
    run_until(supervisor, 101)
    supervisor.handle(TunnelUp(3), now=101)
    assert supervisor.connected == ("a", "b")


def test_back_off_doubles_up_to_its_bound_and_a_stable_tunnel_resets_it():
    supervisor = served(random=lambda: 1.0)
    now, tunnel, delays = 0.0, 1, []
    for _ in range(9):
        supervisor.handle(TunnelDown(tunnel), now=now)
        dials = []
        while not dials:
            at = supervisor.next_timeout()
            dials = [c for c in supervisor.handle_timeout(now=at, awake=at) if isinstance(c, Dial)]
        delays.append(round(at - now, 6))
        now, tunnel = at, dials[0].tunnel
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    supervisor.handle(TunnelUp(tunnel), now=now)
    supervisor.handle(TunnelDown(tunnel), now=now + 10)
    commands = run_until(supervisor, now + 10.51)
    assert [c for c in commands if isinstance(c, Dial)]


def test_a_tunnel_that_dies_young_does_not_reset_the_back_off():
    supervisor = served(random=lambda: 1.0)
    supervisor.handle(TunnelDown(1), now=20)
    assert run_until(supervisor, 20.5) == [Dial(3, "a")]
    supervisor.handle(TunnelUp(3), now=20.5)
    supervisor.handle(TunnelDown(3), now=21)
    assert run_until(supervisor, 21.9) == []
    assert run_until(supervisor, 22.1) == [Dial(4, "a")]


def test_a_server_going_away_keeps_its_streams_while_others_are_dialled():
    supervisor = brain()
    supervisor.handle(Started(), now=0)
    supervisor.handle(Registered(("a", "b"), 3600), now=0)
    supervisor.handle(TunnelUp(1), now=0)
    supervisor.handle(TunnelDown(2), now=0)  # b waits for its back-off
    commands = supervisor.handle(GoingAway(1, ErrorCode.DRAINING, drain=30, alternates=("b",)), now=0.1)
    assert commands == [Dial(3, "b"), RenewGrants()]
    assert Abort(1) not in commands  # the old tunnel finishes by itself
    assert supervisor.handle(TunnelDown(1), now=30) == []


def test_the_refresh_after_a_goaway_brings_the_replacement():
    supervisor = served()
    assert supervisor.handle(GoingAway(1, ErrorCode.DRAINING, retry_after=60), now=50) == [
        RenewGrants(),
        Degraded(("a",)),
    ]
    assert supervisor.handle(Registered(("c", "b"), 3600), now=50.1) == [Dial(3, "c")]
    assert supervisor.handle(TunnelUp(3), now=50.2) == [Connected("c", 3), Recovered()]
    assert supervisor.connected == ("c", "b")


def test_retry_after_is_respected():
    supervisor = served()
    supervisor.handle(GoingAway(1, ErrorCode.OVER_CAPACITY, retry_after=4), now=100)
    assert not [c for c in run_until(supervisor, 103.9) if isinstance(c, Dial)]
    assert [c for c in run_until(supervisor, 104.1) if isinstance(c, Dial)]


def test_superseded_stops_for_good():
    supervisor = served()
    assert supervisor.handle(GoingAway(2, ErrorCode.SUPERSEDED), now=5) == [
        Abort(1), Abort(2), Finish("superseded", "DRTP-4006", "", ""),
    ]  # fmt: skip
    assert supervisor.over
    assert supervisor.next_timeout() is None
    assert supervisor.handle(TunnelDown(1), now=6) == []


def test_our_own_redial_superseding_the_old_tunnel_is_not_the_end():
    supervisor = served()
    supervisor.handle(GoingAway(1, ErrorCode.DRAINING), now=5)
    assert run_until(supervisor, 7)[-1] == Dial(3, "a")
    supervisor.handle(TunnelUp(3), now=7)
    assert supervisor.handle(GoingAway(1, ErrorCode.SUPERSEDED), now=7) == []
    assert supervisor.handle(TunnelDown(1, ErrorCode.SUPERSEDED), now=7) == []
    assert not supervisor.over


def test_a_refused_handshake_asks_for_a_new_grant():
    supervisor = served()
    assert RenewGrants() in supervisor.handle(TunnelDown(1, ErrorCode.AUTH_FAILED), now=10)


def test_refusals_do_not_ask_more_often_than_the_gap():
    supervisor = served(random=lambda: 0.0)
    asked = 0
    now, tunnel = 10.0, 1
    while now < 20.0:
        commands = supervisor.handle(TunnelDown(tunnel, ErrorCode.AUTH_FAILED), now=now)
        commands += supervisor.handle_timeout(now=now, awake=now)
        asked += commands.count(RenewGrants())
        if RenewGrants() in commands:
            supervisor.handle(Registered(("a", "b"), 3600), now=now)
        tunnel = next((c.tunnel for c in commands if isinstance(c, Dial)), tunnel)
        now += 0.1
    assert 4 <= asked <= 6


def test_revocation_is_confirmed_by_the_control_plane_and_then_final():
    supervisor = served()
    assert RenewGrants() in supervisor.handle(GoingAway(1, ErrorCode.REVOKED), now=10)
    gone = RegistrationFailed("DRTP-2006", "no such connection", "", retryable=False)
    assert supervisor.handle(gone, now=10.1) == [
        Abort(1), Abort(2), Finish("revoked", "DRTP-2010", "no such connection", ""),
    ]  # fmt: skip


def test_a_revocation_that_the_control_plane_denies_is_not_final():
    supervisor = served()
    supervisor.handle(GoingAway(1, ErrorCode.REVOKED), now=10)
    supervisor.handle(Registered(("b",), 3600), now=10.1)
    assert not supervisor.over
    assert supervisor.assigned == ("b",)


def test_a_control_plane_that_forgot_the_connection_is_registered_with_again():
    supervisor = served()
    supervisor.handle(TunnelDown(1, ErrorCode.AUTH_FAILED), now=10)
    forgot = RegistrationFailed("DRTP-2006", "no such connection", "", retryable=False)
    assert supervisor.handle(forgot, now=10.1) == [Register()]


def test_grants_are_renewed_at_half_their_life_and_an_outage_is_no_reason_to_stop():
    supervisor = served()
    commands = run_until(supervisor, 1801)
    assert commands == [RenewGrants()]
    assert supervisor.handle(UNREACHABLE, now=1801) == [Fault("DRTP-2002", "no answer", "check")]
    again = run_until(supervisor, 1803)
    assert again == [RenewGrants()]
    assert supervisor.handle(UNREACHABLE, now=1803) == []  # said once
    assert supervisor.connected == ("a", "b")


def test_a_first_start_without_a_control_plane_gives_up_after_its_patience():
    supervisor = brain()
    supervisor.handle(Started(), now=0)
    now, commands = 0.0, []
    while not any(isinstance(c, Finish) for c in commands):
        commands = supervisor.handle(UNREACHABLE, now=now)
        if not commands:
            now = supervisor.next_timeout()
            supervisor.handle_timeout(now=now, awake=now)
        assert now < 10
    assert commands == [Finish("failed", "DRTP-2002", "no answer", "check")]
    assert now >= 3.0


def test_a_restart_without_a_control_plane_serves_with_the_cached_grants():
    supervisor = brain(cached=("a", "b"))
    supervisor.handle(Started(), now=0)
    assert supervisor.handle(UNREACHABLE, now=0) == [
        Dial(1, "a"), Dial(2, "b"), Fault("DRTP-2002", "no answer", "check"),
    ]  # fmt: skip
    supervisor.handle(TunnelUp(1), now=0.1)
    commands = run_until(supervisor, 2)
    assert commands == [Register()]


def test_a_denied_registration_ends_at_once_even_with_cached_grants():
    supervisor = brain(cached=("a",))
    supervisor.handle(Started(), now=0)
    denied = RegistrationFailed("DRTP-2005", "wrong secret", "", retryable=False)
    assert supervisor.handle(denied, now=0) == [Finish("failed", "DRTP-2005", "wrong secret", "")]


def test_a_renewal_that_is_refused_for_a_passing_reason_does_not_stop_a_serving_agent():
    supervisor = served()
    run_until(supervisor, 1801)
    signed_out = RegistrationFailed("DRTP-2003", "token expired", "sign in", retryable=False)
    assert supervisor.handle(signed_out, now=1801) == [Fault("DRTP-2003", "token expired", "sign in")]
    assert supervisor.connected == ("a", "b")


def test_after_a_sleep_every_tunnel_is_probed_and_waiting_servers_are_dialled():
    supervisor = served()
    run_until(supervisor, 10)
    supervisor.handle(TunnelDown(2), now=10)
    commands = supervisor.handle_timeout(now=10.02, awake=4000)
    assert commands == [Ping(1), RenewGrants(), Dial(3, "b")]


def test_time_that_passes_as_planned_is_no_sleep():
    supervisor = served()
    assert run_until(supervisor, 1000) == []


def test_stopping_drains_and_finishes_when_the_last_tunnel_is_over():
    supervisor = served()
    assert supervisor.handle(StopRequested(30), now=5) == [Drain(1, 30), Drain(2, 30)]
    assert supervisor.handle(TunnelDown(1), now=6) == []
    assert supervisor.handle(TunnelDown(2), now=7) == [Finish("stopped", None, "", "")]


def test_streams_that_do_not_finish_are_cut_at_the_deadline():
    supervisor = served()
    supervisor.handle(StopRequested(30), now=5)
    assert run_until(supervisor, 34.9) == []
    assert run_until(supervisor, 35.1) == [Abort(1), Abort(2), Finish("stopped", None, "", "")]


def test_a_second_stop_request_stops_now():
    supervisor = served()
    supervisor.handle(StopRequested(30), now=5)
    assert supervisor.handle(StopRequested(0), now=6)[-1] == Finish("stopped", None, "", "")


def test_stopping_before_anything_is_up_ends_at_once():
    supervisor = brain()
    supervisor.handle(Started(), now=0)
    assert supervisor.handle(StopRequested(30), now=0.1) == [Finish("stopped", None, "", "")]


def test_a_server_that_left_the_assignment_is_drained_not_cut():
    supervisor = served()
    assert supervisor.handle(Registered(("b", "c"), 3600), now=5) == [Dial(3, "c"), Drain(1, 30), Degraded(("c",))]
    assert supervisor.handle(TunnelDown(1), now=9) == []


def test_an_unreachable_server_is_told_once_until_it_was_up_again():
    supervisor = served(random=lambda: 0.0)
    fault = Fault("DRTP-4002", "b: refused", "check")
    said = []
    tunnel = 2
    for second in range(5):
        commands = supervisor.handle(TunnelDown(tunnel, None, fault), now=float(second))
        commands += supervisor.handle_timeout(now=float(second), awake=float(second))
        said += [c for c in commands if isinstance(c, Fault)]
        tunnel = next(c.tunnel for c in commands if isinstance(c, Dial))
    assert said == [fault]
    supervisor.handle(TunnelUp(tunnel), now=5)
    assert fault in supervisor.handle(TunnelDown(tunnel, None, fault), now=6)


def test_a_server_that_keeps_refusing_is_told_with_what_to_do():
    supervisor = served(random=lambda: 0.0)
    assert not [c for c in supervisor.handle(TunnelDown(1, ErrorCode.AUTH_FAILED), now=1) if isinstance(c, Fault)]
    (dial,) = [c for c in supervisor.handle_timeout(now=1, awake=1) if isinstance(c, Dial)]
    (fault,) = [
        c for c in supervisor.handle(TunnelDown(dial.tunnel, ErrorCode.AUTH_FAILED), now=2) if isinstance(c, Fault)
    ]
    assert (fault.code, fault.hint) == ("DRTP-4004", ErrorCode.AUTH_FAILED.advice)


class SupervisorMachine(RuleBasedStateMachine):
    """Random faults, one shell that obeys: what must hold whatever happens."""

    @initialize(seed=st.randoms(use_true_random=False), cached=st.booleans())
    def start(self, seed, cached):
        self.now = 0.0
        self.skew = 0.0
        self.tunnels = {}  # tunnel -> [server, "dialling" | "up" | "leaving"]
        self.asked = False
        self.finished = None
        self.brain = Supervisor(now=0, awake=0, random=seed.random, cached=("a", "b") if cached else ())
        self.obey(self.brain.handle(Started(), now=0))

    def obey(self, commands):
        for command in commands:
            assert self.finished is None, f"{command} after the end"
            match command:
                case Dial(tunnel, server):
                    assert tunnel not in self.tunnels
                    current = [t for t, (s, state) in self.tunnels.items() if s == server and state != "leaving"]
                    assert not current, f"two current tunnels to {server}"
                    assert server in self.brain.assigned
                    self.tunnels[tunnel] = [server, "dialling"]
                case Abort(tunnel):
                    if tunnel in self.tunnels:
                        self.tunnels[tunnel][1] = "leaving"
                case Drain(tunnel, drain):
                    assert drain > 0
                    assert self.tunnels[tunnel][1] == "up"
                    self.tunnels[tunnel][1] = "leaving"
                case Register() | RenewGrants():
                    assert not self.asked, "asked twice at once"
                    self.asked = True
                case Ping(tunnel):
                    assert self.tunnels[tunnel][1] == "up"
                case Finish():
                    self.finished = command
                case _:
                    pass

    def tell(self, event):
        self.obey(self.brain.handle(event, now=self.now))

    def pick(self, data, *states):
        live = sorted(t for t, (_, state) in self.tunnels.items() if state in states)
        return data.draw(st.sampled_from(live)) if live else None

    @precondition(lambda self: self.asked)
    @rule(servers=st.lists(st.sampled_from("abcd"), unique=True, min_size=1, max_size=3), life=st.floats(10, 3600))
    def registered(self, servers, life):
        self.asked = False
        self.tell(Registered(tuple(servers), life))

    @precondition(lambda self: self.asked)
    @rule(code=st.sampled_from(["DRTP-2002", "DRTP-2003", "DRTP-2005", "DRTP-2006", "DRTP-2010", "DRTP-2014"]))
    def refused(self, code):
        self.asked = False
        self.tell(RegistrationFailed(code, "", "", retryable=code in {"DRTP-2002", "DRTP-2014"}))

    @rule(data=st.data())
    def comes_up(self, data):
        if (tunnel := self.pick(data, "dialling")) is not None:
            self.tunnels[tunnel][1] = "up"
            self.tell(TunnelUp(tunnel))

    @rule(data=st.data(), code=st.sampled_from([None, *ErrorCode]))
    def goes_down(self, data, code):
        if (tunnel := self.pick(data, "dialling", "up", "leaving")) is not None:
            del self.tunnels[tunnel]
            self.tell(TunnelDown(tunnel, code))

    @rule(data=st.data(), code=st.sampled_from([ErrorCode.DRAINING, ErrorCode.REVOKED, ErrorCode.OVER_CAPACITY]),
          after=st.floats(0, 60), alternates=st.lists(st.sampled_from("abcd"), max_size=2))  # fmt: skip
    def goes_away(self, data, code, after, alternates):
        if (tunnel := self.pick(data, "up")) is not None:
            self.tunnels[tunnel][1] = "leaving"
            self.tell(GoingAway(tunnel, code, 30, after, tuple(alternates)))

    @rule(steps=st.integers(1, 20))
    def time_passes(self, steps):
        for _ in range(steps):
            self.time_passes_once()

    def time_passes_once(self):
        if (at := self.brain.next_timeout()) is None:
            return
        self.now = max(self.now, at)
        self.obey(self.brain.handle_timeout(now=self.now, awake=self.now + self.skew))
        if (at := self.brain.next_timeout()) is not None:
            assert at > self.now, "a deadline that was dealt with stays due: the shell would spin"

    @rule(seconds=st.floats(10, 10_000))
    def sleeps(self, seconds):
        self.skew += seconds
        self.obey(self.brain.handle_timeout(now=self.now, awake=self.now + self.skew))

    @rule()
    def announced(self):
        self.tell(ReadyAnnounced())

    @rule(drain=st.sampled_from([0.0, 30.0]))
    def stops(self, drain):
        self.tell(StopRequested(drain))
        if self.finished is None:
            for _ in range(20):
                self.time_passes_once()
        assert self.finished is not None

    @invariant()
    def it_never_falls_asleep_with_work_left(self):
        if getattr(self, "brain", None) is None or self.finished is not None:
            return
        at = self.brain.next_timeout()
        assert at is not None
        assert at <= self.now + 5.0
        # Each assigned server is up, being dialled, or has a date for its next try.
        for name, server in self.brain._servers.items():
            assert server.tunnel is not None or server.retry_at is not None, name
            assert server.retry_at is None or server.retry_at <= self.now + 60.0


SupervisorMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSupervisorMachine = SupervisorMachine.TestCase
