"""Resource objects for tests, with everything filled in that the test does not care about."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from drtp_api.acl import Visitor, normalise_ip
from drtp_api.pickers import CITY_LABEL
from drtp_api.resources import (
    AccessControlList,
    AccessControlListSpec,
    AclMode,
    AclRule,
    Action,
    Application,
    Coordinates,
    EnforceAt,
    Instance,
    Metadata,
    Protocol,
    Server,
    ServerSpec,
    Service,
    ServiceSpec,
)

__all__ = ["make_list", "make_server", "make_service", "make_visitor"]

_numbers = itertools.count(1)


def _metadata(name: str, *, namespace: str | None = "default", **labels: str) -> Metadata:
    number = next(_numbers)
    return Metadata(
        name=name, namespace=namespace, uid=f"00000000-0000-4000-8000-{number:012d}", resource_version=str(number),
        generation=1, labels=labels,
    )  # fmt: skip


def make_server(name: str, latitude: float | str = 0, longitude: float | str = 0, *, city: str | None = None) -> Server:
    """Return a tunnel server at these coordinates."""
    metadata = _metadata(name, namespace=None, **({CITY_LABEL: city} if city else {}))
    return Server(
        metadata=metadata,
        spec=ServerSpec(
            instance=Instance(host=f"{name}.test", id=name),
            coordinates=Coordinates(latitude=str(latitude), longitude=str(longitude)),
        ),
    )


def make_service(
    name: str = "web", *, protocol: Protocol = Protocol.TCP, allow: Iterable[str] = (), namespace: str = "default"
) -> Service:
    """Return a service with this allow-list."""
    return Service(
        metadata=_metadata(name, namespace=namespace),
        spec=ServiceSpec(application=Application(protocol=protocol), edge_allowlist_cidrs=tuple(allow)),
    )


def make_list(
    *rules: tuple[str, Action, Iterable[str]],
    name: str = "list",
    mode: AclMode = AclMode.ENFORCE,
    default: Action = Action.DENY,
    enforce_at: tuple[EnforceAt, ...] = (EnforceAt.GATEWAY, EnforceAt.SERVER),
) -> AccessControlList:
    """Return an access control list; each rule is its name, its action and its networks."""
    return AccessControlList(
        metadata=_metadata(name),
        spec=AccessControlListSpec(
            mode=mode, default_action=default, enforce_at=enforce_at,
            rules=tuple(AclRule(name=n, action=a, client_cidrs=tuple(c)) for n, a, c in rules),
        ),
    )  # fmt: skip


def make_visitor(
    source: str, *lists: AccessControlList, service: Service | None = None, normalise: bool = True
) -> Visitor:
    """Return a visitor from this address; ``normalise=False`` leaves IPv4 mapped into IPv6 as it is."""
    import ipaddress

    address = normalise_ip(source) if normalise else ipaddress.ip_address(source)
    return Visitor(service=service or make_service(), lists=lists, source=address, source_port=40_000)
