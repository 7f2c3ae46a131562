"""Real HTTP programs through the whole cloud: nginx serves, curl and WebSocket and SSE clients visit."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import http.server
import json
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import websockets

from drtp_testkit.cloud import LocalCloud, Serve

from .conftest import Nginx, program

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.timeout(300)]


@attrs.frozen
class Site:
    """A public HTTP address and how to dial it."""

    url: str
    host: str
    port: int
    name: str

    @classmethod
    def of(cls, ready: dict[str, Any]) -> Site:
        address = ready["addresses"][0]
        assert ready["verified"] == "service"
        return cls(
            ready["url"].rstrip("/"), address["host"], address["port"], urllib.parse.urlsplit(ready["url"]).hostname
        )

    def curl(self, *args: str, path: str = "/", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run curl against the site; it must succeed. curl resolves .localhost to loopback by itself."""
        done = subprocess.run(
            [program("curl"), "-sS", "--fail", "--noproxy", "*", *args, f"{self.url}{path}"],
            text=True, capture_output=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture
def site(cloud: LocalCloud, nginx: Nginx) -> Iterator[Site]:
    """The nginx, public."""
    with cloud.serve(f"localhost:{nginx.port}", "--public", "--name", "web") as serve:
        yield Site.of(serve.ready())
        serve.signal()
        assert serve.wait() == 0, serve.report()


def test_a_file_of_200_mb_arrives_byte_for_byte(site: Site, nginx: Nginx, tmp_path: Path) -> None:
    site.curl("-o", str(tmp_path / "big"), path="/big.bin")
    with (tmp_path / "big").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == nginx.big_sha256


def test_an_upload_of_200_mb_arrives_byte_for_byte(site: Site, nginx: Nginx) -> None:
    site.curl("-T", str(nginx.root / "big.bin"), path="/upload/copy.bin")
    with (nginx.root / "upload/copy.bin").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == nginx.big_sha256
    (nginx.root / "upload/copy.bin").unlink()


def test_a_thousand_small_requests_on_one_connection(site: Site) -> None:
    connection = http.client.HTTPConnection(site.host, site.port, timeout=10)
    for _ in range(1000):
        connection.request("GET", "/", headers={"Host": site.name})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"hello from nginx\n")
    connection.close()


def test_a_thousand_small_requests_on_connections_of_their_own(site: Site) -> None:
    for _ in range(1000):
        connection = http.client.HTTPConnection(site.host, site.port, timeout=10)
        connection.request("GET", "/", headers={"Host": site.name, "Connection": "close"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"hello from nginx\n")
        connection.close()


def test_a_websocket_echoes_through_the_tunnel(cloud: LocalCloud) -> None:
    async def scenario() -> None:
        async def echo(socket: websockets.ServerConnection) -> None:
            async for message in socket:
                await socket.send(message)

        async with websockets.serve(echo, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            serve = Serve(cloud.state_dir, f"localhost:{port}", "--public", "--name", "ws")
            try:
                site = Site.of(await asyncio.to_thread(serve.ready))
                uri = f"ws://{site.name}:{site.port}/"
                async with websockets.connect(
                    uri, host=site.host, port=site.port, compression=None, proxy=None
                ) as client:
                    for size in (1, 125, 126, 65_536, 1_000_000):
                        message = bytes(i % 251 for i in range(size))
                        await client.send(message)
                        assert await asyncio.wait_for(client.recv(), 10) == message
            finally:
                assert await asyncio.to_thread(serve.stop) == 0, serve.report()

    asyncio.run(scenario())


class _Sse(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    released = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.path != "/events":
            return
        self.wfile.write(b"data: first\n\n")
        # The second event is written only after the visitor has seen the first: a buffering hop would hang.
        if self.released.wait(20):
            self.wfile.write(b"data: second\n\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_server_sent_events_arrive_as_they_are_sent(cloud: LocalCloud) -> None:
    _Sse.released = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Sse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with cloud.serve(f"localhost:{server.server_address[1]}", "--public", "--name", "sse") as serve:
            site = Site.of(serve.ready())
            connection = http.client.HTTPConnection(site.host, site.port, timeout=15)
            connection.request("GET", "/events", headers={"Host": site.name})
            answer = connection.getresponse()
            assert answer.readline() == b"data: first\n"
            _Sse.released.set()
            assert answer.read() == b"\ndata: second\n\n"
            connection.close()
    finally:
        server.shutdown()
        server.server_close()


def test_an_unknown_host_gets_a_clear_404(site: Site) -> None:
    connection = http.client.HTTPConnection(site.host, site.port, timeout=10)
    connection.request("GET", "/", headers={"Host": "nobody-here.prism.localhost"})
    answer = connection.getresponse()
    assert answer.status == 404
    assert b"no such tunnel" in answer.read()
    connection.close()


def test_the_host_name_stays_the_same_over_a_restart(cloud: LocalCloud, nginx: Nginx) -> None:
    urls = set()
    for _ in range(2):
        with cloud.serve(f"localhost:{nginx.port}", "--public", "--name", "stable") as serve:
            urls.add(serve.ready()["url"])
    assert len(urls) == 1


def test_while_the_agent_is_away_visitors_get_503_and_afterwards_the_page(cloud: LocalCloud, nginx: Nginx) -> None:
    with cloud.serve(f"localhost:{nginx.port}", "--public", "--name", "comes-and-goes") as serve:
        site = Site.of(serve.ready())
        assert "hello" in site.curl().stdout
    deadline = time.monotonic() + 10
    status, body = 0, b""
    while status not in {503, 404} and time.monotonic() < deadline:
        time.sleep(0.1)
        connection = http.client.HTTPConnection(site.host, site.port, timeout=10)
        # With `direct` the port changes hands between the edges; that takes less than a second.
        with contextlib.suppress(ConnectionRefusedError):
            connection.request("GET", "/", headers={"Host": site.name})
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        connection.close()
    assert status == 503, (status, body)
    assert b"tunnel not online" in body.lower()
    with cloud.serve(f"localhost:{nginx.port}", "--public", "--name", "comes-and-goes") as serve:
        assert "hello" in Site.of(serve.ready()).curl().stdout


def test_json_events_tell_the_whole_story(cloud: LocalCloud, nginx: Nginx) -> None:
    with cloud.serve(f"localhost:{nginx.port}", "--public", "--name", "story") as serve:
        ready = serve.ready()
        assert ready["name"] == "story"
        assert ready["private"] is False
        assert ready["hostnames"]
        assert ready["url"].startswith(f"http://{ready['hostnames'][0]}")
        assert len(ready["servers"]) == 2
        assert len({s["city"] for s in ready["servers"]}) == 2
        assert all(s["transport"] == "tcp" and s["rttMilliseconds"] >= 0 for s in ready["servers"])
        serve.signal()
        assert serve.wait() == 0
    kinds = [e["type"] for e in serve.seen]
    assert kinds[-1] == "tunnel_stopped", json.dumps(serve.seen)
    assert "tunnel_progress" in kinds
