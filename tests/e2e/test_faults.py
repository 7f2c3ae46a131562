"""Faults that a user meets: each gets a clear coded error or goes unnoticed, and nothing is lost or leaked."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from drtp_testkit.cloud import CloudError, LocalCloud, Serve, command

from .conftest import free_port, listening, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@contextlib.contextmanager
def tcp_service(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve each connection in a thread with ``handle`` for the length of the block."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=serve_one, args=(sock,), daemon=True).start()

    def serve_one(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            handle(sock)

    threading.Thread(target=run, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def error_of(
    state_dir: Path, *args: str, env: dict[str, str] | None = None, timeout: float = 30
) -> tuple[int, dict[str, Any]]:
    """Run datumctl-serve to its end; return the exit code and the error event."""
    serve = Serve(state_dir, *args, env=env)
    try:
        event = serve.wait_event("error", timeout=timeout)
        code = serve.wait(timeout=timeout)
    finally:
        serve.stop()
    assert "Traceback" not in serve.stderr, serve.stderr
    assert event["code"].startswith("DRTP-")
    assert event["message"]
    assert event["hint"]
    return code, event


def public(ready: dict[str, Any]) -> tuple[str, int]:
    (address,) = ready["addresses"]
    return address["host"], address["port"]


def connected_to(pid: int) -> int:
    """Return how many established TCP connections the process tree holds."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(1 for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED)


def test_no_cloud_running_is_said_with_a_next_step(tmp_path: Path) -> None:
    code, event = error_of(tmp_path, "localhost:8080", "--public")
    assert (code, event["code"]) == (69, "DRTP-2001")
    assert "drtp local" in event["hint"]


@pytest.mark.parametrize(("target", "expected"), [("0.0.0.0:8080", "DRTP-1002"), ("[::]:80", "DRTP-1002"), ("tcp://", "DRTP-1001"), ("localhost:99999", "DRTP-1001")])  # fmt: skip
def test_a_target_that_cannot_be_served_is_refused(tmp_path: Path, target: str, expected: str) -> None:
    code, event = error_of(tmp_path, target, "--public")
    assert (code, event["code"]) == (2, expected)


def test_nothing_listens_on_the_target_before_the_start(envoy_cloud: LocalCloud) -> None:
    code, event = error_of(envoy_cloud.state_dir, f"localhost:{free_port()}", "--public", "--name", "absent")
    assert (code, event["code"]) == (69, "DRTP-4001")


def test_the_local_service_goes_away_and_comes_back(cloud: LocalCloud) -> None:
    port = free_port()
    first = socket.create_server(("127.0.0.1", port))
    threading.Thread(
        target=lambda: [contextlib.suppress(OSError).__enter__(), _accept_forever(first)], daemon=True
    ).start()
    with cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "blinks") as serve:
        host, public_port = public(serve.ready())
        first.shutdown(socket.SHUT_RDWR)
        first.close()
        wait_for(lambda: not listening(port), "the local service is gone")
        with socket.create_connection((host, public_port), timeout=5) as visitor:
            visitor.settimeout(10)
            with pytest.raises(ConnectionResetError):
                visitor.sendall(b"x")
                if visitor.recv(1) == b"":
                    pytest.fail("the visitor saw a clean end, though nothing was served")
                visitor.recv(1)
        assert serve.wait_event("error", timeout=10)["code"] == "DRTP-4001"
        second = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=_accept_forever, args=(second,), daemon=True).start()
        try:
            with socket.create_connection((host, public_port), timeout=5) as visitor:
                visitor.settimeout(10)
                visitor.sendall(b"again")
                assert visitor.recv(5) == b"again"
        finally:
            second.close()


def _accept_forever(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_echo_quietly, args=(sock,), daemon=True).start()


