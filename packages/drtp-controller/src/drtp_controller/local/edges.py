"""The edges of the local cloud: one child process each, started again when it dies.

Rules:
- An edge is the real daemon with its own token, certificate and port; it is told nothing that a flag cannot say.
- When the process is gone, what it said of itself is taken back at once: nobody waits for a lease to run out that
  nobody will renew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from drtp_api.children import Child, ChildSpec, RestartPolicy, Supervisor
from drtp_api.errors import DrtpError
from drtp_api.kube import DRTP_CONNECTIONS, DRTP_SERVERS, LEASES, Conflict, Kube, KubeError, NotFound
from drtp_api.resources import SYSTEM_NAMESPACE

__all__ = ["CITIES", "City", "EdgeOptions", "EdgeProcess", "take_back"]

_log = logging.getLogger(__name__)

READY_SECONDS = 30.0
DRAIN_SECONDS = 10.0


@attrs.frozen
class City:
    """A place for an edge to pretend to be in."""

    code: str
    latitude: str
    longitude: str


CITIES = (
    City("NYC", "40.7128", "-74.0060"),
    City("AMS", "52.3676", "4.9041"),
    City("SIN", "1.3521", "103.8198"),
    City("GRU", "-23.5505", "-46.6333"),
    City("SYD", "-33.8688", "151.2093"),
    City("JNB", "-26.2041", "28.0473"),
    City("NRT", "35.6762", "139.6503"),
    City("LAX", "34.0522", "-118.2437"),
)


@attrs.frozen(kw_only=True)
class EdgeOptions:
    """What one edge is started with. ``direct_http_port`` is set where the edges are the gateway themselves."""

    name: str
    city: City
    kubeconfig: Path
    certificate: Path
    key: Path
    ca_bundle: Path
    server_name: str
    host: str
    tunnel_port: int
    log_file: Path
    direct_http_port: int | None = None

    def command(self) -> tuple[str, ...]:
        """Return the command line."""
        words = [
            sys.executable, "-m", "drtp_edge",
            "--name", self.name,
            "--coordinates", f"{self.city.latitude},{self.city.longitude}",
            "--city", self.city.code,
            "--kubeconfig", str(self.kubeconfig),
            "--tunnel-listen", f"{self.host}:{self.tunnel_port}",
            "--tls-cert", str(self.certificate),
            "--tls-key", str(self.key),
            "--ca-bundle", str(self.ca_bundle),
            "--server-name", self.server_name,
            "--data-host", self.host,
            "--data-ports", "0",
            "--admin", f"{self.host}:0",
            "--log-format", "json",
        ]  # fmt: skip
        if self.direct_http_port is not None:
            words += ["--direct", self.host, "--direct-http-port", str(self.direct_http_port)]
        return tuple(words)


class EdgeProcess:
    """One supervised edge. ``on_gone`` is called when the process died, ``on_again`` when its successor is up."""

    def __init__(
        self,
        options: EdgeOptions,
        *,
        choose_port: Callable[[], int],
        on_gone: Callable[[str], None],
        on_again: Callable[[EdgeProcess], None],
    ) -> None:
        self.options = options
        self.report: dict[str, Any] = {}
        self._ready = asyncio.Event()
        self._was_ready = False
        self._choose_port = choose_port
        self._on_gone = on_gone
        self._on_again = on_again
        self._supervisor = Supervisor(
            self._spec(), policy=RestartPolicy(), on_line=self._line, on_start=self._started, on_end=self._ended
        )

    @property
    def pid(self) -> int:
        """The process whose death kills this edge."""
        child = self._supervisor.child
        return child.pid if child is not None else 0

    @property
    def tunnel_address(self) -> str:
        """Where agents dial."""
        return str(self.report.get("tunnel") or f"{self.options.host}:{self.options.tunnel_port}")

    async def start(self) -> None:
        """Start the process; it is not ready yet.

        Raises:
            DrtpError: DRTP-3001; it cannot be run at all.
        """
        try:
            await self._supervisor.start()
        except OSError as error:
            raise DrtpError("DRTP-3001", f"the edge {self.options.name} cannot be started: {error}") from error

    async def wait_ready(self) -> None:
        """Wait until the edge says that it listens.

        Raises:
            DrtpError: DRTP-3001; it did not within :data:`READY_SECONDS`; its last lines are in the message.
        """
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._ready.wait()
        except TimeoutError as error:
            child = self._supervisor.child
            tail = child.tail if child is not None else ""
            raise DrtpError(
                "DRTP-3001", f"the edge {self.options.name} does not get ready; its last lines:\n{tail}",
                hint=f"Look at {self.options.log_file}.",
            ) from error  # fmt: skip

    async def stop(self) -> None:
        """Let the edge drain, then end it."""
        await self._supervisor.stop(timeout=DRAIN_SECONDS)

    def _spec(self) -> ChildSpec:
        return ChildSpec(
            name=self.options.name,
            command=self.options.command(),
            log_file=self.options.log_file,
            open_files=1_048_576,
        )

    def _started(self, _child: Child) -> None:
        self._ready.clear()

    def _line(self, line: str) -> None:
        if '"edge_ready"' not in line:
            return
        try:
            report = json.loads(line)
        except ValueError:
            return
        if isinstance(report, dict) and report.get("type") == "edge_ready":
            self.report = report
            self._ready.set()
            if self._was_ready:
                self._on_again(self)
            self._was_ready = True

    def _ended(self, child: Child, code: int) -> None:
        _log.warning("the edge %s ended with %s and is started again", self.options.name, code)
        if not self._ready.is_set() and "DRTP-3001" in child.tail:
            # somebody took the port between our look and its bind
            self.options = attrs.evolve(self.options, tunnel_port=self._choose_port())
            self._supervisor.spec = self._spec()
        self._on_gone(self.options.name)


async def take_back(kube: Kube, server: str | None, *, keep: frozenset[str] = frozenset()) -> None:
    """Take back what edges said of themselves: leases, and tunnels in connections' status.

    Args:
        kube: a client that may write all of it.
        server: the edge that is gone, ``None`` for every edge of an earlier run.
        keep: with ``None``, names of the edges of this run; the DRTPServers of others are deleted.
    """
    for lease in (await kube.list(LEASES, SYSTEM_NAMESPACE)).items:
        name = lease["metadata"]["name"]
        if server is None or name == server:
            await _ignoring_absence(kube.delete(LEASES, name, SYSTEM_NAMESPACE))
    if server is None:
        for obj in (await kube.list(DRTP_SERVERS)).items:
            if obj["metadata"]["name"] not in keep:
                await _ignoring_absence(kube.delete(DRTP_SERVERS, obj["metadata"]["name"]))
    for connection in (await kube.list(DRTP_CONNECTIONS)).items:
        await _disconnect(kube, connection, server)


async def _disconnect(kube: Kube, connection: dict[str, Any], server: str | None) -> None:
    for _ in range(5):
        changed = False
        for binding in (connection.get("status") or {}).get("servers") or ():
            if binding.get("clientStatus") == "Connected" and server in {None, binding.get("name")}:
                binding["clientStatus"] = "Disconnected"
                binding.pop("publicAddress", None)
                changed = True
        if not changed:
            return
        metadata = connection["metadata"]
        try:
            await kube.update_status(DRTP_CONNECTIONS, connection)
        except NotFound:
            return
        except Conflict:
            connection = await kube.get(DRTP_CONNECTIONS, metadata["name"], metadata["namespace"])
        else:
            return


async def _ignoring_absence(call: Any) -> None:
    try:
        await call
    except NotFound:
        return
    except KubeError as error:
        _log.warning("cannot take back what an edge said: %s", error)
