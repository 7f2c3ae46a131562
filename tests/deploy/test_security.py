"""What an installation may do, and what may be done to it."""

from __future__ import annotations

import re
from pathlib import Path

from drtp_controller.rights import RIGHTS

ROOT = Path(__file__).resolve().parents[2]
SAFE_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start"}


def rules_of(rendered, account):
    """Return (namespace, rule) of everything bound to a service account."""
    for binding in rendered.of("ClusterRoleBinding", "RoleBinding"):
        if any(s["name"] == account for s in binding["subjects"]):
            namespace = binding["metadata"].get("namespace")
            role = rendered.named(binding["roleRef"]["kind"], binding["roleRef"]["name"], namespace)
            for rule in role["rules"]:
                yield namespace, rule


def test_the_namespace_enforces_restricted_pods(rendered):
    labels = rendered.named("Namespace", "drtp-system")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_keep_every_rule_of_restricted(rendered):
    for template in rendered.pods().values():
        pod = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {s["name"] for s in pod["securityContext"].get("sysctls", [])} <= SAFE_SYSCTLS
        for volume in pod["volumes"]:
            assert volume.keys() - {"name"} <= {"configMap", "downwardAPI", "emptyDir", "projected", "secret"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert "privileged" not in security
            assert not any("hostPort" in port for port in container["ports"])
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_no_right_is_a_wildcard_and_nobody_is_an_administrator(rendered):
    for role in rendered.of("ClusterRole", "Role"):
        for rule in role["rules"]:
            assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
    for binding in rendered.of("ClusterRoleBinding", "RoleBinding"):
        assert binding["roleRef"]["name"] in {"drtp-edge", "drtp-controller"}


def test_an_edge_sees_no_secret_and_writes_no_spec_but_its_own_kind(rendered):
    for _, rule in rules_of(rendered, "drtp-edge"):
        assert "secrets" not in rule["resources"]
        if {"create", "update", "patch", "delete"} & set(rule["verbs"]):
            assert set(rule["resources"]) <= {"drtpservers", "drtpservers/status", "drtpconnections/status", "leases"}
        assert "delete" not in rule["verbs"]


def test_secrets_are_read_one_by_one_and_in_two_namespaces_only(rendered):
    found = [(n, rule) for n, rule in rules_of(rendered, "drtp-controller") if "secrets" in rule["resources"]]
    assert {namespace for namespace, _ in found} == {"drtp-system", "default"}
    assert all(not {"list", "watch", "delete"} & set(rule["verbs"]) for _, rule in found)
    assert all(r.get("resourceNames") for n, r in found if n == "drtp-system" and "get" in r["verbs"])


def test_a_name_never_limits_a_creation(rendered):
    for role in rendered.of("ClusterRole", "Role"):
        assert all("create" not in rule["verbs"] for rule in role["rules"] if rule.get("resourceNames"))


def test_an_edge_is_held_to_the_objects_of_its_own_node(rendered):
    policy = rendered.named("ValidatingAdmissionPolicy", "drtp-edge-own-objects")["spec"]
    bound = rendered.named("ValidatingAdmissionPolicyBinding", "drtp-edge-own-objects")["spec"]
    assert bound == {"policyName": "drtp-edge-own-objects", "validationActions": ["Deny"]}
    assert policy["failurePolicy"] == "Fail"
    account = rendered.pods()["drtp-edge"]["spec"]["serviceAccountName"]
    assert f"system:serviceaccount:drtp-system:{account}" in policy["matchConditions"][0]["expression"]
    held = {r for rule in policy["matchConstraints"]["resourceRules"] for r in rule["resources"]}
    written = {
        resource
        for _, rule in rules_of(rendered, "drtp-edge")
        if {"create", "update", "patch"} & set(rule["verbs"])
        for resource in rule["resources"]
    }
    assert written - held == {"drtpconnections/status"}
    # the name that the policy compares is the one that the edge takes
    assert "--name=$(NODE_NAME)" in rendered.container("drtp-edge")["args"]


def test_no_right_is_granted_twice(rendered):
    for role in rendered.of("ClusterRole", "Role"):
        granted = [
            (group, resource, verb, tuple(rule.get("resourceNames", ())))
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        ]
        assert len(set(granted)) == len(granted), role["metadata"]["name"]


def test_nothing_is_reached_unless_a_policy_says_so(rendered):
    deny = rendered.named("NetworkPolicy", "drtp-default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_data_ports_are_for_gateways_only(rendered):
    arguments, _ = rendered.command("drtp-edge")
    first, last = next(a for a in arguments if a.startswith("--data-ports=")).partition("=")[2].split("-")
    ingress = rendered.named("NetworkPolicy", "drtp-edge")["spec"]["ingress"]
    wanted = {"port": int(first), "endPort": int(last), "protocol": "TCP"}
    (rule,) = [r for r in ingress if wanted in r["ports"]]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"drtp.datumapis.com/gateway-namespace": "true"}}},
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "drtp-controller"}}},
    ]
    open_to_all = [p for r in ingress if "from" not in r for p in r["ports"]]
    assert open_to_all == [{"port": 7443, "protocol": "TCP"}]


def test_the_guide_names_every_right_with_its_reason():
    guide = (ROOT / "docs/operations/install.md").read_text()
    for right in RIGHTS:
        assert re.search(re.escape(right.why), guide), right
