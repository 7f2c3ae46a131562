"""The handshake and the renewal of the lease."""

import attrs
import pytest

from drtp_protocol import (
    Auth,
    AuthMethod,
    AuthReceived,
    AuthRequired,
    Binding,
    Challenge,
    ChannelBinding,
    Connection,
    ConnectionEstablished,
    ConnectionState,
    ConnectionTerminated,
    ErrorCode,
    GoAway,
    GoAwayReceived,
    Hello,
    InvalidMetadata,
    LeaseRenewed,
    Limits,
    LocalProtocolError,
    Ping,
    Role,
    Welcome,
    WrongState,
    psk_auth,
    verify_psk,
)
from drtp_protocol.frames import serialize
from drtp_protocol.handshake import PREFACE

KEY = b"k" * 32
ALL = (AuthMethod.GRANT, AuthMethod.PSK, AuthMethod.TLS)
HELLO = Hello(instance_id=bytes(16), epoch=1, services=("a/b",), agent="agent/1")


def agent(**options):
    return Connection(Role.AGENT, now=0.0, nonce=b"a" * 32, hello=HELLO, **options)


def edge(*, methods=ALL, **options):
    challenge = Challenge(edge_id="edge-1", methods=methods, binding_types=(0, 1))
    return Connection(Role.EDGE, now=0.0, nonce=b"e" * 32, challenge=challenge, **options)


def carry(source, target, now=0.0):
    target.receive_data(source.data_to_send(now=now), now=now)
    return list(target.events())


def until_auth(one, other):
    """Go on to the point where the agent must prove itself."""
    assert carry(one, other) == []
    (required,) = carry(other, one)
    assert isinstance(required, AuthRequired)
    return required


def fate(events):
    """Return code and remote of the last event, which ends a connection."""
    end = events[-1]
    assert isinstance(end, ConnectionTerminated)
    return end.code, end.remote


def test_an_agent_speaks_first_and_an_edge_waits():
    assert agent().data_to_send(now=0.0).startswith(PREFACE + b"\x01")
    assert edge().data_to_send(now=0.0) == b""


def test_nonce_and_limits_are_filled_in_by_the_connection():
    one, other = agent(limits=Limits(max_frame=2_000)), edge(limits=Limits(max_frame=3_000))
    required = until_auth(one, other)
    assert (required.challenge.nonce, required.challenge.limits.max_frame) == (b"e" * 32, 3_000)
    hello = other.peer.hello
    assert (hello.nonce, hello.limits.max_frame) == (b"a" * 32, 2_000)


@pytest.mark.parametrize(
    "auth",
    [
        Auth(method=AuthMethod.GRANT, credential=b"jwt", proof=bytes(64), public_key=bytes(32), binding_type=1),
        Auth(method=AuthMethod.TLS),
    ],
)
def test_grant_and_tls_are_verified_by_the_shell(auth):
    auth = attrs.evolve(auth, binding_type=ChannelBinding(auth.binding_type))
    one, other = agent(), edge()
    required = until_auth(one, other)
    one.authenticate(auth, now=0.0)
    (received,) = carry(one, other)
    assert received == AuthReceived(auth, other.peer.hello, required.transcript, renewal=False)
    other.accept(Welcome(session_id=bytes(16)), now=0.0)
    (established,) = carry(other, one)[:1]
    assert isinstance(established, ConnectionEstablished)
    assert one.established
    assert other.established


def test_psk_proves_both_ends():
    one, other = agent(), edge()
    required = until_auth(one, other)
    auth, proof = psk_auth(b"id", KEY, required.transcript)
    one.authenticate(auth, expected_edge_proof=proof, now=0.0)
    (received,) = carry(one, other)
    answer = verify_psk(KEY, received.auth, received.transcript)
    other.accept(Welcome(session_id=bytes(16), edge_proof=answer), now=0.0)
    carry(other, one)
    assert one.state is other.state is ConnectionState.OPEN


