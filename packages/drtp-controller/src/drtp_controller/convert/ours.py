"""Documents of our own kinds, mended: the draft's DRTPServer and DRTPConnection become today's.

Rules: each fix is one warning; what today's kinds need and the draft did not say is filled in only where a value
does no harm, and the warning says how to get the real one.
"""

from __future__ import annotations

from typing import Any

from drtp_api.kube import Obj
from drtp_api.resources import API_VERSION
from drtp_controller.convert.context import ROLES, Document, text_of
from drtp_controller.convert.values import decimal_degrees, dns_subdomain, pod_address

OLD_VERSIONS = ("datumapis.com/v1alpha", "datumapis.com/v1alpha1", "drtp.datumapis.com/v1alpha")
TUNNEL_PORT = 443
NO_INSTANCE = "0" * 32
NO_KEY = "A" * 43
"""The base64url of 32 zero bytes: no agent can prove to hold the private key of it."""
_PREFIX = "DRTPServer_"
_PROGRAMMING = {word.lower(): word for word in ("Init", "Programmed", "Failed")}
_CLIENT = {word.lower(): word for word in ("Waiting", "Connected", "Disconnected")}


def check_version(document: Document) -> None:
    """Check that apiVersion is today's or a former one. Raises `DrtpError`."""
    given = document.body.get("apiVersion")
    if given not in (API_VERSION, *OLD_VERSIONS):
        raise document.fail(f"apiVersion {given!r} is not {API_VERSION}")


def mend_version(document: Document) -> None:
    """Bring apiVersion up to date."""
    given = document.body["apiVersion"]
    if given != API_VERSION:
        document.body["apiVersion"] = API_VERSION
        document.warn(f"apiVersion {given} is not served by anything; written as {API_VERSION}")


def mend_name(document: Document, name: str) -> None:
    """Give an object a name that Kubernetes takes."""
    metadata = document.mapping("metadata")
    given = metadata.get("name")
    if given == name:
        return
    if given is None:
        document.warn(f"metadata.name is missing; named {name}")
    else:
        document.warn(f"metadata.name {given!r} is not a name that Kubernetes takes; written as {name}")
    metadata["name"] = name


def server_name(document: Document) -> str:
    """Return the name of a DRTPServer. Raises `DrtpError`."""
    given = text_of(document.mapping("metadata").get("name"))
    name = dns_subdomain(given) if given else ""
    if not name:
        raise document.fail("metadata.name is missing; use the host and the instance, such as worker-001.instance-a")
    return name


# ---- DRTPServer


def mend_server(document: Document) -> None:
    """Mend a DRTPServer. Raises `DrtpError`."""
    metadata, spec = document.mapping("metadata"), document.mapping("spec")
    given = str(metadata.get("name"))
    _instance(document, spec, given)
    coordinates = spec.setdefault("coordinates", {})
    if not isinstance(coordinates, dict):
        raise document.fail("spec.coordinates must be an object")
    for kind, spellings in (("latitude", ("latititude", "latitude")), ("longitude", ("longitude", "longtitude"))):
        _coordinate(document, coordinates, kind, spellings)
    _address(document, spec)
    mend_name(document, server_name(document))
    if "status" in document.body:
        document.warn("status is written by the server itself; kubectl apply leaves it out")


def _instance(document: Document, spec: Obj, given: str) -> None:
    if "instance" in spec:
        return
    host, slash, rest = given.partition("/")
    spec["instance"] = {"host": host, "id": rest if slash and rest else given}
    if slash:
        document.warn(f"metadata.name held host and instance; written to spec.instance as {host} and {rest}")
    else:
        document.warn("spec.instance is missing; filled in from metadata.name")


def _coordinate(document: Document, coordinates: Obj, kind: str, spellings: tuple[str, ...]) -> None:
    metadata = document.mapping("metadata")
    found = [name for name in spellings if name in metadata]
    for name in found:
        value = metadata.pop(name)
        text = decimal_degrees(kind, value, f"{document.title}: metadata.{name}")
        typo = "" if name == kind else f" (its name is {kind})"
        unit = "" if str(value) == text else ", with unit and side as sign"
        document.warn(f"metadata.{name} is no field of metadata{typo}; {value} moved to spec.coordinates.{kind} "
                      f"as {text!r}{unit}")  # fmt: skip
        coordinates.setdefault(kind, text)
    value = coordinates.get(kind)
    if value is None:
        raise document.fail(f"spec.coordinates.{kind} is missing; agents get servers near to them")
    text = decimal_degrees(kind, value, f"{document.title}: spec.coordinates.{kind}")
    if text != value:
        document.warn(f"spec.coordinates.{kind} {value!r} is not a decimal number in quotes; written as {text!r}")
        coordinates[kind] = text


def _address(document: Document, spec: Obj) -> None:
    metadata = document.mapping("metadata")
    for name in ("server_ip", "serverIP"):
        if name not in metadata:
            continue
        value = text_of(metadata.pop(name))
        if value is None:
            document.warn(f"metadata.{name} is empty and no field of metadata; left out")
            continue
        endpoints = document.mappings(spec, "spec.endpoints")
        document.warn(f"metadata.{name} is no field of metadata; {value} moved to spec.endpoints[{len(endpoints)}]."
                      f"address, with port {TUNNEL_PORT} because none is given")  # fmt: skip
        spec["endpoints"] = [*endpoints, {"address": value, "port": TUNNEL_PORT}]


