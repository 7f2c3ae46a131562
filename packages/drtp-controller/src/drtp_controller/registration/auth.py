"""Who is asking: bearer tokens of people and of agents.

Rules:
- A token is compared in constant time against digests; nothing here logs one.
- An agent without a user's token shows one of its own grants, which admits to its own connection only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Protocol

import attrs
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from drtp_api.errors import DrtpError
from drtp_api.grants import ALGORITHM, ISSUER, LEEWAY, TYPE, GrantIssuer
from drtp_api.kube import Kube, Resource

__all__ = ["Authenticator", "Identity", "StaticTokens", "TokenReviews", "bearer", "grant_subject"]

TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)


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


class TokenReviews:
    """Asks the Kubernetes API whose token it is."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def authenticate(self, token: str) -> Identity | None:
        """Return the user that the API server recognises."""
        body = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "metadata": {},
            "spec": {"token": token},
        }
        answer = (await self._kube.create(TOKEN_REVIEWS, body)).get("status") or {}
        if not answer.get("authenticated"):
            return None
        user = answer.get("user") or {}
        return Identity(str(user.get("username") or ""), tuple(user.get("groups") or ()))


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
