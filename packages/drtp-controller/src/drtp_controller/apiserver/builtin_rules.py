"""What the schemas of builtin kinds cannot say: derived fields, immutability, addresses. Pure functions.

Rules: `prepare_*` fills in what the server itself sets, in place; `check_*` returns faults with the real
server's words. Both get the new object and the old one (None on create).
What must not enter: other objects; what needs them (cluster IPs) is in the lifecycle.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import Any

from drtp_api.kube import Obj
from drtp_controller.apiserver.faults import Fault, duplicate, forbidden, invalid, required
from drtp_controller.apiserver.formats import is_dns_label, is_dns_subdomain

_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+\Z")
_MAX_DATA_BYTES = 1024 * 1024
LOOPBACK_REFUSAL = "may not be in the loopback range (127.0.0.0/8, ::1/128)"


def prepare_namespace(new: Obj, old: Obj | None) -> None:
    """Give a namespace its finalizer, its phase and the label with its name."""
    metadata = new["metadata"]
    metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata.get("name", "")
    new.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    if old is None:
        new["status"] = {"phase": "Active"}


def prepare_secret(new: Obj, _old: Obj | None) -> None:
    """Move `stringData` into `data`, encoded."""
    plain = new.pop("stringData", None)
    if isinstance(plain, dict):
        data = new.get("data")
        encoded = data if isinstance(data, dict) else {}
        for name, value in plain.items():
            if isinstance(value, str):
                encoded[name] = base64.b64encode(value.encode()).decode()
        new["data"] = encoded


def prepare_service(new: Obj, old: Obj | None) -> None:
    """Fill in target ports and what every ClusterIP service has."""
    spec = new.setdefault("spec", {})
    if not isinstance(spec, dict):
        return  # the schema's business
    for port in spec.get("ports") or []:
        if isinstance(port, dict) and "port" in port and not port.get("targetPort"):
            port["targetPort"] = port["port"]
    before = (old or {}).get("spec", {})
    if spec.get("type", "ClusterIP") == "ExternalName":
        return
    for name in ("clusterIP", "clusterIPs"):
        if not spec.get(name) and before.get(name):
            spec[name] = before[name]
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("internalTrafficPolicy", "Cluster")


def check_config_map(new: Obj, old: Obj | None) -> list[Fault]:
    """Check keys, size and immutability of a ConfigMap."""
    faults = _check_data(new, ("data", "binaryData"))
    both = set(new.get("data") or {}) & set(new.get("binaryData") or {})
    faults += [invalid(f"data[{name}]", name, "duplicate of key present in binaryData") for name in sorted(both)]
    return faults + _check_immutable(new, old, ("data", "binaryData"))


def check_secret(new: Obj, old: Obj | None) -> list[Fault]:
    """Check keys, size, type and immutability of a Secret."""
    faults = _check_data(new, ("data",))
    if old is not None and old.get("type") != new.get("type"):
        faults.append(invalid("type", new.get("type"), "field is immutable"))
    return faults + _check_immutable(new, old, ("data",))


def _check_data(new: Obj, fields: tuple[str, ...]) -> list[Fault]:
    faults: list[Fault] = []
    size = 0
    for field in fields:
        for name, value in (new.get(field) or {}).items():
            size += len(value)
            if len(name) > 253 or not _CONFIG_KEY.match(name) or name in {".", ".."}:
                why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
                faults.append(invalid(f"{field}[{name}]", name, why))
    if size > _MAX_DATA_BYTES * 4 // 3:
        text = f"Too long: may not be more than {_MAX_DATA_BYTES} bytes"
        faults.append(Fault(fields[0], text, "FieldValueTooLong"))
    return faults


def _check_immutable(new: Obj, old: Obj | None, fields: tuple[str, ...]) -> list[Fault]:
    if old is None or not old.get("immutable"):
        return []
    why = "field is immutable when `immutable` is set"
    faults = [forbidden(field, why) for field in fields if (new.get(field) or {}) != (old.get(field) or {})]
    if not new.get("immutable"):
        faults.append(forbidden("immutable", why))
    return faults


def check_service(new: Obj, old: Obj | None) -> list[Fault]:
    """Check names, ports and cluster IP of a Service."""
    faults: list[Fault] = []
    name, spec = new["metadata"]["name"], new["spec"]
    if not is_dns_label(name) or name[0].isdigit():
        why = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with a letter"
        faults.append(invalid("metadata.name", name, why))
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        faults.append(required("spec.ports"))
    if spec.get("type") == "ExternalName" and not is_dns_subdomain(spec.get("externalName", "").rstrip(".")):
        faults.append(invalid("spec.externalName", spec.get("externalName", ""), "a lowercase RFC 1123 name"))
    faults += _check_port_names("spec.ports", ports, needed=len(ports) > 1)
    for index, port in enumerate(ports):
        target = port.get("targetPort")
        if isinstance(target, int) and not 1 <= target <= 65535:
            why = "must be between 1 and 65535, inclusive"
            faults.append(invalid(f"spec.ports[{index}].targetPort", target, why))
    before = (old or {}).get("spec", {}).get("clusterIP")
    if before and spec.get("clusterIP") != before and spec.get("type") != "ExternalName":
        faults.append(invalid("spec.clusterIPs[0]", spec.get("clusterIP"), "may not change once set"))
    return faults


def _check_port_names(path: str, ports: list[Any], *, needed: bool) -> list[Fault]:
    faults: list[Fault] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name") or ""
        if not name and needed:
            faults.append(required(f"{path}[{index}].name"))
        elif name and not is_dns_label(name):
            why = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
            faults.append(invalid(f"{path}[{index}].name", name, why))
        elif name in seen:
            faults.append(duplicate(f"{path}[{index}].name", name))
        seen.add(name)
    return faults


def check_event(new: Obj, _old: Obj | None) -> list[Fault]:
    """Check that an event is in the namespace of its object."""
    involved = (new.get("involvedObject") or {}).get("namespace") or "default"
    if involved != new["metadata"].get("namespace"):
        return [invalid("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def check_lease(new: Obj, _old: Obj | None) -> list[Fault]:
    """Check the numbers of a Lease."""
    spec = new.get("spec") or {}
    faults = []
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        faults.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    transitions = spec.get("leaseTransitions")
    if transitions is not None and transitions < 0:
        faults.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    return faults


def check_endpoint_slice(new: Obj, old: Obj | None) -> list[Fault]:
    """Check address family, ranges and ports of an EndpointSlice."""
    kind = new["addressType"]
    faults: list[Fault] = []
    if old is not None and old["addressType"] != kind:
        faults.append(invalid("addressType", kind, "field is immutable"))
    for index, endpoint in enumerate(new.get("endpoints") or []):
        for place, address in enumerate(endpoint["addresses"]):
            faults += _check_address(f"endpoints[{index}].addresses[{place}]", kind, address)
    ports = new.get("ports") or []
    faults += _check_port_names("ports", ports, needed=len(ports) > 1)
    return faults


def _check_address(path: str, kind: str, address: str) -> list[Fault]:
    if kind == "FQDN":
        why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        return [] if is_dns_subdomain(address) else [invalid(path, address, why)]
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return [invalid(path, address, f"must be a valid {kind} address")]
    if f"IPv{parsed.version}" != kind:
        return [invalid(path, address, f"must be an {kind} address")]
    if parsed.is_unspecified:
        return [invalid(path, address, f"may not be unspecified ({parsed})")]
    if parsed.is_loopback:
        return [invalid(path, address, LOOPBACK_REFUSAL)]
    if parsed.is_link_local:
        return [invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if parsed.is_multicast and (address.startswith("224.0.0.") or address.lower().startswith("ff02:")):
        return [invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")]
    return []


# ---- cells of tables


def count_data(obj: Obj) -> int:
    """Return how many entries a ConfigMap or Secret has; never the entries."""
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def show_service_ports(obj: Obj) -> str:
    """Return `5432/TCP,53/UDP`."""
    ports = obj.get("spec", {}).get("ports") or []
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def show_slice_ports(obj: Obj) -> str:
    """Return `58721,58722`."""
    return ",".join(str(port.get("port", "*")) for port in obj.get("ports") or []) or "<unset>"


def show_endpoints(obj: Obj) -> str:
    """Return the first addresses of the endpoints, as kubectl does: three, then how many more."""
    addresses = [address for endpoint in obj.get("endpoints") or [] for address in endpoint["addresses"]]
    shown = ",".join(addresses[:3])
    return (f"{shown} + {len(addresses) - 3} more..." if len(addresses) > 3 else shown) or "<unset>"


def show_involved_object(obj: Obj) -> str:
    """Return `kind/name` of what an event is about."""
    involved = obj.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"
