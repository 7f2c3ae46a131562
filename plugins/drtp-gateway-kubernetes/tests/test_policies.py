"""The policies and the verdicts alone: pure functions of objects."""

from __future__ import annotations

import asyncio

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.clustergateways import ClusterGateway, Observed
from drtp_api.errors import DrtpError
from drtp_api.gateways import Exposure
from drtp_api.kube import GATEWAYS, HTTP_ROUTES, LISTENER_SETS, TCP_ROUTES, UDP_ROUTES, Key
from drtp_api.plugins import load_plugins
from drtp_api.resources import Protocol
from drtp_gateway_kubernetes.gateway import KubernetesGateway, KubernetesOptions
from drtp_gateway_kubernetes.judge import judge
from drtp_gateway_kubernetes.policies import BACKEND_TRAFFIC_POLICIES, SECURITY_POLICIES, plan_policies

TARGET = Key("default", "drtp-pg")
TCP = Exposure(service="default/pg", protocol=Protocol.TCP, port=20000)


class Api:
    """An API server that serves some kinds."""

    def __init__(self, *resources):
        self.resources = resources

    async def served_resources(self, group, version):
        return tuple(r for r in self.resources if (r.group, r.version) == (group, version))


def at(resource, version):
    return attrs.evolve(resource, version=version)


def connect(*resources):
    gateway = KubernetesGateway(KubernetesOptions())
    return gateway, asyncio.run(gateway.connect(Api(*resources)))


BASE = (GATEWAYS, HTTP_ROUTES, LISTENER_SETS)


def test_it_is_found_by_its_name_and_is_a_gateway_of_a_cluster():
    plugins = load_plugins(only={"kubernetes"})
    assert plugins.failures == ()
    assert isinstance(plugins.gateways.create("kubernetes", {"cidrsPerRule": 5}), ClusterGateway)


def test_the_version_of_stream_routes_is_the_one_that_is_served():
    _, new = connect(*BASE, TCP_ROUTES, UDP_ROUTES, at(TCP_ROUTES, "v1alpha2"), at(UDP_ROUTES, "v1alpha2"))
    _, old = connect(*BASE, at(TCP_ROUTES, "v1alpha2"), at(UDP_ROUTES, "v1alpha2"))
    assert (new.tcp_routes.version, old.tcp_routes.version, old.udp_routes.version) == ("v1", "v1alpha2", "v1alpha2")
    assert (old.tls_routes, old.grants, old.policies) == (None, None, ())


@pytest.mark.parametrize("missing", [GATEWAYS, LISTENER_SETS, TCP_ROUTES, UDP_ROUTES])
def test_a_gateway_api_that_is_not_installed_is_an_error_that_says_what_to_install(missing):
    have = [r for r in (*BASE, TCP_ROUTES, UDP_ROUTES) if r is not missing]
    with pytest.raises(DrtpError, match=f"DRTP-2031.*{missing.plural}") as caught:
        connect(*have)
    assert "Install the Gateway API" in caught.value.hint


def test_policies_are_written_only_where_envoy_gateway_has_both():
    full, _ = connect(*BASE, TCP_ROUTES, UDP_ROUTES, SECURITY_POLICIES, BACKEND_TRAFFIC_POLICIES)
    half, _ = connect(*BASE, TCP_ROUTES, UDP_ROUTES, SECURITY_POLICIES)
    assert len(full.policies(TCP, TCP_ROUTES, TARGET)) == 1
    assert half.policies(TCP, TCP_ROUTES, TARGET) == ()
    assert [(c.type, c.status) for c in full.conditions()] == [("ACLProgrammed", "True")]
    assert [(c.status, c.reason) for c in half.conditions()] == [("False", "UnsupportedByGatewayClass")]


@given(
    st.lists(st.integers(0, 255).map(lambda n: f"198.51.100.{n}/32"), unique=True, max_size=60) | st.none(),
    st.integers(1, 20),
)
def test_every_prefix_is_admitted_once_by_rules_that_are_never_too_long(allow, size):
    exposure = attrs.evolve(TCP, allow=None if allow is None else tuple(allow))
    made = dict(plan_policies(exposure, TCP_ROUTES, TARGET, cidrs_per_rule=size))
    assert (SECURITY_POLICIES in made) is (allow is not None)
    for policy in made.values():
        assert policy["spec"]["targetRefs"] == [
            {"group": "gateway.networking.k8s.io", "kind": "TCPRoute", "name": "drtp-pg"}
        ]
    if allow is not None:
        # never without: a policy without it crashed older versions
        authorization = made[SECURITY_POLICIES]["spec"]["authorization"]
        assert authorization["defaultAction"] == "Deny"
        cuts = [r["principal"]["clientCIDRs"] for r in authorization["rules"]]
        assert all(0 < len(cut) <= size for cut in cuts)
        assert [c for cut in cuts for c in cut] == allow


