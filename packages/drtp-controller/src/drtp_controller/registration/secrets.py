"""Secrets that enrol agents: made here, shown once, kept as digests only.

Rules:
- A secret has 256 bits of randomness, so a plain SHA-256 is as hard to reverse as a slow hash would be.
- At most two are valid at a time: the newest, and the one before until its time is over. Digests of earlier ones are
  kept for a while, so that who comes late with one is told why it is refused.
- Comparison takes the same time whatever is wrong, and an unknown service costs the same as a wrong secret.
What must not enter: the API and its objects' life; ``enrolment.py`` has them.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets as random_source
from typing import Any

import attrs

from drtp_api.kube import Obj

__all__ = ["Book", "Verdict", "new_secret", "read_book", "secret_name"]

PREFIX = "drtps_"
"""Makes a leaked secret recognisable to scanners."""
REMEMBERED = 8
"""How many earlier secrets are told from ones that never were."""


class Verdict(enum.Enum):
    """What a secret is worth now."""

    ACCEPTED = "accepted"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


def new_secret() -> str:
    """Return a new secret."""
    return PREFIX + random_source.token_urlsafe(32)


def secret_name(service: str) -> str:
    """Return the name of the Secret object of a service."""
    return f"drtp-enrollment-{service}"[:253]


@attrs.frozen(kw_only=True)
class Book:
    """The digests of one service's secrets. ``previous_until`` is in seconds since the Unix epoch."""

    current: str = ""
    previous: str = ""
    previous_until: float = 0.0
    retired: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()

    def judge(self, secret: str, now: float) -> Verdict:
        """Return what the secret is worth now; every digest is compared, so that time tells nothing."""
        asked = _digest(secret)
        current, previous = _same(self.current, asked), _same(self.previous, asked)
        retired = sum(_same(known, asked) for known in self.retired)
        revoked = sum(_same(known, asked) for known in self.revoked)
        if current or (previous and now < self.previous_until):
            return Verdict.ACCEPTED
        if previous or retired:
            return Verdict.EXPIRED
        return Verdict.REVOKED if revoked else Verdict.UNKNOWN

    def rotated(self, secret: str, *, until: float) -> Book:
        """Return the book with a new secret; the present one stays valid until then."""
        return Book(
            current=_digest(secret),
            previous=self.current,
            previous_until=until,
            retired=_latest(*self.retired, self.previous),
            revoked=self.revoked,
        )

    def emptied(self) -> Book:
        """Return the book with every secret revoked."""
        return Book(retired=self.retired, revoked=_latest(*self.revoked, self.previous, self.current))

    def to_data(self) -> dict[str, str]:
        """Return the data of the Secret object."""
        fields = {
            "sha256": self.current,
            "previous": self.previous,
            "previousUntil": f"{self.previous_until:.0f}" if self.previous else "",
            "retired": ",".join(self.retired),
            "revoked": ",".join(self.revoked),
        }
        return {k: base64.b64encode(v.encode()).decode() for k, v in fields.items() if v}


def read_book(stored: Obj | None) -> Book:
    """Return the book of a stored Secret; never raises for what is stored."""
    data: Any = (stored or {}).get("data")
    found = {name: _text(data, name) for name in ("sha256", "previous", "previousUntil", "retired", "revoked")}
    until = found["previousUntil"]
    return Book(
        current=found["sha256"],
        previous=found["previous"],
        previous_until=float(until) if until.isdecimal() else 0.0,
        retired=tuple(filter(None, found["retired"].split(","))),
        revoked=tuple(filter(None, found["revoked"].split(","))),
    )


def _text(data: Any, name: str) -> str:
    try:
        return base64.b64decode((data or {}).get(name) or b"", validate=True).decode("ascii")
    except (AttributeError, TypeError, ValueError):
        return ""


def _latest(*digests: str) -> tuple[str, ...]:
    return tuple(filter(None, digests))[-REMEMBERED:]


def _same(known: str, asked: str) -> bool:
    return hmac.compare_digest(known.encode(), asked.encode()) and bool(known)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
