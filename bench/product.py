"""The chains of the real product, with everything on: access rules, deadlines, records, metrics.

Rules: as in ``chains.py``; the programs are started as their users start them, with options that they document.
What must not live here: the bare data path.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from chains import HERE, START_TIMEOUT, Chain, Missing, free_port

from drtp_api.dataplane.testing import make_certificate

_SERVICE = "bench/service"
_KEY_ID = "bench"
_KEY = "a key that only benchmarks know"


class Edge(Chain):
    """``drtp-edge --standalone`` with a public port, plaintext, and a laboratory agent behind it."""

    name = "drtp-edge"

    def start(self, service_port: int) -> None:
        self.port = free_port()
        certificate = make_certificate(self.directory)
        file = self.directory / "standalone.json"
        service = {"key": _SERVICE, "psk": _KEY, "pskID": _KEY_ID, "port": self.port}
        file.write_text(json.dumps({"services": [service], "plaintext": True}))
        edge = self.spawn(
            "edge",
            *(sys.executable, "-m", "drtp_edge", "--name", "bench", "--standalone", str(file)),
            *("--tunnel-listen", "127.0.0.1:0", "--direct", "127.0.0.1", "--admin", "127.0.0.1:0"),
            *("--tls-cert", str(certificate.certificate_file), "--tls-key", str(certificate.key_file)),
        )
        tunnel = self.read_line("edge", edge)["tunnel"].rpartition(":")[2]
        agent = self.spawn(
            "agent",
            *(sys.executable, str(HERE / "lab.py"), "--edge", tunnel, "--service", str(service_port)),
            *("--name", _SERVICE, "--key-id", _KEY_ID, "--key", _KEY),
        )
        self.read_line("agent", agent)
        self.wait_for_echo()


class Product(Chain):
    """``drtp local --gateway direct`` and ``datumctl-serve tcp://... --public``: what users run, with TLS."""

    name = "drtp-product"

    def start(self, service_port: int) -> None:
        state = self.directory / "state"
        programs = Path(sys.executable).parent
        for program in ("drtp", "datumctl-serve"):
            if not (programs / program).exists():
                raise Missing(f"{self.name}: {program} is not installed beside {sys.executable}")
        free = ("--http-port", "0", "--api-port", "0", "--registration-port", "0", "--servers", "1")
        cloud = self.spawn(
            "cloud",
            *(str(programs / "drtp"), "local", "--state-dir", str(state), "--gateway", "direct", "-o", "json", *free),
        )
        ready = self.read_event("cloud", cloud, "local_ready")
        # The load goes through the edge and the agent; the control plane beside them is not measured.
        del self.pids["cloud"]
        self.pids["edge"] = ready["servers"][0]["pid"]
        agent = self.spawn(
            "agent",
            *("env", f"DRTP_STATE_DIR={state}", str(programs / "datumctl-serve"), f"tcp://127.0.0.1:{service_port}"),
            *("--public", "--name", f"bench-{os.getpid()}", "-o", "json", "--no-target-check"),
        )
        self.port = self.read_event("agent", agent, "tunnel_ready")["addresses"][0]["port"]
        self.wait_for_echo()

    def stop(self) -> None:
        """Stop the agent before its cloud."""
        self._processes.reverse()
        super().stop()

    def read_event(self, role: str, process, kind: str) -> dict:
        """Return the first line of JSON of a type that a process prints."""
        deadline = time.monotonic() + 4 * START_TIMEOUT
        while time.monotonic() < deadline:
            event = self.read_line(role, process)
            if event.get("type") == kind:
                return event
        raise Missing(f"{self.name}: {role} said no {kind}: {self.log(role)}")