def _echo_quietly(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        echo(sock)


def test_a_taken_public_port_is_refused_by_code(cloud: LocalCloud) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, tcp_service(echo) as port:
        code, event = error_of(
            cloud.state_dir,
            f"tcp://localhost:{port}",
            "--public",
            "--port",
            str(taken.getsockname()[1]),
            "--name",
            "taken",
        )
    assert (code, event["code"]) == (78, "DRTP-2011")


def test_a_port_of_another_service_is_refused_by_code(cloud: LocalCloud) -> None:
    with tcp_service(echo) as port, cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "owner") as serve:
        _, public_port = public(serve.ready())
        code, event = error_of(
            cloud.state_dir, f"tcp://localhost:{port}", "--public", "--port", str(public_port), "--name", "squatter"
        )
    assert (code, event["code"]) == (78, "DRTP-2011")


def test_a_second_process_with_the_same_name_is_refused(envoy_cloud: LocalCloud) -> None:
    with tcp_service(echo) as port, envoy_cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "twin") as serve:
        serve.ready()
        code, event = error_of(envoy_cloud.state_dir, f"tcp://localhost:{port}", "--public", "--name", "twin")
        assert (code, event["code"]) == (78, "DRTP-1005")
        assert serve.running


def test_another_machine_with_the_same_name_is_refused_while_one_is_live(
    envoy_cloud: LocalCloud, tmp_path: Path
) -> None:
    (tmp_path / "local.json").write_bytes((envoy_cloud.state_dir / "local.json").read_bytes())
    with (
        tcp_service(echo) as port,
        envoy_cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "rival") as serve,
    ):
        serve.ready()
        code, event = error_of(tmp_path, f"tcp://localhost:{port}", "--public", "--name", "rival")
        assert (code, event["code"]) == (78, "DRTP-2007")
        assert serve.running


def test_a_copy_of_the_same_instance_takes_over_and_the_loser_ends(envoy_cloud: LocalCloud, tmp_path: Path) -> None:
    with (
        tcp_service(echo) as port,
        envoy_cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "moved") as serve,
    ):
        serve.ready()
        subprocess.run(["cp", "-r", str(envoy_cloud.state_dir / "serve"), str(tmp_path / "serve")], check=True)
        (tmp_path / "local.json").write_bytes((envoy_cloud.state_dir / "local.json").read_bytes())
        with Serve(tmp_path, f"tcp://localhost:{port}", "--public", "--name", "moved") as newer:
            host, public_port = public(newer.ready())
            assert serve.wait_event("tunnel_stopped", timeout=15)["reason"] == "superseded"
            assert serve.wait(timeout=15) == 0
            with socket.create_connection((host, public_port), timeout=5) as visitor:
                visitor.settimeout(10)
                visitor.sendall(b"still here")
                assert visitor.recv(10) == b"still here"


def test_an_unwritable_state_directory_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    code, event = error_of(blocked / "below", "localhost:8080", "--public")
    assert (code, event["code"]) == (78, "DRTP-1006")


def test_a_wrong_secret_is_refused(envoy_cloud: LocalCloud, tmp_path: Path) -> None:
    created = subprocess.run(
        [command("datumctl-serve"), "create", "guarded", "--protocol", "tcp", "-o", "json"],
        env={**os.environ, "DRTP_STATE_DIR": str(envoy_cloud.state_dir)}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert created.returncode == 0, created.stderr
    with tcp_service(echo) as port:
        code, event = error_of(
            envoy_cloud.state_dir,
            f"tcp://localhost:{port}",
            "--service",
            "guarded",
            env={"DATUM_SERVE_SECRET": "wrong"},
        )
    assert (code, event["code"]) == (77, "DRTP-2005")


def test_half_close_and_bytes_survive_in_both_directions(cloud: LocalCloud) -> None:
    """The visitor ends its direction first and still gets the whole answer."""

    def count(sock: socket.socket) -> None:
        total = 0
        while data := sock.recv(65536):
            total += len(data)
        sock.sendall(total.to_bytes(8, "big") + b"z" * 300_000)

    with tcp_service(count) as port, cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "half") as serve:
        host, public_port = public(serve.ready())
        with socket.create_connection((host, public_port), timeout=5) as visitor:
            visitor.settimeout(20)
            visitor.sendall(b"q" * 1_000_000)
            visitor.shutdown(socket.SHUT_WR)
            answer = b""
            while data := visitor.recv(65536):
                answer += data
    assert answer == (1_000_000).to_bytes(8, "big") + b"z" * 300_000


