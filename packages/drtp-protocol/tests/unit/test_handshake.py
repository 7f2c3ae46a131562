"""Handshake messages, the transcript, and the proofs."""

import hashlib
import hmac

import attrs
import pytest

from drtp_protocol import (
    Auth,
    AuthMethod,
    Binding,
    Capability,
    Challenge,
    ChannelBinding,
    Hello,
    InvalidMetadata,
    Limits,
    RemoteProtocolError,
    Transcript,
    Welcome,
    grant_message,
    psk_auth,
    psk_edge_proof,
    psk_proof,
    transcript_hash,
    verify_psk,
)
from drtp_protocol.tlv import decode, encode

HELLO = Hello(
    instance_id=b"i" * 16,
    epoch=2**64 - 1,
    services=("a/b", "c/d"),
    agent="drtp/1",
    resume=b"ticket",
    capabilities=Capability.REPORT | Capability.UDP_PATH,
    versions=(1, 2),
    nonce=b"n" * 32,
    limits=Limits(max_frame=2_048),
    extensions=((0x0A, b"x"),),
)
CHALLENGE = Challenge(
    edge_id="edge-1",
    methods=(AuthMethod.GRANT, AuthMethod.PSK, 9),
    binding_types=(ChannelBinding.NONE, ChannelBinding.TLS_SERVER_END_POINT),
    server_time=5,
    extensions=((0x09, b""),),
)
GRANT = Auth(
    method=AuthMethod.GRANT,
    binding_type=ChannelBinding.TLS_SERVER_END_POINT,
    credential=b"jwt",
    proof=bytes(64),
    public_key=bytes(32),
)
WELCOME = Welcome(
    session_id=b"s" * 16,
    lease=3_600,
    bindings=(Binding("a/b", "192.0.2.1:9"), Binding("c/d")),
    edge_proof=bytes(32),
    resume=b"r",
    udp_path=b"u",
    keepalive=(1_000, 5_000),
    extensions=((0x09, b"x"),),
)
MESSAGES = [HELLO, CHALLENGE, GRANT, WELCOME]


@pytest.mark.parametrize("message", [*MESSAGES, Welcome(session_id=bytes(16)), Auth(method=AuthMethod.TLS)])
def test_messages_read_back(message):
    assert type(message).decode(message.encode()) == message


@pytest.mark.parametrize(("message", "required"), [(HELLO, 0x08), (CHALLENGE, 0x08), (GRANT, 0x04), (WELCOME, 0x04)])
def test_required_entries_are_required_and_others_are_not(message, required):
    entries = decode(message.encode())
    for kind in entries:
        fewer = encode(item for item in entries.items() if item[0] != kind)
        if kind <= required:
            with pytest.raises(RemoteProtocolError, match=f"lacks TLV {kind:#04x}"):
                type(message).decode(fewer)
        else:
            assert type(message).decode(fewer) != message


@pytest.mark.parametrize(
    ("message", "change", "fault"),
    [
        (HELLO, {"nonce": b"x"}, "nonce of 1"),
        (HELLO, {"instance_id": b"x"}, "instance_id of 1"),
        (HELLO, {"epoch": 2**64}, "epoch"),
        (HELLO, {"epoch": -1}, "epoch"),
        (HELLO, {"versions": ()}, "versions"),
        (HELLO, {"versions": (2, 1)}, "ascending"),
        (HELLO, {"versions": (1, 1)}, "ascending"),
        (HELLO, {"versions": (256,)}, "bytes"),
        (HELLO, {"services": ("",)}, "empty name"),
        (HELLO, {"services": ("x" * 254,)}, "254 bytes"),
        (HELLO, {"agent": "\ud800"}, "not encodable"),
        (HELLO, {"agent": "x" * 129}, "129 bytes"),
        (HELLO, {"resume": b""}, "outside 1..512"),
        (HELLO, {"extensions": ((0x09, b""),)}, "has a field"),
        (CHALLENGE, {"methods": ()}, "methods"),
        (CHALLENGE, {"version": -1}, "version"),
        (CHALLENGE, {"binding_types": ()}, "binding_types"),
        (CHALLENGE, {"server_time": -1}, "server_time"),
        (GRANT, {"credential": bytes(4_097)}, "credential"),
        (GRANT, {"proof": bytes(129)}, "proof"),
        (GRANT, {"public_key": bytes(31)}, "public_key"),
        (WELCOME, {"session_id": b""}, "session_id"),
        (WELCOME, {"lease": 2**32}, "lease"),
        (WELCOME, {"bindings": (Binding("x", "y" * 256),)}, "address"),
        (WELCOME, {"edge_proof": b"x"}, "edge_proof"),
        (WELCOME, {"udp_path": b""}, "udp_path"),
        (WELCOME, {"keepalive": (5, 5)}, "death comes after"),
        (WELCOME, {"keepalive": (0, 5)}, "death comes after"),
    ],
)
def test_what_cannot_be_sent_is_not_built(message, change, fault):
    with pytest.raises(InvalidMetadata, match=fault):
        attrs.evolve(message, **change)


