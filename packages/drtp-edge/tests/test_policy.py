from __future__ import annotations

import hashlib

import attrs
import pytest

from drtp_api.grants import Grant, GrantIssuer, GrantVerifier, generate_key, public_key_bytes, sign, thumbprint
from drtp_edge.policy import OUTAGE_LEASE, HandshakePolicy, PresharedKey, Refused
from drtp_protocol.errors import ErrorCode
from drtp_protocol.handshake import (
    Auth,
    AuthMethod,
    ChannelBinding,
    Hello,
    Transcript,
    grant_message,
    psk_auth,
)

NOW = 1_800_000_000.0
CERTIFICATE = hashlib.sha256(b"the edge's certificate").digest()
OTHER_CERTIFICATE = hashlib.sha256(b"another certificate").digest()
INSTANCE = bytes(range(16))
ISSUER = GrantIssuer(generate_key())
AGENT = generate_key()
HELLO = Hello(instance_id=INSTANCE, epoch=7, services=("default/web",))
TRANSCRIPT = Transcript(hello=b"hello of this connection", challenge=b"nonce of this connection")


@attrs.define
class Known:
    """What the control plane said, as a test wants it."""

    gone: set[str] = attrs.field(factory=set)
    down_for: float = 0.0

    def revoked(self, connection, issued_at):
        return connection in self.gone

    def outage(self, now):
        return self.down_for


def grant(**changes):
    given = {
        "connection": "default/web-0001020304",
        "server": "edge-1",
        "service": "default/web",
        "protocol": "http",
        "instance_id": INSTANCE.hex(),
        "key_thumbprint": thumbprint(public_key_bytes(AGENT)),
        "issued_at": int(NOW),
        "expires_at": int(NOW) + 3600,
        "token_id": "1",
    }
    return Grant(**{**given, **changes})


def auth(*, key=AGENT, issuer=ISSUER, transcript=TRANSCRIPT, binding=CERTIFICATE, shown_key=None, **changes):
    credential = issuer.issue(grant(**changes)).encode()
    digest = transcript.hash(ChannelBinding.TLS_SERVER_END_POINT, binding)
    return Auth(
        method=AuthMethod.GRANT,
        binding_type=ChannelBinding.TLS_SERVER_END_POINT,
        credential=credential,
        proof=sign(key, grant_message(digest, credential)),
        public_key=public_key_bytes(shown_key or key),
    )


def policy(**changes):
    verifier = GrantVerifier("edge-1")
    verifier.load_keys(ISSUER.key_set())
    return HandshakePolicy(**{"methods": (AuthMethod.GRANT,), "verifier": verifier, "revocations": Known(), **changes})


def judge(given, *, by=None, hello=HELLO, binding=CERTIFICATE, now=NOW, transcript=TRANSCRIPT):
    return (by or policy()).judge(hello, given, transcript, binding=binding, now=now)


