"""The ACL backend ``cidr``: who may connect, by the network the visitor comes from.

Rules:
- The service's own allow-list and every list in force must agree: whoever one of them denies is denied.
- A list that cannot be compiled denies: a typing error must not open a door.
- A list is compiled when its networks change, not when its object's status does; the cache is bounded.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Final

import attrs

from drtp_acl_cidr.networks import FirstMatch
from drtp_api.acl import Decision, Verdict, Visitor, combine, normalise_ip
from drtp_api.resources import AccessControlList, AclMode, Action, EnforceAt, Metadata, Service

__all__ = ["CidrBackend", "CidrFactory", "CidrOptions"]

ALLOWLIST: Final = "edgeAllowlistCIDRs"
ABSTAIN: Final = Decision(Verdict.ABSTAIN, "none")


@attrs.frozen(kw_only=True)
class CidrOptions:
    """Options of the backend. ``compiled_lists`` bounds the cache: a list of 10,000 networks takes about 2 MB."""

    compiled_lists: int = 1024


class CidrBackend:
    """Decides by the visitor's source address."""

    name = "cidr"

    def __init__(self, options: CidrOptions) -> None:
        self._limit = options.compiled_lists
        self._compiled: collections.OrderedDict[Hashable, _Compiled] = collections.OrderedDict()
        self.observed: collections.Counter[tuple[str, str]] = collections.Counter()
        """Visitors that a list in mode Observe would have denied, by list and rule."""

    def decide(self, visitor: Visitor) -> Decision:
        """Return the decision of the allow-list and of every list in force at the server."""
        # The gateway may hand over an IPv4 visitor in IPv6's clothes; a rule for IPv4 means that visitor too.
        visitor = attrs.evolve(visitor, source=normalise_ip(str(visitor.source))) if _mapped(visitor) else visitor
        decisions = []
        if visitor.service.spec.edge_allowlist_cidrs:
            decisions.append(self._allowlist(visitor.service, visitor))
        for access_list in visitor.lists:
            decision = self._by_list(access_list, visitor)
            if decision.verdict is Verdict.DENY and access_list.spec.mode is AclMode.OBSERVE:
                self._observe(access_list, decision)
                continue
            decisions.append(decision)
        return combine(decisions, default=Verdict.ABSTAIN) if decisions else ABSTAIN

    async def aclose(self) -> None:
        """Forget the compiled lists. Idempotent."""
        self._compiled.clear()

    def _allowlist(self, service: Service, visitor: Visitor) -> Decision:
        networks = service.spec.edge_allowlist_cidrs
        try:
            compiled = self._compile("service", service.metadata, networks, lambda: [networks])
        except ValueError as error:
            return Decision(Verdict.DENY, ALLOWLIST, f"the allow-list is faulty: {error}")
        if compiled.find(visitor.source) == 0:
            return Decision(Verdict.ALLOW, ALLOWLIST)
        return Decision(Verdict.DENY, ALLOWLIST, f"{visitor.source} is not on the allow-list")

    def _by_list(self, access_list: AccessControlList, visitor: Visitor) -> Decision:
        spec, name = access_list.spec, access_list.metadata.name
        if spec.mode is AclMode.DISABLED or EnforceAt.SERVER not in spec.enforce_at:
            return Decision(Verdict.ABSTAIN, name)
        try:
            compiled = self._compile(
                "list", access_list.metadata, spec.rules, lambda: [rule.client_cidrs for rule in spec.rules]
            )
        except ValueError as error:
            return Decision(Verdict.DENY, name, f"the list is faulty: {error}")
        index = compiled.find(visitor.source)
        if index < 0:
            return Decision(_verdict(spec.default_action), f"{name}/default", f"no rule names {visitor.source}")
        rule = spec.rules[index]
        return Decision(_verdict(rule.action), f"{name}/{rule.name}")

    def _observe(self, access_list: AccessControlList, decision: Decision) -> None:
        key = access_list.metadata.name, decision.rule
        if key in self.observed or len(self.observed) < self._limit:
            self.observed[key] += 1

    def _compile(
        self, kind: str, metadata: Metadata, content: Hashable, entries: Callable[[], list[tuple[str, ...]]]
    ) -> FirstMatch:
        key = (kind, metadata.uid or (metadata.namespace, metadata.name))
        version = metadata.resource_version
        known = self._compiled.get(key)
        if known is not None and (known.content is content or (version is not None and known.version == version)):
            self._compiled.move_to_end(key)
            return known.match
        match = known.match if known is not None and known.content == content else FirstMatch(entries())
        self._compiled[key] = _Compiled(version, content, match)
        self._compiled.move_to_end(key)
        while len(self._compiled) > self._limit:
            self._compiled.popitem(last=False)
        return match


@attrs.frozen
class _Compiled:
    """A compiled list, and the version and content of the object it was compiled from."""

    version: str | None
    content: Hashable
    match: FirstMatch


def _mapped(visitor: Visitor) -> bool:
    return visitor.source.version == 6 and visitor.source.ipv4_mapped is not None


def _verdict(action: Action) -> Verdict:
    return Verdict.ALLOW if action is Action.ALLOW else Verdict.DENY


class CidrFactory:
    """Makes the ACL backend ``cidr``."""

    config_type = CidrOptions

    def __call__(self, config: CidrOptions) -> CidrBackend:
        """Return the backend."""
        return CidrBackend(config)
