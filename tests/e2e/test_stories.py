"""The two stories of the seed, as their users live them: nothing but the commands, kubectl, psql and a browser's GET.

Rules: what a step needs is taken from what the step before printed; each person has a state directory of their own.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drtp_testkit.cloud import EventProcess, LocalCloud, command

from .conftest import Postgres, free_port, listening, program, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.timeout(240)]

ABOVE_EVERY_LAPTOP = "203.0.113.0/24"
"""A network for documentation: nobody visits from it."""


def kubectl(cloud: LocalCloud, *args: str, stdin: str | None = None) -> str:
    """Run the real kubectl with the kubeconfig that the cloud printed; it must succeed."""
    done = subprocess.run(
        [command("kubectl"), *args],
        env={**os.environ, "KUBECONFIG": cloud.info["kubeconfig"]},
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
    return done.stdout


def owner(cloud: LocalCloud, *args: str) -> dict[str, Any]:
    """Run datumctl-serve as the signed-in owner to its end; return the one object that it prints."""
    done = subprocess.run(
        [command("datumctl-serve"), *args, "-o", "json"],
        env={**os.environ, "DRTP_STATE_DIR": str(cloud.state_dir)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{args}: {done.stdout} {done.stderr}"
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(answer)


def run_as_told(machine: Path, printed: dict[str, Any], *, secret: str | None = None) -> EventProcess:
    """Run the very command that was printed, on a machine that knows nothing else, and enter the secret."""
    name, *words = shlex.split(printed["command"])
    env = {"DRTP_STATE_DIR": str(machine)}
    return EventProcess([command(name), *words, "-o", "json"], env=env, stdin=(secret or printed["secret"]) + "\n")


def refused(machine: Path, printed: dict[str, Any], *, secret: str) -> dict[str, Any]:
    """Run the printed command with another secret; it must end with 77. Return its error."""
    with run_as_told(machine, printed, secret=secret) as serve:
        event = serve.wait_event("error")
        assert serve.wait() == 77
    assert secret not in serve.stderr + json.dumps(serve.seen)
    assert "Traceback" not in serve.stderr
    return event


def said_everything(printed: dict[str, Any], name: str) -> None:
    """Check that the answer holds what Joe needs on the other machine."""
    assert printed["name"] == name
    assert printed["secret"].startswith("drtps_")
    assert printed["secret"] not in printed["command"]
    assert f"--service {name}" in printed["command"]
    assert printed["download"].startswith("https://")
    assert "datumctl-serve" in printed["install"]


def psql(postgres: Postgres, address: dict[str, Any], *, good: bool = True) -> str:
    """Ask the database through the address; where it must not be reached, return what psql says."""
    arguments = ["-h", address["host"], "-p", str(address["port"]), "-U", "postgres", "-At", "-c", "select 6 * 7"]
    if good:
        return postgres.run("psql", *arguments).stdout.strip()
    done = subprocess.run(
        [str(postgres.bin / "psql"), *arguments],
        env={**os.environ, "PGSSLMODE": "disable", "PGCONNECT_TIMEOUT": "5"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr


def manifest(name: str, port: int) -> str:
    """Return Joe's service as he would write it: private until it is published."""
    return json.dumps(
        {
            "apiVersion": "drtp.datumapis.com/v1alpha1",
            "kind": "DRTPService",
            "metadata": {"name": name},
            "spec": {"application": {"protocol": "TCP", "name": "PostgreSQL", "hostname": "localhost", "port": port}},
        }
    )


def test_joe_defines_his_database_with_kubectl_and_a_visitor_asks_it_with_psql(
    envoy_cloud: LocalCloud, postgres: Postgres, tmp_path: Path
) -> None:
    cloud = envoy_cloud
    kubectl(cloud, "apply", "-f", "-", stdin=manifest("joes-orders", postgres.port))
    printed = owner(cloud, "rotate", "joes-orders")
    said_everything(printed, "joes-orders")
    assert printed["detail"] == f"PostgreSQL/TCP/localhost/{postgres.port}"
    port = free_port()
    with run_as_told(tmp_path / "db-host", printed) as serve:
        ready = serve.wait_event("tunnel_ready")
        assert (ready["private"], ready["verified"], len(ready["servers"])) == (True, "tunnel", 2)
        change = {"spec": {"exposure": {"enabled": True, "port": port}, "edgeAllowlistCIDRs": ["127.0.0.0/8"]}}
        kubectl(cloud, "patch", "drtpservice", "joes-orders", "--type=merge", "-p", json.dumps(change))
        kubectl(cloud, "wait", "--for=condition=Ready", "--timeout=30s", "drtpservice/joes-orders")
        status = json.loads(kubectl(cloud, "get", "drtpsvc", "joes-orders", "-o", "json"))["status"]
        (address,) = status["addresses"]
        assert address["port"] == port
        assert psql(postgres, address) == "42"
        assert serve.stop() == 0


