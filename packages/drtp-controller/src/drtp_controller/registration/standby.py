"""What a replica answers before it acts: that it lives, and that others serve.

Rules: the socket is open from the start, so that a probe can tell a process that waits from one that hangs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from drtp_api.errors import DrtpError
from drtp_api.wire import to_wire
from drtp_controller.registration.views import error_body

__all__ = ["Standby"]


class Standby:
    """An ASGI application that hands over to ``app`` while there is one."""

    def __init__(self) -> None:
        self.app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer ``/healthz``, refuse everything else with DRTP-2002."""
        if self.app is not None:
            await self.app(scope, receive, send)
            return
        if scope["path"] == "/healthz":
            await _answer(send, 200, {"status": "ok"})
        else:
            refusal = DrtpError("DRTP-2002", "another controller acts, or this one is about to")
            await _answer(send, 503, to_wire(error_body(refusal)))


async def _answer(send: Any, status: int, body: Any) -> None:
    content = msgspec.json.encode(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