def test_backends_get_proxy_protocol_and_are_checked_without_a_panic():
    (policy,) = [p for _, p in plan_policies(TCP, TCP_ROUTES, TARGET, cidrs_per_rule=5)]
    assert policy["spec"]["proxyProtocol"] == {"version": "V2"}
    assert policy["spec"]["healthCheck"]["panicThreshold"] == 0
    assert policy["spec"]["healthCheck"]["active"]["type"] == "TCP"


def test_udp_has_no_policies_and_no_allow_list():
    gateway = KubernetesGateway(KubernetesOptions())
    udp = Exposure(service="default/dns", protocol=Protocol.UDP, port=53, allow=("10.0.0.0/8",))
    assert plan_policies(udp, UDP_ROUTES, TARGET, cidrs_per_rule=5) == []
    refusal = gateway.refusal(udp)
    assert (refusal.reason, refusal.code) == ("UDPACLUnsupported", "DRTP-5005")
    assert gateway.judge(udp, Observed(gateway=None, listener_set=None, route=None)) == refusal
    assert gateway.refusal(attrs.evolve(udp, allow=None)) is None


# verdicts


def conditions(generation, *kinds, status="True", reason="x"):
    return [{"type": k, "status": status, "reason": reason, "observedGeneration": generation} for k in kinds]


def observed(generation=1):
    """Everything of a TCP exposure, confirmed for generation 1."""
    meta = {"metadata": {"name": "x", "generation": generation}}
    front = conditions(1, "Accepted", "Programmed")
    accepted = [{"conditions": conditions(1, "Accepted")}]
    reference = {"kind": "ListenerSet", "name": "x", "sectionName": "tcp-1"}
    listeners = [{"name": "tcp-1", "conditions": front}, {"name": "http", "conditions": front}]
    return Observed(
        gateway={**meta, "spec": {}, "status": {"conditions": front, "listeners": listeners}},
        listener_set={
            **meta,
            "spec": {"listeners": [{"name": "tcp-1"}]},
            "status": {"conditions": front, "listeners": listeners},
        },
        route={
            **meta,
            "spec": {"parentRefs": [reference]},
            "status": {"parents": [{"parentRef": reference, "conditions": conditions(1, "Accepted", "ResolvedRefs")}]},
        },
        policies=[{**meta, "kind": "BackendTrafficPolicy", "status": {"ancestors": accepted}}],
    )


def test_it_is_programmed_when_everything_is_confirmed():
    assert judge(TCP, observed(), 1).programmed
    http = Exposure(service="default/web", protocol=Protocol.HTTP, port=None)
    assert judge(http, attrs.evolve(observed(), listener_set=None), 1).programmed


@pytest.mark.parametrize("name", ["gateway", "listener_set", "route"])
@pytest.mark.parametrize("how", ["absent", "silent", "old"])
def test_what_is_absent_silent_or_of_an_older_generation_is_pending(name, how):
    good = observed()
    obj = getattr(good, name)
    changed = {
        "absent": None,
        "silent": {k: v for k, v in obj.items() if k != "status"},
        "old": {**obj, "metadata": {"generation": 2}},
    }[how]
    verdict = judge(TCP, attrs.evolve(good, **{name: changed}), 1)
    assert (verdict.programmed, verdict.reason, verdict.code) == (False, "Pending", None)


def test_a_policy_that_is_not_accepted_yet_keeps_the_service_from_being_programmed():
    assert judge(TCP, observed(), 2).reason == "Pending"
    late = attrs.evolve(observed(), policies=[{"kind": "SecurityPolicy", "metadata": {"generation": 1}}])
    assert judge(TCP, late, 1).reason == "Pending"


def test_a_refusal_is_told_in_the_words_of_whoever_refused():
    good = observed()
    bad = [{"type": "Accepted", "status": "False", "reason": "Invalid", "message": "no", "observedGeneration": 1}]
    policy = {**good.policies[0], "status": {"ancestors": [{"conditions": bad}]}}
    verdict = judge(TCP, attrs.evolve(good, policies=[policy]), 1)
    assert (verdict.reason, verdict.code, verdict.message) == (
        "Invalid", "DRTP-5006", "the BackendTrafficPolicy: no",
    )  # fmt: skip
    conflict = [*conditions(1, "Accepted", "Programmed"), *conditions(1, "Conflicted", reason="ProtocolConflict")]
    status = {**good.listener_set["status"], "listeners": [{"name": "tcp-1", "conditions": conflict}]}
    clash = attrs.evolve(good, listener_set={**good.listener_set, "status": status})
    assert judge(TCP, clash, 1).reason == "ProtocolConflict"