@pytest.mark.parametrize("answer", [bytes(32), None])
def test_an_edge_that_does_not_know_the_key_is_refused(answer):
    one, other = agent(), edge()
    required = until_auth(one, other)
    auth, proof = psk_auth(b"id", KEY, required.transcript)
    one.authenticate(auth, expected_edge_proof=proof, now=0.0)
    one.data_to_send(now=0.0)
    welcome = Welcome(session_id=bytes(16), edge_proof=answer)
    one.receive_data(serialize(welcome), now=0.0)
    assert fate(list(one.events())) == (ErrorCode.AUTH_FAILED, False)


def test_an_edge_proof_without_psk_is_refused():
    one, other = agent(), edge()
    until_auth(one, other)
    one.authenticate(Auth(method=AuthMethod.TLS), now=0.0)
    one.receive_data(serialize(Welcome(session_id=bytes(16), edge_proof=bytes(32))), now=0.0)
    assert fate(list(one.events())) == (ErrorCode.AUTH_FAILED, False)


def test_limits_in_force_are_the_smaller_ones_at_both_ends():
    one = agent(limits=Limits(max_frame=2_000, base_window=9_000))
    other = edge(limits=Limits(max_frame=3_000, base_window=8_000))
    until_auth(one, other)
    one.authenticate(Auth(method=AuthMethod.TLS), now=0.0)
    carry(one, other)
    other.accept(Welcome(session_id=bytes(16)), now=0.0)
    carry(other, one)
    assert one.limits == other.limits
    assert (one.limits.max_frame, one.limits.base_window) == (2_000, 8_000)
    assert one.stats.frame_size == 2_000


def test_welcome_with_other_limits_is_refused():
    one, other = agent(), edge()
    until_auth(one, other)
    one.authenticate(Auth(method=AuthMethod.TLS), now=0.0)
    one.receive_data(serialize(Welcome(session_id=bytes(16), limits=Limits(max_streams=5_000))), now=0.0)
    assert fate(list(one.events())) == (ErrorCode.PROTOCOL_ERROR, False)


@pytest.mark.parametrize("limits", [Limits(max_frame=1_023), Limits(base_window=1_023)])
def test_a_peer_that_asks_for_dust_is_refused(limits):
    other = edge()
    events = carry(agent(limits=limits), other)
    assert fate(events) == (ErrorCode.PROTOCOL_ERROR, False)
    one, other = agent(), edge(limits=limits)
    carry(one, other)
    assert fate(carry(other, one)) == (ErrorCode.PROTOCOL_ERROR, False)


def test_an_agent_without_our_version_is_told_so():
    other = edge()
    hello = attrs.evolve(HELLO, versions=(2, 3))
    other.receive_data(PREFACE + serialize(hello), now=0.0)
    assert fate(list(other.events())) == (ErrorCode.VERSION, False)
    assert other.data_to_send(now=0.0) == serialize(GoAway(last_id=0, code=ErrorCode.VERSION))


def test_a_version_that_was_not_offered_is_refused():
    one = agent()
    one.receive_data(serialize(Challenge(edge_id="e", methods=(1,), version=2)), now=0.0)
    assert fate(list(one.events())) == (ErrorCode.VERSION, False)


@pytest.mark.parametrize(
    ("auth", "proof", "message"),
    [
        (Auth(method=AuthMethod.GRANT, credential=b"x", proof=bytes(64), public_key=bytes(32)), None, "offers"),
        (Auth(method=AuthMethod.PSK, credential=b"x", proof=bytes(31)), bytes(32), "do not fit"),
        (Auth(method=AuthMethod.PSK, credential=b"x", proof=bytes(32)), None, "edge proof"),
        (Auth(method=AuthMethod.TLS), bytes(32), "edge proof"),
    ],
)
def test_an_auth_that_cannot_succeed_is_not_sent(auth, proof, message):
    one, other = agent(), edge(methods=(AuthMethod.PSK, AuthMethod.TLS))
    until_auth(one, other)
    with pytest.raises(LocalProtocolError, match=message):
        one.authenticate(auth, expected_edge_proof=proof, now=0.0)
    assert one.state is ConnectionState.AUTH
    assert not one.wants_write


