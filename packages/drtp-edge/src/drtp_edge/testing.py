"""The other end for tests and benchmarks of an edge: a small agent that dials one local service.

Rules:
- It is a real end of a real tunnel; only the agent's conduct (reconnecting, registering) is left out.
- Nothing in production imports this module.

What must not live here: assertions.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.dial import start_connect
from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.tunnel import StreamSummary, Tunnel
from drtp_api.grants import public_key_bytes, sign
from drtp_protocol import (
    Auth,
    AuthMethod,
    AuthRequired,
    ChannelBinding,
    Connection,
    ConnectionEstablished,
    ConnectionTerminated,
    DialDetail,
    ErrorCode,
    Event,
    GoAwayReceived,
    Hello,
    OpenMetadata,
    Role,
    StreamOpened,
    grant_message,
    psk_auth,
)

__all__ = ["LabAgent"]


class LabAgent:
    """One end of one tunnel.

    Args:
        engine: Drives it.
        carrier: Dialled, not started.
        target: The local service, host and port.
        services: What to serve.
        psk: Key id and key, or None.
        grant: The agent's key and its token, or None; :attr:`grant` may be renewed.
        instance: 16 bytes.
        epoch: Grows with each start.
        accept: Called with each OPEN; a code it returns refuses the stream, with a detail.
    """

    def __init__(
        self,
        engine: Engine,
        carrier: Carrier,
        target: tuple[str, int],
        *,
        services: tuple[str, ...] = ("default/web",),
        psk: tuple[bytes, bytes] | None = None,
        grant: tuple[Ed25519PrivateKey, str] | None = None,
        instance: bytes = bytes(16),
        epoch: int = 1,
        accept: Callable[[OpenMetadata], tuple[ErrorCode, int] | None] = lambda _metadata: None,
    ) -> None:
        self.target = target
        self.grant = grant
        self.psk = psk
        self.opened: list[OpenMetadata] = []
        self.summaries: list[StreamSummary] = []
        self.goaways: list[GoAwayReceived] = []
        self.ended: ErrorCode | None = None
        self.established = asyncio.Event()
        self.closed = asyncio.Event()
        self.went_away = asyncio.Event()
        self.renewals = 0
        self._accept = accept
        self._carrier = carrier
        connection = Connection(
            Role.AGENT,
            now=engine.now(),
            nonce=os.urandom(32),
            hello=Hello(instance_id=instance, epoch=epoch, services=services, agent="lab/1"),
        )
        self.tunnel = Tunnel(engine, carrier, connection, self)
        self.tunnel.start()

    def on_tunnel_event(self, tunnel: Tunnel, event: Event) -> None:
        """Authenticate, and dial what is asked for."""
        match event:
            case AuthRequired():
                self.renewals += event.renewal
                self._authenticate(tunnel, event)
            case ConnectionEstablished():
                self.established.set()
            case StreamOpened(stream_id=stream_id, metadata=metadata):
                self.opened.append(metadata)
                refusal = self._accept(metadata)
                if refusal is not None:
                    tunnel.reset(stream_id, *refusal)
                    return
                try:
                    sock, connecting = start_connect(self.target)
                except OSError:
                    tunnel.reset(stream_id, ErrorCode.DIAL_FAILED, DialDetail.CONNECTION_REFUSED)
                    return
                tunnel.attach(stream_id, sock, connecting=connecting)
            case GoAwayReceived():
                self.goaways.append(event)
                self.went_away.set()
            case ConnectionTerminated(code=code):
                self.ended = code
            case _:
                pass

    def _authenticate(self, tunnel: Tunnel, event: AuthRequired) -> None:
        binding = self._carrier.info.channel_binding
        kind = ChannelBinding.NONE if binding is None else ChannelBinding.TLS_SERVER_END_POINT
        expected = None
        if self.psk is not None:
            auth, expected = psk_auth(*self.psk, event.transcript, kind, binding or b"")
        else:
            assert self.grant is not None
            key, token = self.grant
            credential = token.encode()
            digest = event.transcript.hash(kind, binding or b"")
            auth = Auth(
                method=AuthMethod.GRANT,
                binding_type=kind,
                credential=credential,
                proof=sign(key, grant_message(digest, credential)),
                public_key=public_key_bytes(key),
            )
        tunnel.connection.authenticate(auth, expected_edge_proof=expected, now=tunnel.engine.now())

    def on_connect_failed(self, tunnel: Tunnel, stream_id: int, error: OSError) -> None:
        """Say that nothing listens."""
        del error
        tunnel.reset(stream_id, ErrorCode.DIAL_FAILED, DialDetail.CONNECTION_REFUSED)

    def on_stream_closed(self, tunnel: Tunnel, stream_id: int, summary: StreamSummary) -> None:
        """Remember how it went."""
        del tunnel, stream_id
        self.summaries.append(summary)

    def on_tunnel_closed(self, tunnel: Tunnel, error: Exception | None) -> None:
        """Remember that it ended."""
        del tunnel, error
        self.closed.set()
