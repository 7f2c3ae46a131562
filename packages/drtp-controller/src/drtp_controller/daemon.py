"""``drtp controller``: the controller and the registration API against a real Kubernetes API.

Rules:
- One replica acts, the one that holds the Lease; the others wait, answer ``/healthz`` and refuse the rest with 503.
- A leader that lost its Lease ends: its successor starts from what is stored.
What must not enter: anything that only a single machine has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from drtp_api.clustergateways import ClusterGateway
from drtp_api.errors import DrtpError, ExitCode
from drtp_api.gateways import Gateway, GatewayContext
from drtp_api.kube import REFERENCE_GRANTS, TCP_ROUTES, TLS_ROUTES, UDP_ROUTES, HttpKube, Kube, Resource, find_config
from drtp_api.kube.discovery import served
from drtp_api.plugins import load_plugins
from drtp_api.resources import Protocol
from drtp_api.statedir import ensure_directory
from drtp_controller.planners.gateway import GatewayConfig
from drtp_controller.planners.ports import PortState
from drtp_controller.planners.service import Front
from drtp_controller.reconcile.controller import Controller, ControllerConfig
from drtp_controller.reconcile.leader import LeaderElection
from drtp_controller.reconcile.leaderslice import Replica, lead_services
from drtp_controller.reconcile.probe import bind_probe
from drtp_controller.registration.app import create_app
from drtp_controller.registration.auth import SelfReviews
from drtp_controller.registration.hub import Hub
from drtp_controller.registration.keys import ensure_installation, ensure_issuer, ensure_namespaces
from drtp_controller.registration.registrar import Registrar
from drtp_controller.registration.server import HttpServer
from drtp_controller.registration.standby import Standby

__all__ = ["DaemonSettings", "run_daemon"]

_log = logging.getLogger(__name__)

_CONTROLLER = "drtp.datumapis.com/gateway"


@attrs.frozen(kw_only=True)
class DaemonSettings:
    """What the daemon is told. ``listen`` is where the registration API answers."""

    kubeconfig: Path | None
    state_dir: Path
    gateway: str
    picker: str
    gateway_host: str
    public_host: str | None
    http_port: int
    listen: tuple[str, int]
    base_domain: str
    ports: tuple[int, int]
    replica: Replica = Replica()
    gateway_options: Mapping[str, Any] = attrs.field(factory=dict)


def run_daemon(settings: DaemonSettings) -> int:
    """Run until a signal comes, or until leadership is lost; return the exit code.

    Raises:
        DrtpError: Why it could not start.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    return asyncio.run(_run(settings))


async def _run(settings: DaemonSettings) -> int:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    plugins = load_plugins()
    gateway: Gateway | ClusterGateway = plugins.gateways.create(settings.gateway, settings.gateway_options)
    picker = plugins.pickers.create(settings.picker)
    async with contextlib.AsyncExitStack() as stack:
        kube = await stack.enter_async_context(HttpKube(await find_config(settings.kubeconfig)))
        await ensure_namespaces(kube)
        standby = await _listen(stack, settings)
        election = LeaderElection(kube, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
        running = asyncio.create_task(election.run())
        stack.push_async_callback(_cancelled, running)
        if not await _first(election.elected, stopped):
            return ExitCode.OK
        stack.push_async_callback(election.release)
        _log.info("leading as %s", election.state.identity)
        shared, front = await _front(stack, kube, gateway, settings)
        config = ControllerConfig(
            installation=await ensure_installation(kube),
            base_domain=settings.base_domain,
            front=front,
            gateway=shared,
            ports=settings.ports,
            # a port of a cluster's gateway is not one of this machine
            is_free=bind_probe(settings.gateway_host) if shared.programs else _free,
            picker=picker,
        )
        controller = Controller(kube, config, gateway)
        reconciling = asyncio.create_task(controller.run())
        reconciling.add_done_callback(lambda _: stopped.set())
        stack.push_async_callback(_cancelled, reconciling)
        await _serve(stack, controller, kube, standby)
        await lead_services(kube, settings.replica)
        led = not await _first(stopped, election.ended)
        if reconciling.done() and not reconciling.cancelled() and (error := reconciling.exception()) is not None:
            if isinstance(error, DrtpError):
                raise error
            raise DrtpError("DRTP-1000", f"the controller ended: {error}") from error
        if led:
            _log.warning("another controller leads now")
    return ExitCode.OK


async def _front(
    stack: contextlib.AsyncExitStack, kube: Kube, gateway: Gateway | ClusterGateway, settings: DaemonSettings
) -> tuple[GatewayConfig, Front]:
    """Start our own gateway, or find out what the cluster's is."""
    if isinstance(gateway, ClusterGateway):
        name, info = f"{_CONTROLLER}-{gateway.name}", await gateway.connect(kube)
        config = GatewayConfig.of_cluster(info, controller_name=name, http_port=settings.http_port)
        return config, Front(host=settings.public_host or "", http_port=settings.http_port)
    ensure_directory(settings.state_dir)
    stack.push_async_callback(gateway.stop)
    context = GatewayContext(
        state_dir=settings.state_dir, listen_host=settings.gateway_host, http_port=settings.http_port
    )
    started = await gateway.start(context)
    config = GatewayConfig(
        controller_name=f"{_CONTROLLER}-{gateway.name}",
        http_port=started.http_port,
        tcp_routes=await _served(kube, TCP_ROUTES),
        udp_routes=await _served(kube, UDP_ROUTES),
        tls_routes=await served(kube, TLS_ROUTES),
        grants=await served(kube, REFERENCE_GRANTS, ("v1", "v1beta1")),
    )
    return config, Front(host=settings.public_host or started.host, http_port=started.http_port)


def _free(protocol: Protocol, port: int) -> PortState:
    del protocol, port
    return PortState.FREE


async def _listen(stack: contextlib.AsyncExitStack, settings: DaemonSettings) -> Standby:
    """Answer from now on, though nobody leads yet."""
    host, port = settings.listen
    try:
        sock = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise DrtpError("DRTP-1014", f"the registration API cannot listen on {host}:{port}: {error}") from error
    sock.setblocking(False)
    standby = Standby()
    server = HttpServer(standby, sock)
    await server.start()
    stack.push_async_callback(server.stop)
    return standby


async def _serve(stack: contextlib.AsyncExitStack, controller: Controller, kube: HttpKube, standby: Standby) -> None:
    hub = Hub(controller)
    registrar = Registrar(controller, await ensure_issuer(kube))
    standby.app = create_app(registrar, SelfReviews(kube.config), hub)

    def retire() -> None:
        standby.app = None
        hub.close()

    stack.callback(retire)


async def _served(kube: Kube, resource: Resource) -> Resource:
    """Return the route's resource at the version that this API serves: v1 since Gateway API 1.6, else v1alpha2."""
    found = await served(kube, resource, ("v1", "v1alpha2"))
    if found is not None:
        return found
    raise DrtpError(
        "DRTP-2031", f"the API does not serve {resource.qualified}",
        hint="Install the Gateway API's definitions, with TCPRoute and UDPRoute.",
    )  # fmt: skip


async def _first(one: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait for either event; return whether the first one is set."""
    tasks = [asyncio.create_task(e.wait()) for e in (one, other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return one.is_set()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
