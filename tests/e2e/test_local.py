"""``drtp local`` as a process: it starts, survives, restarts and ends, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drtp_testkit.cloud import CloudError, LocalCloud, command

from .conftest import free_port, listening, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def alive(pid: int) -> bool:
    """Return whether a process of that id lives (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def ports_of(info: dict[str, Any]) -> list[int]:
    """Return every port that a cloud listens on."""
    addresses = [info["apiURL"], info["registrationURL"], *(s["tunnelAddress"] for s in info["servers"])]
    return [int(a.rpartition(":")[2]) for a in addresses]


def answer(url: str | urllib.request.Request, **options: Any) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10, **options) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise


@pytest.mark.parametrize("gateway", ["direct", "envoy"])
def test_everything_answers_when_it_says_so_and_nothing_is_left_when_it_ends(tmp_path: Path, gateway: str) -> None:
    with LocalCloud(tmp_path, gateway=gateway) as cloud:
        info = cloud.ready()
        assert answer(info["registrationURL"] + "/readyz") == {"status": "ok"}
        assert [s["city"] for s in info["servers"]] == ["NYC", "AMS"]
        assert info["gateway"]["name"] == gateway
        found = json.loads((tmp_path / "local.json").read_text())
        assert found["registrationURL"] == info["registrationURL"]
        trust = ssl.create_default_context(cafile=found["caFile"])
        with pytest.raises(urllib.error.HTTPError) as refused:
            answer(info["apiURL"] + "/apis/drtp.datumapis.com/v1alpha1/drtpservers", context=trust)
        assert refused.value.code == 401
        shown = subprocess.run(
            [command("kubectl"), "--kubeconfig", info["kubeconfig"], "get", "drtps", "-o", "name"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert shown.stdout.split() == [
            "drtpserver.drtp.datumapis.com/edge-ams",
            "drtpserver.drtp.datumapis.com/edge-nyc",
        ]
        cloud.signal(signal.SIGINT)
        assert cloud.wait() == 0
    pids = [s["pid"] for s in info["servers"]] + ([info["gateway"]["pid"]] if "pid" in info["gateway"] else [])
    wait_for(lambda: not any(map(alive, pids)), "the end of the children")
    assert not any(listening(port) for port in [*ports_of(info), info["gateway"]["httpPort"]])
    assert not (tmp_path / "local.json").exists()


def test_a_restart_keeps_addresses_tokens_and_objects(tmp_path: Path) -> None:
    seen = []
    for run in range(2):
        with LocalCloud(tmp_path, gateway="direct") as cloud:
            info = cloud.ready()
            token = json.loads((tmp_path / "local.json").read_text())["userToken"]
            if run == 0:
                definition = {"application": {"protocol": "TCP", "port": 5432}, "exposure": {"enabled": True}}
                call(info, "/v1alpha1/services", token, {"service": {"name": "kept"}, "definition": definition})
            wait_for(has_address(info, token), "the address")
            ports = (info["apiURL"], info["registrationURL"], info["gateway"]["httpPort"])
            found = call(info, "/v1alpha1/services", token)["services"][0]["addresses"]
            seen.append((ports, token, [s["tunnelAddress"] for s in info["servers"]], found))
    assert seen[0] == seen[1]


def has_address(info: dict[str, Any], token: str) -> Callable[[], bool]:
    return lambda: bool(call(info, "/v1alpha1/services", token)["services"][0].get("addresses"))


def call(info: dict[str, Any], path: str, token: str, body: Any = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    data = None if body is None else json.dumps(body).encode()
    return answer(urllib.request.Request(info["registrationURL"] + path, data=data, headers=headers))


def test_a_second_cloud_in_the_same_state_directory_is_a_coded_error(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, gateway="direct") as cloud:
        cloud.ready()
        with LocalCloud(tmp_path, gateway="direct") as second:
            with pytest.raises(CloudError, match="DRTP-1013"):
                second.ready()
            assert second.wait() == 78
        assert (tmp_path / "local.json").exists()


def test_a_killed_edge_is_not_ready_at_once_and_is_started_again_on_its_address(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, gateway="direct") as cloud:
        info = cloud.ready()
        victim = info["servers"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        again = cloud.wait_event("server_restarted", timeout=30)
        assert again["name"] == victim["name"]
        assert again["pid"] != victim["pid"]
        assert again["tunnelAddress"] == victim["tunnelAddress"]


def test_children_do_not_outlive_a_killed_cloud(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, gateway="envoy") as cloud:
        info = cloud.ready()
        cloud.signal(signal.SIGKILL)
        cloud.wait()
        pids = [info["gateway"]["pid"], *(s["pid"] for s in info["servers"])]
        wait_for(lambda: not any(map(alive, pids)), "the end of the children")
    with LocalCloud(tmp_path, gateway="envoy") as cloud:
        assert cloud.ready()["apiURL"] == info["apiURL"]


def test_a_port_that_is_taken_is_named_before_anything_is_started(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "one", gateway="direct") as one:
        taken = one.ready()["gateway"]["httpPort"]
        flags = ["--http-port", str(taken)]
        with LocalCloud(tmp_path / "two", *flags, gateway="direct", any_port=False) as two:
            with pytest.raises(CloudError, match=rf"DRTP-1014 port {taken}"):
                two.ready()
            assert two.wait() == 78


def test_a_stop_during_the_start_ends_everything(tmp_path: Path) -> None:
    with LocalCloud(tmp_path, gateway="envoy") as cloud:
        started = time.monotonic()
        wait_for((tmp_path / "cloud" / "logs" / "edge-nyc.log").exists, "the first edge")
        cloud.signal(signal.SIGTERM)
        assert cloud.wait() == 130
        assert time.monotonic() - started < 30
    assert not (tmp_path / "local.json").exists()


def test_the_controller_runs_against_any_kubernetes_api(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "cloud", gateway="direct") as cloud:
        info, port = cloud.ready(), free_port()
        process = subprocess.Popen(
            [
                command("drtp"), "controller", "--kubeconfig", info["kubeconfig"], "--gateway", "direct",
                "--state-dir", str(tmp_path / "controller"), "--listen", f"127.0.0.1:{port}", "--http-port", "0",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            wait_for(lambda: listening(port) and ready(port), "the controller")
            user = json.loads((tmp_path / "cloud" / "local.json").read_text())["userToken"]
            names = [s["name"] for s in answer(f"http://127.0.0.1:{port}/v1alpha1/servers")["servers"]]
            assert sorted(names) == ["edge-ams", "edge-nyc"]
            replica = {"registrationURL": f"http://127.0.0.1:{port}"}
            assert call(replica, "/v1alpha1/services", user) == {}
            with pytest.raises(urllib.error.HTTPError) as refused:
                call(replica, "/v1alpha1/services", "nobody's token")
            assert refused.value.code == 401
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors


def ready(port: int) -> bool:
    try:
        return answer(f"http://127.0.0.1:{port}/readyz") == {"status": "ok"}
    except urllib.error.HTTPError:
        return False
