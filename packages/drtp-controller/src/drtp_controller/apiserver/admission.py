"""Everything an object must pass before it is written: prepare, prune, default, validate.

Rules:
- The order is the real server's; the caller's object is changed in place.
- Unknown fields are dropped; whether that is silent, a warning or an error is the request's choice.
- What needs other objects (cluster IPs) is read from the store and nothing is written.
"""

from __future__ import annotations

import hashlib
import ipaddress

from drtp_api.kube import SERVICES, BadRequest, Obj
from drtp_controller.apiserver.builtin_rules import LOOPBACK_REFUSAL
from drtp_controller.apiserver.faults import Fault, invalid_object
from drtp_controller.apiserver.kinds import Kind
from drtp_controller.apiserver.metadata import check_deleting, check_metadata, clean_metadata
from drtp_controller.apiserver.schema import apply_defaults, prune, validate
from drtp_controller.apiserver.store import Store

CLUSTER_IPS = ipaddress.IPv4Network("10.96.0.0/16")
"""The usual service network; nothing listens there, the addresses only make a Service look as it should."""


class Admission:
    """Admits objects of any kind."""

    def __init__(self, store: Store, *, allow_loopback_endpoints: bool) -> None:
        self._store = store
        self._allow_loopback = allow_loopback_endpoints

    def admit(self, kind: Kind, new: Obj, old: Obj | None, validation: str) -> list[str]:
        """Bring an object into the form to be written; return warnings.

        Raises:
            BadRequest: an unknown field, with validation Strict.
            Invalid: everything that is wrong with the object, by field.
        """
        unknown, faults = clean_metadata(new)
        if not faults:
            kind.prepare(new, old)
            if kind.resource == SERVICES:
                self._give_cluster_ip(kind, new)
        unknown += prune(kind.schema, new)
        self._refuse_unknown(kind, unknown, validation)
        apply_defaults(kind.schema, new)
        if not faults:
            faults = validate(kind.schema, new)
        metadata = new["metadata"]
        if not faults:
            faults = check_metadata(metadata, name_is_label=kind.resource.plural == "namespaces")
            faults += check_deleting((old or {"metadata": {}})["metadata"], metadata)
            faults += self._lenient(kind.check(new, old))
        if faults:
            raise invalid_object(kind.resource, metadata.get("name", ""), faults)
        return [f'unknown field "{path}"' for path in unknown] if validation == "Warn" else []

    def _refuse_unknown(self, kind: Kind, unknown: list[str], validation: str) -> None:
        if not unknown or validation != "Strict":
            return
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        name = kind.resource.kind
        where = f'{name} in version "{kind.resource.version}" cannot be handled as a {name}'
        raise BadRequest(f"{where}: strict decoding error: {listed}")

    def _lenient(self, faults: list[Fault]) -> list[Fault]:
        if not self._allow_loopback:
            return faults
        return [fault for fault in faults if not fault.message.endswith(LOOPBACK_REFUSAL)]

    def _give_cluster_ip(self, kind: Kind, service: Obj) -> None:
        spec = service.get("spec")
        if not isinstance(spec, dict) or spec.get("type") == "ExternalName":
            return
        address = spec.get("clusterIP")
        if not address:
            used = {record.decode().get("spec", {}).get("clusterIP") for record in self._store.scan(kind.collection)}
            metadata = service["metadata"]
            seed = f"{metadata.get('namespace')}/{metadata.get('name')}".encode()
            address = _free_address(seed, used)
            spec["clusterIP"] = address
        if not spec.get("clusterIPs"):
            spec["clusterIPs"] = [address]


def _free_address(seed: bytes, used: set[str | None]) -> str:
    """Return an unused address, the same one for the same service where possible."""
    hosts = CLUSTER_IPS.num_addresses - 2
    start = int.from_bytes(hashlib.sha256(seed).digest()[:4])
    for offset in range(hosts):
        address = str(CLUSTER_IPS[1 + (start + offset) % hosts])
        if address not in used:
            return address
    raise BadRequest("no cluster IP is left")
