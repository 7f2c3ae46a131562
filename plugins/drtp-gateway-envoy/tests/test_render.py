"""Rendering: what failover and safety rest on is pinned, and the order of publishing is valid at every moment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.gateways import Backend, Exposure
from drtp_api.plugins import load_plugins
from drtp_api.resources import Protocol
from drtp_gateway_envoy.networks import MAX_CHAINS, group, parse_networks
from drtp_gateway_envoy.options import EnvoyOptions, duration
from drtp_gateway_envoy.publish import Directory, first_round, second_round
from drtp_gateway_envoy.render import Settings, bootstrap, render

SETTINGS = Settings(
    directory=Path("/state/envoy"), host="127.0.0.1", http_port=8880, run_id="r", options=EnvoyOptions(), refuser=9
)
BACKENDS = (Backend(address="127.0.0.1", port=5001), Backend(address="127.0.0.1", port=5002))


def tcp(service="default/db", port=20000, **fields):
    return Exposure(service=service, protocol=Protocol.TCP, port=port, **{"backends": BACKENDS, **fields})


def http(service="default/web", *hostnames, **fields):
    names = hostnames or (f"{service.partition('/')[2]}.prism.localhost",)
    return Exposure(
        service=service, protocol=Protocol.HTTP, port=None, hostnames=names, **{"backends": BACKENDS, **fields}
    )


def resources(file):
    return json.loads(file.content)["resources"]


def cluster(exposure):
    (found,) = resources(render([exposure], SETTINGS).cluster_file)
    return found


def listener(exposure):
    return next(r for r in resources(render([exposure], SETTINGS).listener_file) if r["name"] != "http")


def test_a_service_that_users_routes_lead_to_as_well_is_served_in_every_way():
    """Each way has a listener and a cluster of its own; the edge hears of one and the same service."""
    routed = attrs.evolve(tcp(port=20001), route="TCPRoute/default/mine:20001")
    rendered = render([tcp(), routed], SETTINGS)
    assert rendered.faults == {}
    assert set(rendered.plans) == {"default/db", "default/db@TCPRoute/default/mine:20001"}
    assert set(rendered.listeners) == {"http", "tcp-20000", "tcp-20001"}
    tlvs = {str(c["transport_socket"]["typed_config"]["config"]) for c in resources(rendered.cluster_file)}
    assert len(tlvs) == 1


@pytest.mark.parametrize("exposure", [tcp(), http()])
def test_the_settings_that_make_failover_real_are_these(exposure):
    """With Envoy's defaults every third visitor fails for seconds when one of two edges dies."""
    made = cluster(exposure)
    assert made["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}
    assert 0.25 <= float(made["connect_timeout"].rstrip("s")) <= 0.5
    (check,) = made["health_checks"]
    assert (check["interval"], check["no_traffic_interval"], check["no_traffic_healthy_interval"]) == ("1s",) * 3
    assert check["unhealthy_threshold"] in {1, 2}
    assert check["healthy_threshold"] == 1
    assert check["tcp_health_check"] == {}
    outlier = made["outlier_detection"]
    assert outlier["split_external_local_origin_errors"] is True
    assert outlier["consecutive_local_origin_failure"] == 1
    assert outlier["enforcing_consecutive_local_origin_failure"] == 100
    assert outlier["enforcing_consecutive_5xx"] == outlier["enforcing_success_rate"] == 0
    (thresholds,) = made["circuit_breakers"]["thresholds"]
    assert min(thresholds.values()) >= 100_000


def test_tcp_visitors_get_three_attempts_and_are_never_cut_for_silence():
    (chain,) = listener(tcp())["filter_chains"]
    (proxy,) = chain["filters"]
    assert proxy["name"] == "envoy.filters.network.tcp_proxy"
    assert proxy["typed_config"]["max_connect_attempts"] == 3
    assert proxy["typed_config"]["idle_timeout"] == "0s"


def test_an_http_crash_may_eject_one_edge_of_two_and_a_tcp_failure_all():
    assert cluster(http())["outlier_detection"]["max_ejection_percent"] == 50
    assert cluster(tcp())["outlier_detection"]["max_ejection_percent"] == 100


def test_nothing_of_http_ends_by_the_clock():
    made = next(r for r in resources(render([], SETTINGS).listener_file) if r["name"] == "http")
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["stream_idle_timeout"] == manager["request_timeout"] == "0s"
    assert {"upgrade_type": "websocket"} in manager["upgrade_configs"]
    host = resources(render([http()], SETTINGS).routes)[0]["virtual_hosts"][0]
    for route in host["routes"]:
        assert route["route"]["timeout"] == route["route"]["idle_timeout"] == "0s"
        assert route["route"]["retry_policy"]["retry_host_predicate"][0]["name"].endswith("previous_hosts")


def test_only_get_and_head_are_repeated_after_they_were_sent():
    safe, other = resources(render([http()], SETTINGS).routes)[0]["virtual_hosts"][0]["routes"]
    assert safe["match"]["headers"][0]["string_match"]["safe_regex"]["regex"] == "GET|HEAD"
    assert set(other["route"]["retry_policy"]["retry_on"].split(",")) == {
        "connect-failure", "refused-stream", "reset-before-request",
    }  # fmt: skip
    assert "reset" in safe["route"]["retry_policy"]["retry_on"].split(",")


@pytest.mark.parametrize("exposure", [tcp(), http(), tcp(allow=()), tcp(allow=("10.0.0.0/8",)), http(allow=())])
def test_the_network_rbac_filter_is_never_used(exposure):
    """It decides at the visitor's first byte, when the greeting of a service that speaks first is out already."""
    text = render([exposure], SETTINGS).listener_file.content.decode()
    assert "envoy.filters.network.rbac" not in text


def test_an_empty_allow_list_admits_nobody():
    (chain,) = listener(tcp(allow=()))["filter_chains"]
    assert chain["filter_chain_match"]["source_prefix_ranges"] == [
        {"address_prefix": "255.255.255.255", "prefix_len": 32}
    ]
    host = resources(render([http(allow=())], SETTINGS).routes)[0]["virtual_hosts"][0]
    rules = host["typed_per_filter_config"]["envoy.filters.http.rbac"]["rbac"]["rules"]
    assert rules == {"action": "ALLOW", "policies": {}}


def test_spellings_of_one_network_are_one_chain():
    """Envoy refuses a listener with two chains that match alike."""
    chains = listener(tcp(allow=("10.1.2.3/8", "10.0.0.0/8", "::ffff:10.0.0.0/104", "2001:DB8::/32")))["filter_chains"]
    assert [chain["name"] for chain in chains] == ["10.0.0.0/8", "2001:db8::/32"]


networks = st.integers(0, 2000).map(lambda i: f"10.{i >> 8}.{i & 255}.0/24")


@given(st.sets(networks, max_size=40), networks)
def test_adding_a_network_changes_no_other_networks_chain(allowed, extra):
    before, after = group(parse_networks(allowed)), group(parse_networks(allowed | {extra}))
    assert {name: after[name] for name in before} == before


def test_a_long_list_shares_chains_and_an_edit_changes_one():
    texts = [f"10.{i >> 8}.{i & 255}.0/24" for i in range(2000)]
    before, after = group(parse_networks(texts)), group(parse_networks([*texts, "192.0.2.0/24"]))
    assert len(before) <= MAX_CHAINS
    assert sum(len(members) for members in before.values()) == 2000
    assert sum(before.get(name) != members for name, members in after.items()) == 1


def test_priorities_have_no_gap_and_edges_that_are_not_ready_are_left_out():
    backends = (
        Backend(address="127.0.0.1", port=1, ready=False, priority=0), Backend(address="127.0.0.1", port=2, priority=3),
        Backend(address="127.0.0.1", port=3, priority=7), Backend(address="127.0.0.1", port=3, priority=7),
    )  # fmt: skip
    groups = cluster(tcp(backends=backends))["load_assignment"]["endpoints"]
    ports = {
        g["priority"]: [e["endpoint"]["address"]["socket_address"]["port_value"] for e in g["lb_endpoints"]]
        for g in groups
    }
    assert ports == {0: [2], 1: [3]}


def test_without_an_edge_tcp_is_refused_and_http_answered_by_envoy():
    (only,) = cluster(tcp(backends=()))["load_assignment"]["endpoints"]
    assert only["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] == 9
    assert cluster(http(backends=()))["load_assignment"]["endpoints"] == []


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (tcp(port=None), "DRTP-1010"), (tcp(port=0), "DRTP-1010"), (tcp(port=8880), "DRTP-5003"),
        (tcp("default/a", 20001), "DRTP-5003"), (tcp(allow=("10.0.0.0/8", "x")), "DRTP-1008"),
        (tcp(backends=(Backend(address="localhost", port=1),)), "DRTP-5004"), (http("default/x", "a b"), "DRTP-5004"),
        (http("default/x", "one.test"), "DRTP-2013"), (http("default/x", "UPPER.test"), "DRTP-5004"),
    ],
)  # fmt: skip
def test_a_faulty_exposure_is_named_and_spoils_nothing(bad, code):
    good = [http("aaa/one", "one.test"), tcp("aaa/two", 20001)]
    rendered = render([bad, *good], SETTINGS)
    assert {name: status.code for name, status in rendered.faults.items()} == {bad.service: code}
    assert set(rendered.plans) == {"aaa/one", "aaa/two"}
    assert rendered.listeners.keys() == {"http", "tcp-20001"}