def test_joe_defines_his_database_with_the_command_and_publishes_it_for_some(
    envoy_cloud: LocalCloud, postgres: Postgres, tmp_path: Path
) -> None:
    cloud, machine = envoy_cloud, tmp_path / "db-host"
    printed = owner(cloud, "create", "joes-stock", f"tcp://localhost:{postgres.port}")
    said_everything(printed, "joes-stock")
    assert printed["detail"] == f"joes-stock/TCP/localhost/{postgres.port}"
    port = free_port()
    with run_as_told(machine, printed) as serve:
        serve.wait_event("tunnel_ready")
        shown = owner(cloud, "publish", "joes-stock", "--port", str(port), "--allow", "127.0.0.1/32")
        assert shown["private"] is False
        ready = serve.wait_event("tunnel_ready")
        (address,) = ready["addresses"]
        assert (address["port"], ready["private"]) == (port, False)
        assert psql(postgres, address) == "42"
        owner(cloud, "publish", "joes-stock", "--allow", ABOVE_EVERY_LAPTOP)

        def shut() -> bool:
            with contextlib.suppress(AssertionError):
                return bool(psql(postgres, address, good=False))
            return False

        wait_for(shut, "the database is closed to this machine")
        owner(cloud, "publish", "joes-stock", "--allow-all")
        wait_for(lambda: _asked(postgres, address), "the database is open again")
        assert serve.stop() == 0


def test_joe_writes_the_gateway_and_the_route_himself(
    envoy_cloud: LocalCloud, postgres: Postgres, tmp_path: Path
) -> None:
    cloud, port = envoy_cloud, free_port()
    group = "gateway.networking.k8s.io"
    gateway = {
        "apiVersion": f"{group}/v1",
        "kind": "Gateway",
        "metadata": {"name": "joes-gateway"},
        "spec": {
            "gatewayClassName": "datum-external-global-proxy",
            "listeners": [{"name": "postgres", "protocol": "TCP", "port": port}],
        },
    }
    backend = {"group": "drtp.datumapis.com", "kind": "DRTPService", "name": "joes-ledger"}
    served = kubectl(cloud, "api-resources", f"--api-group={group}", "--no-headers")
    (version,) = [line.split()[-3] for line in served.splitlines() if line.startswith("tcproutes")]
    route = {
        "apiVersion": version,
        "kind": "TCPRoute",
        "metadata": {"name": "joes-route"},
        "spec": {"parentRefs": [{"name": "joes-gateway"}], "rules": [{"backendRefs": [backend]}]},
    }
    service = json.loads(manifest("joes-ledger", postgres.port))
    service["spec"]["edgeAllowlistCIDRs"] = ["127.0.0.0/8"]
    kubectl(cloud, "apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, (service, gateway, route))))
    with run_as_told(tmp_path / "db-host", owner(cloud, "rotate", "joes-ledger")) as serve:
        serve.wait_event("tunnel_ready")
        kubectl(cloud, "wait", "--for=condition=Programmed", "--timeout=30s", "gateway/joes-gateway")
        kubectl(cloud, "wait", "--for=condition=Ready", "--timeout=30s", "drtpsvc/joes-ledger")
        host = kubectl(cloud, "get", "gateway", "joes-gateway", "-o", "jsonpath={.status.addresses[0].value}")
        assert psql(postgres, {"host": host, "port": port}) == "42"
        kubectl(cloud, "delete", "tcproute/joes-route", "gateway/joes-gateway")
        wait_for(lambda: not listening(port), "the gateway's port is closed")
        assert serve.stop() == 0


def _asked(postgres: Postgres, address: dict[str, Any]) -> bool:
    with contextlib.suppress(AssertionError):
        return psql(postgres, address) == "42"
    return False


def test_a_wrong_a_rotated_and_a_revoked_secret_are_refused_by_code(
    envoy_cloud: LocalCloud, postgres: Postgres, tmp_path: Path
) -> None:
    cloud = envoy_cloud
    first = owner(cloud, "create", "joes-vault", f"tcp://localhost:{postgres.port}", "--public")
    wrong = refused(tmp_path / "guess", first, secret="drtps_guessed")
    assert wrong["code"] == "DRTP-2005"
    second = owner(cloud, "rotate", "joes-vault")
    assert second["previousValidSeconds"] == 3600
    machine = tmp_path / "db-host"
    for printed in (first, second):
        with run_as_told(machine, printed) as serve:
            assert psql(postgres, serve.wait_event("tunnel_ready")["addresses"][0]) == "42"
            assert serve.stop() == 0
    third = owner(cloud, "rotate", "joes-vault", "--overlap", "0")
    old = refused(machine, second, secret=second["secret"])
    assert (old["code"], "rotated" in old["message"], "rotate" in old["hint"]) == ("DRTP-2005", True, True)
    with run_as_told(machine, third) as serve:
        address = serve.wait_event("tunnel_ready")["addresses"][0]
        began = time.monotonic()
        revoked = owner(cloud, "revoke", "joes-vault")
        assert len(revoked["connections"]) == 1
        assert serve.wait(timeout=15) == 77
        assert time.monotonic() - began < 5
        assert [e.get("code") for e in serve.seen][-2] == "DRTP-2010", serve.report()
        assert serve.seen[-1] == {"type": "tunnel_stopped", "reason": "revoked"}
    assert psql(postgres, address, good=False)
    ended = refused(machine, third, secret=third["secret"])
    assert (ended["code"], "revoked" in ended["message"]) == ("DRTP-2005", True)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"application": {"protocol": "TCP"}, "exposre": {}}, 'unknown field "spec.exposre"'),
        ({"application": {"protocol": "TCP", "prot": 1}}, 'unknown field "spec.application.prot"'),
        ({"application": {"protocol": "TCP"}, "servers": {"replicas": 4}}, "spec.servers.replicas"),
        ({"application": {"protocol": "TCP"}, "exposure": {"port": 70000}}, "spec.exposure.port"),
    ],
)
def test_kubectl_names_the_field_that_joe_got_wrong(envoy_cloud: LocalCloud, spec: dict[str, Any], named: str) -> None:
    service = {**json.loads(manifest("joes-typo", 5432)), "spec": spec}
    done = subprocess.run(
        [command("kubectl"), "apply", "-f", "-"], env={**os.environ, "KUBECONFIG": envoy_cloud.info["kubeconfig"]},
        input=json.dumps(service), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, named in done.stderr) == (1, True), done.stderr
    assert "joes-typo" not in kubectl(envoy_cloud, "get", "drtpsvc")


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"sam's page\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[int]:
    """Serve Sam's page on a loopback port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def signed_in(cloud: LocalCloud, folder: Path) -> dict[str, str]:
    """Return the environment that datumctl gives its plugins, with a credentials helper for this cloud's user."""
    folder.mkdir()
    token = json.loads((cloud.state_dir / "local.json").read_text())["userToken"]
    (folder / "token").write_text(token)
    helper = folder / "datumctl"
    helper.write_text(f"""#!/bin/sh
[ "$1 $2" = "auth get-token" ] || {{ echo "usage: datumctl auth get-token [--session S]" >&2; exit 2; }}
[ "$3 $4" = "--session sam@example.com" ] || {{ echo "no session: sign in with datumctl login" >&2; exit 1; }}
exec cat {shlex.quote(str(folder / "token"))}
""")
    helper.chmod(0o755)
    return {
        "DRTP_STATE_DIR": str(folder / "state"),
        "DATUM_ORG": "",
        "DATUM_PROJECT": "sams-project",
        "DATUM_API_HOST": cloud.info["registrationURL"],
        "DATUM_SESSION": "sam@example.com",
        "DATUM_CREDENTIALS_HELPER": str(helper),
    }


