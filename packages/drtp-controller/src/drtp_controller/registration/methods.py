"""Which methods a path has: the answer to OPTIONS, and the header that every 405 owes (RFC 9110, section 15.5.6).

Rules: all handlers of a path count, in whatever order they were declared; the framework's own answer to OPTIONS knows
only the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

__all__ = ["allowed_methods", "answer_options"]

_App = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


def allowed_methods(routes: Iterable[Any], path: str) -> str:
    """Return the value of the Allow header for a path."""
    found = {"OPTIONS"}
    for known in routes:
        pattern = "/".join("[^/]+" if part.startswith("{") else re.escape(part) for part in known.path.split("/"))
        if re.fullmatch(pattern, path.rstrip("/") or "/"):
            found.update(str(m) for m in known.methods)
    return ", ".join(sorted(found))


def answer_options(app: _App) -> _App:
    """Wrap an application so that OPTIONS gets every method of its path."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            await app(scope, receive, send)
            return
        allow = allowed_methods(scope["litestar_app"].routes, scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode("ascii"))]})
        await send({"type": "http.response.body", "body": b""})

    return wrapped