# ---- DRTPConnection


def mend_connection(document: Document) -> None:
    """Mend a DRTPConnection. Raises `DrtpError`."""
    metadata, spec = document.mapping("metadata"), document.mapping("spec")
    _servers(document, metadata, spec)
    _access_list(document, metadata, spec)
    mend_name(document, connection_name(document))
    if "serviceRef" not in spec:
        spec["serviceRef"] = {"name": document.context.service}
        document.warn(f"spec.serviceRef is missing; {document.context.service} assumed, --service names another one")
    if "client" not in spec:
        spec["client"] = {"instanceID": NO_INSTANCE, "publicKey": NO_KEY}
        document.warn("spec.client is missing; filled with zeros that no agent can prove to be, "
                      "an agent that registers gets a DRTPConnection of its own")  # fmt: skip
    _bindings(document, spec)


def connection_name(document: Document) -> str:
    """Return the name of a DRTPConnection."""
    given = text_of(document.mapping("metadata").get("name"))
    return (dns_subdomain(given) if given else "") or document.context.connection


def _role(key: str) -> str | None:
    role = key.removeprefix(_PREFIX).capitalize()
    return role if key.startswith(_PREFIX) and role in ROLES else None


def _reference(document: Document, value: Any, field: str) -> str | None:
    if isinstance(value, dict):
        value = value.get("name")
    if value is not None and not isinstance(value, str):
        raise document.fail(f"{field} must be the name of an object")
    return dns_subdomain(value) or None if value else None


def _servers(document: Document, metadata: Obj, spec: Obj) -> None:
    servers = [*document.mappings(spec, "spec.servers")]
    named = {str(server.get("role")) for server in servers}
    for key in [key for key in metadata if _role(key)]:
        role = _role(key)
        assert role is not None
        value = metadata.pop(key)
        name = _reference(document, value, f"metadata.{key}")
        empty = ""
        if name is None:
            name = document.context.server_of(role)
            known = name in document.context.servers
            empty = " (it is empty: " + ("a server of the input)" if known else "put in the name of a real one)")
        document.warn(f"metadata.{key} is no field of metadata; moved to spec.servers as {role}: {name}{empty}")
        if role not in named:
            servers.append({"role": role, "name": name})
            named.add(role)
    if servers:
        spec["servers"] = sorted(servers, key=_rank)


def _rank(server: Obj) -> int:
    role = server.get("role")
    return ROLES.index(role) if role in ROLES else len(ROLES)


def _access_list(document: Document, metadata: Obj, spec: Obj) -> None:
    key = f"{_PREFIX}ACL"
    if key not in metadata:
        return
    name = _reference(document, metadata.pop(key), f"metadata.{key}")
    if name is None:
        document.warn(f"metadata.{key} is no field of metadata and empty; left out, spec.aclRef.name is its place")
        return
    document.warn(f"metadata.{key} is no field of metadata; moved to spec.aclRef.name as {name}")
    spec.setdefault("aclRef", {"name": name})


def _bindings(document: Document, spec: Obj) -> None:
    if "status" not in document.body:
        return
    status = document.mapping("status")
    bindings = [*document.mappings(status, "status.servers")]
    names = {str(server.get("role")): server.get("name") for server in document.mappings(spec, "spec.servers")}
    for key in [key for key in status if _role(key)]:
        role = _role(key)
        assert role is not None
        value = status.pop(key)
        if not isinstance(value, dict):
            document.warn(f"status.{key} is empty; left out")
            continue
        document.warn(f"status.{key} is a key with capitals and underscore; moved to status.servers, role {role}")
        name = names.get(role) or document.context.server_of(role)
        bindings.append({"role": role, "name": name} | _binding(document, value, f"status.{key}"))
    if bindings:
        status["servers"] = sorted(bindings, key=_rank)
    document.warn("status is written by controller and servers; kubectl apply leaves it out")


def _binding(document: Document, value: Obj, field: str) -> Obj:
    out: Obj = {}
    for key, item in value.items():
        where = f"{field}.{key}"
        match key:
            case "programmingStatus":
                out[key] = _word(document, where, item, _PROGRAMMING)
            case "clientStatus":
                out[key] = _word(document, where, item, _CLIENT)
            case "podCIDR" | "podCIDRPort" | "podIP" | "podPort" if item is None:
                document.warn(f"{where} is empty; left out")
            case "podCIDR":
                address, network = pod_address(item, f"{document.title}: {where}")
                what = "a network of one address" if network else "an address, not a network"
                document.warn(f"{where} is {what}; written to podIP as {address}")
                out["podIP"] = address
            case "podCIDRPort":
                document.warn(f"{where} is called podPort today")
                out["podPort"] = item
            case _:
                out[key] = item
    return out


def _word(document: Document, where: str, value: Any, words: dict[str, str]) -> str:
    word = words.get(value.lower()) if isinstance(value, str) else None
    if word is None:
        raise document.fail(f"{where}: {value!r} is none of {', '.join(words.values())}")
    if word != value:
        document.warn(f"{where} {value!r} is written {word}")
    return word
