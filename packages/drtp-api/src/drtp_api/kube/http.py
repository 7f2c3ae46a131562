"""`Kube` over HTTP: any Kubernetes API server, through aiohttp.

Rules:
- One request is one answer or one `KubeError`; nothing is retried here.
- A watch frames its own lines, so that the size of an object is not limited by a reader's line buffer.
- The token is read again from its file once a minute and after a 401.
What must not enter: caches, decisions about when to try again.
"""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from drtp_api.kube.config import KubeConfig
from drtp_api.kube.errors import KubeError, NotFound, Unavailable, error_from_status
from drtp_api.kube.framing import LineFramer
from drtp_api.kube.protocol import ObjectList, PatchType, WatchEvent, WatchEventType
from drtp_api.kube.resource import Obj, Resource

REQUEST_SECONDS = 30.0
"""Longer than any answer of a healthy server, shorter than a caller's patience."""
WATCH_SLACK_SECONDS = 15.0
"""A watch may run this much over its own timeout before we take the connection for dead."""
TOKEN_SECONDS = 60.0
"""How long a token read from a file is used; kubelet rotates them well before they expire."""


class HttpKube:
    """A `Kube` client of a real API server.

    Args:
        config: where and as whom.
        field_manager: the name our writes carry in `managedFields`.
        request_timeout: seconds for everything but watches.
    """

    def __init__(
        self, config: KubeConfig, *, field_manager: str = "drtp", request_timeout: float = REQUEST_SECONDS
    ) -> None:
        self.config = config
        self._manager = field_manager
        self._timeout = aiohttp.ClientTimeout(total=request_timeout)
        self._session: aiohttp.ClientSession | None = None
        self._token = config.token
        self._token_read_at = float("-inf")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; running watches end with `Unavailable`."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ObjectList:
        """List objects; see `Kube.list`."""
        body = await self.request(
            "GET",
            resource.path(namespace),
            {
                "labelSelector": label_selector,
                "fieldSelector": field_selector,
                "limit": str(limit) if limit else "",
                "continue": continue_token,
            },
        )
        metadata = body.get("metadata") or {}
        items: list[Obj] = body.get("items") or []
        for item in items:
            # a server leaves these out inside a list; an object that travels alone needs them
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return ObjectList(items, metadata.get("resourceVersion", ""), metadata.get("continue") or "")

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """Read one object; see `Kube.get`."""
        return await self.request("GET", resource.path(namespace, name))

    async def create(self, resource: Resource, obj: Obj, namespace: str | None = None, *, dry_run: bool = False) -> Obj:
        """Create an object; see `Kube.create`."""
        where = namespace or obj.get("metadata", {}).get("namespace")
        return await self.request("POST", resource.path(where), self._write_query(dry_run), obj)

    async def update(self, resource: Resource, obj: Obj, *, dry_run: bool = False) -> Obj:
        """Replace everything but the status; see `Kube.update`."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return await self.request("PUT", path, self._write_query(dry_run), obj)

    async def update_status(self, resource: Resource, obj: Obj) -> Obj:
        """Replace only the status; see `Kube.update_status`."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], "status")
        return await self.request("PUT", path, self._write_query(dry_run=False), obj)

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: Obj,
        namespace: str | None = None,
        *,
        subresource: str = "",
    ) -> Obj:
        """Apply an RFC 7386 merge patch; see `Kube.merge_patch`."""
        return await self.patch(resource, name, patch, namespace, patch_type=PatchType.MERGE, subresource=subresource)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        patch_type: PatchType,
        subresource: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> Obj:
        """Apply a patch of any kind; see `Kube.patch`."""
        query = self._write_query(dry_run)
        if force:
            query["force"] = "true"
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, query, body, content_type=patch_type.value)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str = "",
        resource_version: str = "",
    ) -> None:
        """Delete an object; see `Kube.delete`."""
        preconditions = {key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value}
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if preconditions:
            options["preconditions"] = preconditions
        await self.request("DELETE", resource.path(namespace, name), {}, options)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
        timeout: float = 300.0,
        send_initial_events: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Iterate over changes; see `Kube.watch`."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            # the server takes whole seconds, and takes 0 for "as long as you like"
            "timeoutSeconds": str(max(1, round(timeout))),
        }
        if send_initial_events:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        limit = timeout + WATCH_SLACK_SECONDS
        framer = LineFramer()
        with self._translated():
            async with self._open_session().get(
                self.config.server + resource.path(namespace),
                params=_present(query),
                headers=self._headers(),
                server_hostname=self.config.tls_server_name or None,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=limit),
            ) as response:
                if response.status >= 400:
                    raise self._refusal(response.status, await response.read(), response.headers)
                async for chunk in response.content.iter_any():
                    for line in framer.receive_data(chunk):
                        yield _decode_event(line)

    async def served_resources(self, group: str, version: str) -> tuple[Resource, ...]:
        """Return the kinds a group version serves; see `Kube.served_resources`."""
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        try:
            body = await self.request("GET", path)
        except NotFound:
            return ()
        return tuple(
            Resource(group, version, entry["name"], entry["kind"], bool(entry["namespaced"]))
            for entry in body.get("resources") or []
            if "/" not in entry["name"]
        )

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> Obj:
        """Send one request and return the decoded body, for what `Kube` does not cover.

        Raises:
            KubeError: the server refused, or could not be reached (`Unavailable`).
        """
        headers = self._headers()
        data: io.BytesIO | None = None
        if body is not None:
            headers["Content-Type"] = content_type
            # a file-like body is sent in pieces; one large piece would hold up the loop
            data = io.BytesIO(msgspec.json.encode(body))
        with self._translated():
            async with self._open_session().request(
                method,
                self.config.server + path,
                params=_present(query or {}),
                data=data,
                headers=headers,
                server_hostname=self.config.tls_server_name or None,
                timeout=self._timeout,
            ) as response:
                raw = await response.read()
                if response.status >= 400:
                    raise self._refusal(response.status, raw, response.headers)
        try:
            decoded: Obj = msgspec.json.decode(raw)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{method} {path}: the answer is not JSON: {error}") from error
        return decoded

    def _open_session(self) -> aiohttp.ClientSession:
        # made on first use: a session belongs to the running loop
        if self._session is None:
            connector = aiohttp.TCPConnector(
                ssl=self.config.ssl_context() or True, limit=0, socket_factory=_keepalive_socket
            )
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        token = self._current_token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _current_token(self) -> str:
        path = self.config.token_file
        if path is not None and time.monotonic() - self._token_read_at > TOKEN_SECONDS:
            self._token = _read_token(path) or self._token
            self._token_read_at = time.monotonic()
        return self._token

    def _write_query(self, dry_run: bool) -> dict[str, str]:
        return {"fieldManager": self._manager, "dryRun": "All" if dry_run else ""}

    def _refusal(self, status: int, raw: bytes, headers: Mapping[str, str]) -> KubeError:
        if status == 401:
            self._token_read_at = float("-inf")
        try:
            body = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            text = raw[:200].decode(errors="replace").strip()
            body = {"message": f"the server answered {status}: {text}"}
        error = error_from_status(body if isinstance(body, dict) else {}, code=status)
        retry_after = headers.get("Retry-After", "")
        if retry_after.isdigit():
            error.details.setdefault("retryAfterSeconds", int(retry_after))
        return error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn every way a connection can fail into `Unavailable`."""
        try:
            yield
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            raise Unavailable(f"{self.config.server} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{self.config.server} cannot be reached: {error}") from error


def _decode_event(line: bytes) -> WatchEvent:
    try:
        event = msgspec.json.decode(line)
        kind, obj = event["type"], event["object"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise Unavailable("the server sent a watch event that cannot be read") from error
    if kind == "ERROR":
        raise error_from_status(obj)
    return WatchEvent(WatchEventType(kind), obj)


def _present(query: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in query.items() if value}


def _read_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # being replaced right now; the old one is used a little longer


def _keepalive_socket(info: tuple[Any, ...]) -> socket.socket:
    """Make the socket of a connection: a watch may be silent for minutes, so the kernel probes the peer."""
    family, kind, protocol = info[:3]
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