@pytest.mark.parametrize(
    ("message", "kind", "value", "fault"),
    [
        (HELLO, 0x04, b"x", "0x04 of 1 bytes, expected 8"),
        (HELLO, 0x05, b"x", "limits of 1"),
        (HELLO, 0x07, b"\x02a", "fewer left"),
        (HELLO, 0x08, b"\xff", "utf-8"),
        (HELLO, 0x01, b"", "versions"),
        (HELLO, 0x80, b"", "must be understood"),
        (CHALLENGE, 0x01, b"", "0x01 of 0 bytes"),
        (GRANT, 0x01, b"\x07", "7 is not a valid AuthMethod"),
        (GRANT, 0x02, b"\x07", "7 is not a valid ChannelBinding"),
        (WELCOME, 0x04, b"\x01a", "shorter"),
        (WELCOME, 0x08, b"x", "keepalive of 1"),
    ],
)
def test_malformed_messages_are_the_peers_fault(message, kind, value, fault):
    entries = {**decode(message.encode()), kind: value}
    with pytest.raises(RemoteProtocolError, match=fault):
        type(message).decode(encode(sorted(entries.items())))


def test_the_transcript_is_what_the_specification_says():
    expected = hashlib.sha256(b"DRTP/1 transcript\0" + b"\0\0\0\1h" + b"\0\0\0\2cc" + b"\1" + b"\0\0\0\3bbb").digest()
    assert transcript_hash(b"h", b"cc", 1, b"bbb") == expected
    assert Transcript(hello=b"h", challenge=b"cc").hash(ChannelBinding.TLS_SERVER_END_POINT, b"bbb") == expected


def test_every_part_changes_the_transcript():
    base = Transcript(hello=b"h", challenge=b"c")
    digests = {
        base.hash(),
        attrs.evolve(base, hello=b"H").hash(),
        attrs.evolve(base, challenge=b"C").hash(),
        attrs.evolve(base, session_id=bytes(16)).hash(),
        attrs.evolve(base, hello=b"hc", challenge=b"").hash(),
        base.hash(ChannelBinding.TLS_SERVER_END_POINT),
        base.hash(ChannelBinding.NONE, b"b"),
    }
    assert len(digests) == 7


def test_the_proofs_are_what_the_specification_says():
    key, digest = b"key", bytes(32)
    assert psk_proof(key, digest) == hmac.new(key, b"DRTP/1 agent\0" + digest, "sha256").digest()
    assert psk_edge_proof(key, digest, b"p") == hmac.new(key, b"DRTP/1 edge\0" + digest + b"p", "sha256").digest()
    assert grant_message(digest, b"jwt") == b"DRTP/1 agent proof\0" + digest + hashlib.sha256(b"jwt").digest()


def test_an_agents_psk_convinces_an_edge_with_the_same_key_and_channel_only():
    transcript = Transcript(hello=b"h", challenge=b"c")
    auth, expected = psk_auth(b"id", b"key", transcript, ChannelBinding.TLS_SERVER_END_POINT, b"cert")
    assert verify_psk(b"key", auth, transcript, b"cert") == expected
    assert verify_psk(b"kez", auth, transcript, b"cert") is None
    assert verify_psk(b"key", auth, transcript, b"cerT") is None
    assert verify_psk(b"key", auth, attrs.evolve(transcript, challenge=b"d"), b"cert") is None
    assert verify_psk(b"key", attrs.evolve(auth, proof=bytes(32)), transcript, b"cert") is None


@pytest.mark.parametrize(
    ("auth", "good"),
    [
        (GRANT, True),
        (attrs.evolve(GRANT, public_key=None), False),
        (attrs.evolve(GRANT, proof=bytes(63)), False),
        (attrs.evolve(GRANT, credential=b""), False),
        (Auth(method=AuthMethod.PSK, credential=b"id", proof=bytes(32)), True),
        (Auth(method=AuthMethod.PSK, credential=b"id", proof=bytes(32), public_key=bytes(32)), False),
        (Auth(method=AuthMethod.TLS), True),
        (Auth(method=AuthMethod.TLS, credential=b"x"), False),
        (Auth(method=AuthMethod.TLS, proof=b"x"), False),
    ],
)
def test_the_shape_of_a_proof_belongs_to_its_method(auth, good):
    assert auth.well_formed is good
