"""The last word on what is printed: the definitions' schemas and rules, the same that the API server holds to.

Rules: unknown fields are removed, each with a warning; everything else that is wrong is an error that names the field.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

from drtp_api.kube import GATEWAY_GROUP, Obj
from drtp_controller.apiserver.builtin import BUILTIN_KINDS
from drtp_controller.apiserver.crds import kinds_of
from drtp_controller.apiserver.kinds import Kind
from drtp_controller.apiserver.metadata import check_metadata, clean_metadata
from drtp_controller.apiserver.preloads import preloaded_documents
from drtp_controller.apiserver.schema import apply_defaults, child_path, prune, validate
from drtp_controller.convert.context import Document


@functools.cache
def _kinds() -> dict[tuple[str, str], Kind]:
    served = [*BUILTIN_KINDS, *(kind for crd in preloaded_documents() for kind in kinds_of(crd))]
    return {(kind.api_version, kind.resource.kind): kind for kind in served}


def check_document(document: Document) -> Obj:
    """Return the document without unknown fields.

    Raises:
        DrtpError: DRTP-1011; it is not valid, and why.
    """
    body = document.body
    kind = _kind(str(body.get("apiVersion")), document.kind)
    if kind is None:
        raise document.fail(f"apiVersion {body.get('apiVersion')!r} is not one that is known for this kind")
    title = document.title
    empty = _drop_empty(body)
    strange, faults = clean_metadata(body)
    strange += prune(kind.schema, body)
    document.context.warnings.extend(f"{title}: {path} is empty; left out" for path in empty)
    document.context.warnings.extend(f"{title}: {path} is not a known field; left out" for path in strange)
    # defaults belong to the server: they are needed to judge the document, and not printed
    whole = copy.deepcopy(body)
    if not faults:
        kind.prepare(whole, None)
        apply_defaults(kind.schema, whole)
        faults = validate(kind.schema, whole)
    if not faults:
        if kind.resource.namespaced:
            whole["metadata"].setdefault("namespace", "default")
        faults = check_metadata(whole["metadata"], name_is_label=False) + kind.check(whole, None)
        faults += kind.rules.check(whole, None) if kind.rules is not None else []
    if faults:
        raise document.fail("; ".join(map(str, faults[:10])))
    order = {"apiVersion": 0, "kind": 1, "metadata": 2, "spec": 3, "status": 5}
    return {name: body[name] for name in sorted(body, key=lambda name: order.get(name, 4))}


def _kind(api_version: str, name: str) -> Kind | None:
    found = _kinds().get((api_version, name))
    if found is None and api_version == f"{GATEWAY_GROUP}/v1alpha2":
        # the routes of TCP and UDP before the Gateway API 1.6: the same fields
        found = _kinds().get((f"{GATEWAY_GROUP}/v1", name))
        found = found if name in {"TCPRoute", "UDPRoute"} else None
    return found


def _drop_empty(value: Any, path: str = "") -> list[str]:
    """Remove fields without a value, in place; return their paths."""
    dropped: list[str] = []
    match value:
        case dict():
            for name in list(value):
                where = child_path(path, name)
                if value[name] is None:
                    del value[name]
                    dropped.append(where)
                else:
                    dropped += _drop_empty(value[name], where)
        case list():
            for index, item in enumerate(value):
                dropped += _drop_empty(item, f"{path}[{index}]")
        case _:
            pass
    return dropped
