"""Property 8: one flipped bit, a replay, a downgrade, a wrong key: never established."""

import contextlib

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drtp_protocol import events as ev
from drtp_protocol.connection import Connection
from drtp_protocol.errors import ErrorCode, LocalProtocolError
from drtp_protocol.frames import parse, serialize
from drtp_protocol.handshake import (
    Auth,
    AuthMethod,
    Binding,
    Challenge,
    ChannelBinding,
    Hello,
    Transcript,
    Welcome,
    grant_message,
    psk_auth,
    psk_edge_proof,
    psk_proof,
    transcript_hash,
    verify_psk,
)
from drtp_protocol.states import ConnectionState
from drtp_protocol.status import Role
from drtp_protocol.strategies import pattern
from drtp_protocol.testing import KEY, KEY_ID, SERVICE, Pair

TLS = ChannelBinding.TLS_SERVER_END_POINT
CERTIFICATE = b"\xcc" * 32
JWT = b"header." + b"c" * 60 + b".signature"


class Psk:
    """Both ends' conduct with a pre-shared key."""

    method = AuthMethod.PSK

    def __init__(self, edge_key=KEY):
        self.edge_key = edge_key

    def prove(self, event, binding):
        return psk_auth(KEY_ID, KEY, event.transcript, TLS, binding)

    def verify(self, event, binding):
        key = self.edge_key if event.auth.credential == KEY_ID else b"\0" * 32
        proof = verify_psk(key, event.auth, event.transcript, binding)
        return None if proof is None else {"edge_proof": proof}


class Grant:
    """Both ends' conduct with a grant; the token's own signature is not this package's affair."""

    method = AuthMethod.GRANT

    def __init__(self):
        ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
        self.key = ed25519.Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32)
        self.public = self.key.public_key()

    def prove(self, event, binding):
        message = grant_message(event.transcript.hash(TLS, binding), JWT)
        public = self.public.public_bytes_raw()
        return Auth(
            method=self.method, binding_type=TLS, credential=JWT, proof=self.key.sign(message), public_key=public
        ), None

    def verify(self, event, binding):
        from cryptography.exceptions import InvalidSignature

        auth = event.auth
        if auth.credential != JWT or auth.public_key != self.public.public_bytes_raw():
            return None  # the token is not signed, or is bound to another key
        try:
            message = grant_message(event.transcript.hash(auth.binding_type, binding), auth.credential)
            self.public.verify(auth.proof, message)
        except InvalidSignature:
            return None
        return {}


def make(method, *, nonce=b"\xe0" * 32, versions=(1,), methods=None):
    hello = Hello(instance_id=pattern(16), epoch=7, services=(SERVICE,), agent="test", versions=versions)
    challenge = Challenge(edge_id="edge", methods=methods or (method,), binding_types=(TLS,))
    agent = Connection(Role.AGENT, now=0.0, nonce=b"\xa0" * 32, hello=hello)
    edge = Connection(Role.EDGE, now=0.0, nonce=nonce, challenge=challenge)
    return agent, edge


def run(conduct, alter=lambda step, data: data, *, agent_binding=CERTIFICATE, edge_binding=CERTIFICATE, **options):
    """Make the handshake through somebody who may alter each of its four portions; return both ends and portions."""
    agent, edge = make(conduct.method, **options)
    portions = []
    for step in range(4):
        sender, receiver = (agent, edge) if step % 2 == 0 else (edge, agent)
        data = alter(step, sender.data_to_send(now=0.0))
        portions.append(data)
        receiver.receive_data(data, now=0.0)
        for event in receiver.events():
            if isinstance(event, ev.AuthRequired):
                auth, expected = conduct.prove(event, agent_binding)
                with contextlib.suppress(LocalProtocolError):  # altered: what we have is not offered
                    agent.authenticate(auth, expected_edge_proof=expected, now=0.0)
            elif isinstance(event, ev.AuthReceived):
                answer = conduct.verify(event, edge_binding)
                if answer is None:
                    edge.reject(now=0.0)
                else:
                    edge.accept(Welcome(session_id=bytes(16), bindings=(Binding(SERVICE),), **answer), now=0.0)
    return agent, edge, portions


CONDUCTS = [Psk, Grant]


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_the_two_agree_if_nobody_interferes(conduct):
    agent, edge, _ = run(conduct())
    assert agent.established
    assert edge.established


