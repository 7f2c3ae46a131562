"""Everything an object must pass before it is written: prepare, prune, default, validate.

Rules:
- The order is the real server's; the caller's object is changed in place.
- Unknown fields are dropped; whether that is silent, a warning or an error is the request's choice.
- What needs other objects (cluster IPs) is read from the store and nothing is written.
"""

from __future__ import annotations

import hashlib
import ipaddress

from drtp_api.kube import CUSTOM_RESOURCE_DEFINITIONS, SERVICES, BadRequest, Gone, Key, Obj, WatchEventType
from drtp_controller.apiserver.builtin_rules import LOOPBACK_REFUSAL
from drtp_controller.apiserver.crds import unsupported_rules
from drtp_controller.apiserver.faults import (
    NOT_SUPPORTED,
    REQUIRED,
    TOO_LONG,
    TOO_MANY,
    TYPE_INVALID,
    Fault,
    invalid_object,
)
from drtp_controller.apiserver.kinds import Kind
from drtp_controller.apiserver.metadata import check_deleting, check_metadata, clean_metadata
from drtp_controller.apiserver.schema import apply_defaults, prune, validate
from drtp_controller.apiserver.store import Record, Store

CLUSTER_IPS = ipaddress.IPv4Network("10.96.0.0/16")
"""The usual service network; nothing listens there, the addresses only make a Service look as it should."""
_BLOCKING = {REQUIRED, NOT_SUPPORTED, TOO_LONG, TOO_MANY, TYPE_INVALID}
"""Faults after which rules may not rely on the shape of the object."""
_UNCHECKED = Fault(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)


class Admission:
    """Admits objects of any kind."""

    def __init__(self, store: Store, *, allow_loopback_endpoints: bool) -> None:
        self._allow_loopback = allow_loopback_endpoints
        self._cluster_ips = _ClusterIPs(store)

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
            faults += self._rule_faults(kind, new, old, faults)
        metadata = new["metadata"]
        if not faults:
            faults = check_metadata(metadata, name_is_label=kind.resource.plural == "namespaces")
            faults += check_deleting((old or {"metadata": {}})["metadata"], metadata)
            faults += self._lenient(kind.check(new, old))
        if faults:
            raise invalid_object(kind.resource, metadata.get("name", ""), faults)
        warnings = [f'unknown field "{path}"' for path in unknown] if validation == "Warn" else []
        if kind.resource == CUSTOM_RESOURCE_DEFINITIONS:
            warnings += [f"{place}: this server does not evaluate {what}" for place, what in unsupported_rules(new)]
        return warnings

    def _rule_faults(self, kind: Kind, new: Obj, old: Obj | None, faults: list[Fault]) -> list[Fault]:
        if kind.rules is None:
            return []
        if any(fault.reason in _BLOCKING for fault in faults):
            return [_UNCHECKED]
        return kind.rules.check(new, old)

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
            metadata = service["metadata"]
            key = Key(metadata.get("namespace", ""), metadata.get("name", ""))
            address = self._cluster_ips.free(kind, key)
            spec["clusterIP"] = address
        if not spec.get("clusterIPs"):
            spec["clusterIPs"] = [address]


class _ClusterIPs:
    """Which service has which address, read from the history of services."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # before any history: the first look finds it gone and reads everything
        self._position = -1
        self._by_key: dict[Key, str] = {}

    def free(self, kind: Kind, key: Key) -> str:
        """Return an address nobody has, the same one for the same service where possible."""
        self._catch_up(kind)
        used = set(self._by_key.values())
        hosts = CLUSTER_IPS.num_addresses - 2
        start = int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:4])
        for offset in range(hosts):
            address = str(CLUSTER_IPS[1 + (start + offset) % hosts])
            if address not in used:
                return address
        raise BadRequest("no cluster IP is left")

    def _catch_up(self, kind: Kind) -> None:
        try:
            for event in self._store.events_since(kind.collection, self._position):
                self._by_key.pop(event.record.key, None)
                if event.type is not WatchEventType.DELETED:
                    self._note(event.record)
        except Gone:
            self._by_key.clear()
            for record in self._store.scan(kind.collection):
                self._note(record)
        self._position = self._store.revision

    def _note(self, record: Record) -> None:
        address = record.decode().get("spec", {}).get("clusterIP")
        if address:
            self._by_key[record.key] = address
