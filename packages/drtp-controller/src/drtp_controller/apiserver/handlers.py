"""One handler per verb: a request in, the core asked, an answer out.

Rules: nothing is decided here but the form of the answer; every refusal is the core's.
What must not enter: ASGI, watching (see asgi.py), storage.
"""

from __future__ import annotations

import attrs

from drtp_api.kube import BadRequest, Key, MethodNotAllowed, NotFound, Obj, PatchType, UnsupportedMediaType
from drtp_controller.apiserver import discovery, openapi
from drtp_controller.apiserver.core import Api
from drtp_controller.apiserver.kinds import Kind
from drtp_controller.apiserver.options import DeleteOptions, ListOptions, Outcome, Page, WriteOptions
from drtp_controller.apiserver.rbac import User
from drtp_controller.apiserver.reviews import answer_review
from drtp_controller.apiserver.selectors import parse_selector
from drtp_controller.apiserver.store import Record
from drtp_controller.apiserver.tables import make_table, partial_metadata
from drtp_controller.apiserver.wire import AGGREGATED, Request, Response, Shape, encode, respond

_NOT_FOUND = "the server could not find the requested resource"
VERSION: Obj = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0-drtp",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "cpython",
    "platform": "any",
}
"""The Kubernetes version whose behaviour we follow; kubectl compares it with its own."""


@attrs.frozen
class Target:
    """Where in the API a request goes: a kind, and one of its objects or all of them."""

    kind: Kind
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> Key:
        """The key of the object."""
        return Key(self.namespace or "", self.name)


def find_target(api: Api, parts: list[str]) -> Target:
    """Return what a path below /api/v1 or /apis/GROUP/VERSION means. Raises `NotFound`."""
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    namespace = None
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource, *more = [*rest, "", "", ""][: max(3, len(rest))]
    kind = api.registry.require(group, version, plural)
    wrong_scope = namespace is not None and not kind.resource.namespaced
    one_without_namespace = bool(name) and namespace is None and kind.resource.namespaced
    unknown_subresource = bool(subresource) and not (subresource == "status" and kind.has_status)
    if any(more) or wrong_scope or one_without_namespace or unknown_subresource:
        raise NotFound(_NOT_FOUND)
    return Target(kind, namespace, name, subresource)


def list_options(request: Request) -> ListOptions:
    """Return what the query says about a list."""
    query = request.query
    return ListOptions(
        parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", "")),
        request.number("limit"),
        query.get("continue", ""),
        query.get("resourceVersion", ""),
        query.get("resourceVersionMatch", ""),
    )


def _write_options(request: Request) -> WriteOptions:
    return WriteOptions(request.manager, request.dry_run, request.validation, request.flag("force"))


def encoded_record(kind: Kind, record: Record) -> bytes:
    """Return the JSON of a stored object in the version of a kind."""
    if record.api_version == kind.api_version:
        return record.raw
    return encode(record.decode() | {"apiVersion": kind.api_version})


