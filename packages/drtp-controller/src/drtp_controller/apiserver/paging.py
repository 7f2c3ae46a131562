"""Continue tokens of lists: where the next page starts, and of which snapshot. Pure."""

from __future__ import annotations

import base64
import binascii
import json

from drtp_api.kube import BadRequest, Key


def encode_token(revision: int, start: Key) -> str:
    """Return the token of the page that starts at a key, in the snapshot of a version."""
    text = json.dumps({"rv": revision, "start": [start.namespace, start.name]}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str) -> tuple[int, Key]:
    """Return the version and the first key a token stands for. Raises `BadRequest`."""
    try:
        body = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = body["start"]
        return int(body["rv"]), Key(str(namespace), str(name))
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error