def test_tcp_and_udp_of_one_number_are_two_ports():
    both = [tcp(), attrs.evolve(tcp("default/dns"), protocol=Protocol.UDP)]
    assert render(both, SETTINGS).faults == {}


exposures = st.lists(
    st.one_of(
        st.builds(
            lambda i, n: tcp(f"default/t{i}", 20000 + i, backends=BACKENDS[:n]), st.integers(0, 5), st.integers(0, 2)
        ),
        st.builds(lambda i, n: http(f"default/h{i}", backends=BACKENDS[:n]), st.integers(0, 5), st.integers(0, 2)),
    ),
    unique_by=lambda e: e.service,
)  # fmt: skip


@given(exposures, st.randoms())
def test_rendering_does_not_depend_on_the_order_of_the_question(wanted, chance):
    shuffled = list(wanted)
    chance.shuffle(shuffled)
    assert render(shuffled, SETTINGS) == render(wanted, SETTINGS)


def references(files):
    """Return the clusters that listeners and routes refer to, and those that exist."""
    wanted = set()
    for path in ("lds/lds.json", "rds/rds.json"):
        if path in files:
            wanted |= set(re.findall(r'"cluster":"([^"]+)"', files[path].content.decode()))
    existing = {c["name"] for c in resources(files["cds/cds.json"])} if "cds/cds.json" in files else set()
    return wanted, existing