def test_the_service_closes_early_and_the_visitor_gets_every_byte_it_sent(cloud: LocalCloud) -> None:
    """The local service answers and closes while the visitor has not said anything yet."""

    with tcp_service(lambda sock: sock.sendall(b"banner\n" * 10_000)) as port:
        with cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "early") as serve:
            host, public_port = public(serve.ready())
            with socket.create_connection((host, public_port), timeout=5) as visitor:
                visitor.settimeout(20)
                answer = b""
                while data := visitor.recv(65536):
                    answer += data
    assert answer == b"banner\n" * 10_000


def test_a_reset_by_the_service_is_a_reset_for_the_visitor(cloud: LocalCloud) -> None:
    def reset(sock: socket.socket) -> None:
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with tcp_service(reset) as port, cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "rst") as serve:
        host, public_port = public(serve.ready())
        with socket.create_connection((host, public_port), timeout=5) as visitor:
            visitor.settimeout(20)
            visitor.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                if visitor.recv(1) == b"":
                    pytest.fail("a reset became a clean end")


def test_a_killed_edge_resets_its_streams_and_never_ends_them_cleanly(tmp_path: Path) -> None:
    """A transfer cut in the middle must look cut."""
    with LocalCloud(tmp_path) as cloud, tcp_service(_endless) as port:
        info = cloud.ready()
        with cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "cut") as serve:
            host, public_port = public(serve.ready())
            ends: list[str] = []

            def visit() -> None:
                with socket.create_connection((host, public_port), timeout=5) as visitor:
                    visitor.settimeout(20)
                    try:
                        while visitor.recv(65536):
                            pass
                        ends.append("clean")
                    except ConnectionResetError:
                        ends.append("reset")
                    except TimeoutError:
                        ends.append("alive")

            threads = [threading.Thread(target=visit) for _ in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(1.0)  # transfers are under way
            for server in info["servers"]:
                os.kill(server["pid"], signal.SIGKILL)
            for thread in threads:
                thread.join(30)
    assert ends == ["reset"] * 8


def _endless(sock: socket.socket) -> None:
    block = b"b" * 65536
    while True:
        sock.sendall(block)


@pytest.mark.real
def test_killing_one_edge_under_fifty_new_connections_a_second_fails_none(tmp_path: Path) -> None:
    """Every connection begun once the process is gone succeeds.

    Until the kernel has taken a killed process apart its listeners accept; what is under way there may be reset,
    as every stream of a killed edge is.
    """
    rate, before, after = 50, 2.0, 6.0
    with LocalCloud(tmp_path) as cloud, tcp_service(echo) as port:
        info = cloud.ready()
        with cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "survivor") as serve:
            ready = serve.ready()
            assert len(ready["servers"]) == 2
            host, public_port = public(ready)
            results: list[tuple[float, float, str]] = []
            victim = psutil.Process(info["servers"][0]["pid"])
            moments = {}

            def kill() -> None:
                moments["killed"] = time.monotonic()
                victim.kill()
                while victim.is_running() and victim.status() != psutil.STATUS_ZOMBIE:
                    time.sleep(0.0005)
                moments["gone"] = time.monotonic()

            def visit() -> None:
                began = time.monotonic()
                try:
                    with socket.create_connection((host, public_port), timeout=3) as visitor:
                        visitor.settimeout(3)
                        visitor.sendall(b"ping")
                        got = b""
                        while len(got) < 4:
                            piece = visitor.recv(4)
                            if not piece:
                                raise ConnectionError("ended early")
                            got += piece
                        outcome = "ok" if got == b"ping" else f"wrong: {got!r}"
                except OSError as error:
                    outcome = f"{type(error).__name__}: {error}"
                results.append((began, time.monotonic() - began, outcome))

            start = time.monotonic()
            killer = threading.Timer(before, kill)
            killer.start()
            threads = []
            count = int(rate * (before + after))
            for index in range(count):
                time.sleep(max(0.0, start + index / rate - time.monotonic()))
                thread = threading.Thread(target=visit)
                thread.start()
                threads.append(thread)
            for thread in (*threads, killer):
                thread.join(10)
    assert len(results) == count
    gone = moments["gone"]
    failed = [r for r in results if r[2] != "ok"]
    assert not [r for r in failed if r[0] > gone], failed
    dying = gone - moments["killed"]
    assert len(failed) <= 2 + dying * rate, f"{len(failed)} failed; the process took {dying:.3f} s to go"
    assert max(r[1] for r in results if r[0] > gone) < 1.0