@pytest.mark.parametrize("step", [0, 1, 2], ids=["hello", "challenge", "auth"])
def test_no_flipped_bit_gets_through_with_a_key(step):
    conduct = Psk()
    size = len(run(conduct)[2][step])
    for position in range(8 * size):

        def flip(at, data, position=position):
            if at == step:
                data = bytearray(data)
                data[position // 8] ^= 1 << position % 8
            return bytes(data)

        agent, edge, _ = run(conduct, flip)
        assert not edge.established, position
        assert not agent.established, position


@given(data=st.data(), step=st.integers(0, 2))
def test_no_flipped_bit_gets_through_with_a_grant(data, step):
    conduct = Grant()
    position = data.draw(st.integers(0, 8 * len(run(conduct)[2][step]) - 1))

    def flip(at, portion):
        if at == step:
            portion = bytearray(portion)
            portion[position // 8] ^= 1 << position % 8
        return bytes(portion)

    agent, edge, _ = run(conduct, flip)
    assert not edge.established
    assert not agent.established


@pytest.mark.parametrize("conduct", CONDUCTS)
@pytest.mark.parametrize("bit", range(0, 256, 7))
def test_another_certificate_on_the_way_is_noticed(conduct, bit):
    seen = bytearray(CERTIFICATE)
    seen[bit // 8] ^= 1 << bit % 8
    _, edge, _ = run(conduct(), agent_binding=bytes(seen))
    assert not edge.established


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_recorded_proof_is_worth_nothing_under_a_fresh_nonce(conduct):
    conduct = conduct()
    _, _, recorded = run(conduct)
    _, edge, _ = run(conduct, lambda step, data: recorded[step] if step in (0, 2) else data, nonce=b"\xe1" * 32)
    assert not edge.established
    _, edge, _ = run(conduct, lambda step, data: recorded[step] if step in (0, 2) else data)
    assert edge.established, "the recording itself is good"


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_shortened_list_of_versions_is_noticed(conduct):
    def downgrade(step, data):
        if step == 0:
            hello = parse(data[8:])
            assert hello.versions == (1, 2)
            return data[:8] + serialize(attrs.evolve(hello, versions=(1,)))
        return data

    _, edge, _ = run(conduct(), downgrade, versions=(1, 2))
    assert not edge.established
    assert run(conduct(), versions=(1, 2))[1].established


@pytest.mark.parametrize("conduct", CONDUCTS)
def test_a_shortened_list_of_methods_is_noticed(conduct):
    conduct = conduct()

    def downgrade(step, data):
        if step == 1:
            return serialize(attrs.evolve(parse(data), methods=(conduct.method,)))
        return data

    _, edge, _ = run(conduct, downgrade, methods=tuple(AuthMethod))
    assert not edge.established
    assert run(conduct, methods=tuple(AuthMethod))[1].established


def test_an_agent_does_not_speak_a_version_that_it_did_not_offer():
    def alter(step, data):
        return serialize(attrs.evolve(parse(data), version=2)) if step == 1 else data

    agent, edge, _ = run(Psk(), alter)
    assert agent.state is ConnectionState.CLOSED
    assert not edge.established
    assert edge.state is ConnectionState.CLOSED, "it was told so instead of AUTH"


def test_an_edge_without_the_key_is_found_out():
    """It lets anybody in; the agent does not come."""

    class Impostor(Psk):
        def verify(self, event, binding):
            return {"edge_proof": psk_edge_proof(b"\x66" * 32, event.transcript.hash(TLS, binding), event.auth.proof)}

    agent, edge, _ = run(Impostor())
    assert edge.established
    assert not agent.established
    assert ErrorCode.AUTH_FAILED in [event.code for event in [*agent.events()]] or agent.close_after_send


@pytest.mark.parametrize("proof", [None, bytes(32), "flipped"])
def test_a_missing_or_wrong_edge_proof_is_found_out(proof):
    def alter(step, data):
        if step != 3:
            return data
        welcome = parse(data[: 8 + int.from_bytes(data[1:4], "big")])
        flipped = bytes((welcome.edge_proof[0] ^ 1,)) + welcome.edge_proof[1:]
        return serialize(attrs.evolve(welcome, edge_proof=flipped if proof == "flipped" else proof))

    agent, _, _ = run(Psk(), alter)
    assert not agent.established


def test_the_proofs_of_the_two_ends_cannot_stand_for_each_other():
    digest = transcript_hash(b"hello", b"challenge", 0, b"")
    proof = psk_proof(KEY, digest)
    reflected = psk_edge_proof(KEY, digest, proof)
    auth = Auth(method=AuthMethod.PSK, credential=KEY_ID, proof=reflected)
    assert verify_psk(KEY, auth, Transcript(hello=b"hello", challenge=b"challenge")) is None
    assert verify_psk(KEY, attrs.evolve(auth, proof=proof), Transcript(hello=b"hello", challenge=b"challenge"))


FIELDS = st.lists(st.binary(max_size=6), min_size=5, max_size=5)


@example(one=[b"ab", b"c", b"", b"", b""], other=[b"a", b"bc", b"", b"", b""])
@given(one=FIELDS, other=FIELDS)
def test_different_transcripts_have_different_hashes(one, other):
    """Lengths are part of it: bytes cannot be moved from one field to the next."""
    first, second = (transcript_hash(f[0], f[1], len(f[2]) % 2, f[3], f[4]) for f in (one, other))
    same = (one[:2], len(one[2]) % 2, one[3:]) == (other[:2], len(other[2]) % 2, other[3:])
    assert (first == second) == same


def test_the_answer_to_a_bad_proof_does_not_say_what_was_bad():
    answers = set()
    for spoil in (
        lambda auth: attrs.evolve(auth, proof=bytes(32)),
        lambda auth: attrs.evolve(auth, credential=b"nobody"),
        lambda auth: attrs.evolve(auth, proof=bytes(31)),
        lambda auth: attrs.evolve(auth, credential=b""),
        lambda auth: attrs.evolve(auth, method=AuthMethod.TLS),
        lambda auth: attrs.evolve(auth, method=AuthMethod.GRANT),
        lambda auth: attrs.evolve(auth, binding_type=ChannelBinding.NONE),
        lambda auth: attrs.evolve(auth, public_key=bytes(32)),
    ):
        _, _, portions = run(Psk(), lambda step, data, spoil=spoil: spoil_auth(spoil, data) if step == 2 else data)
        answers.add(portions[3])
    assert len(answers) == 1
    goaway = parse(answers.pop())
    assert goaway.code == ErrorCode.AUTH_FAILED
    assert goaway.reason == ""


def spoil_auth(spoil, data):
    return serialize(spoil(parse(data)))


def renewal():
    """Return an established pair whose edge demands a new proof, and the agent's event."""
    pair = Pair(lease=60)
    pair.establish()
    first = pair.edge._transcript
    pair.edge.challenge(b"\x99" * 32, now=pair.now)
    pair.transmit(Role.EDGE)
    (required,) = pair.deliver(Role.EDGE)
    assert required.renewal
    return pair, required, first


def test_a_renewal_covers_the_session():
    pair, required, _ = renewal()
    assert required.transcript.session_id == pair.welcome.session_id
    pair.answer(Role.AGENT, required)
    seen = pair.settle()
    assert [type(event) for event in seen[Role.EDGE]] == [ev.LeaseRenewed]
    assert [type(event) for event in seen[Role.AGENT]] == [ev.LeaseRenewed]


def test_the_first_proof_does_not_renew():
    pair, _, first = renewal()
    old, _ = psk_auth(KEY_ID, KEY, first)
    pair.edge.receive_data(serialize(old), now=pair.now)
    (received,) = pair.edge.events()
    assert verify_psk(KEY, received.auth, received.transcript) is None


def test_a_proof_without_the_session_does_not_renew():
    pair, required, _ = renewal()
    stolen, _ = psk_auth(KEY_ID, KEY, attrs.evolve(required.transcript, session_id=b""))
    pair.edge.receive_data(serialize(stolen), now=pair.now)
    (received,) = pair.edge.events()
    assert verify_psk(KEY, received.auth, received.transcript) is None


@pytest.mark.parametrize("changes", [{"nonce": b"\xe0" * 32}, {"version": 2}, {"limits": None}])
def test_a_renewal_may_not_change_the_connection(changes):
    pair = Pair(lease=60)
    pair.establish()
    challenge = attrs.evolve(pair.edge._challenge, nonce=b"\x98" * 32)
    if "limits" in changes:
        changes = {"limits": attrs.evolve(challenge.limits, max_streams=1)}
    pair.agent.receive_data(serialize(attrs.evolve(challenge, **changes)), now=pair.now)
    (ended,) = pair.agent.events()
    assert ended.error is not None
