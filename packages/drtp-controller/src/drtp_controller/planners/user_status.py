"""What is said of users' Gateways, ListenerSets and routes.

Rules:
- ``Programmed`` follows the gateway's word on every way that a listener or route makes; a listener without routes
  has nothing to program and is ready for one.
- The reasons are the Gateway API's where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from drtp_api.kube import GATEWAY_GROUP, Key, Obj, key_of
from drtp_api.resources import Condition
from drtp_controller.planners.conditions import condition
from drtp_controller.planners.connection import Applied
from drtp_controller.planners.gateway_status import address_entry, listener_entry, merged
from drtp_controller.planners.listeners import Door
from drtp_controller.planners.userroutes import ParentVerdict, RouteVerdict, UserPlan

__all__ = ["attached", "user_gateway_status", "user_listener_set_status", "user_route_status"]

_Ways = Mapping[str, Applied]


def user_gateway_status(obj: Obj, plan: UserPlan, applied: _Ways, *, host: str, now: float) -> Obj:
    """Return the status of a user's Gateway."""
    status = _front_status("Gateway", obj, plan, applied, now)
    status["attachedListenerSets"] = len(plan.doors.sets.get(key_of(obj), ()))
    return status | {"addresses": [address_entry(host)] if host else []}


def user_listener_set_status(obj: Obj, plan: UserPlan, applied: _Ways, *, now: float) -> Obj:
    """Return the status of a user's ListenerSet."""
    fault = plan.doors.faults.get(("ListenerSet", key_of(obj)))
    if fault is None:
        return _front_status("ListenerSet", obj, plan, applied, now)
    wanted = [condition(kind, False, fault.reason, fault.message) for kind in ("Accepted", "Programmed")]
    return {"conditions": merged(obj, obj.get("status") or {}, wanted, now), "listeners": []}


def user_route_status(obj: Obj, verdict: RouteVerdict | None, applied: _Ways, *, controller: str, now: float) -> Obj:
    """Return the status of a user's route: our entry for each parent of ours, the entries of others as they are."""
    present: Sequence[Mapping[str, Any]] = (obj.get("status") or {}).get("parents") or ()
    parents: list[Any] = [p for p in present if p.get("controllerName") != controller]
    for parent in verdict.parents if verdict is not None else ():
        before: Mapping[str, Any] = next(
            (p for p in present if p.get("controllerName") == controller and p.get("parentRef") == parent.reference), {}
        )
        parents.append(
            {
                "parentRef": dict(parent.reference),
                "controllerName": controller,
                "conditions": merged(obj, before, _route_conditions(parent, applied), now),
            }
        )
    return {"parents": parents}


def _route_conditions(parent: ParentVerdict, applied: _Ways) -> list[Condition]:
    fault = parent.accepted
    if fault is not None:
        accepted = condition("Accepted", False, fault.reason, fault.message)
    else:
        accepted = condition("Accepted", True, "Accepted")
    if parent.resolved is not None:
        resolved = condition("ResolvedRefs", False, parent.resolved.reason, parent.resolved.message)
    else:
        resolved = condition("ResolvedRefs", True, "ResolvedRefs")
    wanted = [accepted, resolved]
    if parent.conflict and fault is not None:
        wanted.append(condition("Conflicted", True, fault.reason, fault.message))
    else:
        wanted.append(condition("Conflicted", False, "NoConflicts"))
    if fault is not None or parent.resolved is not None:
        why = fault or parent.resolved
        return [*wanted, condition("Programmed", False, why.reason if why else "Invalid", "see the other conditions")]
    return [*wanted, _programmed([applied.get(c.key) for c in parent.claims])]


def _programmed(answers: Sequence[Applied | None]) -> Condition:
    for found in answers:
        if found is None:
            return condition("Programmed", False, "Pending", "the gateway has not confirmed it yet")
        if not found.status.programmed:
            code = f"{found.status.code} " if found.status.code else ""
            return condition("Programmed", False, found.status.reason or "Pending", code + found.status.message)
    return condition("Programmed", True, "Programmed")


def _front_status(kind: str, obj: Obj, plan: UserPlan, applied: _Ways, now: float) -> Obj:
    present = obj.get("status") or {}
    doors = plan.doors.of(kind, key_of(obj))
    entries = [_entry(obj, door, plan, applied, now) for door in doors]
    bad = [d for d in doors if d.fault is not None]
    text = "; ".join(f"{d.name}: {d.fault.message}" for d in bad if d.fault is not None)
    usable = len(bad) < len(doors)
    accepted = condition("Accepted", usable, "ListenersNotValid" if bad else "Accepted", text)
    if not usable:
        programmed = condition("Programmed", False, "Invalid", text)
    else:
        programmed = _programmed([a for d in doors for a in _answers(d, plan, applied)])
    return {"conditions": merged(obj, present, [accepted, programmed], now), "listeners": entries}


def _answers(door: Door, plan: UserPlan, applied: _Ways) -> list[Applied | None]:
    return [
        applied.get(claim.key)
        for route in plan.routes
        for parent in route.parents
        if any(_same(d, door) for d in parent.doors)
        for claim in parent.claims
        if claim.port in {None, door.port}
    ]


def _same(one: Door, other: Door) -> bool:
    return (one.kind, one.key, one.name) == (other.kind, other.key, other.name)


def attached(plan: UserPlan, kind: str, key: Key, name: str) -> int:
    """Return how many routes are attached to a listener."""
    return sum(
        any((d.kind, d.key, d.name) == (kind, key, name) for p in r.parents for d in p.doors) for r in plan.routes
    )


def _entry(obj: Obj, door: Door, plan: UserPlan, applied: _Ways, now: float) -> dict[str, Any]:
    before = listener_entry(obj.get("status") or {}, door.name)
    fault = door.fault
    if fault is not None:
        accepted = condition("Accepted", False, fault.reason, fault.message)
        programmed = condition("Programmed", False, "Invalid", fault.message)
    else:
        accepted = condition("Accepted", True, "Accepted")
        programmed = _programmed(_answers(door, plan, applied))
    if fault is not None and door.conflict:
        conflicted = condition("Conflicted", True, "PortConflict", fault.message)
    else:
        conflicted = condition("Conflicted", False, "NoConflicts")
    if door.kinds:
        resolved = condition("ResolvedRefs", True, "ResolvedRefs")
    else:
        text = f"no kind of route in allowedRoutes goes with {door.protocol}"
        resolved = condition("ResolvedRefs", False, "InvalidRouteKinds", text)
    return {
        "name": door.name,
        "attachedRoutes": attached(plan, door.kind, door.key, door.name),
        "supportedKinds": [{"group": GATEWAY_GROUP, "kind": k} for k in door.kinds],
        "conditions": merged(obj, before, [accepted, conflicted, resolved, programmed], now),
    }
