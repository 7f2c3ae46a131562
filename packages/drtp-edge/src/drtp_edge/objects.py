"""What the edge writes to the control plane, as plain objects: pure functions of what it knows.

Rules:
- Only our own fields are set; whatever else stands in an object stays as it is.
- Equal knowledge gives an equal object, so that silence is the usual case.

What must not live here: requests and clocks.
"""

from __future__ import annotations

import datetime as dt
import platform
from collections.abc import Mapping
from typing import Any, Final

import attrs

from drtp_api.resources import API_VERSION, SYSTEM_NAMESPACE, ClientStatus, ProgrammingStatus, Role

__all__ = [
    "DRAINED_BY",
    "LEASE_SECONDS",
    "BindingFacts",
    "ServerFacts",
    "lease_object",
    "micro_time",
    "server_object",
    "server_status",
    "with_binding",
]

LEASE_SECONDS: Final = 30
"""Heartbeats come every 10 s: two may be lost before the server is taken for dead."""

DRAINED_BY: Final = "drtp.datumapis.com/drained-by"
"""Marks ``unschedulable`` as set by the edge's own drain, so that a restart lifts it and an operator's stays."""

CITY_LABEL: Final = "topology.datum.net/city-code"

Obj = dict[str, Any]


@attrs.frozen(kw_only=True)
class ServerFacts:
    """What an edge says of itself.

    ``endpoints`` are wire dicts (address, port, transport); ``ca_bundle`` is PEM.
    """

    name: str
    instance: str
    latitude: str
    longitude: str
    city: str
    endpoints: tuple[Mapping[str, Any], ...]
    server_name: str
    ca_bundle: str | None
    capacity: int
    pod_ip: str
    version: str
    draining: bool
    connections: int
    health: int


@attrs.frozen(kw_only=True)
class BindingFacts:
    """What an edge says of its tunnel for one connection."""

    connected: bool
    pod_ip: str | None = None
    pod_port: int | None = None
    public_address: str | None = None
    rtt_milliseconds: int | None = None
    transport: str | None = None


def micro_time(now: float) -> str:
    """Return seconds since the Unix epoch as Kubernetes' MicroTime."""
    return dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _time(now: float) -> str:
    return dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _set(target: Obj, **values: Any) -> None:
    for key, value in values.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value


def server_object(facts: ServerFacts, current: Mapping[str, Any] | None) -> Obj:
    """Return the DRTPServer, made from the current one where there is one."""
    metadata: Obj = dict((current or {}).get("metadata") or {"name": facts.name})
    labels = dict(metadata.get("labels") or {})
    if facts.city:
        labels[CITY_LABEL] = facts.city
    labels["kubernetes.io/hostname"] = _label(platform.node()) or "unknown"
    annotations = dict(metadata.get("annotations") or {})
    spec: Obj = dict((current or {}).get("spec") or {})
    if facts.draining:
        if not spec.get("unschedulable"):
            annotations[DRAINED_BY] = "edge"
        spec["unschedulable"] = True
    elif annotations.pop(DRAINED_BY, None) is not None:
        spec["unschedulable"] = False
    _set(
        spec,
        instance={"host": platform.node() or "unknown", "id": facts.instance},
        coordinates={"latitude": facts.latitude, "longitude": facts.longitude},
        endpoints=[dict(endpoint) for endpoint in facts.endpoints],
        identity={
            "serverName": facts.server_name,
            **({"caBundle": facts.ca_bundle} if facts.ca_bundle is not None else {}),
        },
        capacity={"connections": facts.capacity},
    )
    _set(metadata, labels=labels, annotations=annotations or None)
    return {"apiVersion": API_VERSION, "kind": "DRTPServer", "metadata": metadata, "spec": spec}


def _label(text: str) -> str:
    """Return the text as a label's value: at most 63 letters, digits, hyphens, dots and underscores."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "-" for c in text)[:63].strip("-._")


def server_status(facts: ServerFacts, current: Mapping[str, Any] | None, *, generation: int, now: float) -> Obj:
    """Return the status of the DRTPServer; conditions of other writers stay."""
    status: Obj = dict(current or {})
    ready = ("False", "Draining", "takes no new agents") if facts.draining else ("True", "ServerReady", "")
    _set(
        status,
        health=facts.health,
        podIP=facts.pod_ip,
        connections=facts.connections,
        version=facts.version,
        leaseRef={"name": facts.name},
        conditions=_with_condition(status.get("conditions") or [], "Ready", *ready, generation=generation, now=now),
    )
    return status


def _with_condition(
    conditions: list[Obj], kind: str, status: str, reason: str, message: str, *, generation: int, now: float
) -> list[Obj]:
    old = next((c for c in conditions if c.get("type") == kind), None)
    new = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"]
        if old is not None and old.get("status") == status and "lastTransitionTime" in old
        else _time(now),
    }
    if old is None:
        return [*conditions, new]
    return [new if c is old else c for c in conditions]


def lease_object(facts: ServerFacts, *, acquired: float, now: float) -> Obj:
    """Return the heartbeat's Lease."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": facts.name, "namespace": SYSTEM_NAMESPACE},
        "spec": {
            "holderIdentity": facts.instance,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": micro_time(acquired),
            "renewTime": micro_time(now),
        },
    }


def with_binding(connection: Mapping[str, Any], server: str, facts: BindingFacts) -> Obj | None:
    """Return the connection's status with our entry as it shall be, None if it is so already.

    The entry has the role that the spec gives this server; without a role there is none. Its address stays when the
    tunnel is gone, because the port stays reserved and routes keep their shape.
    """
    status: Obj = dict(connection.get("status") or {})
    entries: list[Obj] = list(status.get("servers") or [])
    assignments = (connection.get("spec") or {}).get("servers") or []
    role = next((a.get("role") for a in assignments if a.get("name") == server), None)
    kept = [e for e in entries if e.get("name") != server and (role is None or e.get("role") != role)]
    if role is not None:
        old = next((e for e in entries if e.get("name") == server and e.get("role") == role), None)
        kept.append(_entry(role, server, facts, old))
        order = [r.value for r in Role]
        kept.sort(key=lambda e: order.index(e["role"]) if e.get("role") in order else len(order))
    if kept == entries:
        return None
    _set(status, servers=kept or None)
    return status


def _entry(role: str, server: str, facts: BindingFacts, old: Obj | None) -> Obj:
    entry: Obj = dict(old) if old is not None else {"programmingStatus": ProgrammingStatus.INIT.value}
    entry.setdefault("programmingStatus", ProgrammingStatus.INIT.value)
    entry |= {"role": role, "name": server}
    if facts.connected:
        _set(
            entry,
            clientStatus=ClientStatus.CONNECTED.value,
            podIP=facts.pod_ip,
            podPort=facts.pod_port,
            rttMilliseconds=facts.rtt_milliseconds,
            transport=facts.transport,
            publicAddress=facts.public_address,
        )
        return entry
    was = (old or {}).get("clientStatus", ClientStatus.WAITING.value)
    waiting = was == ClientStatus.WAITING.value
    _set(
        entry,
        clientStatus=(ClientStatus.WAITING if waiting else ClientStatus.DISCONNECTED).value,
        rttMilliseconds=None,
        publicAddress=None,
    )
    return entry
