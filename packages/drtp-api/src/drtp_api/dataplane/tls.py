"""The TLS carrier: ``ssl.MemoryBIO`` driven by hand over a non-blocking socket.

Rules:

- Ciphertext is read in large pieces and decrypted straight into the caller's buffer; plaintext is encrypted in pieces
  of 64 KiB and each piece leaves by one ``send``. ``SSLSocket`` costs two calls a record and is not used.
- At most one encrypted piece waits here for the kernel.
- An end of the stream without the peer's close_notify is a truncation and raises.

What must not live here: certificates, contexts and policy (they belong to transports).
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from socket import socket

from drtp_api.dataplane.carrier import CarrierClosed, CarrierInfo, Farewell, socket_addresses
from drtp_api.dataplane.engine import Engine, Handler
from drtp_api.dataplane.sockopt import reset_close

PIECE_SIZE = 64 * 1024
"""Plaintext encrypted at once: four TLS records, which stay in the processor's cache until they are sent."""

_SLACK = 8 * 1024
"""A piece may be this much longer, so that a 64 KiB frame and its header do not become two sends."""

_HANDSHAKE_READ = 16 * 1024


class _RawBuffer:
    """The buffer that ciphertext passes through on its way into OpenSSL; one a process, never kept across calls."""

    view = memoryview(bytearray(128 * 1024))


