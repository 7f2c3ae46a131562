"""The conversion as a whole: look at every document, then mend each, then check each.

Rules: two passes, because a document's names and addresses stand in others; the order of documents is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from drtp_api.errors import DrtpError
from drtp_api.kube import ENDPOINT_SLICES, GATEWAY_GROUP, Obj
from drtp_controller.apiserver.formats import is_dns_subdomain
from drtp_controller.convert import foreign, ours
from drtp_controller.convert.checking import check_document
from drtp_controller.convert.context import Context, Document, Options, text_of
from drtp_controller.convert.reading import read_documents
from drtp_controller.convert.values import application_name, dns_label

__all__ = ["Conversion", "Options", "convert"]

_OURS: Mapping[str, Callable[[Document], None] | None] = {
    "DRTPServer": ours.mend_server,
    "DRTPConnection": ours.mend_connection,
    "DRTPService": None,
    "DRTPAccessControlList": None,
}
_FOREIGN: Mapping[str, tuple[str, Callable[[Document], None]]] = {
    "Gateway": (GATEWAY_GROUP, foreign.mend_gateway),
    "TCPRoute": (GATEWAY_GROUP, foreign.mend_route),
    "UDPRoute": (GATEWAY_GROUP, foreign.mend_route),
    "HTTPRoute": (GATEWAY_GROUP, foreign.mend_route),
    "EndpointSlice": (ENDPOINT_SLICES.group, foreign.mend_slice),
}


@attrs.frozen
class Conversion:
    """Valid manifests, and one warning for each fix."""

    documents: tuple[Obj, ...]
    warnings: tuple[str, ...]


def convert(text: str, options: Options | None = None) -> Conversion:
    """Convert manifests of the first draft.

    Args:
        text: YAML documents, or a Markdown text with blocks of YAML.
        options: what the user says besides.

    Raises:
        DrtpError: DRTP-1011; it is not YAML, not of these kinds, or cannot be mended. The message names the field.
    """
    options = options or Options()
    if options.service is not None and not is_dns_subdomain(options.service):
        raise DrtpError("DRTP-1003", f"--service {options.service!r} is not the name of an object",
                        hint="Use lower-case letters, digits, hyphens and dots.")  # fmt: skip
    try:
        return _convert(read_documents(text), Context(options=options))
    except RecursionError:
        raise DrtpError("DRTP-1011", "a document is nested too deeply") from None


def _convert(bodies: list[Obj], context: Context) -> Conversion:
    documents = [Document(body, context, number) for number, body in enumerate(bodies, 1)]
    for document in documents:
        _check_kind(document)
    _look(documents, context)
    converted = []
    for document in documents:
        _mend(document)
        converted.append(check_document(document))
    return Conversion(tuple(converted), tuple(context.warnings))


def _check_kind(document: Document) -> None:
    kind = document.body.get("kind")
    known = (*_OURS, *_FOREIGN)
    if kind not in known:
        raise DrtpError("DRTP-1011", f"document {document.number}: kind {kind!r} is none of {', '.join(known)}")
    if kind in _OURS:
        ours.check_version(document)
    else:
        group, version = _FOREIGN[kind][0], document.body.get("apiVersion")
        if not isinstance(version, str) or version.partition("/")[0] != group:
            raise document.fail(f"apiVersion {version!r} is not of group {group}")


def _look(documents: list[Document], context: Context) -> None:
    """Note what documents say that others need."""
    of_kind: dict[str, list[Document]] = {}
    for document in documents:
        document.mapping("metadata")
        of_kind.setdefault(document.kind, []).append(document)
    context.servers = [ours.server_name(document) for document in of_kind.get("DRTPServer", [])]
    context.service = context.options.service or _service(of_kind) or context.service
    for document in of_kind.get("DRTPConnection", [])[:1]:
        context.connection = ours.connection_name(document)
        _note_addresses(document, context)
    for document in of_kind.get("Gateway", []):
        name = document.mapping("metadata").get("name")
        if isinstance(name, str):
            context.listeners[name] = foreign.listeners_of(document)
    for document in of_kind.get("EndpointSlice", []):
        context.slices.append(foreign.slice_name(document, document.mapping("metadata").get("name")))


def _service(of_kind: Mapping[str, list[Document]]) -> str | None:
    """Return what the service is called: the DRTPService of the input, else the application at the port."""
    for document in of_kind.get("DRTPService", []):
        if name := text_of(document.mapping("metadata").get("name")):
            return name
    for document in of_kind.get("EndpointSlice", []):
        for port in document.mappings(document.body, "ports"):
            name = text_of(port.get("name"))
            if name and (made := application_name(name) or dns_label(name)):
                return made
    return None


def _note_addresses(document: Document, context: Context) -> None:
    status = document.body.get("status")
    if not isinstance(status, dict):
        return
    entries = [(foreign.role_of(key), value) for key, value in status.items()]
    servers = status.get("servers")
    if isinstance(servers, list):
        entries += [(item.get("role"), item) for item in servers if isinstance(item, dict)]
    for role, value in entries:
        address = (value.get("podIP") or value.get("podCIDR")) if isinstance(value, dict) else None
        if isinstance(role, str) and isinstance(address, str):
            context.addresses[role] = address.partition("/")[0].strip()


def _mend(document: Document) -> None:
    kind = document.kind
    if kind in _OURS:
        ours.mend_version(document)
        mend = _OURS[kind]
        if mend is not None:
            mend(document)
    else:
        _FOREIGN[kind][1](document)
