"""The control plane at its promised size: each figure beside its target, on this machine, now.

Rules:
- Real parts only: the embedded API over HTTP, the controller, the registration code of edges, `drtp local` with Envoy.
- Each part runs in a process of its own, so that one's memory is not the other's.
- A figure is printed whether or not it reaches its target; ``--check`` makes the exit code say it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import logging
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import psutil

from drtp_api.grants import GrantVerifier
from drtp_api.kube import (
    DRTP_CONNECTIONS,
    DRTP_SERVERS,
    DRTP_SERVICES,
    LEASES,
    HttpKube,
    Kube,
    KubeConfig,
    Reflector,
    WatchEventType,
    list_all,
    load_kubeconfig,
)
from drtp_api.resources import SYSTEM_NAMESPACE, Protocol
from drtp_api.wire import object_to_wire
from drtp_controller.apiserver import EmbeddedApiServer, Role, User
from drtp_controller.apiserver.asgi import AsgiApp
from drtp_controller.planners.servers import is_online
from drtp_controller.registration.keys import ensure_namespaces
from drtp_controller.testing import ControlPlane, control_plane, make_connection, make_server, make_service
from drtp_edge.catalog import Catalog
from drtp_edge.objects import BindingFacts, ServerFacts, micro_time
from drtp_edge.registration import Registration
from drtp_testkit.cloud import LocalCloud

TOKEN = "scale"  # noqa: S105 - of a server that lives as long as this program
ADMIN = User("scale", Role.ADMIN)
PATIENCE = 600.0
CREATORS = 16
URL = "url"
"""The file in a part's directory that says where its API server is."""
NEVER = 86_400
"""Seconds that a lease of the populated servers lasts: nobody renews them here."""


@attrs.frozen
class Size:
    """How much of everything."""

    servers: int
    connections: int
    services: int
    samples: int
    tunnels: int
    quiet: float


FULL = Size(servers=1000, connections=10_000, services=1000, samples=60, tunnels=1000, quiet=20.0)
QUICK = Size(servers=20, connections=200, services=20, samples=6, tunnels=50, quiet=11.0)


@attrs.frozen
class Figure:
    """One measured value; ``target`` bounds it from above, ``None`` where there is no promise."""

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def reached(self) -> bool:
        """Whether it keeps the promise."""
        return self.target is None or self.value <= self.target

    def line(self) -> str:
        """Return the row of the table."""
        shown = f"{self.value:,.0f}" if self.value == int(self.value) else f"{self.value:,.3f}"
        wanted = "-" if self.target is None else f"≤ {self.target:g} {self.unit}".rstrip()
        verdict = "" if self.target is None else "ok" if self.reached else "MISSED"
        return f"{self.name:62} {shown + ' ' + self.unit:>16}  {wanted:>10}  {verdict}".rstrip()


async def until(condition: Callable[[], bool], *, pause: float = 0.005) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - caches have no event per condition
            await asyncio.sleep(pause)


async def at_rest(plane: ControlPlane, seconds: float = 0.3) -> float:
    """Wait until the controller has had nothing to do for a while; return when that began."""
    last, since = (-1, -1, -1), time.perf_counter()
    async with asyncio.timeout(PATIENCE):
        while True:
            controller = plane.controller
            now = (controller.queue.runs, controller.applier.writes, controller.runtime.applies)
            if now != last or not controller.queue.state.idle:
                last, since = now, time.perf_counter()
            elif time.perf_counter() - since > seconds:
                return since
            await asyncio.sleep(0.005)


