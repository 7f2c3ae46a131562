"""The doors that users open: listeners of their own Gateways and ListenerSets, and which of them this gateway has.

Rules:
- A port belongs to whoever had it first, a service's own or a user's listener; all share one book.
- What cannot be had is a fault of that listener, with what to do; the other listeners of its Gateway are not hurt.
- Nothing here looks at routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from drtp_api.errors import DrtpError
from drtp_api.kube import GATEWAY_GROUP, Key, Obj, key_of
from drtp_api.resources import Protocol
from drtp_controller.planners.ports import PortAllocator

__all__ = ["Door", "Doors", "Fault", "admits", "age", "matches_selector", "observe_listeners", "plan_doors"]

_KINDS = {"HTTP": "HTTPRoute", "TCP": "TCPRoute", "UDP": "UDPRoute"}


@attrs.frozen
class Fault:
    """Why something cannot be had: the reason of a condition, and a message that says what to do."""

    reason: str
    message: str


@attrs.frozen(kw_only=True)
class Door:
    """One listener. ``kind`` and ``key`` name the Gateway or ListenerSet that it stands in."""

    kind: str
    key: Key
    name: str
    protocol: str
    port: int
    hostname: str | None = None
    source: str = "Same"
    selector: Mapping[str, Any] | None = attrs.field(default=None, eq=False)
    kinds: tuple[str, ...] = ()
    fault: Fault | None = None
    conflict: bool = False

    @property
    def owner(self) -> str:
        """Return who owns the port in the book of ports."""
        return f"{self.kind} {self.key} listener {self.name}"


@attrs.frozen(kw_only=True)
class Doors:
    """Every listener, and what is wrong with the Gateways and ListenerSets themselves."""

    listeners: tuple[Door, ...] = ()
    faults: Mapping[tuple[str, Key], Fault] = attrs.field(factory=dict)
    sets: Mapping[Key, tuple[Key, ...]] = attrs.field(factory=dict)
    """The ListenerSets of each Gateway."""

    def of(self, kind: str, key: Key) -> list[Door]:
        """Return the listeners of one Gateway or ListenerSet."""
        return [d for d in self.listeners if d.kind == kind and d.key == key]

    def known(self, kind: str, key: Key) -> bool:
        """Return whether a Gateway or ListenerSet is ours to program."""
        return (kind, key) in self.faults or any(d.kind == kind and d.key == key for d in self.listeners)


def age(obj: Obj) -> tuple[str, Key]:
    """Return what objects are ordered by where the older one wins."""
    return (obj["metadata"].get("creationTimestamp") or "", key_of(obj))


def plan_doors(
    gateways: Iterable[Obj],
    listener_sets: Iterable[Obj],
    *,
    class_name: str,
    shared: Key,
    http_port: int,
    namespaces: Mapping[str, Mapping[str, str]],
    ports: PortAllocator,
    now: float,
) -> Doors:
    """Return the listeners of every Gateway of our class; claims their ports in the book.

    Args:
        gateways: Every Gateway.
        listener_sets: Those that we did not write ourselves.
        class_name: The class that is ours.
        shared: Our own Gateway, whose listener is always there.
        http_port: The one port on which this gateway serves HTTP.
        namespaces: Labels by name.
        ports: Who owns which port.
        now: seconds since the Unix epoch.
    """
    ours = {
        key_of(g): g
        for g in gateways
        if g["spec"].get("gatewayClassName") == class_name and not g["metadata"].get("deletionTimestamp")
    }
    found: list[tuple[Obj, Door]] = []
    faults: dict[tuple[str, Key], Fault] = {}
    sets: dict[Key, list[Key]] = {}
    for gateway in ours.values():
        found += [(gateway, d) for d in _listeners("Gateway", gateway)]
    for item in sorted(listener_sets, key=age):
        reference, key = item["spec"]["parentRef"], key_of(item)
        parent = Key(reference.get("namespace") or key.namespace, reference["name"])
        if (
            reference.get("kind", "Gateway") != "Gateway"
            or parent not in ours
            or item["metadata"].get("deletionTimestamp")
        ):
            continue
        allowed = (ours[parent]["spec"].get("allowedListeners") or {}).get("namespaces") or {}
        if _allows(allowed.get("from", "None"), allowed.get("selector"), parent.namespace, key.namespace, namespaces):
            sets.setdefault(parent, []).append(key)
            found += [(item, d) for d in _listeners("ListenerSet", item)]
        else:
            text = f"the Gateway {parent} does not allow it; set its spec.allowedListeners.namespaces"
            faults["ListenerSet", key] = Fault("NotAllowed", text)
    wanted = {d.owner for _, d in found if d.protocol in {"TCP", "UDP"}}
    for owner in [o for o in ports.owners() if " " in o and o not in wanted]:
        ports.release(owner, now)
    found.sort(key=lambda pair: (age(pair[0]), pair[1].kind))
    done = tuple(d if d.key == shared else _judged(d, http_port, ports, now) for _, d in found)
    return Doors(listeners=done, faults=faults, sets={k: tuple(v) for k, v in sets.items()})


def observe_listeners(kind: str, items: Iterable[Obj], ports: PortAllocator) -> None:
    """Let the listeners that were accepted before this process began keep their ports."""
    for item in sorted(items, key=age):
        accepted = {
            entry["name"]
            for entry in (item.get("status") or {}).get("listeners") or ()
            if any(c.get("type") == "Accepted" and c.get("status") == "True" for c in entry.get("conditions") or ())
        }
        for door in _listeners(kind, item):
            if door.name in accepted and door.protocol in {"TCP", "UDP"}:
                ports.observe(door.owner, Protocol(door.protocol), door.port)


def _listeners(kind: str, obj: Obj) -> list[Door]:
    doors = []
    for entry in obj["spec"].get("listeners") or ():
        allowed = entry.get("allowedRoutes") or {}
        places = allowed.get("namespaces") or {}
        asked = [k["kind"] for k in allowed.get("kinds") or () if k.get("group", GATEWAY_GROUP) == GATEWAY_GROUP]
        possible = _KINDS.get(entry["protocol"])
        kinds = tuple(k for k in asked if k == possible) if allowed.get("kinds") else ((possible,) if possible else ())
        doors.append(
            Door(
                kind=kind, key=key_of(obj), name=entry["name"], protocol=entry["protocol"], port=int(entry["port"]),
                hostname=entry.get("hostname") or None, source=places.get("from", "Same"),
                selector=places.get("selector"), kinds=kinds,
            )
        )  # fmt: skip
    return doors


def _judged(door: Door, http_port: int, ports: PortAllocator, now: float) -> Door:
    if door.protocol == "HTTP":
        if door.port != http_port:
            text = f"DRTP-2012 this gateway serves HTTP on port {http_port} only; use that port"
            return attrs.evolve(door, fault=Fault("PortUnavailable", text))
        return door
    if door.protocol not in _KINDS:
        text = f"this gateway listens for HTTP, TCP and UDP; {door.protocol} is not among them"
        return attrs.evolve(door, fault=Fault("UnsupportedProtocol", text))
    try:
        ports.allocate(door.owner, Protocol(door.protocol), door.port, now)
    except DrtpError as error:
        ports.release(door.owner, now)
        text = f"{error.code} {error.message}; choose another port, or free this one there"
        return attrs.evolve(door, fault=Fault("PortUnavailable", text), conflict=error.code == "DRTP-2011")
    return door


def _allows(
    source: str,
    selector: Mapping[str, Any] | None,
    own: str,
    other: str,
    namespaces: Mapping[str, Mapping[str, str]],
) -> bool:
    match source:
        case "All":
            return True
        case "Same":
            return own == other
        case "Selector":
            return matches_selector(selector, namespaces.get(other, {}))
        case _:
            return False


def admits(door: Door, namespace: str, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    """Return whether routes of a namespace may attach to a listener."""
    return _allows(door.source, door.selector, door.key.namespace, namespace, namespaces)


def matches_selector(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Return whether labels match a Kubernetes label selector; an absent one matches nothing."""
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(e, labels) for e in selector.get("matchExpressions") or ())


def _expression(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False
