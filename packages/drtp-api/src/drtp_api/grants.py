"""Grants: short-lived proofs that an agent may serve one service at one server.

Rules:
- One algorithm (Ed25519), one type (``drtp-grant+jwt``), every claim required; anything else is refused.
- A grant is useless without the agent's private key: it carries the key's thumbprint (RFC 7800 ``cnf.jkt``),
  and the agent signs the handshake's transcript with it.
- Agents only carry grants and sign with their key, so the library that reads them is loaded when one is read or made.
- Verification is offline: it needs the key set, the server's own name and the clock, nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from drtp_api.errors import DrtpError

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

__all__ = [
    "GRANT_LIFETIME", "Grant", "GrantIssuer", "GrantVerifier", "b64url", "b64url_decode", "generate_key", "load_key",
    "public_key_bytes", "save_key", "sign", "thumbprint", "verify_signature",
]  # fmt: skip

ALGORITHM: Final = "Ed25519"
TYPE: Final = "drtp-grant+jwt"
ISSUER: Final = "drtp"
GRANT_LIFETIME: Final = 3600
"""Seconds a grant is valid: long enough to outlive a control-plane restart, short enough to bound a theft."""
LEEWAY: Final = 60
"""Seconds of clock difference that are tolerated."""
MAX_SIZE: Final = 4096
"""Bytes of the longest credential that the handshake carries."""


def b64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text: str) -> bytes:
    """Return the bytes of unpadded base64url.

    Raises:
        ValueError: It is not base64url.
    """
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def generate_key() -> Ed25519PrivateKey:
    """Return a new Ed25519 key."""
    return Ed25519PrivateKey.generate()


def save_key(key: Ed25519PrivateKey) -> bytes:
    """Return the key as PEM (PKCS 8, not encrypted: the file's mode protects it)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> Ed25519PrivateKey:
    """Return the key of a PEM file.

    Raises:
        DrtpError: DRTP-1011; it is not an Ed25519 private key.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise DrtpError("DRTP-1011", f"not a private key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DrtpError("DRTP-1011", "the private key is not Ed25519")
    return key


def public_key_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of the public key."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def thumbprint(public_key: bytes) -> str:
    """Return the JWK thumbprint (RFC 7638) of an Ed25519 public key of 32 bytes."""
    canonical = json.dumps(
        {"crv": "Ed25519", "kty": "OKP", "x": b64url(public_key)}, separators=(",", ":"), sort_keys=True
    )
    return b64url(hashlib.sha256(canonical.encode()).digest())


def sign(key: Ed25519PrivateKey, message: bytes) -> bytes:
    """Return the 64-byte signature of the message."""
    return key.sign(message)


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether the signature is right; never raises for what a peer sent."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@attrs.frozen(kw_only=True)
class Grant:
    """What a grant says. Times are seconds since the Unix epoch."""

    connection: str
    server: str
    service: str
    protocol: str
    instance_id: str
    key_thumbprint: str
    issued_at: int
    expires_at: int
    token_id: str


@attrs.define
class GrantIssuer:
    """Signs grants; the controller holds one."""

    key: Ed25519PrivateKey

    @property
    def key_id(self) -> str:
        """The ``kid`` under which edges find the public key."""
        return thumbprint(public_key_bytes(self.key))

    def key_set(self) -> dict[str, Any]:
        """Return the public key set (RFC 7517) that edges verify with."""
        jwk = {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": b64url(public_key_bytes(self.key)),
            "kid": self.key_id,
            "use": "sig",
        }
        return {"keys": [jwk]}

    def issue(self, grant: Grant) -> str:
        """Return the signed token."""
        claims = {
            "iss": ISSUER, "sub": grant.connection, "aud": grant.server, "svc": grant.service, "proto": grant.protocol,
            "iid": grant.instance_id, "cnf": {"jkt": grant.key_thumbprint}, "iat": grant.issued_at,
            "nbf": grant.issued_at, "exp": grant.expires_at, "jti": grant.token_id,
        }  # fmt: skip
        from joserfc import jwt
        from joserfc.jwk import OKPKey

        key = OKPKey.import_key(save_key(self.key))
        return jwt.encode({"alg": ALGORITHM, "typ": TYPE, "kid": self.key_id}, claims, key, algorithms=[ALGORITHM])


@attrs.define
class GrantVerifier:
    """Verifies grants for one server, offline."""

    server: str
    _keys: KeySet | None = None

    def load_keys(self, key_set: Mapping[str, Any]) -> None:
        """Take a new key set; grants signed by keys no longer in it are refused from now on.

        Raises:
            DrtpError: DRTP-1011; it is not a key set.
        """
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        try:
            self._keys = KeySet.import_key_set(dict(key_set))  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise DrtpError("DRTP-1011", f"not a key set: {error}") from error

    def verify(self, token: bytes, *, public_key: bytes, now: float) -> Grant:
        """Return the grant if it is valid here and now for the holder of ``public_key``.

        Raises:
            DrtpError: DRTP-2016; the message says why, for the server's own log only.
        """
        if self._keys is None:
            raise DrtpError("DRTP-2016", "no key set was loaded yet")
        if len(token) > MAX_SIZE:
            raise DrtpError("DRTP-2016", f"{len(token)} bytes exceed {MAX_SIZE}")
        from joserfc import jwt
        from joserfc.errors import JoseError

        try:
            decoded = jwt.decode(token.decode("ascii"), self._keys, algorithms=[ALGORITHM])
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise DrtpError("DRTP-2016", f"{type(error).__name__}: {error}") from error
        return self._check(decoded.header, decoded.claims, public_key, now)

    def _check(self, header: Mapping[str, Any], claims: Mapping[str, Any], public_key: bytes, now: float) -> Grant:
        if header.get("typ") != TYPE:
            raise DrtpError("DRTP-2016", f"type {header.get('typ')!r}, expected {TYPE!r}")
        try:
            grant = Grant(
                connection=_text(claims, "sub"), server=_text(claims, "aud"), service=_text(claims, "svc"),
                protocol=_text(claims, "proto"), instance_id=_text(claims, "iid"),
                key_thumbprint=_text(claims["cnf"], "jkt"), issued_at=_time(claims, "iat"),
                expires_at=_time(claims, "exp"), token_id=_text(claims, "jti"),
            )  # fmt: skip
            not_before = _time(claims, "nbf")
        except (KeyError, TypeError) as error:
            raise DrtpError("DRTP-2016", f"claim {error} is missing or of the wrong type") from error
        if claims.get("iss") != ISSUER:
            raise DrtpError("DRTP-2016", f"issuer {claims.get('iss')!r}")
        if grant.server != self.server:
            raise DrtpError("DRTP-2016", f"made for server {grant.server!r}, this is {self.server!r}")
        if now > grant.expires_at + LEEWAY:
            raise DrtpError("DRTP-2016", f"expired {now - grant.expires_at:.0f} s ago")
        if now < not_before - LEEWAY:
            raise DrtpError("DRTP-2016", f"not valid for another {not_before - now:.0f} s: clock skew?")
        if grant.key_thumbprint != thumbprint(public_key):
            raise DrtpError("DRTP-2016", "bound to another key")
        return grant


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise TypeError(name)
    return value


def _time(claims: Mapping[str, Any], name: str) -> int:
    value = claims[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(name)
    return value