def test_sam_serves_his_site_signed_in_with_datumctl_sees_it_ready_enables_it_and_opens_it(
    envoy_cloud: LocalCloud, site: int, tmp_path: Path
) -> None:
    cloud, env = envoy_cloud, signed_in(envoy_cloud, tmp_path / "sam")
    curl = program("curl")
    plugin = command("datumctl-serve")

    def run(*args: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [plugin, *args, "-o", "json"], env={**os.environ, **env}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    with EventProcess([plugin, f"localhost:{site}", "-o", "json"], env=env) as serve:
        ready = serve.wait_event("tunnel_ready")
        assert (ready["private"], ready["verified"], len(ready["servers"])) == (True, "tunnel", 2)
        name = ready["name"]
        (connection,) = [
            c
            for c in json.loads(kubectl(cloud, "get", "drtpconnections", "-o", "json"))["items"]
            if c["spec"]["serviceRef"]["name"] == name
        ]
        kubectl(cloud, "wait", "--for=condition=Ready", "--timeout=10s", f"drtpc/{connection['metadata']['name']}")
        (seen,) = [s for s in run("list") if s["name"] == name]
        assert seen["private"] is True
        (enabled,) = run("publish", name)
        assert enabled["private"] is False
        ready = serve.wait_event("tunnel_ready")
        assert (ready["private"], ready["verified"]) == (False, "service")
        answer = subprocess.run(
            [curl, "--silent", "--fail", "--noproxy", "*", ready["url"]], capture_output=True, timeout=20, check=False
        )
        assert (answer.returncode, answer.stdout) == (0, b"sam's page\n"), answer.stderr
        assert serve.stop() == 0


def test_sam_without_a_session_is_told_to_sign_in(envoy_cloud: LocalCloud, site: int, tmp_path: Path) -> None:
    env = signed_in(envoy_cloud, tmp_path / "sam") | {"DATUM_SESSION": "expired@example.com"}
    with EventProcess([command("datumctl-serve"), f"localhost:{site}", "-o", "json"], env=env) as serve:
        event = serve.wait_event("error")
        assert (event["code"], serve.wait()) == ("DRTP-2003", 77)
        assert "sign in" in event["message"]
