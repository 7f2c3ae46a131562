"""Fixtures of the end-to-end tests: whole clouds in processes, and real programs as local services.

Rules: every process is ended by the fixture that started it; ports are free ones; nothing leaves loopback.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from drtp_testkit.cloud import LocalCloud

BIG_SIZE = 200 * 1024 * 1024


def free_port() -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_for(condition: Callable[[], bool], what: str, *, timeout: float = 20.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout} s")
        time.sleep(0.05)


def listening(port: int) -> bool:
    """Return whether something accepts on the loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def program(name: str, *places: str) -> str:
    """Return the path of a real program; where it may be absent the test skips, in CI it fails."""
    candidates = [
        shutil.which(name),
        *(str(p) for place in places for p in sorted(Path("/").glob(place), reverse=True)),
    ]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    reason = f"the program {name} is not installed (CI installs it from Debian's packages)"
    if os.environ.get("DRTP_REQUIRE_REAL"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], LocalCloud]]:
    """One running cloud per gateway, started when first asked for."""
    running: dict[str, LocalCloud] = {}
    with contextlib.ExitStack() as stack:

        def get(gateway: str) -> LocalCloud:
            if gateway not in running:
                cloud = stack.enter_context(LocalCloud(tmp_path_factory.mktemp(f"cloud-{gateway}"), gateway=gateway))
                cloud.ready()
                running[gateway] = cloud
            return running[gateway]

        yield get


@pytest.fixture(params=["envoy", "direct"])
def cloud(request: pytest.FixtureRequest, clouds: Callable[[str], LocalCloud]) -> LocalCloud:
    """A running cloud, once with each gateway."""
    return clouds(request.param)


@pytest.fixture
def envoy_cloud(clouds: Callable[[str], LocalCloud]) -> LocalCloud:
    """A running cloud with Envoy as its gateway."""
    return clouds("envoy")


@attrs.frozen
class Nginx:
    """A running nginx and the big file it serves."""

    port: int
    root: Path
    big_sha256: str


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """A real nginx: a small page, a file of 200 MB, uploads by PUT below /upload/."""
    binary = program("nginx", "usr/sbin/nginx")
    root = tmp_path_factory.mktemp("nginx")
    for folder in ("html", "html/upload", "tmp"):
        (root / folder).mkdir()
    (root / "html/index.html").write_text("hello from nginx\n")
    digest = hashlib.sha256()
    block = os.urandom(1024 * 1024)
    with (root / "html/big.bin").open("wb") as file:
        for index in range(BIG_SIZE // len(block)):
            piece = index.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            file.write(piece)
    port = free_port()
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    (root / "nginx.conf").write_text(f"""
{user} daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; types {{ text/html html; }} default_type application/octet-stream; sendfile on;
  client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp;
  uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;
  server {{
    listen 127.0.0.1:{port}; root {root}/html; client_max_body_size 1g; keepalive_requests 100000;
    location /upload/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
  }}
}}
""")
    process = subprocess.Popen([binary, "-p", str(root), "-c", str(root / "nginx.conf"), "-e", str(root / "error.log")])
    try:
        wait_for(lambda: listening(port), "nginx")
        yield Nginx(port, root / "html", digest.hexdigest())
    finally:
        process.terminate()
        process.wait(timeout=10)


@attrs.frozen
class Postgres:
    """A running PostgreSQL server with password-less local trust, and the client programs' folder."""

    port: int
    bin: Path

    def run(self, tool: str, *args: str, timeout: float = 120, **kwargs: object) -> subprocess.CompletedProcess[str]:
        """Run a client program; it must succeed."""
        done = subprocess.run(  # type: ignore[call-overload]
            [str(self.bin / tool), *args], text=True, capture_output=True, timeout=timeout,
            env={**os.environ, "PGUSER": "postgres", "PGSSLMODE": "disable", "PGCONNECT_TIMEOUT": "10"}, **kwargs,
        )  # fmt: skip
        assert done.returncode == 0, f"{tool} {args}: {done.stderr}"
        return done


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server on loopback; it refuses to run as root, so then it runs as nobody."""
    initdb = Path(program("initdb", "usr/lib/postgresql/*/bin/initdb")).resolve()
    folder = initdb.parent
    if not (folder / "postgres").exists():
        folder = Path(program("postgres", "usr/lib/postgresql/*/bin/postgres")).resolve().parent
    home = Path(tempfile.mkdtemp(prefix="drtp-pg-"))
    as_user: dict[str, object] = {}
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    port = free_port()
    env = {**os.environ, "HOME": str(home)}
    try:
        subprocess.run(
            [str(folder / "initdb"), "-D", str(home / "data"), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, env=env, cwd=home, **as_user,
        )  # fmt: skip
        process = subprocess.Popen(
            [str(folder / "postgres"), "-D", str(home / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", str(home),
             "-c", "fsync=off", "-c", "max_connections=60"],
            stdout=subprocess.DEVNULL, stderr=(home / "log").open("wb") if os.getuid() else subprocess.DEVNULL,
            env=env, cwd=home, **as_user,
        )  # fmt: skip
        server = Postgres(port, folder)
        try:
            wait_for(lambda: listening(port), "PostgreSQL")
            wait_for(
                lambda: subprocess.run([str(folder / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)], capture_output=True).returncode == 0,
                "PostgreSQL ready",
            )  # fmt: skip
            yield server
        finally:
            process.send_signal(2)
            process.wait(timeout=20)
    finally:
        shutil.rmtree(home, ignore_errors=True)
