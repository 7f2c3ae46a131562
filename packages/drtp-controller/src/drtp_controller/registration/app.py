"""The routes of the registration API.

Rules:
- A handler authenticates, reads strictly, calls one rule, and encodes; nothing is decided here.
- Every refusal is an ``ErrorBody`` with the status its code maps to; an unforeseen fault says no more than its code.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, delete, get, post
from litestar.exceptions import HTTPException
from litestar.response import Stream

from drtp_api.errors import DrtpError
from drtp_api.kube import Key
from drtp_api.registration import (
    CreateServiceRequest,
    ErrorBody,
    GrantRequest,
    PublishRequest,
    RegisterRequest,
    RotateRequest,
    ServerCandidates,
    ServiceList,
    ServiceName,
)
from drtp_api.wire import to_wire
from drtp_controller.registration import metrics, services
from drtp_controller.registration.auth import Authenticator, Identity, bearer, grant_subject
from drtp_controller.registration.hub import Hub
from drtp_controller.registration.methods import allowed_methods, answer_options
from drtp_controller.registration.openapi import openapi_document
from drtp_controller.registration.registrar import Registrar
from drtp_controller.registration.strict import read_body, read_message
from drtp_controller.registration.views import error_body

__all__ = ["STATUS_OF", "create_app"]

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 2 * 1024 * 1024
"""A definition with ten thousand prefixes has about half of this."""
KEEPALIVE_SECONDS = 15.0
"""Shorter than the idle time-outs of common proxies."""

STATUS_OF: Final = {
    "DRTP-1008": 400,
    "DRTP-2002": 503,
    "DRTP-2003": 401,
    "DRTP-2004": 400,
    "DRTP-2005": 401,
    "DRTP-2006": 404,
    "DRTP-2007": 409,
    "DRTP-2008": 403,
    "DRTP-2009": 400,
    "DRTP-2010": 404,
    "DRTP-2011": 409,
    "DRTP-2012": 403,
    "DRTP-2013": 409,
    "DRTP-2014": 503,
    "DRTP-2015": 409,
    "DRTP-2016": 401,
    "DRTP-2017": 503,
    "DRTP-2030": 503,
    "DRTP-2031": 404,
    "DRTP-2032": 409,
    "DRTP-4006": 409,
}


def create_app(registrar: Registrar, authenticator: Authenticator, hub: Hub) -> Litestar:
    """Return the ASGI application."""
    routes = _Routes(registrar, authenticator, hub)
    return _Application(
        route_handlers=routes.handlers(),
        openapi_config=None,
        middleware=[answer_options],
        logging_config=None,
        request_max_body_size=MAX_BODY_BYTES,
        exception_handlers={DrtpError: _refused, HTTPException: _not_found, Exception: _unforeseen},
    )


class _Application(Litestar):
    """Litestar without its optional plugins: we encode ourselves, and importing pydantic takes half a second."""

    @staticmethod
    def _get_default_plugins(plugins: list[Any]) -> list[Any]:
        return plugins


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    body = msgspec.json.encode(value if isinstance(value, dict) else to_wire(value))
    return Response(content=body, status_code=status, media_type="application/json", headers=headers)


def _refused(_: Request[Any, Any, Any], error: Any) -> Response[bytes]:
    metrics.REFUSALS.labels(code=error.code).inc()
    status = STATUS_OF.get(error.code, 500)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return _json(error_body(error), status, headers)


def _not_found(request: Request[Any, Any, Any], error: Any) -> Response[bytes]:
    """Answer what the router itself refuses: an unknown path, a method, a body that is too long."""
    hint = "See /schema/openapi.json for what this API offers."
    headers = {"Allow": allowed_methods(request.app.routes, request.url.path)} if error.status_code == 405 else None
    return _json(ErrorBody(code="DRTP-2009", message=str(error.detail), hint=hint), error.status_code, headers)


def _unforeseen(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _json(error_body(DrtpError("DRTP-1000", "the registration API failed; its log says more")), 500)


class _Routes:
    """The handlers, with what they need."""

    def __init__(self, registrar: Registrar, authenticator: Authenticator, hub: Hub) -> None:
        self.registrar = registrar
        self.authenticator = authenticator
        self.hub = hub

    def handlers(self) -> list[Any]:
        """Return the route handlers, bound to this object."""
        return [*self._connections(), *self._services(), *self._operations()]

    async def identity(self, request: Request[Any, Any, Any]) -> Identity | None:
        """Return who is asking, ``None`` without a bearer token.

        Raises:
            DrtpError: DRTP-2003; the token is not accepted.
        """
        token = bearer(request.headers.get("authorization"))
        if token is None:
            return None
        found = await self.authenticator.authenticate(token)
        if found is None:
            raise DrtpError("DRTP-2003", "the bearer token is not accepted")
        return found

    async def user(self, request: Request[Any, Any, Any]) -> Identity:
        """Return the signed-in user.

        Raises:
            DrtpError: DRTP-2003.
        """
        found = await self.identity(request)
        if found is None:
            raise DrtpError("DRTP-2003", "this needs a bearer token")
        return found

    async def owner(self, request: Request[Any, Any, Any], key: Key) -> None:
        """Prove that the caller is a user, or the agent whose connection it is (it shows one of its grants).

        Raises:
            DrtpError: DRTP-2003.
        """
        token = bearer(request.headers.get("authorization"))
        if token is not None:
            subject = grant_subject(self.registrar.issuer, token, self.registrar.controller.clock())
            if subject == f"{key.namespace}/{key.name}":
                return
        await self.user(request)

    def _connections(self) -> list[Any]:
        routes = self

        @get("/v1alpha1/servers", sync_to_thread=False)
        def servers(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            return _json(ServerCandidates(servers=routes.registrar.candidates(_peer(request))))

        @post("/v1alpha1/connections")
        async def register(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            identity = await routes.identity(request)
            body = read_body(await request.body(), RegisterRequest)
            answer = await routes.registrar.register(body, wan_ip=_peer(request), identity=identity)
            metrics.REGISTRATIONS.inc()
            return _json(answer, 201)

        @post("/v1alpha1/connections/{name:str}/grants")
        async def grants(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            body = read_body(await request.body(), GrantRequest)
            return _json(await routes.registrar.renew(_namespace(request), _name(request), body))

        @get("/v1alpha1/connections/{name:str}")
        async def view(request: Request[Any, Any, Any]) -> Response[bytes]:
            key = Key(_namespace(request), _name(request))
            await routes.owner(request, key)
            return _json(await routes.registrar.view(*key))

        @get("/v1alpha1/connections/{name:str}/events")
        async def events(request: Request[Any, Any, Any]) -> Stream:
            key = Key(_namespace(request), _name(request))
            await routes.owner(request, key)
            await routes.registrar.view(*key)
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return Stream(routes.stream(key), media_type="text/event-stream", headers=headers)

        @delete("/v1alpha1/connections/{name:str}", status_code=204)
        async def revoke(request: Request[Any, Any, Any]) -> None:
            key = Key(_namespace(request), _name(request))
            await routes.owner(request, key)
            await routes.registrar.revoke(*key)

        return [servers, register, grants, view, events, revoke]

    def _services(self) -> list[Any]:
        routes = self

        @get("/v1alpha1/services")
        async def service_list(request: Request[Any, Any, Any]) -> Response[bytes]:
            await routes.user(request)
            found = await services.list_services(routes.registrar.controller, _namespace(request))
            return _json(ServiceList(services=found))

        @post("/v1alpha1/services")
        async def create(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            await routes.user(request)
            body = read_body(await request.body(), CreateServiceRequest)
            return _json(await services.create(routes.registrar.controller, body), 201)

        @post("/v1alpha1/services/{name:str}/publish", status_code=200)
        async def publish(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            await routes.user(request)
            change = read_body(await request.body() or b"{}", PublishRequest)
            return _json(
                await services.publish(routes.registrar.controller, _service(request), public=True, change=change)
            )

        @post("/v1alpha1/services/{name:str}/unpublish", status_code=200)
        async def unpublish(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            await routes.user(request)
            return _json(await services.publish(routes.registrar.controller, _service(request), public=False))

        @post("/v1alpha1/services/{name:str}/secret")
        async def rotate(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            await routes.user(request)
            body = read_body(await request.body() or b"{}", RotateRequest)
            return _json(await routes.registrar.rotate(_service(request), overlap=body.overlap_seconds), 201)

        @delete("/v1alpha1/services/{name:str}/secret", status_code=200)
        async def revoke_secret(request: Request[Any, Any, Any]) -> Response[bytes]:
            routes.ready()
            await routes.user(request)
            return _json(await routes.registrar.revoke_secret(_service(request)))

        return [service_list, create, publish, unpublish, rotate, revoke_secret]

    def _operations(self) -> list[Any]:
        routes = self

        @get("/schema/openapi.json", sync_to_thread=False)
        def schema() -> Response[bytes]:
            return _json(openapi_document())

        @get("/healthz", sync_to_thread=False)
        def healthz() -> Response[bytes]:
            return _json({"status": "ok"})

        @get("/readyz", sync_to_thread=False)
        def readyz() -> Response[bytes]:
            routes.ready()
            return _json({"status": "ok"})

        @get("/metrics", sync_to_thread=False)
        def metrics_page() -> Response[bytes]:
            body, kind = metrics.render(routes.registrar.controller)
            return Response(content=body, media_type=kind)

        return [schema, healthz, readyz, metrics_page]

    def ready(self) -> None:
        """Prove that the controller knows the present.

        Raises:
            DrtpError: DRTP-2002; it is still starting.
        """
        if not self.registrar.controller.ready.is_set():
            raise DrtpError("DRTP-2002", "the control plane is starting")

    async def stream(self, key: Key) -> AsyncGenerator[bytes, None]:
        """Yield the connection's view now and whenever it changes, until it is revoked or the server stops."""
        last: bytes | None = None
        with self.hub.watch(key) as flag:
            while not self.hub.closed:
                flag.clear()
                try:
                    data = msgspec.json.encode(to_wire(await self.registrar.view(key.namespace, key.name)))
                except DrtpError as error:
                    yield _event("error", msgspec.json.encode(to_wire(error_body(error))))
                    return
                if data != last:
                    last = data
                    yield _event("connection", data)
                try:
                    async with asyncio.timeout(KEEPALIVE_SECONDS):
                        await flag.wait()
                except TimeoutError:
                    yield b": keepalive\n\n"


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


def _peer(request: Request[Any, Any, Any]) -> str | None:
    return request.client.host if request.client is not None else None


def _name(request: Request[Any, Any, Any]) -> str:
    return str(request.path_params["name"])


def _service(request: Request[Any, Any, Any]) -> ServiceName:
    return read_message({"name": _name(request), "namespace": _namespace(request)}, ServiceName, place="path")


def _namespace(request: Request[Any, Any, Any]) -> str:
    namespace = str(request.query_params.get("namespace", "default"))
    return read_message({"name": "x", "namespace": namespace}, ServiceName, place="query").namespace
