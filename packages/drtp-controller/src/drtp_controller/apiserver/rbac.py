"""Who may do what on the embedded server: five roles in one table. Pure.

Rules:
- Everything not granted is denied; there are no deny rules.
- A role grants verbs on resources of a group, optionally in named namespaces only; a subresource is granted by
  its own name (`drtpconnections/status`).
- Discovery, health, versions and reviews of one's own rights are open to every known user.
- The edge and the controller have the rights of an installation (``rights``), plus what one machine needs.
What must not enter: tokens, requests. On a real cluster RBAC objects do this job.
"""

from __future__ import annotations

import enum

import attrs

from drtp_api.kube import DRTP_GROUP, GATEWAY_GROUP, Forbidden
from drtp_controller.rights import Component, rights_of

SYSTEM_NAMESPACE = "drtp-system"


class Role(enum.StrEnum):
    """What a user is."""

    ADMIN = "admin"
    CONTROLLER = "controller"
    EDGE = "edge"
    USER = "user"
    READ_ONLY = "read-only"


@attrs.frozen
class User:
    """Who asks."""

    name: str
    role: Role

    @property
    def groups(self) -> list[str]:
        """Return the groups that `kubectl auth whoami` shows."""
        return [f"drtp:{self.role.value}", "system:authenticated"]


SYSTEM_USER = User("system:apiserver", Role.ADMIN)
"""The server itself."""


@attrs.frozen
class Rule:
    """Verbs on resources of a group; `*` stands for all."""

    verbs: frozenset[str]
    group: str
    resources: frozenset[str]
    namespaces: frozenset[str] | None = None
    """Only in these namespaces; None for everywhere, cluster-scoped kinds included."""
    names: frozenset[str] | None = None
    """Only these objects; None for all. Lists and watches name theirs by a field selector."""

    def grants(self, verb: str, group: str, resource: str, namespace: str, name: str = "") -> bool:
        """Return whether this rule admits a request."""
        return (
            (verb in self.verbs or "*" in self.verbs)
            and self.group in {group, "*"}
            and (resource in self.resources or "*" in self.resources)
            and (self.namespaces is None or namespace in self.namespaces)
            and (self.names is None or name in self.names)
        )


_READ = "get list watch"
_WRITE = "create update patch delete deletecollection"


def _rule(verbs: str, group: str, resources: str, *namespaces: str) -> Rule:
    return Rule(
        frozenset(verbs.split()),
        group,
        frozenset(resources.split()),
        frozenset(namespaces) if namespaces else None,
    )


def _installed(component: Component) -> tuple[Rule, ...]:
    """Return the rules that a component has in every installation."""
    return tuple(
        Rule(
            frozenset(right.verbs),
            right.group,
            frozenset(right.resources),
            None if right.namespace is None else frozenset({right.namespace}),
            frozenset(right.names) or None,
        )
        for right in rights_of(component)
    )


_EVERYTHING_READABLE = (
    _rule(_READ, DRTP_GROUP, "*"),
    _rule(_READ, GATEWAY_GROUP, "*"),
    _rule(_READ, "", "namespaces configmaps services events"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule(_READ, "coordination.k8s.io", "leases"),
    _rule(_READ, "apiextensions.k8s.io", "customresourcedefinitions"),
)

_ROUTES = "gateways listenersets httproutes tcproutes udproutes tlsroutes referencegrants"

ROLE_RULES: dict[Role, tuple[Rule, ...]] = {
    Role.ADMIN: (_rule("*", "*", "*"),),
    Role.CONTROLLER: (
        *_installed(Component.CONTROLLER),
        # nothing was applied before: the first start makes the namespaces
        _rule("create", "", "namespaces"),
        # this API server lets no event expire by itself
        _rule("list delete", "", "events"),
        # whoever runs everything on one machine need not say in which namespaces services may have secrets
        _rule("get create update", "", "secrets"),
    ),
    Role.EDGE: _installed(Component.EDGE),
    Role.USER: (
        *_EVERYTHING_READABLE,
        _rule(_WRITE, DRTP_GROUP, "drtpservices drtpaccesscontrollists"),
        _rule("delete deletecollection", DRTP_GROUP, "drtpconnections"),
        _rule(_WRITE, GATEWAY_GROUP, _ROUTES),
        _rule(_WRITE, "", "configmaps services", "default"),
        _rule(f"{_READ} {_WRITE}", "", "secrets", "default"),
    ),
    Role.READ_ONLY: _EVERYTHING_READABLE,
}


def allowed(
    user: User, verb: str, group: str, resource: str, *, namespace: str = "", name: str = "", subresource: str = ""
) -> bool:
    """Return whether a user may do this; an empty namespace means all of them or a cluster-scoped kind."""
    full = f"{resource}/{subresource}" if subresource else resource
    return any(rule.grants(verb, group, full, namespace, name) for rule in ROLE_RULES[user.role])


def require(
    user: User,
    verb: str,
    group: str,
    resource: str,
    *,
    namespace: str = "",
    name: str = "",
    subresource: str = "",
) -> None:
    """Raise `Forbidden`, in the words of the real server, unless a user may do this."""
    if allowed(user, verb, group, resource, namespace=namespace, name=name, subresource=subresource):
        return
    full = f"{resource}/{subresource}" if subresource else resource
    qualified = f"{resource}.{group}" if group else resource
    shown = f' "{name}"' if name else ""
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    raise Forbidden(
        f'{qualified}{shown} is forbidden: User "{user.name}" cannot {verb} resource "{full}" in API group '
        f'"{group}" {scope}',
        details=details,
    )
