"""Dialling and listening.

Rules:

- A dial ends within its timeout, whatever the network does; addresses of a name are tried in turn.
- A listener's handshakes are bounded in number and time. Who fails one gets no answer beyond TLS's own alert and leaves
  a count and a debug line, because scanners are the usual case.

What must not live here: trust decisions (see ``contexts``) and anything after the handshake.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, ClassVar

import attrs

from drtp_api.dataplane.carrier import Carrier, SocketCarrier
from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.listen import Listener, bind_tcp
from drtp_api.dataplane.sockopt import NOTSENT_LOWAT, tune_tunnel
from drtp_api.dataplane.tls import tls_handshake
from drtp_api.errors import DrtpError
from drtp_api.transports import DialTarget, ListenConfig
from drtp_transport_tcp.contexts import ALPN, binding_of, client_context, server_context

_log = logging.getLogger(__name__)

NAME = "tcp"


@attrs.frozen(kw_only=True)
class TcpConfig:
    """Options of the transport."""

    allow_plaintext: bool = False
    """Whether targets and listeners with ``tls=False`` are served at all. For benchmarks on loopback only."""
    send_buffer: int | None = None
    """Bytes of the kernel's send buffer. None leaves it to the kernel, which long paths need."""
    notsent_lowat: int | None = NOTSENT_LOWAT
    """Unsent bytes beyond which a tunnel counts as full, so that control frames stay quick."""


class TcpTransport:
    """Carries DRTP over TCP with TLS 1.3.

    Args:
        config: the options.
    """

    config_type: ClassVar[type[Any]] = TcpConfig
    name = NAME

    def __init__(self, config: TcpConfig | None = None) -> None:
        self.config = config or TcpConfig()

    async def dial(self, engine: Engine, target: DialTarget, *, timeout: float) -> Carrier:
        """Connect to an edge and verify it, within ``timeout`` seconds.

        Raises:
            DrtpError: DRTP-4002 unreachable or too slow; DRTP-4003 not to be trusted; DRTP-1007 plaintext not allowed.
        """
        self._check_plaintext(target.tls)
        where = f"{target.server_name} at {target.address}:{target.port}"
        deadline = engine.now() + timeout
        try:
            async with asyncio.timeout(timeout):
                sock = await _connect(target.address, target.port)
        except (OSError, TimeoutError) as error:
            raise DrtpError("DRTP-4002", f"{where} cannot be reached: {_words(error)}") from error
        tune_tunnel(sock, send_buffer=self.config.send_buffer, notsent_lowat=self.config.notsent_lowat)
        try:
            if not target.tls:
                return SocketCarrier(engine, sock, transport=NAME)
            return await tls_handshake(
                engine,
                sock,
                client_context(target.ca_pem),
                server_side=False,
                server_hostname=target.server_name,
                alpn=ALPN,
                timeout=max(0.0, deadline - engine.now()),
                transport=NAME,
                binding=_peer_binding,
            )
        except ssl.SSLError as error:
            raise DrtpError("DRTP-4003", f"{where} cannot be trusted: {_words(error)}") from error
        except (OSError, TimeoutError) as error:
            sock.close()
            raise DrtpError("DRTP-4002", f"{where} did not finish the TLS handshake: {_words(error)}") from error
        except DrtpError:
            sock.close()
            raise

    async def listen(
        self, engine: Engine, config: ListenConfig, on_carrier: Callable[[Carrier], None]
    ) -> "TcpListener":
        """Listen for agents; carriers that finished their handshake go to ``on_carrier``.

        Raises:
            DrtpError: DRTP-3001 cannot listen; DRTP-3002 certificate; DRTP-1007 plaintext not allowed.
        """
        self._check_plaintext(config.tls)
        context = binding = None
        if config.tls:
            context, binding = server_context(config.certificate_file, config.key_file)
        try:
            sock = bind_tcp(config.host, config.port)
        except OSError as error:
            raise DrtpError(
                "DRTP-3001", f"cannot listen for agents on {config.host}:{config.port}: {_words(error)}"
            ) from error
        return TcpListener(engine, sock, config, on_carrier, options=self.config, context=context, binding=binding)

    def _check_plaintext(self, tls: bool) -> None:
        if not tls and not self.config.allow_plaintext:
            raise DrtpError("DRTP-1007", "the tcp transport runs without TLS only where allow_plaintext is set")


class TcpListener:
    """Listens for agents; made by :meth:`TcpTransport.listen`."""

    def __init__(
        self,
        engine: Engine,
        sock: socket.socket,
        config: ListenConfig,
        on_carrier: Callable[[Carrier], None],
        *,
        options: TcpConfig,
        context: ssl.SSLContext | None,
        binding: bytes | None,
    ) -> None:
        self._engine = engine
        self._config = config
        self._on_carrier = on_carrier
        self._options = options
        self._context = context
        self._binding = binding
        self._handshakes: set[asyncio.Task[None]] = set()
        self._closed = False
        self.failed_handshakes = 0
        """Connections that did not become a carrier."""
        self._listener = Listener(engine, sock, self._accepted)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that agents dial."""
        return self._listener.address

    @property
    def handshakes(self) -> int:
        """Handshakes under way now."""
        return len(self._handshakes)

    async def close(self) -> None:
        """Stop accepting and give up handshakes under way. Idempotent."""
        self._closed = True
        self._listener.close()
        tasks = list(self._handshakes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        tune_tunnel(sock, send_buffer=self._options.send_buffer, notsent_lowat=self._options.notsent_lowat)
        if self._context is None:
            self._on_carrier(SocketCarrier(self._engine, sock, transport=NAME))
            return
        task = self._engine.loop.create_task(self._handshake(sock, self._context, peer))
        self._handshakes.add(task)
        task.add_done_callback(self._done)
        if len(self._handshakes) >= self._config.handshakes:
            self._listener.hold()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        if not self._closed:
            self._listener.release()

    async def _handshake(self, sock: socket.socket, context: ssl.SSLContext, peer: Any) -> None:
        try:
            carrier = await tls_handshake(
                self._engine,
                sock,
                context,
                server_side=True,
                alpn=ALPN,
                timeout=self._config.handshake_timeout,
                transport=NAME,
                binding=lambda _: self._binding,
            )
        except (OSError, TimeoutError) as error:
            self.failed_handshakes += 1
            _log.debug("no TLS handshake with %s: %s", peer, _words(error))
            return
        if self._closed:
            carrier.abort()
            return
        try:
            self._on_carrier(carrier)
        except Exception:
            _log.exception("a carrier from %s was dropped", peer)
            carrier.abort()


def _peer_binding(tls: ssl.SSLObject) -> bytes | None:
    leaf = tls.getpeercert(binary_form=True)
    return binding_of(leaf) if leaf else None


async def _connect(address: str, port: int) -> socket.socket:
    """Connect to the first address of a name that answers.

    Raises:
        OSError: none answers; it is the last one's error.
    """
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"{address} has no address")
    for family, kind, protocol, _, where in await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, where)
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _words(error: BaseException) -> str:
    """Return an error for people; a timeout has no text of its own."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)
