"""`datumctl-serve` against a running `drtp local`: both stories, signals, names, publishing, a command beside it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drtp_testkit.cloud import CloudError, LocalCloud, Serve, command

from .conftest import free_port, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


class _Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"a page\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """Serve a page on a loopback port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def tool(
    cloud: LocalCloud, *args: str, env: dict[str, str] | None = None, stdin: str = ""
) -> tuple[int, list[Any], str]:
    """Run a command of datumctl-serve to its end: exit code, objects of stdout, stderr."""
    done = subprocess.run(
        [command("datumctl-serve"), *args, "-o", "json"],
        env={**os.environ, "DRTP_STATE_DIR": str(cloud.state_dir), **(env or {})},
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def fetch(ready: dict[str, Any]) -> tuple[int, bytes]:
    """Fetch the page as our own clients do: dial the address, send the name."""
    address = ready["addresses"][0]
    connection = http.client.HTTPConnection(address["host"], address["port"], timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Host": urllib.parse.urlsplit(ready["url"]).netloc})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_sam_exposes_a_site_with_one_command(cloud: LocalCloud, site: int) -> None:
    with cloud.serve(f"localhost:{site}", "--public", "--name", "sam") as serve:
        ready = serve.ready()
        assert ready["verified"] == "service"
        assert ready["private"] is False
        assert ready["url"].startswith("http://")
        assert ready["hostnames"]
        assert len(ready["servers"]) == 2
        for server in ready["servers"]:
            assert server["rttMilliseconds"] >= 1
            assert server["transport"] == "tcp"
        assert fetch(ready) == (200, b"a page\n")
        serve.signal(signal.SIGTERM)
        assert serve.wait() == 0
        assert serve.seen[-1] == {"type": "tunnel_stopped", "reason": "stopped"}


def test_a_name_keeps_its_address_over_a_restart(cloud: LocalCloud, site: int) -> None:
    urls = []
    for _ in range(2):
        with cloud.serve(f"localhost:{site}", "--public", "--name", "kept") as serve:
            urls.append(serve.ready()["url"])
            assert serve.stop() == 0
    assert urls[0] == urls[1]


def test_a_target_without_a_name_keeps_its_address_too(cloud: LocalCloud, site: int) -> None:
    seen = []
    for _ in range(2):
        with cloud.serve(f"localhost:{site}", "--public") as serve:
            ready = serve.ready()
            seen.append((ready["name"], ready["url"]))
            assert serve.stop() == 0
    assert seen[0] == seen[1]
    assert seen[0][0].startswith(f"web-{site}-")


def test_a_killed_agent_comes_back_under_its_name_at_once(cloud: LocalCloud, site: int) -> None:
    with cloud.serve(f"localhost:{site}", "--public", "--name", "killed") as serve:
        first = serve.ready()
        serve.signal(signal.SIGKILL)
        assert serve.wait() == -signal.SIGKILL
    with cloud.serve(f"localhost:{site}", "--public", "--name", "killed") as serve:
        second = serve.ready()
        assert second["url"] == first["url"]
        assert fetch(second) == (200, b"a page\n")


def test_joe_enrols_with_a_secret_and_learns_what_to_serve(cloud: LocalCloud, site: int, tmp_path: Path) -> None:
    code, (created,), _ = tool(cloud, "create", "joe", f"localhost:{site}", "--public")
    assert code == 0
    assert created["name"] == "joe"
    assert f"--service {created['name']}" in created["command"]
    secret = tmp_path / "secret"
    secret.write_text(created["secret"] + "\n")
    info = json.loads((cloud.state_dir / "local.json").read_text())
    # Joe's machine knows the URL and the secret, nothing else.
    joe = tmp_path / "joe"
    arguments = ("--service", "joe", "--api-url", info["registrationURL"])
    with Serve(joe, *arguments, "--secret-file", str(secret)) as serve:
        ready = serve.ready()
        assert (ready["name"], ready["verified"]) == ("joe", "service")
        assert fetch(ready) == (200, b"a page\n")
        assert created["secret"] not in serve.stderr
        assert serve.stop() == 0
    with Serve(joe, *arguments, env={"DATUM_SERVE_SECRET": created["secret"]}) as serve:
        assert serve.ready()["url"] == ready["url"]


def test_datumctl_hands_over_its_host_and_its_token(envoy_cloud: LocalCloud, site: int, tmp_path: Path) -> None:
    info = json.loads((envoy_cloud.state_dir / "local.json").read_text())
    helper = tmp_path / "datumctl"
    asked = tmp_path / "asked"
    helper.write_text(f'#!/bin/sh\necho "$@" >> {asked}\nprintf %s {info["userToken"]}\n')
    helper.chmod(0o755)
    env = {
        "DATUM_API_HOST": info["registrationURL"], "DATUM_CREDENTIALS_HELPER": str(helper), "DATUM_SESSION": "work",
        "DATUM_ORG": "", "DATUM_PROJECT": "web", "DATUM_PLUGIN_API_VERSION": "1",
    }  # fmt: skip
    with Serve(tmp_path / "state", f"localhost:{site}", "--public", "--name", "plugin", env=env) as serve:
        assert fetch(serve.ready()) == (200, b"a page\n")
    assert set(asked.read_text().splitlines()) == {"auth get-token --session work"}
    with Serve(
        tmp_path / "state",
        f"localhost:{site}",
        "--name",
        "plugin",
        env={**env, "DATUM_CREDENTIALS_HELPER": "/bin/false"},
    ) as serve:
        assert serve.wait_event("error")["code"] == "DRTP-2003"
        assert serve.wait() == 77


def test_a_private_service_is_ready_and_unreachable_until_it_is_published(cloud: LocalCloud, site: int) -> None:
    with cloud.serve(f"localhost:{site}", "--name", "shy") as serve:
        ready = serve.ready()
        assert (ready["private"], ready["verified"], len(ready["servers"])) == (True, "tunnel", 2)
        code, (shown,), _ = tool(cloud, "publish", "shy")
        assert (code, shown["private"]) == (0, False)
        again = serve.wait_event("tunnel_ready")
        assert (again["private"], again["verified"]) == (False, "service")
        assert fetch(again) == (200, b"a page\n")
        code, (shown,), _ = tool(cloud, "unpublish", "shy")
        assert (code, shown["private"]) == (0, True)

        def closed() -> bool:
            try:
                return fetch(again)[0] != 200
            except OSError:
                return True

        wait_for(closed, "the page is closed again")


def test_an_allow_list_lets_others_in_and_says_how_far_the_check_went(cloud: LocalCloud, site: int) -> None:
    with cloud.serve(f"tcp://localhost:{site}", "--public", "--name", "fenced", "--allow", "203.0.113.0/24") as serve:
        ready = serve.ready()
        assert ready["verified"] == "gateway"
        assert len(ready["servers"]) == 2


def test_list_status_and_stop_know_what_runs_here(cloud: LocalCloud, site: int) -> None:
    with cloud.serve(f"localhost:{site}", "--public", "--name", "known") as serve:
        ready = serve.ready()
        _, listed, _ = tool(cloud, "list")
        assert next(s for s in listed if s["name"] == "known")["url"] == ready["url"]
        code, (status,), _ = tool(cloud, "status", "known")
        assert (code, status["serving"], status["pid"]) == (0, True, serve.pid)
        code, (stopped,), _ = tool(cloud, "stop", "known")
        assert (code, stopped["name"]) == (0, "known")
        assert serve.wait() == 0
    _, (status,), _ = tool(cloud, "status", "known")
    assert (status["serving"], status["pid"]) == (False, None)


def test_a_visitor_may_finish_after_the_first_signal_and_not_after_the_second(cloud: LocalCloud) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    try:
        with cloud.serve(f"tcp://localhost:{listener.getsockname()[1]}", "--public", "--name", "slow") as serve:
            address = serve.ready()["addresses"][0]
            with socket.create_connection((address["host"], address["port"]), timeout=10) as visitor:
                visitor.settimeout(10)
                visitor.sendall(b"question")
                wait_for(lambda: any(_readable(s) for s in accepted), "the visitor at the service")
                inside = next(s for s in accepted if _readable(s))
                serve.signal(signal.SIGINT)
                time.sleep(0.5)
                assert serve.running
                inside.sendall(b"answer")
                assert visitor.recv(6) == b"answer"
                began = time.monotonic()
                serve.signal(signal.SIGINT)
                assert serve.wait(timeout=10) == 130
                assert time.monotonic() - began < 5
                with pytest.raises(ConnectionResetError):
                    if visitor.recv(1) == b"":
                        pytest.fail("a cut stream ended cleanly")
    finally:
        listener.close()
        for sock in accepted:
            sock.close()


def _readable(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except (BlockingIOError, OSError):
        return False


def test_an_interruption_before_ready_is_130(tmp_path: Path) -> None:
    """An API that takes the request and never answers keeps the agent from being ready."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        arguments = ("1", "--no-target-check", "--service", "x", "--api-url", url)
        with Serve(tmp_path, *arguments, env={"DATUM_SERVE_SECRET": "s"}) as serve:
            connection, _ = silent.accept()
            serve.signal(signal.SIGINT)
            assert serve.wait(timeout=15) == 130
            connection.close()


def test_a_command_is_served_while_it_lives_and_its_exit_code_is_ours(cloud: LocalCloud, tmp_path: Path) -> None:
    port = free_port()
    program = f"""
import http.server, os, signal, sys, threading
server = http.server.HTTPServer(("127.0.0.1", {port}), http.server.SimpleHTTPRequestHandler)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(7))
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
server.serve_forever()
"""
    argv = [
        command("datumctl-serve"),
        str(port),
        "--public",
        "--name",
        "child",
        "-o",
        "json",
        "--",
        sys.executable,
        "-c",
        program,
    ]
    process = subprocess.Popen(
        argv, env={**os.environ, "DRTP_STATE_DIR": str(cloud.state_dir)}, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["type"] == "tunnel_ready":
                break
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
        last = json.loads(process.stdout.readlines()[-1])
        assert process.wait(timeout=40) == 7
        assert last == {"type": "tunnel_stopped", "reason": "command"}
    finally:
        process.kill()
        process.communicate()


def test_a_unix_socket_is_served(cloud: LocalCloud, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"

    class Server(socketserver_of(_Page)):  # type: ignore[misc]
        pass

    server = Server(str(path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with cloud.serve(f"unix:{path}", "--public", "--name", "unix") as serve:
            assert fetch(serve.ready()) == (200, b"a page\n")
    finally:
        server.shutdown()
        server.server_close()


def socketserver_of(handler: type[http.server.BaseHTTPRequestHandler]) -> type:
    """Return an HTTP server class that listens on a Unix socket."""
    import socketserver

    class UnixHandler(handler):  # type: ignore[misc, valid-type]
        def address_string(self) -> str:
            return "unix"

    class UnixServer(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def __init__(self, path: str) -> None:
            super().__init__(path, UnixHandler)

    return UnixServer


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_local_service_learns_its_visitor_by_proxy_header(cloud: LocalCloud, version: str) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_forever() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        sock.settimeout(5)
                        with contextlib.suppress(OSError):
                            heard.append(sock.recv(65536))

        threading.Thread(target=serve_forever, daemon=True).start()
        target = f"tcp://localhost:{listener.getsockname()[1]}"
        with cloud.serve(target, "--public", "--name", f"proxy-{version}", "--proxy-protocol", version) as serve:
            address = serve.ready()["addresses"][0]
            with socket.create_connection((address["host"], address["port"]), timeout=5) as visitor:
                visitor.sendall(b"hello")
                source = visitor.getsockname()[1]
                wanted = (
                    f"PROXY TCP4 127.0.0.1 127.0.0.1 {source} ".encode()
                    if version == "v1"
                    else source.to_bytes(2, "big")
                )
                wait_for(lambda: any(wanted in h for h in heard), f"the header among {heard}")
        listener.shutdown(socket.SHUT_RDWR)


def test_ready_comes_quickly(envoy_cloud: LocalCloud, site: int) -> None:
    """The figure is printed; the bound here only catches a pathology (this machine may be busy)."""
    taken = []
    for index in range(3):
        began = time.monotonic()
        with envoy_cloud.serve(f"localhost:{site}", "--public", "--name", f"quick-{index}") as serve:
            serve.ready()
            taken.append(time.monotonic() - began)
    print(f"start to tunnel_ready: median {statistics.median(taken):.2f} s of {len(taken)}, worst {max(taken):.2f} s")
    assert statistics.median(taken) < 10


def test_an_agent_without_a_cloud_to_return_to_says_so_and_recovers(tmp_path: Path, site: int) -> None:
    """The control plane's processes are stopped and started again; the agent's address survives."""
    ports: list[str] = []
    with LocalCloud(tmp_path, gateway="direct") as cloud:
        info = cloud.ready()
        for flag, url in (("--registration-port", info["registrationURL"]), ("--api-port", info["apiURL"])):
            ports += [flag, str(urllib.parse.urlsplit(url).port)]
        ports += ["--http-port", str(info["gateway"]["httpPort"])]
        ports += ["--edge-ports", ",".join(s["tunnelAddress"].rpartition(":")[2] for s in info["servers"])]
        serve = Serve(tmp_path, f"localhost:{site}", "--public", "--name", "patient")
        try:
            before = serve.ready()
            cloud.stop()
            serve.wait_event("tunnel_degraded")
            with LocalCloud(tmp_path, *ports, gateway="direct", any_port=False) as again:
                again.ready()
                serve.wait_event("tunnel_recovered", timeout=60)
                wait_for(lambda: _fetches(before), "the page under its old address", timeout=30)
                assert serve.stop() == 0
        except CloudError as error:
            pytest.fail(f"{error}\n{serve.report()}")
        finally:
            serve.stop()


def _fetches(ready: dict[str, Any]) -> bool:
    try:
        return fetch(ready) == (200, b"a page\n")
    except OSError:
        return False
