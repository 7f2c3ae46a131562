"""The chains that carry the load: something listens, and behind it is the service.

Rules:

- A chain has a name, ``start(service_port)``, ``port``, ``pids`` by role and ``stop()``, and nothing else that the
  measurements use. A chain whose program is missing raises :class:`Missing` with a sentence for people.
- Every port is the kernel's choice; everything started is stopped.

What must not live here: loads, statistics, printing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
START_TIMEOUT = 15.0


class Missing(Exception):  # noqa: N818 - a state of the machine
    """This chain cannot run here; the message says what to install."""


class Chain:
    """Base: starts processes, knows how to stop them.

    Attributes:
        port: Where the load connects, on 127.0.0.1.
        pids: Process ids by role, such as ``edge`` and ``agent``; empty where there is no process of its own.
    """

    name = "chain"

    def __init__(self) -> None:
        self.port = 0
        self.pids: dict[str, int] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def start(self, service_port: int) -> None:
        """Start, and return when connections pass."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop every process that was started here."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        self._processes.clear()
        self.pids.clear()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    @property
    def directory(self) -> Path:
        """A directory for configuration, gone after :meth:`stop`."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="drtp-bench-")
        return Path(self._directory.name)

    def spawn(self, role: str, *command: str) -> subprocess.Popen[str]:
        """Start a process under a role."""
        log = (self.directory / f"{role}.log").open("w")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        self._processes.append(process)
        self.pids[role] = process.pid
        return process

    def read_line(self, role: str, process: subprocess.Popen[str]) -> dict:
        """Return the line of JSON that a process prints once it is ready."""
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Missing(f"{self.name}: {role} did not start: {self.log(role)}")
        return json.loads(line)

    def log(self, role: str) -> str:
        """Return the end of what a role wrote to standard error."""
        with contextlib.suppress(OSError):
            return (self.directory / f"{role}.log").read_text()[-2000:].strip()
        return ""

    def wait_for_echo(self) -> None:
        """Return once a byte comes back through the whole chain."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.settimeout(1)
                probe.sendall(b"H")
                if probe.recv(1) == b"h":
                    return
            time.sleep(0.05)
        logs = "; ".join(f"{role}: {self.log(role)}" for role in self.pids)
        raise Missing(f"{self.name}: no connection passed within {START_TIMEOUT:.0f} s ({logs})")


class Service(Chain):
    """The service behind every chain."""

    name = "service"

    def __init__(self, load: Path) -> None:
        super().__init__()
        self.load = load

    def start(self, service_port: int = 0) -> None:  # noqa: ARG002 - it is what others are pointed at
        process = self.spawn("service", str(self.load), "service")
        self.port = self.read_line("service", process)["port"]


class Direct(Chain):
    """No tunnel at all: what the load itself costs."""

    name = "direct"

    def start(self, service_port: int) -> None:
        self.port = service_port


class Haproxy(Chain):
    """Two haproxy processes one behind the other, as relays without encryption."""

    name = "haproxy"

    def start(self, service_port: int) -> None:
        program = shutil.which("haproxy")
        if program is None:
            raise Missing("haproxy is not installed (Debian: apt-get install haproxy)")
        back, self.port = free_port(), free_port()
        self._hop(program, "agent", back, service_port)
        self._hop(program, "edge", self.port, back)
        self.wait_for_echo()

    def _hop(self, program: str, role: str, port: int, target: int) -> None:
        file = self.directory / f"{role}.cfg"
        file.write_text(
            "global\n  maxconn 8000\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
            f"listen relay\n  bind 127.0.0.1:{port} backlog 4096\n  server next 127.0.0.1:{target}\n"
        )
        self.spawn(role, program, "-db", "-q", "-f", str(file))


class Bare(Chain):
    """The project's own data path between two processes, with nothing of the product around it."""

    def __init__(self, *, tls: bool, name: str | None = None, options: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.tls = tls
        self.name = name or ("drtp-tls" if tls else "drtp")
        self.options = options

    def start(self, service_port: int) -> None:
        flags = ["--tls" if self.tls else "--plain", "--directory", str(self.directory), *self.options]
        node = [sys.executable, str(HERE / "node.py")]
        edge = self.spawn("edge", *node, "edge", *flags)
        ports = self.read_line("edge", edge)
        self.port = ports["visitors"]
        agent = self.spawn(
            "agent", *node, "agent", *flags, "--edge", str(ports["tunnel"]), "--service", str(service_port)
        )
        self.read_line("agent", agent)
        self.wait_for_echo()


class Rathole(Chain):
    """A rathole binary of the user's."""

    name = "rathole"

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program

    def start(self, service_port: int) -> None:
        if shutil.which(self.program) is None:
            raise Missing(f"rathole: {self.program} is not a program")
        control, self.port = free_port(), free_port()
        server, client = self.directory / "server.toml", self.directory / "client.toml"
        server.write_text(
            f'[server]\nbind_addr = "127.0.0.1:{control}"\ndefault_token = "bench"\n'
            f'[server.services.bench]\nbind_addr = "127.0.0.1:{self.port}"\nnodelay = true\n'
        )
        client.write_text(
            f'[client]\nremote_addr = "127.0.0.1:{control}"\ndefault_token = "bench"\n'
            f'[client.services.bench]\nlocal_addr = "127.0.0.1:{service_port}"\nnodelay = true\n'
        )
        self.spawn("edge", self.program, "--server", str(server))
        self.spawn("agent", self.program, "--client", str(client))
        self.wait_for_echo()


PEERS = {"rathole": Rathole}
"""Programs that ``--peer NAME=PATH`` can add."""


def free_port() -> int:
    """Return a port that was free a moment ago, for programs that cannot report the kernel's choice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
