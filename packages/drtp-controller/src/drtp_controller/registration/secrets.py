"""One-time secrets of services: made here, shown once, kept as digests only.

Rules:
- A secret has 256 bits of randomness, so a plain SHA-256 is as hard to reverse as a slow hash would be.
- Comparison takes the same time whatever is wrong, and an unknown service costs the same as a wrong secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets as random_source
from typing import Any

from drtp_api.kube import Obj
from drtp_api.resources import API_VERSION, Service

__all__ = ["matches", "new_secret", "secret_name", "secret_object"]

PREFIX = "drtps_"
"""Makes a leaked secret recognisable to scanners."""
_FIELD = "sha256"


def new_secret() -> str:
    """Return a new secret."""
    return PREFIX + random_source.token_urlsafe(32)


def secret_name(service: str) -> str:
    """Return the name of the Secret object of a service."""
    return f"drtp-enrollment-{service}"[:253]


def secret_object(service: Service, secret: str) -> Obj:
    """Return the Secret that holds the digest; it is deleted with the service."""
    metadata = service.metadata
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "drtp.datumapis.com/enrollment",
        "metadata": {
            "name": secret_name(metadata.name),
            "namespace": metadata.namespace,
            "ownerReferences": [
                {"apiVersion": API_VERSION, "kind": "DRTPService", "name": metadata.name, "uid": metadata.uid}
            ],
        },
        "data": {_FIELD: base64.b64encode(_digest(secret).encode()).decode()},
    }


def matches(stored: Obj | None, secret: str) -> bool:
    """Return whether the secret is the one whose digest is stored; never raises for what is stored."""
    data: Any = (stored or {}).get("data") or {}
    try:
        known = base64.b64decode(data.get(_FIELD) or b"", validate=True)
    except ValueError:
        known = b""
    return hmac.compare_digest(known, _digest(secret).encode()) and bool(known)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
