"""Service accounts, roles and bindings, made from the table of rights.

Rules:
- One ClusterRole per component for what is everywhere, one Role per namespace for the rest, each with its binding.
"""

from __future__ import annotations

from collections.abc import Iterable

from drtp_api.kube import Obj
from drtp_api.resources import SYSTEM_NAMESPACE
from drtp_controller.manifests.common import make
from drtp_controller.rights import Component, Right, rights_of

__all__ = ["role_documents"]

_API = "rbac.authorization.k8s.io"


def role_documents() -> list[Obj]:
    """Return accounts, roles and bindings."""
    found: list[Obj] = []
    for component in Component:
        # pods say themselves that they want the token; whatever else runs under the account does not get it
        found.append(make("v1", "ServiceAccount", component.value, automountServiceAccountToken=False))
        rights = rights_of(component)
        for namespace in dict.fromkeys(r.namespace for r in rights):
            found += _role(component, namespace, (r for r in rights if r.namespace == namespace))
    return found


def _role(component: Component, namespace: str | None, rights: Iterable[Right]) -> list[Obj]:
    kind = "ClusterRole" if namespace is None else "Role"
    version = f"{_API}/v1"
    subject = {"kind": "ServiceAccount", "name": component.value, "namespace": SYSTEM_NAMESPACE}
    return [
        make(version, kind, component.value, namespace=namespace, rules=[_rule(r) for r in rights]),
        make(
            version, f"{kind}Binding", component.value, namespace=namespace,
            roleRef={"apiGroup": _API, "kind": kind, "name": component.value}, subjects=[subject],
        ),
    ]  # fmt: skip


def _rule(right: Right) -> Obj:
    rule: Obj = {"apiGroups": [right.group], "resources": list(right.resources), "verbs": list(right.verbs)}
    if right.names:
        rule["resourceNames"] = list(right.names)
    return rule
