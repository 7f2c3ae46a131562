"""Answers about oneself: may I, what may I, who am I. Pure; nothing is stored."""

from __future__ import annotations

from drtp_api.kube import BadRequest, Obj
from drtp_controller.apiserver.rbac import ROLE_RULES, User, allowed


def answer_review(kind: str, user: User, body: Obj) -> Obj:
    """Return the filled-in review of a user. Raises `BadRequest` for a body that asks nothing."""
    group = "authentication.k8s.io" if kind == "SelfSubjectReview" else "authorization.k8s.io"
    review: Obj = {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": body.get("metadata") or {},
        "spec": body.get("spec") or {},
    }
    match kind:
        case "SelfSubjectAccessReview":
            review["status"] = _may(user, review["spec"])
        case "SelfSubjectRulesReview":
            review["status"] = _rules(user, review["spec"].get("namespace") or "")
        case _:
            review["status"] = {"userInfo": {"username": user.name, "groups": user.groups}}
    return review


def _may(user: User, spec: Obj) -> Obj:
    attributes = spec.get("resourceAttributes")
    if isinstance(attributes, dict):
        yes = allowed(
            user,
            attributes.get("verb", ""),
            attributes.get("group", ""),
            attributes.get("resource", ""),
            namespace=attributes.get("namespace", ""),
            name=attributes.get("name", ""),
            subresource=attributes.get("subresource", ""),
        )
        return {"allowed": yes} | ({} if yes else {"reason": f"the role {user.role} does not grant it"})
    if isinstance(spec.get("nonResourceAttributes"), dict):
        return {"allowed": spec["nonResourceAttributes"].get("verb") == "get"}
    raise BadRequest("exactly one of resourceAttributes and nonResourceAttributes must be set")


def _rules(user: User, namespace: str) -> Obj:
    rules = [
        {"verbs": sorted(rule.verbs), "apiGroups": [rule.group], "resources": sorted(rule.resources)}
        | ({"resourceNames": sorted(rule.names)} if rule.names else {})
        for rule in ROLE_RULES[user.role]
        if rule.namespaces is None or namespace in rule.namespaces
    ]
    return {
        "resourceRules": rules,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }
