"""Grants: valid here and now for one key, or nothing."""

from __future__ import annotations

import base64
import json

import attrs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from drtp_api import grants as g
from drtp_api.errors import DrtpError

NOW = 1_800_000_000
AGENT = g.generate_key()
PUBLIC = g.public_key_bytes(AGENT)
ISSUER = g.GrantIssuer(g.generate_key())
GRANT = g.Grant(
    connection="default/web-0011223344", server="ams-1", service="default/web", protocol="http", instance_id="ab" * 16,
    key_thumbprint=g.thumbprint(PUBLIC), issued_at=NOW, expires_at=NOW + g.GRANT_LIFETIME, token_id="t1",
)  # fmt: skip


def verifier(server="ams-1", keys=None):
    made = g.GrantVerifier(server)
    made.load_keys(keys or ISSUER.key_set())
    return made


def refusal(token, *, key=PUBLIC, now=NOW, server="ams-1"):
    with pytest.raises(DrtpError) as caught:
        verifier(server).verify(token, public_key=key, now=now)
    assert caught.value.code == "DRTP-2016"
    return caught.value.message


def issue(**changes):
    return ISSUER.issue(attrs.evolve(GRANT, **changes)).encode()


def claims(**changes):
    return {
        "iss": "drtp", "sub": GRANT.connection, "aud": "ams-1", "svc": GRANT.service, "proto": "http",
        "iid": GRANT.instance_id, "cnf": {"jkt": GRANT.key_thumbprint}, "iat": NOW, "nbf": NOW, "exp": NOW + 60,
        "jti": "t", **changes,
    }  # fmt: skip


def forge(payload, *, key=None, header=None, algorithm="Ed25519"):
    key = key or OKPKey.import_key(g.save_key(ISSUER.key))
    header = {"alg": algorithm, "typ": g.TYPE, "kid": ISSUER.key_id} | (header or {})
    return jwt.encode(header, payload, key, algorithms=[algorithm]).encode()


def test_what_is_issued_is_verified():
    assert verifier().verify(issue(), public_key=PUBLIC, now=NOW) == GRANT


@pytest.mark.parametrize("late", [-g.LEEWAY, 0, g.GRANT_LIFETIME, g.GRANT_LIFETIME + g.LEEWAY])
def test_a_clock_may_be_a_minute_off(late):
    verifier().verify(issue(), public_key=PUBLIC, now=NOW + late)


def test_a_grant_ends_and_begins():
    assert "expired" in refusal(issue(), now=NOW + g.GRANT_LIFETIME + g.LEEWAY + 1)
    assert "clock skew" in refusal(issue(), now=NOW - g.LEEWAY - 1)


def test_a_grant_is_for_one_server_and_one_key():
    assert "made for server 'ams-1'" in refusal(issue(), server="iad-1")
    assert "another key" in refusal(issue(), key=g.public_key_bytes(g.generate_key()))


def test_a_stranger_cannot_sign():
    stranger = g.GrantIssuer(g.generate_key())
    assert refusal(stranger.issue(GRANT).encode())
    forged = forge(claims(), key=OKPKey.import_key(g.save_key(stranger.key)))
    assert refusal(forged)


def test_a_retired_key_is_refused_from_now_on():
    checker = verifier()
    checker.load_keys(g.GrantIssuer(g.generate_key()).key_set())
    with pytest.raises(DrtpError, match="DRTP-2016"):
        checker.verify(issue(), public_key=PUBLIC, now=NOW)


def test_without_keys_nobody_is_let_in():
    with pytest.raises(DrtpError, match="no key set"):
        g.GrantVerifier("ams-1").verify(issue(), public_key=PUBLIC, now=NOW)
    with pytest.raises(DrtpError, match="DRTP-1011"):
        g.GrantVerifier("ams-1").load_keys({"keys": "no"})


def test_the_public_key_is_no_shared_secret():
    """The classic confusion: HMAC with the public key as its secret."""
    public = ISSUER.key_set()["keys"][0]["x"]
    assert refusal(forge(claims(), key=OctKey.import_key(public), algorithm="HS256"))


def test_an_unsigned_token_is_refused():
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    assert refusal(part({"alg": "none", "typ": g.TYPE}) + b"." + part(claims()) + b".")


def test_another_kind_of_token_is_refused():
    assert "type" in refusal(forge(claims(), header={"typ": "JWT"}))
    assert "issuer" in refusal(forge(claims(iss="somebody")))


@pytest.mark.parametrize("claim", ["sub", "aud", "svc", "proto", "iid", "cnf", "iat", "nbf", "exp", "jti"])
@pytest.mark.parametrize("value", ["absent", None, [], "", True, {}])
def test_every_claim_must_be_there_and_of_its_type(claim, value):
    payload = claims()
    if value == "absent":
        del payload[claim]
    else:
        payload[claim] = value
    assert refusal(forge(payload))


@given(st.binary(max_size=200) | st.text(alphabet="eyJ.-_aA0", max_size=80).map(str.encode))
def test_garbage_is_refused_without_another_error(token):
    assert refusal(token)


def test_a_token_too_long_is_not_even_parsed():
    assert "exceed" in refusal(b"a" * (g.MAX_SIZE + 1))


def test_a_changed_byte_breaks_the_signature():
    token = issue()
    for position in (5, len(token) // 2, len(token) - 10):
        changed = bytearray(token)
        changed[position] = ord("A") if changed[position] != ord("A") else ord("B")
        assert refusal(bytes(changed))


def test_keys_survive_their_file_and_others_are_refused():
    assert g.public_key_bytes(g.load_key(g.save_key(AGENT))) == PUBLIC
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pem in (b"", b"nonsense", other):
        with pytest.raises(DrtpError, match="DRTP-1011"):
            g.load_key(pem)


def test_signatures_hold_for_one_key_and_message():
    signature = g.sign(AGENT, b"message")
    assert g.verify_signature(PUBLIC, signature, b"message")
    assert not g.verify_signature(PUBLIC, signature, b"massage")
    assert not g.verify_signature(g.public_key_bytes(g.generate_key()), signature, b"message")
    assert not g.verify_signature(b"short", signature, b"message")


def test_the_thumbprint_is_that_of_rfc_8037():
    public = g.b64url_decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert g.thumbprint(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@given(st.binary(max_size=40))
def test_base64url_has_no_padding_and_comes_back(data):
    text = g.b64url(data)
    assert "=" not in text
    assert g.b64url_decode(text) == data


def test_what_is_not_base64url_is_a_value_error():
    for text in ("a", "a b=", "ä"):
        with pytest.raises(ValueError):
            g.b64url_decode(text)
