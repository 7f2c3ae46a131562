"""What the cluster's gateway implementation says of an exposure, read from the status of its objects. Pure.

Rules:
- A condition counts only for the generation that is there now: an old ``True`` says nothing of a new spec.
- Everything that carries the exposure must have been confirmed: the Gateway, the listener, the route, every policy.
- Silence is ``Pending`` without a code; a refusal has the implementation's own words and a code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from drtp_api.clustergateways import Observed
from drtp_api.gateways import Exposure, ExposureStatus
from drtp_api.kube import Obj
from drtp_api.resources import Protocol

__all__ = ["judge"]

_NO_ENDPOINT = frozenset({"EndpointsNotFound", "NoReadyEndpoints"})
"""Reasons of Envoy Gateway for a Service whose tunnels are all down: the route is programmed, the answer is 503."""


def judge(exposure: Exposure, observed: Observed, policies: int) -> ExposureStatus:
    """Return the verdict; ``policies`` is how many must have been accepted."""
    return (
        _front(exposure, observed)
        or _route(observed.route)
        or _policies(observed.policies, policies)
        or ExposureStatus(programmed=True)
    )


def _pending(what: str) -> ExposureStatus:
    return ExposureStatus(programmed=False, reason="Pending", message=f"the cluster's gateway has not confirmed {what}")


def _refused(what: str, found: Mapping[str, Any]) -> ExposureStatus:
    return ExposureStatus(
        programmed=False,
        reason=str(found.get("reason") or "Refused"),
        message=f"{what}: {found.get('message') or found.get('type')}",
        code="DRTP-5006",
    )


def _need(
    obj: Obj,
    conditions: Iterable[Mapping[str, Any]],
    kinds: Sequence[str],
    what: str,
    *,
    fine: frozenset[str] = frozenset(),
) -> ExposureStatus | None:
    """Return what is missing for these conditions to be true for the present generation."""
    generation = obj["metadata"].get("generation") or 0
    found = {c.get("type"): c for c in conditions}
    for kind in kinds:
        condition = found.get(kind)
        if condition is None or int(condition.get("observedGeneration") or 0) < generation:
            return _pending(what)
        if condition.get("status") == "Unknown":
            return _pending(what)
        if condition.get("status") != "True" and condition.get("reason") not in fine:
            # ``Pending`` is what the Gateway API calls a refusal that mends itself
            return _pending(what) if condition.get("reason") == "Pending" else _refused(what, condition)
    return None


def _front(exposure: Exposure, observed: Observed) -> ExposureStatus | None:
    gateway = observed.gateway
    if gateway is None:
        return _pending("the Gateway")
    status = gateway.get("status") or {}
    if (
        missing := _need(gateway, status.get("conditions") or (), ("Accepted", "Programmed"), "the Gateway")
    ) is not None:
        return missing
    if exposure.protocol is Protocol.HTTP:
        return _listener(gateway, "http", "the Gateway's HTTP listener")
    item = observed.listener_set
    if item is None:
        return _pending("the ListenerSet")
    status = item.get("status") or {}
    missing = _need(item, status.get("conditions") or (), ("Accepted", "Programmed"), "the ListenerSet")
    return missing or _listener(item, item["spec"]["listeners"][0]["name"], "the listener")


def _listener(obj: Obj, name: str, what: str) -> ExposureStatus | None:
    entries = (obj.get("status") or {}).get("listeners") or ()
    entry = next((e for e in entries if e.get("name") == name), None)
    if entry is None:
        return _pending(what)
    conflicted = next((c for c in entry.get("conditions") or () if c.get("type") == "Conflicted"), None)
    if conflicted is not None and conflicted.get("status") == "True":
        return _refused(what, conflicted)
    return _need(obj, entry.get("conditions") or (), ("Accepted", "Programmed"), what)


def _route(route: Obj | None) -> ExposureStatus | None:
    if route is None:
        return _pending("the route")
    parents = (route.get("status") or {}).get("parents") or ()
    wanted = route["spec"].get("parentRefs") or ()
    for reference in wanted:
        entry = next((p for p in parents if _names(p.get("parentRef") or {}, reference)), None)
        if entry is None:
            return _pending("the route")
        missing = _need(
            route, entry.get("conditions") or (), ("Accepted", "ResolvedRefs"), "the route", fine=_NO_ENDPOINT
        )
        if missing is not None:
            return missing
    return None


def _names(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    keys = ("kind", "name", "sectionName")
    return all(found.get(k) == wanted.get(k) for k in keys)


def _policies(policies: Sequence[Obj], count: int) -> ExposureStatus | None:
    if len(policies) < count:
        return _pending("the policies")
    for policy in policies:
        what = f"the {policy['kind']}"
        ancestors = (policy.get("status") or {}).get("ancestors") or ()
        if not ancestors:
            return _pending(what)
        for ancestor in ancestors:
            missing = _need(policy, ancestor.get("conditions") or (), ("Accepted",), what)
            if missing is not None:
                return missing
    return None
