"""Documents of Kubernetes' own kinds, mended: Gateway, routes and EndpointSlices as the draft wrote them.

Rules: each fix is one warning; a name of the draft, such as DRTPServer_Primary, becomes the same name wherever it
stands.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from drtp_api.kube import ENDPOINT_SLICES, GATEWAY_GROUP, Obj
from drtp_api.resources import GROUP
from drtp_controller.convert.context import Document, Listener, text_of
from drtp_controller.convert.ours import mend_name
from drtp_controller.convert.values import application_name, dns_label, dns_subdomain, unusable_address

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_DRAFT_NAME = re.compile(r"DRTPServer_(Primary|Secondary|Tertiary)", re.IGNORECASE)
_TRANSPORTS = ("TCP", "UDP", "SCTP")
_STREAM_ROUTES = {"TCPRoute": "TCP", "UDPRoute": "UDP"}
_USUAL_PORTS = (80, 443)


def role_of(name: Any) -> str | None:
    """Return the role in a name of the draft, such as DRTPServer_Primary; None for other names."""
    match = _DRAFT_NAME.fullmatch(name) if isinstance(name, str) else None
    return match[1].capitalize() if match else None


def slice_name(document: Document, name: Any) -> str:
    """Return the name that an EndpointSlice gets. Raises `DrtpError`."""
    role = role_of(name)
    if role is not None:
        return f"{document.context.connection}-{role.lower()}"
    made = dns_subdomain(name) if isinstance(name, str) else ""
    if not made:
        raise document.fail("metadata.name is missing")
    return made


# ---- Gateway


def listeners_of(document: Document) -> list[Listener]:
    """Return the listeners of a Gateway. Raises `DrtpError`."""
    listeners = document.mappings(document.mapping("spec"), "spec.listeners")
    return [Listener(str(item.get("name")), str(item.get("protocol"))) for item in listeners]


def mend_gateway(document: Document) -> None:
    """Mend a Gateway. Raises `DrtpError`."""
    for item in document.mappings(document.mapping("spec"), "spec.listeners"):
        port = item.get("port")
        if item.get("protocol") in _TRANSPORTS and port not in _USUAL_PORTS:
            document.warn(f"spec.listeners port {port} is kept: DRTP and the Gateway API take it, Datum's network "
                          "services refuse every port but 80 and 443")  # fmt: skip


# ---- routes


def mend_route(document: Document) -> None:
    """Mend a TCPRoute, UDPRoute or HTTPRoute. Raises `DrtpError`."""
    spec = document.mapping("spec")
    _version(document)
    rules = spec.get("rules")
    if isinstance(rules, dict):
        spec["rules"] = [rules]
        document.warn("spec.rules is an object; written as a list of one rule (a dash was missing)")
    for parent in document.mappings(spec, "spec.parentRefs"):
        _section(document, parent)
    for rule in document.mappings(spec, "spec.rules"):
        if rule.get("backendRefs") is not None:
            _backends(document, rule)


def _version(document: Document) -> None:
    given = document.body.get("apiVersion")
    if document.kind not in _STREAM_ROUTES:
        return
    wanted = f"{GATEWAY_GROUP}/{document.context.options.route_version}"
    if given != wanted:
        document.body["apiVersion"] = wanted
        document.warn(f"apiVersion {given} is written as {wanted}, as --route-version says")
    elif wanted.endswith("/v1"):
        document.warn(f"apiVersion {wanted} needs the Gateway API 1.6 or later; --route-version v1alpha2 writes the "
                      "version before")  # fmt: skip


def _section(document: Document, parent: Obj) -> None:
    if parent.get("sectionName") or parent.get("kind", "Gateway") != "Gateway":
        return
    name = parent.get("name")
    listeners = document.context.listeners.get(name, []) if isinstance(name, str) else []
    wanted = _STREAM_ROUTES.get(document.kind)
    fitting = [item for item in listeners if wanted is None or item.protocol == wanted]
    if len(fitting) == 1:
        parent["sectionName"] = fitting[0].name
        document.warn(f"spec.parentRefs without sectionName binds to every listener; bound to {fitting[0].name}")
    else:
        document.warn("spec.parentRefs without sectionName binds to every listener; name the listener it is for")


def _backends(document: Document, rule: Obj) -> None:
    found = document.mappings(rule, "spec.rules.backendRefs")
    drafts = [ref for ref in found if role_of(ref.get("name")) or _is_slice(ref)]
    if not drafts:
        return
    if document.context.options.service is not None:
        service = document.context.options.service
        rest = [ref for ref in found if ref not in drafts]
        rule["backendRefs"] = [{"group": GROUP, "kind": "DRTPService", "name": service}, *rest]
        document.warn(f"spec.rules.backendRefs name EndpointSlices; written as the DRTPService {service}")
        return
    out: list[Obj] = []
    names: set[str] = set()
    for ref in found:
        made = dict(ref)
        if ref in drafts:
            made["name"] = slice_name(document, ref.get("name"))
            if made["name"] != ref.get("name"):
                document.warn(f"spec.rules.backendRefs name {ref.get('name')} is not a name that Kubernetes takes; "
                              f"written as {made['name']}")  # fmt: skip
        names.add(str(made.get("name")))
        out.append(made)
    missing = [name for name in document.context.slices if name not in names] if len(drafts) == 1 else []
    for name in missing:
        out.append(dict(drafts[0]) | {"name": name})
        document.warn(f"spec.rules.backendRefs name one server, so that nothing takes over; {name} added")
    rule["backendRefs"] = out
    document.warn("spec.rules.backendRefs lead to EndpointSlices, which few gateways resolve; --service NAME writes "
                  "the DRTPService instead, which DRTP programs")  # fmt: skip


def _is_slice(ref: Obj) -> bool:
    return ref.get("kind") == ENDPOINT_SLICES.kind


# ---- EndpointSlice


def mend_slice(document: Document) -> None:
    """Mend an EndpointSlice. Raises `DrtpError`."""
    metadata = document.mapping("metadata")
    role = role_of(metadata.get("name"))
    ports = [_port(document, port) for port in document.mappings(document.body, "ports")]
    document.body["ports"] = ports
    _endpoints(document, role)
    mend_name(document, slice_name(document, metadata.get("name")))
    labels = metadata["labels"] = metadata.get("labels") or {}
    if not isinstance(labels, dict):
        raise document.fail("metadata.labels must be an object")
    if SERVICE_NAME not in labels:
        labels[SERVICE_NAME] = document.context.service
        labels.setdefault(MANAGED_BY, GROUP)
        document.warn(f"label {SERVICE_NAME} is missing, so that the slice belongs to no Service; "
                      f"{document.context.service} assumed")  # fmt: skip


def _port(document: Document, given: Obj) -> Obj:
    port = dict(given)
    name = text_of(port.get("name"))
    known = application_name(name) if name else None
    if name and (made := known or dns_label(name)) != name:
        document.warn(f"ports name {name} is not a DNS label; written as {made}")
        port["name"] = made
    application = port.get("appProtocol")
    if isinstance(application, str) and application.upper() in _TRANSPORTS:
        transport = application.upper()
        del port["appProtocol"]
        port.setdefault("protocol", transport)
        said = f"written to protocol as {transport}"
        if known:
            port["appProtocol"] = known
            said += f", and appProtocol as {known}"
        document.warn(f"ports appProtocol {application} names a transport, not an application; {said}")
    return port


def _endpoints(document: Document, role: str | None) -> None:
    kept: list[Obj] = []
    for endpoint in document.mappings(document.body, "endpoints"):
        addresses = _addresses(document, endpoint, role)
        if addresses:
            kept.append({**endpoint, "addresses": addresses})
        else:
            document.warn("endpoints without an address are refused by Kubernetes; left out, the pod's real address "
                          "is needed")  # fmt: skip
    document.body["endpoints"] = kept
    given = document.body.get("addressType")
    addresses = [address for endpoint in kept for address in endpoint["addresses"]] if given != "FQDN" else []
    versions = {ipaddress.ip_address(address).version for address in addresses}
    if not versions:
        if given is None:
            document.body["addressType"] = "IPv4"
            document.warn("addressType is missing; IPv4 assumed")
        return
    if len(versions) > 1:
        raise document.fail("endpoints mix IPv4 and IPv6 addresses; write one EndpointSlice for each")
    wanted = f"IPv{versions.pop()}"
    if given != wanted:
        document.body["addressType"] = wanted
        document.warn(f"addressType {given} does not fit the addresses; written as {wanted}")


def _addresses(document: Document, endpoint: Obj, role: str | None) -> list[str]:
    given = endpoint.get("addresses")
    if given is not None and not isinstance(given, list):
        raise document.fail("endpoints.addresses must be a list of addresses")
    out: list[str] = []
    for address in given or []:
        text = text_of(address)
        if address is not None and text is None:
            raise document.fail(f"endpoints.addresses: {address!r} is no IP address")
        if text is None:
            continue
        if document.body.get("addressType") != "FQDN" and (why := unusable_address(text)):
            document.warn(f"endpoints.addresses {text} {why}, which Kubernetes refuses; left out")
            continue
        out.append(text)
    known = document.context.addresses.get(role or "")
    if not out and known is not None and not unusable_address(known):
        document.warn(f"endpoints.addresses are empty; {known} filled in from the connection's {role} server")
        return [known]
    return out