async def in_parallel(work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Do ``count`` pieces of work, a few at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(CREATORS):
            group.create_task(worker())


# objects on the embedded API


async def populate(directory: Path, size: Size) -> None:
    """Write servers, services and connections, and let a controller say everything that it has to say of them."""
    server = EmbeddedApiServer(directory, allow_loopback_endpoints=True)
    kube = server.kube(ADMIN)
    try:
        await ensure_namespaces(kube)
        spec = {"leaseDurationSeconds": NEVER, "renewTime": micro_time(time.time())}
        for number in range(size.servers):
            name = f"edge-{number:04}"
            await kube.create(DRTP_SERVERS, _bare(object_to_wire(make_server(name))))
            lease = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": name}}
            await kube.create(LEASES, lease | {"spec": {"holderIdentity": name, **spec}}, SYSTEM_NAMESPACE)
        for number in range(size.services):
            service = make_service(f"svc-{number:04}", max_agents=25)
            await kube.create(DRTP_SERVICES, _bare(object_to_wire(service)), "default")
        for number in range(size.connections):
            body = _bare(object_to_wire(make_connection(f"svc-{number % size.services:04}", f"{number:032x}")))
            body["metadata"]["name"] = f"conn-{number:05}"
            first = number % size.servers
            body["spec"]["servers"] = [
                {"role": "Primary", "name": f"edge-{first:04}"},
                {"role": "Secondary", "name": f"edge-{(first + 1) % size.servers:04}"},
            ]
            await kube.create(DRTP_CONNECTIONS, body, "default")
    finally:
        await server.stop()
    async with control_plane(directory) as plane:
        await at_rest(plane)


def _bare(obj: dict[str, Any]) -> dict[str, Any]:
    for name in ("uid", "generation"):
        obj["metadata"].pop(name, None)
    obj.pop("status", None)
    return obj


async def objects(directory: Path, size: Size) -> list[Figure]:
    """Measure a controller's start over everything, its answers to a client, its memory, and its silence."""
    what = f"{size.connections:,} connections and {size.servers:,} servers"
    began = time.perf_counter()
    async with control_plane(directory) as plane:
        resync = await at_rest(plane) - began
        plane.server.app = AsgiApp(plane.server.api, {TOKEN: ADMIN})
        await plane.server.start()
        (directory / URL).write_text(plane.server.url)
        # the client has a process of its own: what it holds is not the controller's
        answers = await asyncio.to_thread(measure, "client", directory, size)
        await at_rest(plane)
        controller, store = plane.controller, plane.server.store
        runs, revision = controller.queue.runs, store.revision
        await asyncio.sleep(size.quiet)
        memory = psutil.Process().memory_info().rss / 2**20
        return [
            *answers,
            Figure(f"{what}: full resync of the controller", resync, "s", 5.0),
            Figure("RSS of API server and controller in one process", memory, "MB", 400.0),
            Figure(f"reconciles in {size.quiet:.0f} quiet seconds", controller.queue.runs - runs, "", 0),
            Figure(f"writes in {size.quiet:.0f} quiet seconds", store.revision - revision, "", 0),
        ]


async def client(directory: Path, size: Size) -> list[Figure]:
    """Measure a list and the start of a watch over HTTP."""
    what = f"{size.connections:,} connections and {size.servers:,} servers"
    async with HttpKube(KubeConfig(server=(directory / URL).read_text(), token=TOKEN)) as kube:
        began = time.perf_counter()
        listed = await list_all(kube, DRTP_CONNECTIONS)
        list_seconds = time.perf_counter() - began
        assert len(listed.items) == size.connections
        reflector = Reflector(kube, DRTP_CONNECTIONS)
        began = time.perf_counter()
        task = asyncio.create_task(reflector.run())
        await reflector.synced.wait()
        watch_seconds = time.perf_counter() - began
        assert len(reflector.cache) == size.connections
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return [
        Figure(f"{what}: list over HTTP", list_seconds, "s", 5.0),
        Figure(f"{what}: watch start over HTTP", watch_seconds, "s", 5.0),
    ]


# what edges write while nothing happens


@attrs.define
class IdleEdge:
    """An edge that carries tunnels on which nothing happens; all that it says is said by the real code."""

    name: str
    tunnels: tuple[str, ...] = ()

    def server_facts(self) -> ServerFacts:
        """Return what it says of itself."""
        return ServerFacts(
            name=self.name, instance=self.name, latitude="1.0", longitude="2.0", city="NYC",
            endpoints=({"address": "127.0.0.1", "port": 7000, "transport": "tcp"},), server_name="edge.test",
            ca_bundle=None, capacity=10_000, pod_ip="127.0.0.1", version="0.1.0", draining=False,
            connections=len(self.tunnels), health=100,
        )  # fmt: skip

    def binding_facts(self, connection: str) -> BindingFacts:
        """Return what it says of a tunnel."""
        del connection
        return BindingFacts(connected=True, pod_ip="127.0.0.1", pod_port=50_000, rtt_milliseconds=5, transport="tcp")

    def carried_connections(self) -> tuple[str, ...]:
        """Return the connections of its tunnels."""
        return self.tunnels

    def connection_deleted(self, connection: str) -> None:
        """Hear of a deleted connection; there is none."""

    def catalog_changed(self) -> None:
        """Hear of new objects; nothing depends on them here."""


async def idle(directory: Path, size: Size) -> list[Figure]:
    """Measure what two edges with idle tunnels, and the controller above them, write."""
    log = logging.getLogger("scale")
    async with control_plane(directory) as plane:
        kube = plane.server.kube(ADMIN)
        await kube.create(DRTP_SERVICES, _bare(object_to_wire(make_service("idle", max_agents=25))), "default")
        names = tuple(f"conn-{number:05}" for number in range(size.tunnels))
        edges = [IdleEdge(name, tuple(f"default/{n}" for n in names)) for name in ("edge-a", "edge-b")]
        running = []
        for edge in edges:
            registration = Registration(
                kube=plane.server.kube(User(f"drtp-edge:{edge.name}", Role.EDGE)), name=edge.name, facts=edge, catalog=Catalog(edge.name),
                verifier=GrantVerifier(edge.name), log=log,  # type: ignore[arg-type]
            )  # fmt: skip
            registration.watch()
            await registration.synced.wait()
            registration.announce()
            running.append(registration)
        await until(lambda: sum(is_online(s) for s in plane.controller.caches.servers) == len(edges))
        for number, name in enumerate(names):
            body = _bare(object_to_wire(make_connection("idle", f"{number:032x}")))
            body["metadata"]["name"] = name
            body["spec"]["servers"] = [
                {"role": "Primary", "name": "edge-a"}, {"role": "Secondary", "name": "edge-b"},
            ]  # fmt: skip
            await kube.create(DRTP_CONNECTIONS, body, "default")
        await at_rest(plane, 6.0)
        revision, runs, began = plane.server.store.revision, plane.controller.queue.runs, time.perf_counter()
        await asyncio.sleep(max(size.quiet, 10.0))
        taken = time.perf_counter() - began
        writes = (plane.server.store.revision - revision) / taken
        reconciles = plane.controller.queue.runs - runs
        for registration in running:
            await registration.close()
    what = f"{size.tunnels:,} agents with two idle tunnels each"
    return [
        Figure(f"{what}: writes a second", writes, "/s", 2.0),
        Figure(f"{what}: reconciles in {taken:.0f} s", reconciles, "", 0),
    ]


# services through to Envoy


async def envoy(directory: Path, size: Size) -> list[Figure]:
    """Measure from a new DRTPService to Envoy's word that it listens, in a fresh cloud and among many."""
    with LocalCloud(directory) as cloud:
        info = await asyncio.to_thread(cloud.ready)
        async with HttpKube(load_kubeconfig(Path(info["kubeconfig"]))) as kube:
            watcher = Programmed()
            task = asyncio.create_task(watcher.run(kube))
            await watcher.watching.wait()
            fresh = [await _expose(kube, watcher, f"fresh-{n}") for n in range(size.samples)]
            began = time.perf_counter()
            names = [f"many-{n:04}" for n in range(size.services)]
            await in_parallel(lambda n: _create(kube, names[n]), len(names))
            await until(lambda: all(name in watcher.since for name in names), pause=0.02)
            many = time.perf_counter() - began
            listeners = await asyncio.to_thread(count_listeners, info["gateway"]["admin"])
            assert listeners >= size.services + size.samples, listeners
            late = [await _expose(kube, watcher, f"late-{n}") for n in range(max(5, size.samples // 3))]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return [
        Figure("new DRTPService to programmed Envoy listener, p50", statistics.median(fresh) * 1000, "ms"),
        Figure("new DRTPService to programmed Envoy listener, p95", percentile(fresh, 95) * 1000, "ms", 300.0),
        Figure(f"{size.services:,} services through to Envoy listeners", many, "s"),
        Figure("Envoy's listeners then, by its own count", listeners, ""),
        Figure(f"one more among these {listeners:,}, p95", percentile(late, 95) * 1000, "ms"),
    ]


class Programmed:
    """Notes when each service was programmed, as its watchers see it."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}
        self.watching = asyncio.Event()
        self.changed = asyncio.Event()

    async def run(self, kube: Kube) -> None:
        """Watch until cancelled."""
        start = await kube.list(DRTP_SERVICES, "default")
        self.watching.set()
        async for event in kube.watch(DRTP_SERVICES, "default", resource_version=start.resource_version):
            if event.type not in {WatchEventType.ADDED, WatchEventType.MODIFIED}:
                continue
            conditions = (event.object.get("status") or {}).get("conditions") or ()
            if any(c["type"] == "Programmed" and c["status"] == "True" for c in conditions):
                self.since.setdefault(event.object["metadata"]["name"], time.perf_counter())
                self.changed.set()


async def _create(kube: Kube, name: str) -> None:
    service = make_service(name, protocol=Protocol.TCP)
    await kube.create(DRTP_SERVICES, _bare(object_to_wire(service)), "default")


async def _expose(kube: Kube, watcher: Programmed, name: str) -> float:
    began = time.perf_counter()
    await _create(kube, name)
    async with asyncio.timeout(PATIENCE):
        while name not in watcher.since:
            watcher.changed.clear()
            await watcher.changed.wait()
    return watcher.since[name] - began


def count_listeners(admin: str) -> int:
    """Ask Envoy, through its admin socket, how many listeners it has."""
    connection = http.client.HTTPConnection("envoy", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(admin)
    with contextlib.closing(connection):
        connection.request("GET", "/listeners?format=json")
        return len(json.loads(connection.getresponse().read())["listener_statuses"])


def percentile(values: list[float], percent: int) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * percent // 100) - 1)]


# processes


PARTS = {"populate": populate, "objects": objects, "client": client, "idle": idle, "envoy": envoy}


def measure(part: str, directory: Path, size: Size) -> list[Figure]:
    """Run one part in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", part, "--directory", str(directory), "--size", json.dumps(attrs.asdict(size))],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return [Figure(**entry) for entry in json.loads(done.stdout)]


def main() -> int:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: proves the measuring, not the promise")
    parser.add_argument("--only", choices=["objects", "idle", "envoy"], help="one part")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        figures = asyncio.run(PARTS[options.part](options.directory, Size(**json.loads(options.size))))
        json.dump([attrs.asdict(f) for f in figures or ()], sys.stdout)
        return 0
    size = QUICK if options.quick else FULL
    missed = 0
    with tempfile.TemporaryDirectory(prefix="drtp-scale-") as root:
        for part in ("objects", "idle", "envoy"):
            if options.only not in {None, part}:
                continue
            directory = Path(root) / part
            if part == "objects":
                measure("populate", directory, size)
            for figure in measure(part, directory, size):
                print(figure.line(), flush=True)
                missed += not figure.reached
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
