"""What the server says about what it serves: classic and aggregated discovery. Pure.

Rules: both forms are made from the registry and nothing else; the core group is special in both, as in Kubernetes.
"""

from __future__ import annotations

from drtp_api.kube import NotFound, Obj
from drtp_controller.apiserver.kinds import STATUS_VERBS, Kind, Registry

REVIEWS = {
    "authorization.k8s.io": (
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    ),
    "authentication.k8s.io": (("selfsubjectreviews", "SelfSubjectReview"),),
}
"""Kinds that are answered and never stored, by group; all in version v1 and cluster-scoped."""


def core_versions(address: str) -> Obj:
    """Return `/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _groups(registry: Registry) -> dict[str, list[str]]:
    groups = {group: list(versions) for group, versions in registry.group_versions().items() if group}
    for group in REVIEWS:
        groups.setdefault(group, ["v1"])
    return groups


def group_list(registry: Registry) -> Obj:
    """Return `/apis`."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, versions) for name, versions in _groups(registry).items()],
    }


def one_group(registry: Registry, name: str) -> Obj:
    """Return `/apis/GROUP`. Raises `NotFound`."""
    versions = _groups(registry).get(name)
    if versions is None:
        raise NotFound("the server could not find the requested resource")
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(name, versions)


def _group(name: str, versions: list[str]) -> Obj:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def resource_list(registry: Registry, group: str, version: str) -> Obj:
    """Return `/api/v1` or `/apis/GROUP/VERSION`. Raises `NotFound`."""
    kinds = registry.group_versions().get(group, {}).get(version, [])
    reviews = REVIEWS.get(group, ()) if version == "v1" else ()
    if not kinds and not reviews:
        raise NotFound("the server could not find the requested resource")
    resources: list[Obj] = []
    for kind in kinds:
        resources.append(_resource(kind))
        if kind.has_status:
            resources.append(
                {
                    "name": f"{kind.resource.plural}/status",
                    "singularName": "",
                    "namespaced": kind.resource.namespaced,
                    "kind": kind.resource.kind,
                    "verbs": list(STATUS_VERBS),
                }
            )
    resources += [
        {"name": plural, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]}
        for plural, kind in reviews
    ]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def _resource(kind: Kind) -> Obj:
    entry: Obj = {
        "name": kind.resource.plural,
        "singularName": kind.singular,
        "namespaced": kind.resource.namespaced,
        "kind": kind.resource.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    return entry


def aggregated(registry: Registry, *, core: bool) -> Obj:
    """Return everything of `/api` or `/apis` at once, as APIGroupDiscoveryList v2."""
    groups = registry.group_versions()
    names = [""] if core else list(_groups(registry))
    items = []
    for group in names:
        versions = [
            {
                "version": version,
                "freshness": "Current",
                "resources": [_discovered(kind) for kind in kinds],
            }
            for version, kinds in groups.get(group, {}).items()
        ]
        if group in REVIEWS:
            versions.append(_discovered_reviews(group))
        items.append({"metadata": {"name": group, "creationTimestamp": None}, "versions": versions})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _discovered(kind: Kind) -> Obj:
    response_kind = {
        "group": kind.resource.group,
        "version": kind.resource.version,
        "kind": kind.resource.kind,
    }
    entry: Obj = {
        "resource": kind.resource.plural,
        "responseKind": response_kind,
        "scope": "Namespaced" if kind.resource.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
        "shortNames": list(kind.short_names),
        "categories": list(kind.categories),
    }
    if kind.has_status:
        entry["subresources"] = [{"subresource": "status", "responseKind": response_kind, "verbs": list(STATUS_VERBS)}]
    return entry


def _discovered_reviews(group: str) -> Obj:
    return {
        "version": "v1",
        "freshness": "Current",
        "resources": [
            {
                "resource": plural,
                "responseKind": {"group": group, "version": "v1", "kind": kind},
                "scope": "Cluster",
                "singularResource": kind.lower(),
                "verbs": ["create"],
            }
            for plural, kind in REVIEWS[group]
        ],
    }