@given(exposures, exposures)
def test_at_no_moment_is_a_cluster_missing_that_something_refers_to(before, after):
    old, new = render(before, SETTINGS), render(after, SETTINGS)
    files = {file.path: file for file in [old.cluster_file, old.routes, old.listener_file]}
    for file in [*first_round(old, new), *second_round(new)]:
        files[file.path] = file
        wanted, existing = references(files)
        assert wanted <= existing
    assert files == {f.path: f for f in [new.cluster_file, new.routes, new.listener_file]}


@given(exposures)
def test_an_unchanged_configuration_writes_nothing(tmp_path_factory, wanted):
    directory = Directory(tmp_path_factory.mktemp("envoy"))
    directory.prepare()
    rendered = render(wanted, SETTINGS)
    assert len(directory.write(first_round(None, rendered))) == 3
    assert directory.write(second_round(rendered)) == []
    assert directory.write(first_round(rendered, rendered)) == []
    for path, version in directory.versions.items():
        assert json.loads((directory.root / path).read_text())["version_info"] == version
    assert {p.name for p in directory.root.rglob("*") if p.is_file()} == {"cds.json", "rds.json", "lds.json"}


def test_what_an_earlier_run_left_is_removed(tmp_path):
    (tmp_path / "lds").mkdir()
    (tmp_path / "lds" / "lds.json").write_text("old")
    Directory(tmp_path).prepare()
    assert list((tmp_path / "lds").iterdir()) == []


def test_the_admin_socket_is_for_this_user_alone():
    admin = json.loads(bootstrap(SETTINGS, "/state/admin.sock"))["admin"]
    assert admin["address"]["pipe"] == {"path": "/state/admin.sock", "mode": 0o600}


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (1, "1s"), (0.25, "0.25s"), (3600, "3600s")])
def test_durations_are_protobufs(seconds, text):
    assert duration(seconds) == text


def test_the_loader_finds_it_and_knows_its_options():
    plugins = load_plugins(only={"envoy"})
    assert plugins.failures == ()
    made = plugins.gateways.create("envoy", {"drainSeconds": 3, "connectTimeout": 0.3})
    assert (made.name, made.options.drain_seconds, made.options.connect_timeout) == ("envoy", 3, 0.3)