async def tls_handshake(
    engine: Engine,
    sock: socket,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    timeout: float,
    server_hostname: str | None = None,
    alpn: str | None = None,
    transport: str = "tcp",
    binding: Callable[[ssl.SSLObject], bytes | None] = lambda _: None,
) -> "TlsCarrier":
    """Perform a TLS handshake on a connected non-blocking socket and return the carrier.

    The socket is closed when this fails.

    Args:
        engine: will drive the carrier.
        sock: connected, non-blocking, not watched by the engine yet.
        context: decides versions, ALPN, certificates and whom to trust.
        server_side: which role to play.
        timeout: seconds for the whole handshake.
        server_hostname: the name to verify, for clients.
        alpn: the application protocol that must have been agreed on; None leaves it open.
        transport: name for :attr:`CarrierInfo.transport`.
        binding: computes the ``tls-server-end-point`` channel binding once the handshake is done.

    Raises:
        TimeoutError: the handshake took too long.
        ssl.SSLError: the peers do not agree or the certificate is not trusted.
        OSError: the connection broke.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=server_hostname)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await _flush_handshake(loop, sock, outgoing)
                    data = await loop.sock_recv(sock, _HANDSHAKE_READ)
                    if not data:
                        raise CarrierClosed("the peer closed the connection during the TLS handshake") from None
                    incoming.write(data)
                except ssl.SSLError:
                    # The alert tells the peer why; it is owed even though the handshake failed.
                    await _flush_handshake(loop, sock, outgoing)
                    raise
            await _flush_handshake(loop, sock, outgoing)
        _check_alpn(tls, alpn)
        local, peer = socket_addresses(sock)
        bound = binding(tls)
        info = CarrierInfo(
            transport=transport,
            local=local,
            peer=peer,
            channel_binding=bound,
            cb_type=None if bound is None else "tls-server-end-point",
            tls_version=tls.version(),
        )
        return TlsCarrier(engine, sock, tls=tls, incoming=incoming, outgoing=outgoing, info=info)
    except BaseException:
        sock.close()
        raise


def _check_alpn(tls: ssl.SSLObject, alpn: str | None) -> None:
    """OpenSSL completes a handshake without a common protocol; this does not."""
    agreed = tls.selected_alpn_protocol()
    if alpn is not None and agreed != alpn:
        raise ssl.SSLError(f"the peer does not speak {alpn}: agreed on {agreed or 'nothing'}")


async def _flush_handshake(loop: asyncio.AbstractEventLoop, sock: socket, outgoing: ssl.MemoryBIO) -> None:
    if outgoing.pending:
        await loop.sock_sendall(sock, outgoing.read())


class TlsCarrier(Handler):
    """A carrier that encrypts; made by :func:`tls_handshake`.

    Args:
        engine: drives the socket.
        sock: connected and non-blocking; the carrier owns it from now on.
        tls: after its handshake.
        incoming: the BIO that ``tls`` reads from; it may hold bytes already.
        outgoing: the BIO that ``tls`` writes to.
        info: for :attr:`info`.
    """

    __slots__ = (
        "_closed",
        "_engine",
        "_hangup",
        "_incoming",
        "_info",
        "_outgoing",
        "_owner",
        "_sock",
        "_tls",
        "_unsent",
    )

    def __init__(
        self,
        engine: Engine,
        sock: socket,
        *,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        info: CarrierInfo,
    ) -> None:
        self.scheduled = False
        self._engine = engine
        self._sock = sock
        self._tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._info = info
        self._owner: Handler | None = None
        self._unsent: memoryview | None = None
        self._hangup = False
        self._closed = False

    @property
    def info(self) -> CarrierInfo:
        """What is known about this carrier."""
        return self._info

    @property
    def pending_bytes(self) -> int:
        """Encrypted bytes that the kernel has not taken yet."""
        return 0 if self._unsent is None else len(self._unsent)

    def start(self, owner: Handler) -> None:
        """Begin to report to ``owner``; bytes that came with the handshake are reported first."""
        self._owner = owner
        self._engine.add(self._sock, self)
        self._engine.schedule(self)

    def on_turn(self) -> None:
        """Report what the handshake left behind."""
        self.on_io(True, True, False)

    def on_io(self, readable: bool, writable: bool, hangup: bool) -> None:
        """Flush what waits, then pass the report on."""
        if self._owner is None:
            return
        if hangup:
            self._hangup = True
        if writable and self._unsent is not None:
            try:
                writable = self._flush()
            except OSError:
                # The owner learns of it when it reads; what the peer sent before its end is still to be had.
                readable = True
        self._owner.on_io(readable, writable, hangup)

    def on_fault(self, error: Exception) -> None:
        """Tell the owner, which aborts."""
        if self._owner is not None:
            self._owner.on_fault(error)

    def rearm(self, *, read: bool = False, write: bool = False) -> None:
        """Ask for reports again."""
        self._engine.rearm(self._sock, read=read, write=write)

    def recv_into(self, buffer: memoryview, /) -> int:
        """Decrypt into ``buffer``; see :meth:`Carrier.recv_into`."""
        got = 0
        size = len(buffer)
        read = self._tls.read
        ended = dry = False
        while got < size:
            try:
                count = int(read(size - got, buffer[got:]))
                if not count:
                    ended = True
                    break
                got += count
                continue
            except ssl.SSLWantReadError:
                if dry:
                    break
            except ssl.SSLError as error:
                if got:
                    ended = True
                    break
                raise CarrierClosed(f"TLS ended without goodbye: {error.reason or error}") from error
            try:
                raw = self._sock.recv_into(_RawBuffer.view)
            except BlockingIOError:
                break
            if raw:
                self._incoming.write(_RawBuffer.view[:raw])
                # A short read emptied the socket, unless its end is next.
                dry = raw < len(_RawBuffer.view) and not self._hangup
            else:
                self._incoming.write_eof()
        if self._outgoing.pending and self._unsent is None:
            # A key update answered by OpenSSL itself.
            self._transmit()
        if got:
            if ended:
                # The end is inside OpenSSL, where no engine sees it.
                self._engine.schedule(self)
            return got
        if ended:
            return 0
        raise BlockingIOError

    def send(self, data: memoryview, /) -> int:
        """Encrypt and send; see :meth:`Carrier.send`."""
        if self._unsent is not None and not self._flush():
            raise BlockingIOError
        taken = 0
        size = len(data)
        while taken < size and self._unsent is None:
            end = size if size - taken <= PIECE_SIZE + _SLACK else taken + PIECE_SIZE
            while taken < end:
                taken += self._tls.write(data[taken:end])
            self._transmit()
        return taken

    def _transmit(self) -> None:
        """Move everything from OpenSSL to the kernel, and keep what it refuses."""
        data = self._outgoing.read()
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent != len(data):
            self._unsent = memoryview(data)[sent:]
            self._engine.rearm(self._sock, write=True)

    def _flush(self) -> bool:
        """Send what waits and tell whether nothing waits any more."""
        assert self._unsent is not None
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            sent = 0
        if sent != len(self._unsent):
            self._unsent = self._unsent[sent:]
            self._engine.rearm(self._sock, write=True)
            return False
        self._unsent = None
        return True

    def close(self, last: bytes = b"") -> None:
        """Send what was taken, ``last`` and close_notify, and linger until the peer ends, too."""
        if self._closed:
            return
        self._closed = True
        self._owner = None
        self._engine.remove(self._sock)
        rest = b"" if self._unsent is None else bytes(self._unsent)
        with contextlib.suppress(ssl.SSLError):
            view = memoryview(last)
            while view:
                view = view[self._tls.write(view) :]
            # It asks for the peer's goodbye, which nobody waits for; ours is in the BIO by then.
            self._tls.unwrap()
        Farewell(self._engine, self._sock, rest + self._outgoing.read())

    def abort(self) -> None:
        """Close with a reset."""
        if not self._closed:
            self._closed = True
            self._owner = None
            self._engine.remove(self._sock)
            reset_close(self._sock)
