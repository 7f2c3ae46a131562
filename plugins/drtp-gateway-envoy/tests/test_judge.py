"""Judging Envoy's answers: who is programmed, who is late, who is refused and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from drtp_api.gateways import Backend, Exposure
from drtp_api.resources import Protocol
from drtp_gateway_envoy.admin import parse_stats, refused_listeners
from drtp_gateway_envoy.judge import CDS_STAT, LDS_STAT, RDS_STAT, Answers, blame, expected_versions, unconfirmed
from drtp_gateway_envoy.options import EnvoyOptions
from drtp_gateway_envoy.render import Settings, render

SETTINGS = Settings(directory=Path("/s"), host="127.0.0.1", http_port=8880, run_id="r", options=EnvoyOptions())
RENDERED = render(
    [
        Exposure(service="default/db", protocol=Protocol.TCP, port=20000, backends=(Backend(address="::1", port=1),)),
        Exposure(service="default/web", protocol=Protocol.HTTP, port=None, hostnames=("web.test",)),
    ],
    SETTINGS,
)
FILES = {"cds/cds.json": "c2", "lds/lds.json": "l2", "rds/rds.json": "r2"}
EXPECTED = expected_versions(FILES)
IN_FORCE = {f"{CDS_STAT}.version_text": "c2", f"{LDS_STAT}.version_text": "l2", f"{RDS_STAT}.version_text": "r2"}


def answers(*behind, **fields):
    versions = {k: ("old" if k.removesuffix(".version_text") in behind else v) for k, v in IN_FORCE.items()}
    return Answers(versions=versions, **fields)


def codes(given, previous=None):
    return {name: status.code for name, status in blame(RENDERED, previous, EXPECTED, given).items()}


def test_what_runs_with_every_version_is_programmed():
    assert unconfirmed(EXPECTED, IN_FORCE) == frozenset()
    assert codes(answers()) == {}


def test_silence_is_not_consent():
    assert codes(Answers(versions={})) == {"default/db": "DRTP-5002", "default/web": "DRTP-5002"}


def test_routes_under_way_concern_http_alone():
    assert codes(answers(RDS_STAT)) == {"default/web": "DRTP-5002"}


def test_a_listener_that_cannot_bind_concerns_its_service_alone():
    refused = {"tcp-20000": "cannot bind '127.0.0.1:20000': Address already in use"}
    given = answers(LDS_STAT, rejected=frozenset({LDS_STAT}), refused=refused)
    assert codes(given) == {"default/db": "DRTP-5003"}
    assert "20000" in blame(RENDERED, None, EXPECTED, given)["default/db"].message


def test_a_forbidden_port_is_a_port_problem_too():
    refused = {"tcp-20000": "cannot bind '0.0.0.0:80': Permission denied"}
    assert codes(answers(LDS_STAT, rejected=frozenset({LDS_STAT}), refused=refused)) == {"default/db": "DRTP-5003"}


def test_another_refusal_is_a_defect_of_ours():
    refused = {"tcp-20000": "no filter chains specified"}
    assert codes(answers(LDS_STAT, rejected=frozenset({LDS_STAT}), refused=refused)) == {"default/db": "DRTP-5004"}


def test_the_shared_http_listener_concerns_every_http_service():
    refused = {"http": "cannot bind '127.0.0.1:8880': Address already in use"}
    assert codes(answers(LDS_STAT, rejected=frozenset({LDS_STAT}), refused=refused)) == {"default/web": "DRTP-5003"}


def test_rejected_routes_and_clusters_are_blamed_on_those_they_carry():
    assert codes(answers(RDS_STAT, rejected=frozenset({RDS_STAT}))) == {"default/web": "DRTP-5004"}
    assert codes(answers(CDS_STAT, rejected=frozenset({CDS_STAT})), previous=RENDERED) == {}
    assert codes(answers(CDS_STAT, rejected=frozenset({CDS_STAT}))) == {
        "default/db": "DRTP-5004", "default/web": "DRTP-5004",
    }  # fmt: skip


def test_a_new_cluster_that_warms_is_late_and_an_old_one_serves_meanwhile():
    given = answers(warming=frozenset({"default/db"}))
    assert codes(given) == {"default/db": "DRTP-5002"}
    assert codes(given, previous=RENDERED) == {}


def test_statistics_are_read_with_and_without_quotes():
    text = 'cluster_manager.cds.version_text: "abc"\nx.version_text: ""\nlistener_manager.lds.update_rejected: 3\n'
    assert parse_stats(text) == {
        "cluster_manager.cds.version_text": "abc", "x.version_text": "", "listener_manager.lds.update_rejected": "3",
    }  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
def test_a_refused_listener_is_named_by_itself_or_by_what_it_failed_with(named):
    entry = {"error_state": {"failed_configuration": {"name": "tcp-1"}, "details": "cannot bind"}}
    dump = {"configs": [{"name": "http", "active_state": {}}, entry | ({"name": "tcp-1"} if named else {})]}
    assert refused_listeners(dump) == {"tcp-1": "cannot bind"}
    assert refused_listeners({}) == {}
