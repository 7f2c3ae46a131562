"""The embedded API server as one object to start and stop inside any asyncio program.

Rules: it owns its state directory and its socket, and nothing of the process: no signal handlers, no logging set-up.
What must not enter: what requests do; where certificates and tokens come from (the caller brings them).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Self

import uvicorn

from drtp_api.kube import Obj, Unavailable
from drtp_controller.apiserver.asgi import AsgiApp
from drtp_controller.apiserver.core import Api
from drtp_controller.apiserver.local import LocalKube
from drtp_controller.apiserver.preloads import preloaded_documents
from drtp_controller.apiserver.rbac import User
from drtp_controller.apiserver.store import HISTORY_EVENTS, Store

_log = logging.getLogger(__name__)

STATE_FILE = "kubernetes.sqlite"
EVENT_SECONDS = 3600.0
"""Kubernetes Events live an hour, as in the real server."""
_SWEEP_SECONDS = 60.0
_STOP_SECONDS = 2


class EmbeddedApiServer:
    """A Kubernetes API server in this process.

    Usage: `async with EmbeddedApiServer(...) as server:` or `start()` and `stop()`; `server.kube()` is a client
    without HTTP, `server.url` is where kubectl finds it.

    Args:
        state_dir: where the state file is; made if it does not exist.
        host: the address to listen on.
        port: the port, 0 for any free one.
        tls_cert: the certificate chain, PEM. Without one the server speaks plain HTTP, and kubectl sends no tokens.
        tls_key: its private key, PEM.
        tokens: who each bearer token stands for.
        allow_loopback_endpoints: accept loopback addresses in EndpointSlices, for a cloud on one machine.
        documents: objects that must exist, definitions first; by default our kinds and the Gateway API.
        history: how many events are remembered for resuming watches.
        survive_power_loss: sync every write to the disk.

    Raises:
        Unavailable: the state file is in use or cannot be opened.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tokens: Mapping[str, User] | None = None,
        allow_loopback_endpoints: bool = False,
        documents: Iterable[Obj] | None = None,
        history: int = HISTORY_EVENTS,
        survive_power_loss: bool = False,
    ) -> None:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store = Store(state_dir / STATE_FILE, history=history, survive_power_loss=survive_power_loss)
        self.api = Api(self.store, allow_loopback_endpoints=allow_loopback_endpoints)
        self.api.preload(preloaded_documents() if documents is None else documents)
        self.app = AsgiApp(self.api, tokens or {})
        self._host = host
        self._port = port
        self._certificate = tls_cert
        self._key = tls_key
        self._server: _Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL, once started."""
        scheme = "https" if self._certificate else "http"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self._port}"

    def kube(self, user: User | None = None, *, field_manager: str = "drtp") -> LocalKube:
        """Return a client without HTTP, with the rights of a user (the controller's by default)."""
        return LocalKube(self.api, user=user, field_manager=field_manager)

    def kubeconfig(self, token: str, *, ca_pem: str | None = None, name: str = "drtp") -> Obj:
        """Return a kubeconfig document for a token; trusts `ca_pem`, else our own certificate."""
        cluster: Obj = {"server": self.url}
        if self._certificate:
            pem = ca_pem if ca_pem is not None else self._certificate.read_text()
            cluster["certificate-authority-data"] = base64.b64encode(pem.encode()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            Unavailable: the address is taken or not ours.
        """
        listener = self._bind()
        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_STOP_SECONDS,
            ssl_certfile=self._certificate,
            ssl_keyfile=self._key,
        )
        self._server = _Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        self._tasks = [serving, asyncio.create_task(self._sweep())]
        started = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            await self.stop()
            raise Unavailable(f"the API server could not start on {self.url}")

    async def stop(self) -> None:
        """End watches, finish running requests, close the state file. May be called twice."""
        self.app.end_watches()
        tasks, self._tasks = self._tasks, []
        if self._server is not None:
            self._server.should_exit = True
            self._server = None
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.store.close()

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # asyncio switches Nagle's algorithm off only on sockets that name TCP; with it every answer takes 40 ms
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
        except OSError as error:
            listener.close()
            raise Unavailable(f"the API server cannot listen on {self._host}:{self._port}: {error}") from error
        self._port = listener.getsockname()[1]
        return listener

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                self.api.expire_events(EVENT_SECONDS)
            except Unavailable as error:
                _log.warning("old events stay for now: %s", error)


class _Server(uvicorn.Server):
    """uvicorn inside somebody else's program: it tells when it is ready and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
