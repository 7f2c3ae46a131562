from __future__ import annotations

import pytest

from drtp_api.kube import DRTP_GROUP, BadRequest, Forbidden
from drtp_controller.apiserver.rbac import Role, User, allowed, require
from drtp_controller.apiserver.reviews import answer_review

USERS = {role: User(f"the-{role.value}", role) for role in Role}


@pytest.mark.parametrize(
    ("role", "verb", "group", "resource", "namespace", "subresource", "may"),
    [
        (Role.ADMIN, "delete", "anything", "at-all", "", "", True),
        (Role.CONTROLLER, "update", DRTP_GROUP, "drtpservices", "default", "status", True),
        (Role.CONTROLLER, "create", "", "secrets", "drtp-system", "", True),
        (Role.CONTROLLER, "delete", "", "namespaces", "", "", False),
        (Role.CONTROLLER, "delete", "apiextensions.k8s.io", "customresourcedefinitions", "", "", False),
        (Role.EDGE, "create", DRTP_GROUP, "drtpservers", "", "", True),
        (Role.EDGE, "update", DRTP_GROUP, "drtpconnections", "default", "status", True),
        (Role.EDGE, "update", DRTP_GROUP, "drtpconnections", "default", "", False),
        (Role.EDGE, "delete", DRTP_GROUP, "drtpservers", "", "", False),
        (Role.EDGE, "patch", "coordination.k8s.io", "leases", "drtp-system", "", True),
        (Role.EDGE, "patch", "coordination.k8s.io", "leases", "default", "", False),
        (Role.EDGE, "watch", "", "configmaps", "drtp-system", "", False),
        (Role.EDGE, "get", "", "secrets", "drtp-system", "", False),
        (Role.USER, "create", DRTP_GROUP, "drtpservices", "default", "", True),
        (Role.USER, "update", DRTP_GROUP, "drtpservices", "default", "status", False),
        (Role.USER, "create", DRTP_GROUP, "drtpservers", "", "", False),
        (Role.USER, "get", "", "secrets", "default", "", True),
        (Role.USER, "get", "", "secrets", "drtp-system", "", False),
        (Role.USER, "list", "", "secrets", "", "", False),
        (Role.READ_ONLY, "watch", DRTP_GROUP, "drtpconnections", "", "", True),
        (Role.READ_ONLY, "patch", DRTP_GROUP, "drtpconnections", "default", "", False),
        (Role.READ_ONLY, "get", "", "secrets", "default", "", False),
    ],
)
def test_each_role_may_do_its_work_and_no_more(role, verb, group, resource, namespace, subresource, may):
    assert allowed(USERS[role], verb, group, resource, namespace=namespace, subresource=subresource) is may


def test_a_right_to_named_objects_reaches_lists_and_watches_that_select_the_name():
    def may(verb, name, namespace="drtp-system"):
        return allowed(USERS[Role.EDGE], verb, "", "configmaps", namespace=namespace, name=name)

    assert may("list", "drtp-grant-keys")
    assert may("watch", "drtp-grant-keys")
    assert not may("watch", "drtp-installation")
    assert not may("watch", "drtp-grant-keys", "default")


def test_no_role_but_admin_and_controller_reads_system_secrets():
    readers = {role for role, user in USERS.items() if allowed(user, "get", "", "secrets", namespace="drtp-system")}
    assert readers == {Role.ADMIN, Role.CONTROLLER}


def test_a_refusal_is_worded_like_the_real_one():
    with pytest.raises(Forbidden) as caught:
        require(USERS[Role.READ_ONLY], "delete", DRTP_GROUP, "drtpservices", namespace="default", name="my-pg")
    assert caught.value.message == (
        'drtpservices.drtp.datumapis.com "my-pg" is forbidden: User "the-read-only" cannot delete resource '
        '"drtpservices" in API group "drtp.datumapis.com" in the namespace "default"'
    )


def test_reviews_answer_for_the_one_who_asks():
    ask = {"spec": {"resourceAttributes": {"verb": "create", "group": DRTP_GROUP, "resource": "drtpservices"}}}
    assert answer_review("SelfSubjectAccessReview", USERS[Role.USER], ask)["status"] == {"allowed": True}
    assert not answer_review("SelfSubjectAccessReview", USERS[Role.READ_ONLY], ask)["status"]["allowed"]
    who = answer_review("SelfSubjectReview", USERS[Role.EDGE], {})["status"]["userInfo"]
    assert who == {"username": "the-edge", "groups": ["drtp:edge", "system:authenticated"]}
    rules = answer_review("SelfSubjectRulesReview", USERS[Role.USER], {"spec": {"namespace": "elsewhere"}})
    assert not [rule for rule in rules["status"]["resourceRules"] if "secrets" in rule["resources"]]
    with pytest.raises(BadRequest):
        answer_review("SelfSubjectAccessReview", USERS[Role.USER], {})
