"""Who may bring a tunnel: the judgement of one AUTH, with the reason for the log. No I/O; the clock is passed in.

Rules:
- Every refusal is one :class:`Refused`; the peer hears one code whatever was wrong, the reason is for our log.
- A proof counts only over this connection's transcript and this channel's certificate.
- While the control plane is out of reach its clock stands still for grants, at most ``outage_grace`` long; a
  revocation that is known always wins.

What must not live here: connections, and what is done with those who are let in.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Protocol, assert_never

import attrs

from drtp_api.errors import DrtpError
from drtp_api.grants import GrantVerifier, verify_signature
from drtp_protocol.errors import ErrorCode
from drtp_protocol.handshake import (
    Auth,
    AuthMethod,
    ChannelBinding,
    Hello,
    Transcript,
    grant_message,
    verify_psk,
)

__all__ = ["OUTAGE_LEASE", "Admission", "HandshakePolicy", "PresharedKey", "Refused", "Revocations"]

OUTAGE_LEASE = 300.0
"""Seconds of lease given while the control plane is out of reach: short, so that its return is soon felt."""

_SHORTEST_LEASE = 15.0
"""Seconds of the shortest lease: an agent that cannot renew must not be asked again in a tight loop."""


class Refused(Exception):  # noqa: N818 - it is a verdict
    """The agent is not let in. ``code`` is what the peer hears, ``reason`` is for our log."""

    def __init__(self, reason: str, code: ErrorCode = ErrorCode.AUTH_FAILED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@attrs.frozen(kw_only=True)
class Admission:
    """What an agent proved. Times are seconds since the Unix epoch.

    Attributes:
        services: Keys of the services it may serve.
        connection: Key of its DRTPConnection; empty without a control plane.
        instance: 16 bytes.
        epoch: The start of its process.
        lease: Seconds until it must have authenticated again; 0 for ever.
        issued_at: When its grant was made, 0 without one.
        edge_proof: For WELCOME, with a pre-shared key.
    """

    services: tuple[str, ...]
    connection: str
    instance: bytes
    epoch: int
    lease: float
    issued_at: float = 0.0
    edge_proof: bytes | None = None


@attrs.frozen(kw_only=True)
class PresharedKey:
    """A key of stand-alone mode and the services its holder may serve."""

    key: bytes = attrs.field(repr=False)
    services: tuple[str, ...]


class Revocations(Protocol):
    """Knows which grants were withdrawn, and since when the control plane is out of reach."""

    def revoked(self, connection: str, issued_at: float) -> bool:
        """Return whether a grant of that connection, made at that time, was withdrawn."""
        ...

    def outage(self, now: float) -> float:
        """Return for how many seconds the control plane has been out of reach; 0 while it answers."""
        ...


@attrs.define(kw_only=True)
class HandshakePolicy:
    """Judges agents.

    Args:
        methods: The methods accepted, ascending.
        verifier: For grants.
        revocations: What the control plane withdrew.
        keys: Pre-shared keys by id.
        outage_grace: Seconds by which an outage of the control plane may extend grants; 0 is strict.
        fronts: SHA-256 hashes of the certificates of known TLS-terminating fronts, accepted as channel bindings.
        require_binding: Refuse proofs that are not tied to the TLS channel; off only without TLS, in benchmarks.
    """

    methods: tuple[AuthMethod, ...]
    verifier: GrantVerifier | None = None
    revocations: Revocations | None = None
    keys: Mapping[bytes, PresharedKey] = attrs.field(factory=dict)
    outage_grace: float = 86_400.0
    fronts: tuple[bytes, ...] = ()
    require_binding: bool = True
    _decoy: bytes = attrs.field(factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def binding_types(self) -> tuple[int, ...]:
        """The channel bindings to offer."""
        return (ChannelBinding.TLS_SERVER_END_POINT,) if self.require_binding else tuple(ChannelBinding)

    def judge(
        self, hello: Hello, auth: Auth, transcript: Transcript, *, binding: bytes | None, now: float
    ) -> Admission:
        """Return what the agent proved.

        Args:
            hello: What it said first.
            auth: What it says now.
            transcript: What both said.
            binding: SHA-256 of the certificate this channel showed, None without TLS.
            now: Seconds since the Unix epoch.

        Raises:
            Refused: it did not prove it.
        """
        if auth.method not in self.methods:
            raise Refused(f"method {auth.method.name} is not accepted here")
        if not auth.well_formed:
            raise Refused(f"credential, proof or key do not have the shape of {auth.method.name}")
        bindings = self._bindings(auth, binding)
        match auth.method:
            case AuthMethod.GRANT:
                return self._grant(hello, auth, transcript, bindings, now)
            case AuthMethod.PSK:
                return self._psk(hello, auth, transcript, bindings)
            case AuthMethod.TLS:
                raise Refused("client certificates are not accepted here")
            case _:
                assert_never(auth.method)

    def _bindings(self, auth: Auth, binding: bytes | None) -> tuple[bytes, ...]:
        """Return the channel bindings a proof may be made over."""
        if auth.binding_type is ChannelBinding.NONE:
            if self.require_binding:
                raise Refused("the proof is not bound to the channel")
            return (b"",)
        if binding is None:
            raise Refused("the proof is bound to a TLS channel, and there is none")
        return (binding, *self.fronts)

    def _grant(
        self, hello: Hello, auth: Auth, transcript: Transcript, bindings: tuple[bytes, ...], now: float
    ) -> Admission:
        if self.verifier is None or auth.public_key is None:
            raise Refused("grants are not accepted here")
        outage = min(self.revocations.outage(now), self.outage_grace) if self.revocations is not None else 0.0
        try:
            grant = self.verifier.verify(auth.credential, public_key=auth.public_key, now=now)
        except DrtpError as error:
            if not outage:
                raise Refused(error.message) from error
            try:
                grant = self.verifier.verify(auth.credential, public_key=auth.public_key, now=now - outage)
            except DrtpError as second:
                raise Refused(second.message) from error
        if grant.instance_id != hello.instance_id.hex():
            raise Refused(f"the grant is for instance {grant.instance_id}, HELLO says {hello.instance_id.hex()}")
        if hello.services and grant.service not in hello.services:
            raise Refused(f"the grant is for {grant.service!r}, HELLO asks for {', '.join(hello.services)!r}")
        key = auth.public_key
        if not any(
            verify_signature(key, auth.proof, grant_message(transcript.hash(auth.binding_type, b), auth.credential))
            for b in bindings
        ):
            raise Refused("the proof does not verify: another key, another connection or another certificate")
        if self.revocations is not None and self.revocations.revoked(grant.connection, grant.issued_at):
            raise Refused(f"connection {grant.connection!r} was revoked")
        remaining = grant.expires_at - now
        return Admission(
            services=(grant.service,),
            connection=grant.connection,
            instance=hello.instance_id,
            epoch=hello.epoch,
            lease=max(remaining, OUTAGE_LEASE if outage else _SHORTEST_LEASE),
            issued_at=grant.issued_at,
        )

    def _psk(self, hello: Hello, auth: Auth, transcript: Transcript, bindings: tuple[bytes, ...]) -> Admission:
        known = self.keys.get(auth.credential)
        key = known.key if known is not None else self._decoy
        # Every binding is tried whether or not the key is known, so that time tells nothing of which ids exist.
        proofs = [proof for b in bindings if (proof := verify_psk(key, auth, transcript, b)) is not None]
        if known is None:
            raise Refused("unknown key id")
        if not proofs:
            raise Refused("the proof does not verify: another key, another connection or another certificate")
        services = tuple(s for s in known.services if not hello.services or s in hello.services)
        if not services:
            raise Refused("the key serves none of the services asked for")
        return Admission(
            services=services,
            connection="",
            instance=hello.instance_id,
            epoch=hello.epoch,
            lease=0.0,
            edge_proof=proofs[0],
        )
