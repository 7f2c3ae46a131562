"""The four handshake messages, the transcript, and the pre-shared-key proofs.

Rules: messages are values and know their own encoding; the transcript covers both ends' choices and the TLS channel, so
a proof for one connection is worth nothing on another; every comparison of secrets takes constant time.
What must not be here: signing or verifying of grants (the shells own keys and JWKS), and the order of the messages
(:mod:`drtp_protocol.states`).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Final, Self

import attrs

from . import tlv
from .errors import InvalidMetadata, RemoteProtocolError
from .limits import Limits

__all__ = [
    "PREFACE",
    "VERSION",
    "Auth",
    "AuthMethod",
    "Binding",
    "Capability",
    "Challenge",
    "ChannelBinding",
    "Hello",
    "Transcript",
    "Welcome",
    "grant_message",
    "psk_auth",
    "psk_edge_proof",
    "psk_proof",
    "transcript_hash",
    "verify_psk",
]

PREFACE: Final = b"DRTP/1\r\n"
"""What an agent sends first. A scanner that sends anything else gets no answer."""

VERSION: Final = 1

_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")


class AuthMethod(enum.IntEnum):
    """How an agent proves who it is."""

    GRANT = 1
    PSK = 2
    TLS = 3


class ChannelBinding(enum.IntEnum):
    """What ties the transcript to the TLS channel."""

    NONE = 0
    TLS_SERVER_END_POINT = 1


class Capability(enum.IntFlag):
    """Optional parts; in force if both ends announce them."""

    NONE = 0
    AGENT_OPEN = 1
    UDP_PATH = 2
    REPORT = 4


@attrs.frozen
class Binding:
    """A service that the edge serves through this tunnel.

    Attributes:
        service: Key "namespace/name", 1..253 bytes.
        address: Where the edge listens for it, "host:port"; empty if the edge does not say.
    """

    service: str
    address: str = ""


@attrs.frozen(kw_only=True)
class Hello:
    """The agent introduces itself. `nonce` and `limits` are filled in by the connection that sends it.

    Attributes:
        instance_id: 16 bytes, kept over restarts of one agent.
        epoch: Grows with every start; a newer one supersedes an older of the same instance.
        services: Keys of the services it wants to serve, each 1..253 bytes.
        agent: Software name and version, at most 128 bytes.
        resume: Ticket of an earlier WELCOME, at most 512 bytes, to reclaim its bindings.
        capabilities: What it can do.
        versions: Protocol versions it speaks, ascending.
        nonce: 32 bytes.
        limits: What it accepts.
        extensions: Entries of unknown type, in wire order.
    """

    instance_id: bytes
    epoch: int
    services: tuple[str, ...] = ()
    agent: str = ""
    resume: bytes | None = None
    capabilities: Capability = Capability.NONE
    versions: tuple[int, ...] = (VERSION,)
    nonce: bytes = bytes(32)
    limits: Limits = Limits()
    extensions: tlv.Extensions = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be sent."""
        _check_size("instance_id", self.instance_id, 16)
        _check_size("nonce", self.nonce, 32)
        _check_u64("epoch", self.epoch)
        _check_numbers("versions", self.versions)
        _check_texts("services", self.services, 253)
        _check_text("agent", self.agent, 128)
        _check_bound("resume", self.resume, 1, 512)
        _check_extensions(self.extensions, 0x09)

    def encode(self) -> bytes:
        """Return the payload of HELLO."""
        items = [
            (0x01, bytes(self.versions)),
            (0x02, self.nonce),
            (0x03, self.instance_id),
            (0x04, _U64.pack(self.epoch)),
            (0x05, self.limits.encode()),
            (0x06, _U32.pack(self.capabilities)),
            (0x07, tlv.pack_list(service.encode() for service in self.services)),
            (0x08, self.agent.encode()),
        ]
        if self.resume is not None:
            items.append((0x09, self.resume))
        return tlv.encode(sorted([*items, *self.extensions]))

    @classmethod
    def decode(cls, payload: bytes) -> Hello:
        """Read the payload of HELLO.

        Raises:
            RemoteProtocolError: malformed.
        """
        with _Fields("HELLO", payload, required=range(0x01, 0x09), optional=(0x09,)) as fields:
            return cls(
                versions=tuple(fields[0x01]),
                nonce=fields[0x02],
                instance_id=fields[0x03],
                epoch=fields.u64(0x04),
                limits=Limits.decode(fields[0x05]),
                capabilities=Capability(fields.u32(0x06)),
                services=fields.texts(0x07),
                agent=fields.text(0x08),
                resume=fields.get(0x09),
                extensions=fields.extensions,
            )


