"""What our gateway says of Gateway API objects: the status of Gateway, ListenerSet and routes.

Rules:
- ``Programmed`` is true only for what the gateway has confirmed; ``Accepted`` says that we understood the object.
- Entries of other controllers in ``status.parents`` are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drtp_api.kube import Obj
from drtp_api.resources import Condition
from drtp_api.wire import from_wire, to_wire
from drtp_controller.planners.conditions import condition, merge_conditions
from drtp_controller.planners.connection import Applied

__all__ = [
    "address_entry", "gateway_class_status", "gateway_status", "listener_entry", "listener_set_status", "merged",
    "route_status",
]  # fmt: skip


def gateway_class_status(obj: Obj, *, now: float) -> Obj:
    """Return the status of our GatewayClass."""
    return {"conditions": merged(obj, obj.get("status") or {}, (condition("Accepted", True, "Accepted"),), now)}


def gateway_status(obj: Obj, *, host: str, routes: int, now: float) -> Obj:
    """Return the status of the shared Gateway. ``routes`` counts the HTTP routes that are attached."""
    present = obj.get("status") or {}
    wanted = (condition("Accepted", True, "Accepted"), condition("Programmed", True, "Programmed"))
    listeners = []
    for listener in obj["spec"].get("listeners") or ():
        before = listener_entry(present, listener["name"])
        done = (*wanted, condition("ResolvedRefs", True, "ResolvedRefs"))
        listeners.append(
            {
                "name": listener["name"],
                "attachedRoutes": routes,
                "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
                "conditions": merged(obj, before, done, now),
            }
        )
    return {
        "addresses": [address_entry(host)],
        "conditions": merged(obj, present, wanted, now),
        "listeners": listeners,
    }


def listener_set_status(obj: Obj, applied: Applied | None, *, now: float) -> Obj:
    """Return the status of a service's ListenerSet."""
    present = obj.get("status") or {}
    wanted = _verdict(applied)
    listeners = []
    for listener in obj["spec"].get("listeners") or ():
        before = listener_entry(present, listener["name"])
        resolved = (*wanted, condition("ResolvedRefs", True, "ResolvedRefs"))
        listeners.append(
            {
                "name": listener["name"],
                "attachedRoutes": 1,
                "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": f"{listener['protocol']}Route"}],
                "conditions": merged(obj, before, resolved, now),
            }
        )
    return {"conditions": merged(obj, present, wanted, now), "listeners": listeners}


def route_status(obj: Obj, applied: Applied | None, *, controller: str, now: float) -> Obj:
    """Return the status of a route with our entry for each of its parents."""
    present: Sequence[Mapping[str, Any]] = (obj.get("status") or {}).get("parents") or ()
    parents: list[Any] = [p for p in present if p.get("controllerName") != controller]
    for reference in obj["spec"].get("parentRefs") or ():
        before = next(
            (p for p in present if p.get("controllerName") == controller and p.get("parentRef") == reference), {}
        )
        wanted = (*_verdict(applied), condition("ResolvedRefs", True, "ResolvedRefs"))
        parents.append(
            {
                "parentRef": reference,
                "controllerName": controller,
                "conditions": merged(obj, before, wanted, now),
            }
        )
    return {"parents": parents}


def listener_entry(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return what a status says of one listener."""
    return next((x for x in status.get("listeners") or () if x.get("name") == name), {})


def _verdict(applied: Applied | None) -> tuple[Condition, ...]:
    accepted = condition("Accepted", True, "Accepted")
    if applied is None:
        return (accepted, condition("Programmed", None, "Pending", "Waiting for the gateway"))
    if applied.status.programmed:
        return (accepted, condition("Programmed", True, "Programmed"))
    reason = applied.status.reason if applied.status.code else "Pending"
    return (accepted, condition("Programmed", False, reason or "Invalid", applied.status.message))


def merged(obj: Obj, before: Mapping[str, Any], wanted: Sequence[Condition], now: float) -> list[dict[str, Any]]:
    """Return the wanted conditions as wire objects, with the transition times that they had."""
    existing = [from_wire(c, Condition) for c in before.get("conditions") or ()]
    generation = obj["metadata"].get("generation") or 0
    return [to_wire(c) for c in merge_conditions(existing, wanted, generation=generation, now=now)]


def address_entry(host: str) -> dict[str, Any]:
    """Return an address of a Gateway."""
    ip = ":" in host or host.replace(".", "").isdigit()
    return {"type": "IPAddress" if ip else "Hostname", "value": host}
