"""The API as an ASGI application: who asks, where it goes, and watches as streams.

Rules:
- Every request but health and version needs a token; tokens are compared by digest, never by value.
- An unforeseen error is a 500 with a Status and a log line, never a traceback to the client.
- When the server stops, watches end cleanly, so that clients resume instead of starting over.
What must not enter: what a request does (handlers.py, core.py).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing
from typing import Any

from drtp_api.kube import BadRequest, Gone, KubeError, NotFound, Obj, Unauthorized
from drtp_controller.apiserver.core import Api, parse_version
from drtp_controller.apiserver.handlers import Handlers, Target, encoded_record, find_target, list_options
from drtp_controller.apiserver.rbac import Role, User
from drtp_controller.apiserver.tables import make_table, partial_metadata
from drtp_controller.apiserver.watching import Emission, WatchCursor, stream
from drtp_controller.apiserver.wire import (
    JSON,
    MAX_BODY_BYTES,
    Request,
    Response,
    Shape,
    encode,
    parse_query,
    refuse,
)

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WATCH_SECONDS = 1800.0
"""How long a watch runs when its client does not say: the real server's minimum."""
_OPEN_PATHS = frozenset({"healthz", "livez", "readyz", "version"})
_ANONYMOUS = User("system:anonymous", Role.READ_ONLY)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class AsgiApp:
    """The ASGI application of one API.

    Args:
        api: the core.
        tokens: who each bearer token stands for.
    """

    def __init__(self, api: Api, tokens: Mapping[str, User]) -> None:
        self._api = api
        self._handlers = Handlers(api)
        self._users = {_digest(token): user for token, user in tokens.items()}
        self._streams: set[asyncio.Task[None]] = set()

    def add_token(self, token: str, user: User) -> None:
        """Accept one more token."""
        self._users[_digest(token)] = user

    def end_watches(self) -> None:
        """End all running watches cleanly."""
        for task in list(self._streams):
            task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served here")
        request: Request | None = None
        try:
            request = await _read_request(scope, receive)
            parts = [part for part in request.path.split("/") if part]
            user = self._authenticate(request, parts)
            answer = self._handlers.information(request, user, parts)
            if answer is None:
                target = self._target(parts)
                if request.method == "GET" and not target.name and request.flag("watch"):
                    await self._watch(request, user, target, receive, send)
                    return
                answer = self._handlers.handle(request, user, target)
        except KubeError as error:
            answer = refuse(error)
        except Exception:
            _log.exception("%s %s failed", scope.get("method"), scope.get("path"))
            answer = refuse(KubeError("Internal error occurred: see the API server's log"))
        await _send(send, answer)

    def _target(self, parts: list[str]) -> Target:
        if (parts[:1] == ["api"] and len(parts) > 2) or (parts[:1] == ["apis"] and len(parts) > 3):
            return find_target(self._api, parts)
        raise NotFound("the server could not find the requested resource")

    def _authenticate(self, request: Request, parts: list[str]) -> User:
        scheme, _, token = request.header("authorization").partition(" ")
        user = self._users.get(_digest(token.strip())) if scheme.lower() == "bearer" else None
        if user is None:
            if parts and parts[0] in _OPEN_PATHS:
                return _ANONYMOUS
            raise Unauthorized("Unauthorized")
        return user

    async def _watch(self, request: Request, user: User, target: Target, receive: Receive, send: Send) -> None:
        self._api.authorize_watch(user, target.kind, target.namespace, list_options(request).selector.name)
        watch = _WatchRequest(self._api, request, target)
        streaming = asyncio.create_task(watch.run(send))
        leaving = asyncio.create_task(_disconnected(receive))
        self._streams.add(streaming)
        try:
            await asyncio.wait({streaming, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            streaming.cancel()
            self._streams.discard(streaming)
            results = await asyncio.gather(streaming, leaving, return_exceptions=True)
        if isinstance(results[0], Exception) and not isinstance(results[0], OSError):
            _log.error("a watch of %s failed", target.kind.resource.qualified, exc_info=results[0])


class _WatchRequest:
    """One watch: its options, and the encoding of its events."""

    def __init__(self, api: Api, request: Request, target: Target) -> None:
        self._api = api
        self._kind = target.kind
        self._shape = request.shape()
        self._include = request.query.get("includeObject", "Metadata")
        self._with_columns = True
        self._mark_initial = request.flag("sendInitialEvents")
        self._bookmarks = request.flag("allowWatchBookmarks")
        self._seconds = float(request.number("timeoutSeconds")) or WATCH_SECONDS
        version = request.query.get("resourceVersion", "")
        if self._mark_initial and request.query.get("resourceVersionMatch") != "NotOlderThan":
            raise BadRequest("sendInitialEvents is invalid: resourceVersionMatch: Required value: must be NotOlderThan")
        self._from_present = self._mark_initial or version in {"", "0"}
        position = api.store.revision if self._from_present else parse_version(version)
        options = list_options(request)
        namespace = target.namespace
        self._cursor = WatchCursor(api.store, target.kind.collection, namespace, options.selector, position)

    async def run(self, send: Send) -> None:
        headers = [(b"content-type", JSON.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # an empty piece makes the server send the head now: clients wait for it before they trust the watch
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        try:
            emissions = stream(
                self._cursor,
                from_present=self._from_present,
                mark_initial=self._mark_initial,
                bookmarks=self._bookmarks,
                seconds=self._seconds,
                clock=time.monotonic,
            )
            async with aclosing(emissions):
                async for emission in emissions:
                    await send({"type": "http.response.body", "body": self._line(emission), "more_body": True})
        except Gone as error:
            line = encode({"type": "ERROR", "object": error.to_status()}) + b"\n"
            await send({"type": "http.response.body", "body": line, "more_body": True})
        finally:
            await send({"type": "http.response.body", "body": b""})

    def _line(self, emission: Emission) -> bytes:
        if emission.record is None:
            return encode({"type": "BOOKMARK", "object": self._bookmark(emission)}) + b"\n"
        if self._shape is Shape.PLAIN:
            raw = encoded_record(self._kind, emission.record)
            return b'{"type":"%s","object":%s}\n' % (emission.type.value.encode(), raw)
        obj = emission.record.decode()
        return encode({"type": emission.type.value, "object": self._shaped(obj)}) + b"\n"

    def _shaped(self, obj: Obj) -> Obj:
        if self._shape is Shape.METADATA:
            return partial_metadata(obj)
        table = make_table(
            self._kind,
            [obj],
            now=self._api.clock(),
            include=self._include,
            metadata={"resourceVersion": obj["metadata"]["resourceVersion"]},
            with_columns=self._with_columns,
        )
        self._with_columns = False
        return table

    def _bookmark(self, emission: Emission) -> Obj:
        metadata: Obj = {"resourceVersion": str(emission.rv), "creationTimestamp": None}
        if emission.ends_initial_events:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        bookmark: Obj = {
            "kind": self._kind.resource.kind,
            "apiVersion": self._kind.api_version,
            "metadata": metadata,
        }
        if self._shape is Shape.TABLE:
            table = make_table(
                self._kind, [], now=self._api.clock(), metadata=metadata, with_columns=self._with_columns
            )
            return table | {"rows": [{"cells": [], "object": bookmark}]}
        return bookmark


async def _read_request(scope: Scope, receive: Receive) -> Request:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the client went away")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BadRequest(f"the body exceeds {MAX_BODY_BYTES} bytes", http_code=413, reason="RequestEntityTooLarge")
        chunks.append(chunk)
        if not message.get("more_body"):
            break
    return Request(scope["method"], scope["path"], parse_query(scope["query_string"]), headers, b"".join(chunks))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, response: Response) -> None:
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in response.headers),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