@attrs.frozen(kw_only=True)
class Challenge:
    """The edge's answer to HELLO, and later its demand to authenticate again.

    `nonce` and `limits` are filled in by the connection that sends it.

    Attributes:
        edge_id: The edge's server name, at most 253 bytes.
        methods: What it accepts (:class:`AuthMethod`, or a number of a later version), ascending.
        binding_types: Channel bindings it accepts, ascending.
        capabilities: What it can do.
        server_time: Microseconds since the epoch, so that an agent can tell a wrong clock from a wrong credential.
        version: The version it chose.
        nonce: 32 fresh bytes.
        limits: What it accepts.
        extensions: Entries of unknown type, in wire order.
    """

    edge_id: str
    methods: tuple[int, ...]
    binding_types: tuple[int, ...] = (ChannelBinding.NONE,)
    capabilities: Capability = Capability.NONE
    server_time: int = 0
    version: int = VERSION
    nonce: bytes = bytes(32)
    limits: Limits = Limits()
    extensions: tlv.Extensions = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be sent."""
        _check_numbers("version", (self.version,))
        _check_size("nonce", self.nonce, 32)
        _check_text("edge_id", self.edge_id, 253)
        _check_numbers("methods", self.methods)
        _check_numbers("binding_types", self.binding_types)
        _check_u64("server_time", self.server_time)
        _check_extensions(self.extensions, 0x08)

    def encode(self) -> bytes:
        """Return the payload of CHALLENGE."""
        items = [
            (0x01, bytes((self.version,))),
            (0x02, self.nonce),
            (0x03, self.edge_id.encode()),
            (0x04, bytes(self.methods)),
            (0x05, bytes(self.binding_types)),
            (0x06, self.limits.encode()),
            (0x07, _U32.pack(self.capabilities)),
            (0x08, _U64.pack(self.server_time)),
        ]
        return tlv.encode(sorted([*items, *self.extensions]))

    @classmethod
    def decode(cls, payload: bytes) -> Challenge:
        """Read the payload of CHALLENGE.

        Raises:
            RemoteProtocolError: malformed.
        """
        with _Fields("CHALLENGE", payload, required=range(0x01, 0x09)) as fields:
            return cls(
                version=fields.u8(0x01),
                nonce=fields[0x02],
                edge_id=fields.text(0x03),
                methods=tuple(fields[0x04]),
                binding_types=tuple(fields[0x05]),
                limits=Limits.decode(fields[0x06]),
                capabilities=Capability(fields.u32(0x07)),
                server_time=fields.u64(0x08),
                extensions=fields.extensions,
            )


@attrs.frozen(kw_only=True)
class Auth:
    """The agent proves itself over the transcript.

    Attributes:
        method: One of CHALLENGE's.
        binding_type: One of CHALLENGE's.
        credential: GRANT: the JWT. PSK: the key's id. TLS: empty. At most 4,096 bytes.
        proof: GRANT: an Ed25519 signature, 64 bytes. PSK: an HMAC, 32 bytes. TLS: empty. At most 128 bytes.
        public_key: GRANT: the agent's raw Ed25519 key, 32 bytes; else nothing.
        extensions: Entries of unknown type, in wire order.
    """

    method: AuthMethod
    binding_type: ChannelBinding = ChannelBinding.NONE
    credential: bytes = b""
    proof: bytes = b""
    public_key: bytes | None = None
    extensions: tlv.Extensions = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be sent."""
        _check_bound("credential", self.credential, 0, 4_096)
        _check_bound("proof", self.proof, 0, 128)
        _check_bound("public_key", self.public_key, 32, 32)
        _check_extensions(self.extensions, 0x05)

    @property
    def well_formed(self) -> bool:
        """Whether credential, proof and key have the shape of the method."""
        credential, proof, key = bool(self.credential), len(self.proof), self.public_key is not None
        return (credential, proof, key) == _SHAPES[self.method]

    def encode(self) -> bytes:
        """Return the payload of AUTH."""
        items = [
            (0x01, bytes((self.method,))),
            (0x02, bytes((self.binding_type,))),
            (0x03, self.credential),
            (0x04, self.proof),
        ]
        if self.public_key is not None:
            items.append((0x05, self.public_key))
        return tlv.encode(sorted([*items, *self.extensions]))

    @classmethod
    def decode(cls, payload: bytes) -> Auth:
        """Read the payload of AUTH.

        Raises:
            RemoteProtocolError: malformed, or an unknown method or binding type.
        """
        with _Fields("AUTH", payload, required=range(0x01, 0x05), optional=(0x05,)) as fields:
            return cls(
                method=AuthMethod(fields.u8(0x01)),
                binding_type=ChannelBinding(fields.u8(0x02)),
                credential=fields[0x03],
                proof=fields[0x04],
                public_key=fields.get(0x05),
                extensions=fields.extensions,
            )


