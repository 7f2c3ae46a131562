"""Who is asking: bearer tokens of people and of agents.

Rules:
- A token is compared in constant time against digests; nothing here logs one.
- An agent without a user's token shows one of its own grants, which admits to its own connection only.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from drtp_api.errors import DrtpError
from drtp_api.grants import ALGORITHM, ISSUER, LEEWAY, TYPE, GrantIssuer
from drtp_api.kube import Forbidden, HttpKube, KubeConfig, Resource, Unauthorized

__all__ = ["Authenticator", "Identity", "SelfReviews", "StaticTokens", "bearer", "grant_subject"]

SELF_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
REMEMBER_SECONDS = 60.0
MAX_KNOWN = 10_000


@attrs.frozen
class Identity:
    """A user that was recognised."""

    name: str
    groups: tuple[str, ...] = ()


class Authenticator(Protocol):
    """Recognises users by their bearer token."""

    async def authenticate(self, token: str) -> Identity | None:
        """Return who holds the token, ``None`` where nobody known does."""
        ...


class StaticTokens:
    """A fixed set of tokens, as ``drtp local`` makes them."""

    def __init__(self, tokens: Mapping[str, Identity]) -> None:
        self._digests = [(_digest(token), identity) for token, identity in tokens.items()]

    async def authenticate(self, token: str) -> Identity | None:
        """Return who holds the token; every known token is compared, so that time tells nothing."""
        asked, found = _digest(token), None
        for digest, identity in self._digests:
            if hmac.compare_digest(digest, asked):
                found = identity
        return found


class SelfReviews:
    """Asks the Kubernetes API, as the holder of the token, who that is: it needs no permission of our own.

    Answers are remembered for a minute, so that a fleet that reconnects does not ask once per agent.
    """

    def __init__(self, config: KubeConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = attrs.evolve(config, token_file=None, client_certificate_pem="", client_key_pem="")
        self._clock = clock
        self._known: dict[bytes, tuple[float, Identity]] = {}

    async def authenticate(self, token: str) -> Identity | None:
        """Return the user that the API server recognises."""
        now, digest = self._clock(), _digest(token)
        self._known = {d: entry for d, entry in self._known.items() if entry[0] > now}
        if digest in self._known:
            return self._known[digest][1]
        body = {"apiVersion": SELF_REVIEWS.api_version, "kind": SELF_REVIEWS.kind, "metadata": {}}
        async with HttpKube(attrs.evolve(self._config, token=token)) as kube:
            try:
                answer = await kube.create(SELF_REVIEWS, body)
            except (Unauthorized, Forbidden):
                return None
        user = (answer.get("status") or {}).get("userInfo") or {}
        name = str(user.get("username") or "")
        if not name or name == "system:anonymous":
            return None
        identity = Identity(name, tuple(user.get("groups") or ()))
        if len(self._known) < MAX_KNOWN:
            self._known[digest] = (now + REMEMBER_SECONDS, identity)
        return identity


def bearer(header: str | None) -> str | None:
    """Return the token of an Authorization header."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def grant_subject(issuer: GrantIssuer, token: str, now: float) -> str | None:
    """Return the connection key of a valid grant of ours, ``None`` for anything else."""
    try:
        keys = KeySet.import_key_set(issuer.key_set())  # type: ignore[arg-type]
        decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
    except (JoseError, ValueError, KeyError, TypeError, DrtpError):
        return None
    claims: Mapping[str, Any] = decoded.claims
    expires, subject = claims.get("exp"), claims.get("sub")
    if decoded.header.get("typ") != TYPE or claims.get("iss") != ISSUER:
        return None
    if not isinstance(expires, int) or now > expires + LEEWAY or not isinstance(subject, str):
        return None
    return subject


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
