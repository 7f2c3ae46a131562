"""What kubectl renders: valid, the same as `drtp manifests` prints, and startable by the commands it names."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
from click.testing import CliRunner

from drtp_api.crds import crd_documents
from drtp_api.plugins import load_plugins
from drtp_api.statedir import state_directory
from drtp_controller.cli.controller import controller as controller_command
from drtp_controller.cli.main import cli
from drtp_edge.cli import _config
from drtp_edge.cli import main as edge_command

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ("1.32", "1.37")


def identity(document):
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def test_kustomize_and_the_command_give_the_same_documents(rendered):
    result = CliRunner().invoke(cli, ["manifests", "--overlay", rendered.target, "-o", "json"])
    assert result.exit_code == 0, result.output
    ours = json.loads(result.output)["items"]
    assert sorted(ours, key=identity) == sorted(rendered.documents, key=identity)


def test_an_operators_values_reach_the_documents():
    arguments = ["--image-prefix", "registry.example/drtp/", "--coordinates", "1,2", "--public-host", "gw.example"]
    result = CliRunner().invoke(cli, ["manifests", *arguments])
    assert "image: registry.example/drtp/drtp-edge:" in result.output
    assert "value: 1,2" in result.output
    assert "value: gw.example" in result.output


def test_the_tree_is_what_the_generator_writes():
    command = [sys.executable, str(ROOT / "tools/gen_deploy.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_document_fits_its_schema(rendered, version):
    for document in rendered.documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_a_field_that_does_not_exist(base):
    wrong = copy.deepcopy(base.named("DaemonSet", "drtp-edge"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readOnly"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_all_our_definitions_are_installed(rendered):
    found = {d["metadata"]["name"]: d for d in rendered.of("CustomResourceDefinition")}
    assert {name: d["spec"] for name, d in found.items()} == {d["metadata"]["name"]: d["spec"] for d in crd_documents()}


def test_no_two_documents_have_one_name(rendered):
    names = [identity(d) for d in rendered.documents]
    assert len(set(names)) == len(names)


def test_the_edge_starts_with_these_arguments(rendered):
    arguments, environment = rendered.command("drtp-edge")
    prefixed = {k: v for k, v in environment.items() if k.startswith("DRTP_EDGE_")}
    known = {f"DRTP_EDGE_{p.name.upper()}" for p in edge_command.params}
    assert prefixed.keys() <= known
    runner = CliRunner(env=prefixed)
    with runner.isolation():
        context = edge_command.make_context("drtp-edge", arguments, auto_envvar_prefix="DRTP_EDGE")
    config = _config(context.params)
    assert config.name == "node-7"
    assert config.data_host == "10.1.2.3"
    assert str(config.transports["tcp"]) == "10.1.2.3:7443"
    node_port = rendered.named("Service", "drtp-edge-tunnel")["spec"]["ports"][0]["nodePort"]
    assert str(config.advertise) == f"192.0.2.7:{node_port}"
    assert str(config.tls_cert) == "/etc/drtp/tls/tls.crt"
    assert ",".join(config.coordinates) == environment["DRTP_EDGE_COORDINATES"]
    grace = rendered.pods()["drtp-edge"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= config.drain + 10


def test_the_controller_starts_with_these_arguments(rendered):
    arguments, environment = rendered.command("drtp-controller")
    ours = {k: v for k, v in environment.items() if k.startswith("DRTP_")}
    known = {p.envvar for p in controller_command.params if p.envvar} | {"DRTP_STATE_DIR"}
    assert ours.keys() <= known
    assert arguments[0] == "controller"
    runner = CliRunner(env=ours)
    with runner.isolation():
        context = controller_command.make_context("drtp controller", arguments[1:])
        assert str(state_directory()) == "/var/lib/drtp"
    given = context.params
    assert given["listen"] == "0.0.0.0:8090"
    assert given["pod_ip"] == "10.1.2.3"
    assert given["gateway"] in {p.name for p in load_plugins().gateways}
    for name in given["leader_service"]:
        assert "selector" not in rendered.named("Service", name)["spec"]


def test_every_flag_is_in_the_help_of_its_command(rendered):
    texts = {
        "drtp-edge": CliRunner().invoke(edge_command, ["--help"]).output,
        "drtp-controller": CliRunner().invoke(cli, ["controller", "--help"]).output,
    }
    for component, text in texts.items():
        for argument in rendered.container(component)["args"]:
            if argument.startswith("-"):
                assert argument.partition("=")[0] in re.findall(r"--[\w-]+", text)


def test_probes_and_services_lead_to_ports_that_exist(rendered):
    for component in rendered.pods():
        container = rendered.container(component)
        ports = {p["name"] for p in container["ports"]}
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
    tunnel = rendered.named("Service", "drtp-edge-tunnel")["spec"]
    assert tunnel["selector"].items() <= rendered.pods()["drtp-edge"]["metadata"]["labels"].items()
    assert tunnel["ports"][0]["targetPort"] in {p["name"] for p in rendered.container("drtp-edge")["ports"]}
    assert tunnel["externalTrafficPolicy"] == "Local"


def test_every_port_that_may_be_vended_is_a_port_of_the_gateways_service(rendered):
    _, environment = rendered.command("drtp-controller")
    first, last = map(int, environment["DRTP_PORT_RANGE"].split("-"))
    ports = rendered.named("Service", "drtp-gateway")["spec"]["ports"]
    assert {p["targetPort"] for p in ports} == {int(environment["DRTP_HTTP_PORT"]), *range(first, last + 1)}
    assert all(p["port"] == p["targetPort"] == p.get("nodePort", p["port"]) for p in ports)


def test_what_pods_name_exists(rendered):
    for template in rendered.pods().values():
        rendered.named("ServiceAccount", template["spec"]["serviceAccountName"])
        volumes = {v["name"] for v in template["spec"]["volumes"]}
        for container in template["spec"]["containers"]:
            assert {m["name"] for m in container["volumeMounts"]} == volumes


def test_a_node_may_be_emptied_and_an_update_may_proceed(rendered):
    deployment = rendered.named("Deployment", "drtp-controller")["spec"]
    budget = rendered.named("PodDisruptionBudget", "drtp-controller")["spec"]
    assert budget["selector"] == deployment["selector"]
    assert budget["maxUnavailable"] == 1
    # a replica that waits is ready: else neither the budget nor the update could spare the one that acts
    assert deployment["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/healthz"
    if rendered.target in {"base", "pop"}:
        assert deployment["replicas"] == 2


@pytest.mark.parametrize("component", ["edge", "controller"])
def test_an_image_holds_what_its_pod_starts(component, base):
    text = (ROOT / f"deploy/containers/{component}.Containerfile").read_text()
    members = [ROOT / path for path in re.findall(r"\./((?:packages|plugins)/[\w-]+)", text)]
    declared = {p.name: tomllib.loads((p / "pyproject.toml").read_text())["project"] for p in members}
    for project in declared.values():
        needed = {d.split("~")[0] for d in project["dependencies"] if d.startswith("drtp-")}
        assert needed <= declared.keys()
    program = re.search(r'ENTRYPOINT \["/opt/drtp/bin/([\w-]+)"\]', text)[1]
    assert program in declared[f"drtp-{component}"]["scripts"]
    user = base.pods()[f"drtp-{component}"]["spec"]["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in text
    if component == "controller":
        assert f"drtp-gateway-{base.command('drtp-controller')[1]['DRTP_GATEWAY']}" in declared
