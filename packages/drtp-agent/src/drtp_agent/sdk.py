"""The Python SDK: ``expose()`` for asyncio programs, ``serve()`` for all others.

Rules:
- Leaving the block stops the tunnel and lets visitors finish; an error before ready is raised, later ones are events.
- What is exposed is an address today; :func:`_target_of` is where applications and handlers will be told apart.

What must not live here: anything that the command line does differently; both build the same agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from drtp_agent.agent import Agent
from drtp_agent.config import AgentConfig, Outcome
from drtp_agent.discovery import Location, locate
from drtp_agent.events import AgentEvent, ConnectedServer, TunnelReady
from drtp_agent.names import check_name, name_for
from drtp_agent.state import AgentState
from drtp_agent.target import Target, parse_target
from drtp_api.errors import DrtpError
from drtp_api.registration import ServiceDefinition, ServiceName
from drtp_api.resources import Address, Exposure, Protocol, ServiceServers
from drtp_api.statedir import state_directory

__all__ = ["ExposedTunnel", "agent_directory", "definition_of", "expose", "network_prefix", "serve"]

DRAIN: Final = 30.0
"""Seconds that visitors get when the tunnel is stopped."""


def agent_directory(state_dir: Path | None = None) -> Path:
    """Return where agents keep their state."""
    return state_directory(state_dir) / "serve"


def definition_of(
    target: Target,
    *,
    public: bool = False,
    port: int = 0,
    hostname: str | None = None,
    allow: Sequence[str] = (),
    servers: int = 2,
    application_name: str | None = None,
) -> ServiceDefinition:
    """Return the service that the options describe.

    Raises:
        DrtpError: DRTP-1004 they contradict each other; DRTP-1008 a prefix; DRTP-1010 the port.
    """
    if not 0 <= port <= 65535:
        raise DrtpError("DRTP-1010", f"{port} is not a port")
    if port and target.protocol is Protocol.HTTP:
        raise DrtpError("DRTP-1004", "an HTTP service shares the gateway's port; --port is for TCP",
                        hint="Ask for --hostname, or serve tcp://.")  # fmt: skip
    if hostname and target.protocol is not Protocol.HTTP:
        raise DrtpError("DRTP-1004", "--hostname is for HTTP services; a TCP service has a port of its own")
    application = target.application()
    if application_name:
        application = attrs.evolve(application, name=application_name[:63])
    return ServiceDefinition(
        application=application,
        exposure=Exposure(enabled=public, port=port, hostnames=(hostname.lower(),) if hostname else ()),
        edge_allowlist_cidrs=tuple(network_prefix(text) for text in allow),
        servers=ServiceServers(replicas=servers),
    )


def network_prefix(text: str) -> str:
    """Return the network prefix in its plain form.

    Raises:
        DrtpError: DRTP-1008.
    """
    import ipaddress

    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise DrtpError("DRTP-1008", f"{text!r} is not a network prefix: {error}") from None


@attrs.define(eq=False)
class ExposedTunnel:
    """A tunnel that is ready: its addresses, and what happens to it."""

    _agent: Agent
    _ready: TunnelReady
    _streams: list[asyncio.Queue[AgentEvent | None]]

    @property
    def name(self) -> str:
        """The service's name: the same name keeps the same address."""
        return self._ready.name

    @property
    def url(self) -> str | None:
        """The public URL; ``None`` for a service that has none."""
        return self._ready.url

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The public host names."""
        return self._ready.hostnames

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The public addresses; each ``host`` is dialable as given."""
        return self._ready.addresses

    @property
    def servers(self) -> tuple[ConnectedServer, ...]:
        """The servers that are connected now."""
        return self._agent.connected_servers()

    @property
    def private(self) -> bool:
        """Whether the service is not published."""
        return self._ready.private

    @property
    def verified(self) -> str:
        """How far the check before ready went: service, tunnel, edge or gateway."""
        return self._ready.verified

    async def events(self) -> AsyncIterator[AgentEvent]:
        """Yield what happens from now on, until the tunnel stopped."""
        queue: asyncio.Queue[AgentEvent | None] = asyncio.Queue()
        self._streams.append(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._streams.remove(queue)


@contextlib.asynccontextmanager
async def expose(
    target: str,
    *,
    public: bool = False,
    name: str | None = None,
    protocol: str | None = None,
    port: int = 0,
    hostname: str | None = None,
    allow: Sequence[str] = (),
    servers: int = 2,
    proxy_protocol: str | None = None,
    api_url: str | None = None,
    token_file: str | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    start_timeout: float = 60.0,
    drain: float = DRAIN,
) -> AsyncIterator[ExposedTunnel]:
    """Expose a local service for the length of the block, which begins when the service is ready.

    Args:
        target: 8080, HOST:PORT, ``http://H:P``, ``tcp://H:P`` or ``unix:/path``.
        public: Whether the world may visit at once; else the service is private until it is published.
        name: The service's name; made from the target if absent, and kept for the next time.
        protocol: http or tcp, where the target does not say.
        port: The public port of a TCP service; 0 is given one.
        hostname: The public host name of an HTTP service.
        allow: Networks that may visit; all if empty.
        servers: How many tunnel servers, 1 to 3.
        proxy_protocol: v1 or v2, if the local service wants to know its visitors by PROXY header.
        api_url: The registration API; found as the command finds it if absent.
        token_file: A bearer token for it.
        state_dir: Where identity and names are kept; ``$DRTP_STATE_DIR`` or the platform's directory if absent.
        start_timeout: Seconds until ready.
        drain: Seconds that visitors get at the end.

    Raises:
        DrtpError: of any code; what keeps the service from being ready.
    """
    parsed = _target_of(target, protocol)
    directory = Path(state_dir) if state_dir is not None else None
    root = agent_directory(directory)
    chosen = check_name(name) if name is not None else name_for(parsed, root, secrets.randbelow)
    definition = definition_of(parsed, public=public, port=port, hostname=hostname, allow=allow, servers=servers)
    location: Location = locate(api_url=api_url, token_file=token_file, state_dir=directory)
    config = AgentConfig(
        service=ServiceName(name=chosen, namespace=location.namespace),
        target=parsed,
        definition=definition,
        proxy_protocol=proxy_protocol,
        restricted=bool(allow),
        start_timeout=start_timeout,
    )
    streams: list[asyncio.Queue[AgentEvent | None]] = []
    ready: asyncio.Future[TunnelReady] = asyncio.get_running_loop().create_future()

    def listen(event: AgentEvent) -> None:
        if isinstance(event, TunnelReady) and not ready.done():
            ready.set_result(event)
        for queue in streams:
            queue.put_nowait(event)

    with AgentState.open(root, chosen) as state:
        async with location.connect() as control:
            agent = Agent(config, control, state, listen)
            task = asyncio.get_running_loop().create_task(agent.run())
            try:
                waiting: set[asyncio.Future[Any]] = {task, ready}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not ready.done():
                    raise _failure(task.result())
                yield ExposedTunnel(agent, ready.result(), streams)
            finally:
                if not task.done():
                    agent.stop(drain=drain)
                await asyncio.wait({task})
                for queue in streams:
                    queue.put_nowait(None)


def serve(target: str, *, on_ready: Callable[[ExposedTunnel], None] | None = None, **options: object) -> None:
    """Expose a local service until SIGINT or SIGTERM; the options are those of :func:`expose`.

    Args:
        target: as for :func:`expose`.
        on_ready: Called once with the tunnel.
        options: as for :func:`expose`.

    Raises:
        DrtpError: as for :func:`expose`, and what ended the tunnel later on.
    """
    asyncio.run(_serve(target, on_ready, options))


async def _serve(target: str, on_ready: Callable[[ExposedTunnel], None] | None, options: dict[str, object]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with expose(target, **options) as tunnel:  # type: ignore[arg-type]
        if on_ready is not None:
            on_ready(tunnel)
        over = loop.create_task(_last_error(tunnel))
        stopped = loop.create_task(stop.wait())
        await asyncio.wait({over, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not stop.is_set() and (failure := over.result()) is not None:
            raise failure
        over.cancel()


async def _last_error(tunnel: ExposedTunnel) -> DrtpError | None:
    from drtp_agent.events import ErrorOccurred

    failure = None
    async for event in tunnel.events():
        if isinstance(event, ErrorOccurred):
            failure = DrtpError(event.code, event.message, hint=event.hint)
    return failure


def _failure(outcome: Outcome) -> DrtpError:
    return outcome.error or DrtpError("DRTP-4005", f"the tunnel ended before it was ready: {outcome.reason}")


def _target_of(target: str, protocol: str | None) -> Target:
    if not isinstance(target, str):
        raise DrtpError("DRTP-1012", "this version exposes addresses; applications and handlers come later")
    return parse_target(target, Protocol(protocol.upper()) if protocol else None)