@pytest.mark.parametrize(
    "auth",
    [
        Auth(method=AuthMethod.TLS),
        Auth(method=AuthMethod.PSK, credential=b"x", proof=bytes(31)),
    ],
)
def test_an_edge_answers_every_bad_auth_with_the_same_code_and_no_reason(auth):
    one, other = agent(), edge(methods=(AuthMethod.PSK,))
    until_auth(one, other)
    other.receive_data(serialize(auth), now=0.0)
    assert fate(list(other.events())) == (ErrorCode.AUTH_FAILED, False)
    assert other.data_to_send(now=0.0) == serialize(GoAway(last_id=0, code=ErrorCode.AUTH_FAILED))


def test_a_rejected_agent_learns_one_code():
    one, other = agent(), edge()
    until_auth(one, other)
    one.authenticate(Auth(method=AuthMethod.TLS), now=0.0)
    carry(one, other)
    other.reject(now=0.0)
    assert fate(list(other.events())) == (ErrorCode.AUTH_FAILED, False)
    events = carry(other, one)
    assert events[0] == GoAwayReceived(ErrorCode.AUTH_FAILED, 0.0, 0.0, (), "")
    assert fate(events) == (ErrorCode.AUTH_FAILED, True)


def test_an_answer_to_no_question_is_misuse():
    one, other = agent(), edge()
    with pytest.raises(WrongState):
        one.authenticate(Auth(method=AuthMethod.TLS), now=0.0)
    with pytest.raises(WrongState):
        other.accept(Welcome(session_id=bytes(16)), now=0.0)
    with pytest.raises(WrongState):
        other.reject(now=0.0)
    with pytest.raises(WrongState):
        other.challenge(b"f" * 32, now=0.0)
    with pytest.raises(WrongState):
        one.challenge(b"f" * 32, now=0.0)


def test_an_edge_cannot_forget_or_invent_its_proof():
    one, other = agent(), edge()
    required = until_auth(one, other)
    auth, proof = psk_auth(b"id", KEY, required.transcript)
    one.authenticate(auth, expected_edge_proof=proof, now=0.0)
    carry(one, other)
    with pytest.raises(LocalProtocolError, match="edge proof"):
        other.accept(Welcome(session_id=bytes(16)), now=0.0)
    assert other.state is ConnectionState.WELCOME


# -- renewal ---------------------------------------------------------------------------------------------------------


def test_a_lease_is_renewed_while_streams_go_on(make_duo, tcp):
    duo = make_duo(lease=60).establish()
    stream_id = duo.open()
    duo.edge.challenge(b"f" * 32, server_time=77, now=duo.now)
    assert duo.edge.state is ConnectionState.REAUTH
    duo.edge.send_data(stream_id, b"meanwhile")
    duo.pump()
    (renewed,) = [event for event in duo.take(duo.edge) if isinstance(event, LeaseRenewed)]
    assert renewed.welcome.lease == 60
    agent_events = duo.take(duo.agent)
    assert [type(event).__name__ for event in agent_events] == ["DataReceived", "LeaseRenewed"]
    assert duo.agent.state is duo.edge.state is ConnectionState.OPEN
    assert duo.agent.peer.challenge.server_time == 77
    assert duo.agent.stream_ids == duo.edge.stream_ids == (stream_id,)


def test_a_renewal_is_proved_over_the_session_too(duo):
    duo.edge.challenge(b"f" * 32, now=duo.now)
    duo.agent.receive_data(duo.edge.data_to_send(now=duo.now), now=duo.now)
    (required,) = duo.agent.events()
    assert required.renewal
    assert required.transcript.session_id == b"s" * 16
    assert required.challenge.nonce == b"f" * 32


def test_the_old_proof_is_worthless_for_a_renewal(duo):
    duo.edge.challenge(b"f" * 32, now=duo.now)
    duo.agent.receive_data(duo.edge.data_to_send(now=duo.now), now=duo.now)
    (required,) = duo.agent.events()
    stale, _ = psk_auth(b"id", KEY, attrs.evolve(required.transcript, session_id=b""))
    assert verify_psk(KEY, stale, required.transcript) is None