class Handlers:
    """The verbs of the API over one core."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def handle(self, request: Request, user: User, target: Target) -> Response:
        """Answer a request to a kind or an object."""
        match request.method, bool(target.name):
            case "GET", True:
                return self._get(request, user, target)
            case "GET", False:
                return self._list(request, user, target)
            case "POST", False:
                return self._create(request, user, target)
            case "PUT", True:
                return self._update(request, user, target)
            case "PATCH", True:
                return self._patch(request, user, target)
            case "DELETE", True:
                return self._delete(request, user, target)
            case "DELETE", False:
                return self._delete_collection(request, user, target)
            case _:
                raise MethodNotAllowed("the server does not allow this method on the requested resource")

    def _get(self, request: Request, user: User, target: Target) -> Response:
        record = self.api.get(user, target.kind, target.key, target.subresource)
        shape = request.shape()
        if shape is Shape.PLAIN:
            return Response(200, encoded_record(target.kind, record))
        return respond(self._shaped(record.decode(), target.kind, request, shape))

    def _list(self, request: Request, user: User, target: Target) -> Response:
        page = self.api.list(user, target.kind, target.namespace, list_options(request))
        return self._page(request, target.kind, page)

    def _page(self, request: Request, kind: Kind, page: Page) -> Response:
        metadata: Obj = {"resourceVersion": str(page.resource_version)}
        if page.continue_token:
            metadata["continue"] = page.continue_token
            if page.remaining is not None:
                metadata["remainingItemCount"] = page.remaining
        shape = request.shape()
        if shape is Shape.PLAIN:
            head = encode({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata})
            items = b",".join([encoded_record(kind, record) for record in page.records])
            return Response(200, head[:-1] + b',"items":[' + items + b"]}")
        objects = [record.decode() for record in page.records]
        if shape is Shape.METADATA:
            return respond(
                {
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                    "items": [partial_metadata(obj) for obj in objects],
                }
            )
        return respond(self._table(objects, kind, request, metadata))

    def _create(self, request: Request, user: User, target: Target) -> Response:
        outcome = self.api.create(
            user, target.kind, target.namespace, request.decoded_object(), _write_options(request)
        )
        return self._written(request, target, outcome)

    def _update(self, request: Request, user: User, target: Target) -> Response:
        outcome = self.api.update(
            user,
            target.kind,
            target.key,
            request.decoded_object(),
            _write_options(request),
            subresource=target.subresource,
        )
        return self._written(request, target, outcome)

    def _patch(self, request: Request, user: User, target: Target) -> Response:
        try:
            patch_type = PatchType(request.content_type)
        except ValueError as error:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(patch.value for patch in PatchType)
            ) from error
        if patch_type is PatchType.APPLY and not request.query.get("fieldManager"):
            raise BadRequest(
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
            )
        outcome = self.api.patch(
            user,
            target.kind,
            target.key,
            patch_type=patch_type,
            body=request.decoded(),
            options=_write_options(request),
            subresource=target.subresource,
        )
        return self._written(request, target, outcome)

    def _written(self, request: Request, target: Target, outcome: Outcome) -> Response:
        shape = request.shape()
        shaped = self._shaped(outcome.obj, target.kind, request, shape)
        return respond(shaped, 201 if outcome.created else 200, outcome.warnings)

    def _delete(self, request: Request, user: User, target: Target) -> Response:
        outcome = self.api.delete(user, target.kind, target.key, _delete_options(request))
        if not outcome.removed:
            return respond(self._shaped(outcome.obj, target.kind, request, request.shape()))
        resource = target.kind.resource
        details: Obj = {"name": target.name, "kind": resource.plural, "uid": outcome.obj["metadata"]["uid"]}
        if resource.group:
            details["group"] = resource.group
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return respond(status | {"details": details})

    def _delete_collection(self, request: Request, user: User, target: Target) -> Response:
        how = _delete_options(request)
        page = self.api.delete_collection(user, target.kind, target.namespace, list_options(request), how)
        return self._page(request, target.kind, page)

    def _shaped(self, obj: Obj, kind: Kind, request: Request, shape: Shape) -> Obj:
        match shape:
            case Shape.TABLE:
                return self._table([obj], kind, request, {})
            case Shape.METADATA:
                return partial_metadata(obj)
            case _:
                return obj | {"apiVersion": kind.api_version}

    def _table(self, objects: list[Obj], kind: Kind, request: Request, metadata: Obj) -> Obj:
        include = request.query.get("includeObject", "Metadata")
        return make_table(kind, objects, now=self.api.clock(), include=include, metadata=metadata)

    # ---- everything that is not an object

    def information(self, request: Request, user: User, parts: list[str]) -> Response | None:
        """Answer discovery, OpenAPI, version and reviews; None when the path is none of them."""
        registry = self.api.registry
        reads = request.method == "GET"
        match parts:
            case ["version"] if reads:
                return respond(VERSION)
            case ["healthz" | "livez" | "readyz", *_] if reads:
                return Response(200, b"ok", content_type="text/plain; charset=utf-8")
            case [("api" | "apis") as root] if reads and request.accepts_aggregated_discovery():
                document = discovery.aggregated(registry, core=root == "api")
                return Response(200, encode(document), content_type=AGGREGATED)
            case ["api"] if reads:
                return respond(discovery.core_versions(request.header("host")))
            case ["apis"] if reads:
                return respond(discovery.group_list(registry))
            case ["apis", group] if reads:
                return respond(discovery.one_group(registry, group))
            case ["api", version] if reads:
                return respond(discovery.resource_list(registry, "", version))
            case ["apis", group, version] if reads:
                return respond(discovery.resource_list(registry, group, version))
            case ["openapi", "v3"] if reads:
                return respond(openapi.index(registry))
            case ["openapi", "v3", "api", version] if reads:
                return respond(openapi.document(registry, "", version))
            case ["openapi", "v3", "apis", group, version] if reads:
                return respond(openapi.document(registry, group, version))
            case ["apis", group, "v1", plural] if request.method == "POST":
                kind = dict(discovery.REVIEWS.get(group, ())).get(plural)
                return respond(answer_review(kind, user, request.decoded_object()), 201) if kind else None
            case _:
                return None


def _delete_options(request: Request) -> DeleteOptions:
    body: Obj = request.decoded_object() if request.body else {}
    preconditions = body.get("preconditions") or {}
    policy = body.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    if body.get("orphanDependents"):
        policy = "Orphan"
    if policy not in {"", "Background", "Foreground", "Orphan"}:
        raise BadRequest(f"propagationPolicy {policy!r} is not one of Background, Foreground, Orphan")
    return DeleteOptions(
        dry_run=request.dry_run or "All" in (body.get("dryRun") or []),
        uid=preconditions.get("uid", ""),
        resource_version=preconditions.get("resourceVersion", ""),
        propagation=policy or "Background",
    )