_SHAPES = {AuthMethod.GRANT: (True, 64, True), AuthMethod.PSK: (True, 32, False), AuthMethod.TLS: (False, 0, False)}


@attrs.frozen(kw_only=True)
class Welcome:
    """The edge lets the agent in. `limits` are filled in by the connection that sends it.

    Attributes:
        session_id: 16 bytes; the transcript of a later authentication covers it, so it stays for the connection.
        lease: Whole seconds until the agent must have authenticated again; 0 for ever.
        bindings: What the edge serves through this tunnel.
        edge_proof: PSK: the edge's own proof, 32 bytes.
        resume: Ticket to reclaim the bindings with, 1..512 bytes.
        udp_path: Offer of the UDP side path, 1..128 bytes.
        keepalive: Milliseconds (silence before a PING, silence before death), if the edge stretches them.
        limits: In force from here on.
        extensions: Entries of unknown type, in wire order.
    """

    session_id: bytes
    lease: int = 0
    bindings: tuple[Binding, ...] = ()
    edge_proof: bytes | None = None
    resume: bytes | None = None
    udp_path: bytes | None = None
    keepalive: tuple[int, int] | None = None
    limits: Limits = Limits()
    extensions: tlv.Extensions = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be sent."""
        _check_size("session_id", self.session_id, 16)
        if not 0 <= self.lease < 2**32:
            raise InvalidMetadata(f"lease {self.lease} is outside u32")
        _check_texts("bindings", tuple(binding.service for binding in self.bindings), 253)
        for binding in self.bindings:
            _check_text("binding's address", binding.address, 255)
        _check_bound("edge_proof", self.edge_proof, 32, 32)
        _check_bound("resume", self.resume, 1, 512)
        _check_bound("udp_path", self.udp_path, 1, 128)
        if self.keepalive is not None and not 0 < self.keepalive[0] < self.keepalive[1] < 2**32:
            raise InvalidMetadata(f"keepalive {self.keepalive}: death comes after the PING")
        _check_extensions(self.extensions, 0x08)

    def encode(self) -> bytes:
        """Return the payload of WELCOME."""
        names = [text.encode() for binding in self.bindings for text in (binding.service, binding.address)]
        items = [
            (0x01, self.session_id),
            (0x02, _U32.pack(self.lease)),
            (0x03, self.limits.encode()),
            (0x04, tlv.pack_list(names)),
        ]
        if self.edge_proof is not None:
            items.append((0x05, self.edge_proof))
        if self.resume is not None:
            items.append((0x06, self.resume))
        if self.udp_path is not None:
            items.append((0x07, self.udp_path))
        if self.keepalive is not None:
            items.append((0x08, b"".join(map(_U32.pack, self.keepalive))))
        return tlv.encode(sorted([*items, *self.extensions]))

    @classmethod
    def decode(cls, payload: bytes) -> Welcome:
        """Read the payload of WELCOME.

        Raises:
            RemoteProtocolError: malformed.
        """
        with _Fields("WELCOME", payload, required=range(0x01, 0x05), optional=range(0x05, 0x09)) as fields:
            names = fields.texts(0x04)
            times = fields.get(0x08)
            if times is not None and len(times) != 8:
                raise InvalidMetadata(f"keepalive of {len(times)} bytes, expected 8")
            return cls(
                session_id=fields[0x01],
                lease=fields.u32(0x02),
                limits=Limits.decode(fields[0x03]),
                bindings=tuple(Binding(*pair) for pair in zip(names[::2], names[1::2], strict=True)),
                edge_proof=fields.get(0x05),
                resume=fields.get(0x06),
                udp_path=fields.get(0x07),
                keepalive=None if times is None else (_U32.unpack(times[:4])[0], _U32.unpack(times[4:])[0]),
                extensions=fields.extensions,
            )


class _Fields:
    """The entries of one message while it is read; turns every refusal of a value into the peer's fault."""

    def __init__(self, name: str, payload: bytes, *, required: Sequence[int], optional: Sequence[int] = ()) -> None:
        self._name = name
        self._found = tlv.decode(payload)
        self.extensions = tlv.split_known(self._found, {*required, *optional})
        for kind in required:
            if kind not in self._found:
                raise RemoteProtocolError(f"{name} lacks TLV {kind:#04x}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):  # ours, an enum's, a codec's and zip's
            raise RemoteProtocolError(f"{self._name}: {error}") from None

    def __getitem__(self, kind: int) -> bytes:
        return self._found[kind]

    def get(self, kind: int) -> bytes | None:
        return self._found.get(kind)

    def _number(self, kind: int, size: int) -> int:
        value = self._found[kind]
        if len(value) != size:
            raise InvalidMetadata(f"TLV {kind:#04x} of {len(value)} bytes, expected {size}")
        return int.from_bytes(value, "big")

    def u8(self, kind: int) -> int:
        return self._number(kind, 1)

    def u32(self, kind: int) -> int:
        return self._number(kind, 4)

    def u64(self, kind: int) -> int:
        return self._number(kind, 8)

    def text(self, kind: int) -> str:
        return self._found[kind].decode()

    def texts(self, kind: int) -> tuple[str, ...]:
        return tuple(item.decode() for item in tlv.unpack_list(self._found[kind]))


def _check_size(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise InvalidMetadata(f"{name} of {len(value)} bytes, expected {size}")


def _check_bound(name: str, value: bytes | None, low: int, high: int) -> None:
    if value is not None and not low <= len(value) <= high:
        raise InvalidMetadata(f"{name} of {len(value)} bytes is outside {low}..{high}")


def _check_u64(name: str, value: int) -> None:
    if not 0 <= value < 2**64:
        raise InvalidMetadata(f"{name} {value} is outside u64")


def _check_text(name: str, text: str, bound: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidMetadata(f"{name} is not encodable as UTF-8") from None
    if size > bound:
        raise InvalidMetadata(f"{name} of {size} bytes exceeds {bound}")


def _check_texts(name: str, texts: tuple[str, ...], bound: int) -> None:
    for text in texts:
        if not text:
            raise InvalidMetadata(f"{name} holds an empty name")
        _check_text(name, text, bound)


def _check_numbers(name: str, numbers: tuple[int, ...]) -> None:
    if not numbers or list(numbers) != sorted(set(numbers)) or not 0 <= numbers[0] <= numbers[-1] <= 0xFF:
        raise InvalidMetadata(f"{name} {[int(number) for number in numbers]}: bytes, ascending, at least one")


def _check_extensions(extensions: tlv.Extensions, last_known: int) -> None:
    if any(kind <= last_known for kind, _ in extensions):
        raise InvalidMetadata("an extension uses a type that has a field")


@attrs.frozen(kw_only=True)
class Transcript:
    """What both ends sent so far, as bytes of the wire.

    Attributes:
        hello: Preface and HELLO frame.
        challenge: CHALLENGE frame.
        session_id: Empty at first; WELCOME's when authenticating again.
    """

    hello: bytes
    challenge: bytes
    session_id: bytes = b""

    def hash(self, binding_type: ChannelBinding = ChannelBinding.NONE, binding: bytes = b"") -> bytes:
        """Return :func:`transcript_hash` of it and the channel's binding."""
        return transcript_hash(self.hello, self.challenge, binding_type, binding, self.session_id)


def transcript_hash(
    hello: bytes, challenge: bytes, binding_type: int, binding: bytes, session_id: bytes = b""
) -> bytes:
    r"""Return the 32 bytes that proofs are made over.

    SHA-256("DRTP/1 transcript\0" || lp(hello) || lp(challenge) || u8 binding_type || lp(binding)
    [|| lp(session_id) when authenticating again]), where lp is a u32 length and the bytes.

    Args:
        hello: The preface and the HELLO frame as on the wire.
        challenge: The CHALLENGE frame as on the wire.
        binding_type: See :class:`ChannelBinding`.
        binding: For tls-server-end-point: SHA-256 of the leaf certificate (RFC 5929).
        session_id: WELCOME's, when authenticating again.
    """
    digest = hashlib.sha256(b"DRTP/1 transcript\0")
    for part in (hello, challenge):
        digest.update(_U32.pack(len(part)) + part)
    digest.update(bytes((binding_type,)) + _U32.pack(len(binding)) + binding)
    if session_id:
        digest.update(_U32.pack(len(session_id)) + session_id)
    return digest.digest()


def grant_message(transcript: bytes, credential: bytes) -> bytes:
    """Return what an agent signs with its Ed25519 key for method GRANT; `transcript` is the 32-byte hash."""
    return b"DRTP/1 agent proof\0" + transcript + hashlib.sha256(credential).digest()


def psk_proof(key: bytes, transcript: bytes) -> bytes:
    """Return the agent's proof for method PSK; `transcript` is the 32-byte hash."""
    return hmac.digest(key, b"DRTP/1 agent\0" + transcript, "sha256")


def psk_edge_proof(key: bytes, transcript: bytes, proof: bytes) -> bytes:
    """Return the edge's answer to `proof`, so that the agent knows the edge holds the key too."""
    return hmac.digest(key, b"DRTP/1 edge\0" + transcript + proof, "sha256")


def psk_auth(
    key_id: bytes,
    key: bytes,
    transcript: Transcript,
    binding_type: ChannelBinding = ChannelBinding.NONE,
    binding: bytes = b"",
) -> tuple[Auth, bytes]:
    """Return the agent's AUTH for method PSK and the edge proof to expect, both for `Connection.authenticate`."""
    digest = transcript.hash(binding_type, binding)
    proof = psk_proof(key, digest)
    auth = Auth(method=AuthMethod.PSK, binding_type=binding_type, credential=key_id, proof=proof)
    return auth, psk_edge_proof(key, digest, proof)


def verify_psk(key: bytes, auth: Auth, transcript: Transcript, binding: bytes = b"") -> bytes | None:
    """Return the edge proof for WELCOME if `auth` was made with `key`, else None; takes constant time.

    Pass a random `key` for an unknown key id, so that an outsider cannot tell which ids exist.
    """
    digest = transcript.hash(auth.binding_type, binding)
    if not hmac.compare_digest(psk_proof(key, digest), auth.proof):
        return None
    return psk_edge_proof(key, digest, auth.proof)