def test_a_second_challenge_waits_for_the_first(duo):
    duo.edge.challenge(b"f" * 32, now=duo.now)
    with pytest.raises(WrongState):
        duo.edge.challenge(b"g" * 32, now=duo.now)


def test_a_challenge_needs_a_fresh_nonce(duo):
    with pytest.raises(InvalidMetadata, match="used before"):
        duo.edge.challenge(b"\x80" * 32, now=duo.now)
    with pytest.raises(InvalidMetadata, match="nonce of 1"):
        duo.edge.challenge(b"x", now=duo.now)
    assert duo.edge.state is ConnectionState.OPEN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limits": Limits(max_frame=2_000)}, "changes limits"),
        ({"nonce": b"\x80" * 32}, "repeats its nonce"),
    ],
)
def test_a_strange_challenge_to_renew_ends_the_connection(duo, change, message):
    challenge = attrs.evolve(duo.agent.peer.challenge, **{"nonce": b"f" * 32, **change})
    end = duo.give(duo.agent, challenge)[-1]
    assert message in end.reason
    assert end.code is ErrorCode.PROTOCOL_ERROR


def test_a_renewal_keeps_the_session_id(duo):
    duo.edge.challenge(b"f" * 32, now=duo.now)
    duo.agent.receive_data(duo.edge.data_to_send(now=duo.now), now=duo.now)
    duo.drain(duo.agent)
    duo.edge.receive_data(duo.agent.data_to_send(now=duo.now), now=duo.now)
    (received,) = duo.edge.events()
    proof = verify_psk(KEY, received.auth, received.transcript)
    with pytest.raises(LocalProtocolError, match="session id"):
        duo.edge.accept(Welcome(session_id=bytes(16), edge_proof=proof), now=duo.now)
    end = duo.give(duo.agent, Welcome(session_id=bytes(16), edge_proof=proof))[-1]
    assert "session id" in end.reason


def test_a_failed_renewal_ends_the_connection(duo):
    stream_id = duo.open()
    duo.edge.challenge(b"f" * 32, now=duo.now)
    duo.agent.receive_data(duo.edge.data_to_send(now=duo.now), now=duo.now)
    duo.drain(duo.agent)
    duo.edge.receive_data(duo.agent.data_to_send(now=duo.now), now=duo.now)
    assert isinstance(next(duo.edge.events()), AuthReceived)
    duo.edge.reject(ErrorCode.REVOKED, now=duo.now)
    events = duo.give(duo.agent, duo.edge.data_to_send(now=duo.now))
    assert fate(events) == (ErrorCode.REVOKED, True)
    assert stream_id not in duo.agent.stream_ids


def test_frames_of_a_renewal_that_cross_a_goaway_are_ignored(duo):
    duo.open()
    duo.edge.challenge(b"f" * 32, now=duo.now)
    duo.agent.go_away(drain=5, now=duo.now)
    assert duo.give(duo.agent, duo.edge.data_to_send(now=duo.now)) == []
    assert duo.agent.state is ConnectionState.DRAINING
    welcome = Welcome(session_id=b"s" * 16, bindings=(Binding("x/y"),))
    assert duo.give(duo.agent, welcome) == []
    assert duo.agent.welcome.bindings != welcome.bindings
    duo.edge.receive_data(duo.agent.data_to_send(now=duo.now), now=duo.now)
    duo.take(duo.edge)
    assert duo.give(duo.edge, Auth(method=AuthMethod.TLS)) == []
    assert duo.edge.state is ConnectionState.DRAINING


def test_the_handshakes_round_trip_ends_with_a_ping_each(duo):
    assert duo.agent.rtt is not None
    assert duo.edge.rtt is not None


def test_the_edge_pings_right_after_welcome():
    one, other = agent(), edge()
    until_auth(one, other)
    one.authenticate(Auth(method=AuthMethod.TLS), now=0.0)
    carry(one, other)
    other.accept(Welcome(session_id=bytes(16)), now=0.0)
    assert other.data_to_send(now=0.0).endswith(serialize(Ping((1).to_bytes(8, "big"))))
