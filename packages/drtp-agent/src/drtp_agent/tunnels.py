"""Tunnels to servers: dialled through a transport plugin, proved with a grant, their streams handed to the dialler.

Rules:
- A tunnel reports what happened to the supervisor and does what it is told; it decides nothing about other tunnels.
- A proof is made with the newest grant, over this very channel; a server that offers no tie to the channel gets none.
- The end of a tunnel is reported exactly once, also when it was never built.

What must not live here: which servers to dial and when.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final, Protocol, assert_never

import attrs

from drtp_agent.access import AccessLog
from drtp_agent.control import VERSION
from drtp_agent.decisions import Fault, GoingAway, Occurrence, TunnelDown, TunnelUp
from drtp_agent.dialler import DialFailure, Dialler
from drtp_agent.events import ConnectedServer
from drtp_agent.state import Identity
from drtp_agent.streams import SeenStream, StreamWatches
from drtp_agent.transports import Transports
from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.tunnel import StreamSummary, Tunnel
from drtp_api.errors import DrtpError
from drtp_api.grants import sign
from drtp_api.registration import TunnelEndpoint, TunnelServer
from drtp_api.transports import DialTarget
from drtp_protocol import (
    Auth,
    AuthMethod,
    AuthReceived,
    AuthRequired,
    Budget,
    ChannelBinding,
    Connection,
    ConnectionEstablished,
    ConnectionTerminated,
    DatagramReceived,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    Hello,
    LeaseExpiring,
    LeaseRenewed,
    LocalProtocolError,
    ReportReceived,
    Role,
    RttMeasured,
    StreamAccepted,
    StreamClosed,
    StreamOpened,
    StreamReset,
    StreamWritable,
    grant_message,
)

__all__ = ["TunnelContext", "TunnelLink"]

_log: Final = logging.getLogger(__name__)

DIAL_TIMEOUT: Final = 10.0
"""Seconds for one endpoint of a server: connecting and the transport's own handshake."""


class TunnelContext(Protocol):
    """What a tunnel needs from its agent."""

    engine: Engine
    budget: Budget
    identity: Identity
    dialler: Dialler
    watches: StreamWatches
    transports: Transports

    @property
    def service_key(self) -> str:
        """The service that is served."""
        ...

    def server(self, name: str) -> TunnelServer | None:
        """Return the newest word on a server, its grant included; ``None`` once it is no longer assigned."""
        ...

    def tell(self, event: Occurrence) -> None:
        """Tell the supervisor."""
        ...

    def dial_failed(self, failure: DialFailure) -> None:
        """Take note that a visitor found the local service absent."""
        ...