def test_ctrl_c_drains_and_leaves_nothing_behind(cloud: LocalCloud) -> None:
    with tcp_service(echo) as port:
        serve = Serve(cloud.state_dir, f"tcp://localhost:{port}", "--public", "--name", "drains")
        try:
            host, public_port = public(serve.ready())
            with socket.create_connection((host, public_port), timeout=5) as visitor:
                visitor.settimeout(10)
                visitor.sendall(b"one")
                assert visitor.recv(3) == b"one"
                serve.signal(signal.SIGINT)
                time.sleep(0.5)  # the drain has begun; an open stream lives on
                visitor.sendall(b"two")
                assert visitor.recv(3) == b"two"
            assert serve.wait(timeout=35) == 0, serve.report()
        finally:
            serve.stop()
    assert serve.seen[-1]["type"] == "tunnel_stopped"


def test_after_many_visitors_nothing_is_leaked(cloud: LocalCloud) -> None:
    with tcp_service(echo) as port, cloud.serve(f"tcp://localhost:{port}", "--public", "--name", "tidy") as serve:
        host, public_port = public(serve.ready())

        def visit() -> None:
            with socket.create_connection((host, public_port), timeout=5) as visitor:
                visitor.settimeout(10)
                visitor.sendall(b"x")
                assert visitor.recv(1) == b"x"

        visit()
        wait_for(lambda: connected_to(serve.pid) <= 4, "the agent is at rest")
        base = connected_to(serve.pid)
        for _ in range(200):
            visit()
        wait_for(lambda: connected_to(serve.pid) <= base, "every connection of the agent is closed")


def test_a_second_local_cloud_on_the_same_state_is_refused(envoy_cloud: LocalCloud) -> None:
    second = LocalCloud(envoy_cloud.state_dir)
    try:
        with pytest.raises(CloudError):
            second.ready(timeout=20)
        assert second.wait(timeout=20) == 78, second.report()
        assert "DRTP-" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        second.stop()
    assert envoy_cloud.running


def test_envoy_missing_is_a_coded_error(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path, "--gateway-options", f"binary={tmp_path / 'no-such-envoy'}")
    try:
        assert cloud.wait(timeout=40) == 78, cloud.report()
        assert "DRTP-5001" in cloud.stderr + str(cloud.seen)
        assert "Traceback" not in cloud.stderr
    finally:
        cloud.stop()


def test_a_taken_http_port_is_a_coded_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cloud = LocalCloud(tmp_path, "--http-port", port, "--api-port", "0", "--registration-port", "0", any_port=False)
        try:
            assert cloud.wait(timeout=40) == 78, cloud.report()
            assert "DRTP-1014" in cloud.stderr
            assert port in cloud.stderr
        finally:
            cloud.stop()


def test_state_survives_a_restart_of_the_cloud(tmp_path: Path) -> None:
    urls = []
    with tcp_service(_http_hello) as port:
        for _ in range(2):
            with LocalCloud(tmp_path) as cloud:
                cloud.ready()
                with cloud.serve(f"localhost:{port}", "--public", "--name", "kept") as serve:
                    ready = serve.ready()
                    urls.append(ready["url"])
                    address = ready["addresses"][0]
                    connection = http.client.HTTPConnection(address["host"], address["port"], timeout=10)
                    connection.request("GET", "/", headers={"Host": ready["hostnames"][0]})
                    assert connection.getresponse().read() == b"hello"
                    connection.close()
                assert cloud.stop() == 0, cloud.report()
    assert urls[0] == urls[1]


def _http_hello(sock: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return
        data += piece
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
