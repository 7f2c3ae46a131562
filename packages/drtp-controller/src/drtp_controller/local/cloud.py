"""Starts and stops the parts of a local cloud in order, and says how to reach them.

Rules:
- What can start at once starts at once: edges and the gateway while the controller is imported and built.
- Parts stop in the reverse order of their start, also when the start fails halfway.
- Nothing is announced before it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import importlib
import json
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from drtp_api.errors import DrtpError
from drtp_api.gateways import Gateway, GatewayContext, GatewayInfo
from drtp_api.kube import TCP_ROUTES, UDP_ROUTES, Kube, KubeError, Unavailable
from drtp_api.pickers import Picker
from drtp_api.plugins import load_plugins
from drtp_api.statedir import LOCAL_FILE, LocalCloud, ensure_directory, write_local, write_private
from drtp_controller.apiserver import EmbeddedApiServer, Role, User
from drtp_controller.local.edges import CITIES, City, EdgeOptions, EdgeProcess, take_back
from drtp_controller.local.pki import Authority, ensure_authority
from drtp_controller.local.settings import LocalSettings
from drtp_controller.local.state import HOST, CloudState, lock_directory, open_state
from drtp_controller.planners.gateway import GatewayConfig
from drtp_controller.planners.servers import is_online
from drtp_controller.planners.service import Front
from drtp_controller.reconcile.controller import Controller, ControllerConfig
from drtp_controller.reconcile.probe import bind_probe
from drtp_controller.registration.keys import ensure_installation, ensure_issuer, ensure_namespaces

__all__ = ["Cloud"]

_log = logging.getLogger(__name__)

READY_SECONDS = 30.0
CONTROLLER_NAME = "drtp.datumapis.com/gateway"


class Cloud:
    """One local cloud. ``on_event`` gets what happens later: an edge that was started again."""

    def __init__(self, settings: LocalSettings, *, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.settings = settings
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_event = on_event
        self._directory = settings.state_dir / "cloud"
        self._stack = contextlib.AsyncExitStack()
        self._edges: list[EdgeProcess] = []
        self._background: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> dict[str, Any]:
        """Start everything and return the ``local_ready`` event.

        Raises:
            DrtpError: DRTP-1013 another cloud runs here; or why a part did not start.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything that was started. Idempotent."""
        self._stopping = True
        stack, self._stack = self._stack, contextlib.AsyncExitStack()
        await stack.aclose()

    async def _start(self) -> dict[str, Any]:
        # a plugin that is missing is said before anything is started
        gateway, picker = self._plugins()
        ensure_directory(self.settings.state_dir)
        self._stack.callback(os.close, lock_directory(self._directory))
        state = open_state(self._directory)
        authority = ensure_authority(self._directory / "pki", now=dt.datetime.now(dt.UTC))
        server = await self._start_api(state, authority)
        kube = server.kube()
        await ensure_namespaces(kube)
        issuer = await ensure_issuer(kube)
        installation = await ensure_installation(kube)
        http_port = state.port("http", self.settings.http_port)
        options = self._edge_options(state, authority, http_port)
        await take_back(server.kube(User("drtp-local", Role.ADMIN)), None, keep=frozenset(o.name for o in options))
        state.save()
        imported = asyncio.create_task(asyncio.to_thread(importlib.import_module, "drtp_controller.registration.app"))
        await self._start_edges(options, state, kube)
        info = await self._start_gateway(gateway, http_port)
        await imported
        controller = self._start_controller(kube, gateway, info, picker, installation)
        registration_url = await self._start_registration(controller, issuer, state)
        await self._everything_answers(controller)
        state.save()
        local = LocalCloud(
            api_url=server.url,
            registration_url=registration_url,
            kubeconfig=str(self._directory / "kubeconfig"),
            user_token=state.token("user"),
            pid=os.getpid(),
            ca_file=str(authority.files.certificate),
        )
        write_local(self.settings.state_dir, local)
        self._stack.callback((self.settings.state_dir / LOCAL_FILE).unlink, missing_ok=True)
        return self._report(local, info)

    # parts, in the order of their start

    async def _start_api(self, state: CloudState, authority: Authority) -> EmbeddedApiServer:
        names = self._edge_names()
        tokens = {
            state.token("admin"): User("drtp-admin", Role.ADMIN),
            state.token("controller"): User("drtp-controller", Role.CONTROLLER),
            state.token("user"): User("drtp-user", Role.USER),
            **{state.token(name): User(f"drtp-edge:{name}", Role.EDGE) for name, _ in names},
        }
        files = authority.ensure_leaf("api", ("localhost", HOST), now=dt.datetime.now(dt.UTC))
        wanted = state.port("api", self.settings.api_port)
        try:
            server = EmbeddedApiServer(
                self._directory / "kubernetes",
                host=HOST,
                port=wanted,
                tls_cert=files.certificate,
                tls_key=files.key,
                tokens=tokens,
                allow_loopback_endpoints=True,
            )
            await server.start()
        except Unavailable as error:
            raise DrtpError("DRTP-1014", error.message) from error
        self._stack.push_async_callback(server.stop)
        for user, path in (("admin", "kubeconfig"), *((n, f"{n}.kubeconfig") for n, _ in names)):
            document = server.kubeconfig(state.token(user), ca_pem=authority.pem, name="drtp-local")
            # JSON is YAML: kubectl and every other reader of kubeconfigs take it
            write_private(self._directory / path, json.dumps(document, indent=1).encode())
        return server

    def _edge_names(self) -> list[tuple[str, City]]:
        return [(f"edge-{city.code.lower()}", city) for city in CITIES[: self.settings.servers]]

    def _edge_options(self, state: CloudState, authority: Authority, http_port: int) -> list[EdgeOptions]:
        logs = ensure_directory(self._directory / "logs")
        ports = self.settings.edge_ports
        options = []
        for index, (name, city) in enumerate(self._edge_names()):
            server_name = f"{name}.tunnel.{self.settings.base_domain}"
            files = authority.ensure_leaf(name, (server_name, HOST), now=dt.datetime.now(dt.UTC))
            options.append(
                EdgeOptions(
                    name=name,
                    city=city,
                    kubeconfig=self._directory / f"{name}.kubeconfig",
                    certificate=files.certificate,
                    key=files.key,
                    ca_bundle=authority.files.certificate,
                    server_name=server_name,
                    host=HOST,
                    tunnel_port=state.port(name, ports[index] if index < len(ports) else 0),
                    log_file=logs / f"{name}.log",
                    direct_http_port=http_port if self.settings.gateway == "direct" else None,
                )
            )
        return options

    async def _start_edges(self, options: list[EdgeOptions], state: CloudState, kube: Kube) -> None:
        for option in options:
            edge = EdgeProcess(
                option,
                choose_port=lambda name=option.name: self._other_port(state, name),  # type: ignore[misc]
                on_gone=lambda name: self._edge_gone(kube, name),
                on_again=self._edge_again,
            )
            self._stack.push_async_callback(edge.stop)
            self._edges.append(edge)
            await edge.start()

    def _other_port(self, state: CloudState, name: str) -> int:
        state.forget_port(name)
        port = state.port(name, 0)
        state.save()
        return port

    def _edge_gone(self, kube: Kube, name: str) -> None:
        if self._stopping:
            return
        task = asyncio.create_task(self._take_back(kube, name))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _take_back(self, kube: Kube, name: str) -> None:
        try:
            await take_back(kube, name)
        except KubeError as error:
            # its lease runs out by itself; until then visitors are kept away by the gateway's health checks
            _log.warning("cannot take back what %s said: %s", name, error)

    def _edge_again(self, edge: EdgeProcess) -> None:
        self._on_event({"type": "server_restarted", **_edge_report(edge)})

    def _plugins(self) -> tuple[Gateway, Picker]:
        plugins = load_plugins()
        gateway: Gateway = plugins.gateways.create(self.settings.gateway, self.settings.gateway_options)
        if not hasattr(gateway, "start"):
            text = f"the gateway {self.settings.gateway} needs a cluster that has one; use envoy or direct here"
            raise DrtpError("DRTP-1004", text)
        picker: Picker = plugins.pickers.create(self.settings.picker)
        return gateway, picker

    async def _start_gateway(self, gateway: Gateway, http_port: int) -> GatewayInfo:
        directory = ensure_directory(self._directory / f"gateway-{gateway.name}")
        self._stack.push_async_callback(gateway.stop)
        return await gateway.start(GatewayContext(state_dir=directory, listen_host=HOST, http_port=http_port))

    def _start_controller(
        self, kube: Kube, gateway: Gateway, info: GatewayInfo, picker: Picker, installation: str
    ) -> Controller:
        config = ControllerConfig(
            installation=installation,
            base_domain=self.settings.base_domain,
            front=Front(host=info.host, http_port=info.http_port),
            gateway=GatewayConfig(
                controller_name=f"{CONTROLLER_NAME}-{gateway.name}",
                http_port=info.http_port,
                tcp_routes=TCP_ROUTES,
                udp_routes=UDP_ROUTES,
            ),
            ports=self.settings.port_range,
            is_free=bind_probe(HOST),
            picker=picker,
            sweep_events=True,
        )
        controller = Controller(kube, config, gateway)
        task = asyncio.create_task(controller.run())
        task.add_done_callback(self._controller_ended)
        self._stack.push_async_callback(_cancelled, task)
        return controller

    def _controller_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self.failed.done():
            error = task.exception() or RuntimeError("the controller ended")
            self.failed.set_exception(error)

    async def _start_registration(self, controller: Controller, issuer: Any, state: CloudState) -> str:
        from drtp_controller.registration.app import create_app
        from drtp_controller.registration.auth import Identity, StaticTokens
        from drtp_controller.registration.hub import Hub
        from drtp_controller.registration.registrar import Registrar
        from drtp_controller.registration.server import HttpServer

        tokens = StaticTokens({state.token(n): Identity(f"drtp-{n}") for n in ("user", "admin")})
        hub = Hub(controller)
        app = create_app(Registrar(controller, issuer), tokens, hub)
        sock = _listen(HOST, state.port("registration", self.settings.registration_port))
        server = HttpServer(app, sock)
        url = f"http://{HOST}:{sock.getsockname()[1]}"
        await server.start()
        self._stack.push_async_callback(server.stop)
        self._stack.callback(hub.close)
        return url

    async def _everything_answers(self, controller: Controller) -> None:
        await asyncio.gather(*(edge.wait_ready() for edge in self._edges))
        names = {edge.options.name for edge in self._edges}
        changed = asyncio.Event()
        controller.caches.servers.subscribe(lambda *_: changed.set())
        try:
            async with asyncio.timeout(READY_SECONDS):
                await controller.ready.wait()
                while not names <= {s.metadata.name for s in controller.caches.servers if is_online(s)}:
                    changed.clear()
                    await changed.wait()
        except TimeoutError as error:
            online = {s.metadata.name for s in controller.caches.servers if is_online(s)}
            missing = ", ".join(sorted(names - online))
            raise DrtpError("DRTP-2014", f"no heartbeat from {missing} within {READY_SECONDS:.0f} s") from error

    def _report(self, local: LocalCloud, info: GatewayInfo) -> dict[str, Any]:
        gateway: dict[str, Any] = {"name": self.settings.gateway, "host": info.host, "httpPort": info.http_port}
        if info.pid is not None:
            gateway["pid"] = info.pid
        if info.version is not None:
            gateway["version"] = info.version
        return {
            "type": "local_ready",
            "apiURL": local.api_url,
            "kubeconfig": local.kubeconfig,
            "registrationURL": local.registration_url,
            "stateDir": str(self.settings.state_dir),
            "pid": local.pid,
            "gateway": {**gateway, **dict(info.details)},
            "servers": [_edge_report(edge) for edge in self._edges],
        }


def _edge_report(edge: EdgeProcess) -> dict[str, Any]:
    report = {
        "name": edge.options.name,
        "city": edge.options.city.code,
        "pid": edge.pid,
        "tunnelAddress": edge.tunnel_address,
    }
    admin = edge.report.get("admin")
    return {**report, "admin": admin} if admin else report


def _listen(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(512)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise DrtpError(
            "DRTP-1014", f"the registration API cannot listen on {host}:{port}: {error.strerror}"
        ) from error
    return sock


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