def test_a_good_grant_admits_its_service_for_its_lifetime():
    admission = judge(auth())
    assert admission.services == ("default/web",)
    assert admission.connection == "default/web-0001020304"
    assert (admission.instance, admission.epoch) == (INSTANCE, 7)
    assert admission.lease == 3600


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda: auth(server="edge-2"), "made for server"),
        (lambda: auth(issued_at=int(NOW) - 7200, expires_at=int(NOW) - 3600), "expired"),
        (lambda: auth(issued_at=int(NOW) + 900, expires_at=int(NOW) + 4500), "clock skew"),
        (lambda: auth(issuer=GrantIssuer(generate_key())), ""),
        (lambda: auth(key=generate_key()), "bound to another key"),
        (lambda: auth(key=generate_key(), shown_key=AGENT), "does not verify"),
        (lambda: auth(instance_id="ff" * 16), "instance"),
        (lambda: auth(service="default/db"), "HELLO asks"),
        (lambda: auth(binding=OTHER_CERTIFICATE), "does not verify"),
        (lambda: auth(transcript=attrs.evolve(TRANSCRIPT, challenge=b"nonce of an earlier one")), "does not verify"),
        (lambda: attrs.evolve(auth(), credential=b"not a token"), ""),
        (lambda: attrs.evolve(auth(), public_key=None), "shape"),
        (lambda: attrs.evolve(auth(), binding_type=ChannelBinding.NONE), "not bound"),
        (lambda: Auth(method=AuthMethod.TLS), "not accepted"),
        (lambda: Auth(method=AuthMethod.PSK, credential=b"k", proof=bytes(32)), "not accepted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_is_wrong_the_peer_hears_auth_failed_and_the_log_says_why(given, why):
    with pytest.raises(Refused) as caught:
        judge(given())
    assert caught.value.code is ErrorCode.AUTH_FAILED
    assert why in caught.value.reason


def test_without_a_key_set_nobody_enters():
    with pytest.raises(Refused, match="no key set"):
        judge(auth(), by=policy(verifier=GrantVerifier("edge-1")))


def test_a_proof_for_a_known_front_is_accepted_and_for_another_not():
    given = auth(binding=OTHER_CERTIFICATE)
    assert judge(given, by=policy(fronts=(OTHER_CERTIFICATE,))).services == ("default/web",)
    with pytest.raises(Refused):
        judge(given, by=policy(fronts=(hashlib.sha256(b"third").digest(),)))


def test_a_binding_to_tls_where_there_is_no_tls_is_refused():
    with pytest.raises(Refused, match="there is none"):
        judge(auth(), binding=None)


def test_a_revoked_connection_stays_out_even_with_a_valid_grant():
    with pytest.raises(Refused, match="revoked"):
        judge(auth(), by=policy(revocations=Known(gone={"default/web-0001020304"})))


def test_an_outage_of_the_control_plane_extends_an_expired_grant_and_a_revocation_still_wins():
    old = auth(issued_at=int(NOW) - 7200, expires_at=int(NOW) - 3600)
    admission = judge(old, by=policy(revocations=Known(down_for=7000.0)))
    assert admission.lease == OUTAGE_LEASE
    with pytest.raises(Refused, match="revoked"):
        judge(old, by=policy(revocations=Known(down_for=7000.0, gone={"default/web-0001020304"})))


def test_a_grant_that_expired_before_the_outage_is_not_extended():
    old = auth(issued_at=int(NOW) - 7200, expires_at=int(NOW) - 3600)
    with pytest.raises(Refused, match="expired"):
        judge(old, by=policy(revocations=Known(down_for=3000.0)))


def test_outage_grace_bounds_the_extension_and_zero_is_strict():
    old = auth(issued_at=int(NOW) - 7200, expires_at=int(NOW) - 3600)
    with pytest.raises(Refused, match="expired"):
        judge(old, by=policy(revocations=Known(down_for=7000.0), outage_grace=0.0))


def test_a_lease_never_falls_to_where_renewals_would_spin():
    assert judge(auth(issued_at=int(NOW) - 3599, expires_at=int(NOW) + 1)).lease >= 15


KEY = b"k" * 32


def psk_policy():
    return HandshakePolicy(
        methods=(AuthMethod.PSK,), keys={b"lab": PresharedKey(key=KEY, services=("default/web", "default/db"))}
    )


def test_a_preshared_key_admits_what_it_serves_and_hello_asks_for_and_the_edge_proves_itself():
    given, expected = psk_auth(b"lab", KEY, TRANSCRIPT, ChannelBinding.TLS_SERVER_END_POINT, CERTIFICATE)
    admission = judge(given, by=psk_policy())
    assert admission.services == ("default/web",)
    assert admission.edge_proof == expected
    assert admission.lease == 0


@pytest.mark.parametrize(("key_id", "key"), [(b"lab", b"x" * 32), (b"other", KEY)])
def test_a_wrong_key_and_an_unknown_id_are_refused_alike(key_id, key):
    given, _ = psk_auth(key_id, key, TRANSCRIPT, ChannelBinding.TLS_SERVER_END_POINT, CERTIFICATE)
    with pytest.raises(Refused) as caught:
        judge(given, by=psk_policy())
    assert caught.value.code is ErrorCode.AUTH_FAILED


def test_a_preshared_key_serves_nothing_it_was_not_given():
    given, _ = psk_auth(b"lab", KEY, TRANSCRIPT, ChannelBinding.TLS_SERVER_END_POINT, CERTIFICATE)
    with pytest.raises(Refused, match="none of the services"):
        judge(given, by=psk_policy(), hello=attrs.evolve(HELLO, services=("default/other",)))