@attrs.define(eq=False)
class TunnelLink:
    """One tunnel, from the decision to dial to its end; the handler of its :class:`Tunnel`."""

    number: int
    server_name: str
    context: TunnelContext
    allowed_transports: Callable[[TunnelEndpoint], bool] = lambda _endpoint: True
    tunnel: Tunnel | None = None
    rtt: float | None = None
    established: bool = False
    _code: ErrorCode | None = None
    _over: bool = False
    _task: asyncio.Task[None] | None = None
    _seen: dict[int, SeenStream] = attrs.field(factory=dict)
    _access: AccessLog = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Name the records after the server."""
        self._access = AccessLog(self.server_name)

    # Commands

    def dial(self) -> None:
        """Begin."""
        self._task = self.context.engine.loop.create_task(self._dial())

    def ping(self) -> None:
        """Probe the path now."""
        if self.tunnel is not None and not self.tunnel.closed:
            try:
                self.tunnel.connection.ping(now=self.context.engine.now())
            except LocalProtocolError:
                return
            self.tunnel.wake()

    def drain(self, seconds: float) -> None:
        """Announce the end; what is on the way may finish."""
        if self.tunnel is None or not self.established:
            self.abort()
            return
        try:
            self.tunnel.go_away(ErrorCode.DRAINING, drain=seconds)
        except LocalProtocolError:
            self.tunnel.close()

    def abort(self) -> None:
        """End now."""
        if self._task is not None:
            self._task.cancel()
        if self.tunnel is not None:
            # A polite end costs nothing more and spares the edge a wait.
            self.tunnel.close()
        else:
            self._end(None, None)

    def describe(self, server: TunnelServer) -> ConnectedServer:
        """Return what people are told of the server."""
        transport = self.tunnel.carrier.info.transport if self.tunnel is not None else ""
        rtt = None if self.rtt is None else max(1, round(self.rtt * 1000))
        return ConnectedServer(name=server.name, city=server.city, transport=transport, rtt_milliseconds=rtt)

    # Dialling

    async def _dial(self) -> None:
        try:
            carrier = await self._carrier()
        except DrtpError as error:
            self._end(None, Fault(error.code, error.message, error.hint))
            return
        finally:
            self._task = None
        context = self.context
        hello = Hello(
            instance_id=context.identity.instance_id,
            epoch=context.identity.epoch,
            services=(context.service_key,),
            agent=f"drtp-agent/{VERSION}",
        )
        engine = context.engine
        connection = Connection(
            Role.AGENT, now=engine.now(), nonce=secrets.token_bytes(32), hello=hello, budget=context.budget
        )
        self.tunnel = Tunnel(engine, carrier, connection, self)
        self.tunnel.start()

    async def _carrier(self) -> Carrier:
        """Try the server's endpoints in turn.

        Raises:
            DrtpError: DRTP-4002 or DRTP-4003, of the last endpoint tried.
        """
        server = self.context.server(self.server_name)
        failure = DrtpError("DRTP-4002", f"the server {self.server_name} is no longer assigned")
        if server is not None:
            failure = DrtpError("DRTP-4002", f"no transport of this agent leads to {server.name}")
            for endpoint in filter(self.allowed_transports, server.endpoints):
                transport = self.context.transports.get(endpoint.transport)
                if transport is None:
                    continue
                target = DialTarget(
                    address=endpoint.address, port=endpoint.port, server_name=server.server_name, ca_pem=server.ca_pem
                )
                try:
                    return await transport.dial(self.context.engine, target, timeout=DIAL_TIMEOUT)
                except DrtpError as error:
                    failure = error
        raise failure

    # From the tunnel

    def on_tunnel_event(self, tunnel: Tunnel, event: Event) -> None:
        """Take an event of the core."""
        match event:
            case AuthRequired():
                self._prove(tunnel, event)
            case ConnectionEstablished():
                self._established(tunnel, event)
            case StreamOpened(stream_id=stream_id, metadata=metadata):
                seen = self.context.watches.opened(metadata, self.server_name, lambda: _sent(tunnel, stream_id))
                if seen is not None:
                    self._seen[stream_id] = seen
                self._access.opened(stream_id, metadata, tunnel.engine.now())
                self.context.dialler.open(tunnel, stream_id, metadata, self)
            case StreamReset(stream_id=stream_id):
                self._seen.pop(stream_id, None)
                self._access.failed(stream_id, "gave_up", tunnel.engine.now())
                self.context.dialler.cancel(tunnel, stream_id)
            case RttMeasured(smoothed=smoothed):
                self.rtt = smoothed
            case GoAwayReceived(code=code, drain=drain, retry_after=retry_after, alternates=alternates):
                self._code = code
                self.context.tell(GoingAway(self.number, code, drain, retry_after, alternates))
            case ConnectionTerminated(code=code):
                if self._code is None:
                    self._code = code
            case LeaseRenewed() | LeaseExpiring() | StreamAccepted() | AuthReceived() | ReportReceived():
                pass
            case DatagramReceived() | DataReceived() | StreamClosed() | StreamWritable():
                pass
            case _:
                assert_never(event)

    def on_connect_failed(self, tunnel: Tunnel, stream_id: int, error: OSError) -> None:
        """Take note that a socket did not connect; the dialler attaches connected ones only."""
        tunnel.reset(stream_id, ErrorCode.DIAL_FAILED, 0, error.strerror or "")

    def on_stream_closed(self, tunnel: Tunnel, stream_id: int, summary: StreamSummary) -> None:
        """Take note that a visitor is gone."""
        del tunnel
        self._access.closed(stream_id, summary)
        if (seen := self._seen.pop(stream_id, None)) is not None:
            answered = summary.bytes_out
            seen.answered = lambda: answered
            self.context.watches.changed(seen)

    def on_tunnel_closed(self, tunnel: Tunnel, error: Exception | None) -> None:
        """Take note that the tunnel is over."""
        del error
        self.context.dialler.cancel_all(tunnel)
        self._end(self._code, None)

    def stream_accepted(self, stream_id: int) -> None:
        """Take note that a stream's local connection stands."""
        if (seen := self._seen.get(stream_id)) is not None:
            seen.accepted = True
            self.context.watches.changed(seen)

    def stream_failed(self, stream_id: int, failure: DialFailure) -> None:
        """Take note that a stream's local connection failed."""
        if (seen := self._seen.pop(stream_id, None)) is not None:
            seen.failed = failure.reason
            self.context.watches.changed(seen)
        self._access.failed(stream_id, f"dial_failed detail={failure.detail.name}", self.context.engine.now())
        self.context.dial_failed(failure)

    # Parts

    def _prove(self, tunnel: Tunnel, event: AuthRequired) -> None:
        """Answer a challenge with the newest grant, signed over the transcript and the channel."""
        server = self.context.server(self.server_name)
        if server is None:
            tunnel.close()
            return
        info = tunnel.carrier.info
        binding = info.channel_binding if info.cb_type == "tls-server-end-point" else None
        kind = ChannelBinding.NONE if binding is None else ChannelBinding.TLS_SERVER_END_POINT
        credential = server.grant.encode("ascii")
        digest = event.transcript.hash(kind, binding or b"")
        auth = Auth(
            method=AuthMethod.GRANT,
            binding_type=kind,
            credential=credential,
            proof=sign(self.context.identity.key, grant_message(digest, credential)),
            public_key=self.context.identity.public_key,
        )
        try:
            tunnel.connection.authenticate(auth, now=self.context.engine.now())
        except LocalProtocolError:
            # The server asks for something that this agent does not have, such as another method.
            self._code = ErrorCode.UNSUPPORTED
            tunnel.close(ErrorCode.UNSUPPORTED)
            return
        tunnel.wake()

    def _established(self, tunnel: Tunnel, event: ConnectionEstablished) -> None:
        if self.context.service_key not in {b.service for b in event.welcome.bindings}:
            self._code = ErrorCode.AUTH_FAILED
            tunnel.close(ErrorCode.UNSUPPORTED)
            return
        self.established = True
        _log.info("tunnel %d to %s is up", self.number, self.server_name)
        self.context.tell(TunnelUp(self.number))
        self.ping()

    def _end(self, code: ErrorCode | None, fault: Fault | None) -> None:
        if not self._over:
            self._over = True
            why = code.name if code is not None else fault.message if fault is not None else "ended"
            _log.info("tunnel %d to %s is over: %s", self.number, self.server_name, why)
            self.context.tell(TunnelDown(self.number, code, fault))


def _sent(tunnel: Tunnel, stream_id: int) -> int:
    try:
        return tunnel.connection.stream_info(stream_id).sent
    except LocalProtocolError:
        return 0
