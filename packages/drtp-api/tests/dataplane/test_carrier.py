"""Plain and TLS carriers keep the same contract."""

import asyncio
import hashlib
import random
import socket
import ssl

import pytest

from drtp_api.dataplane.carrier import CarrierClosed, SocketCarrier
from drtp_api.dataplane.engine import Handler
from drtp_api.dataplane.testing import tcp_pair
from drtp_api.dataplane.tls import tls_handshake


class Owner(Handler):
    """Reads everything and sends what it is told, as a tunnel would."""

    def __init__(self, engine, carrier):
        self.scheduled = False
        self.engine, self.carrier = engine, carrier
        self.received, self.out = bytearray(), b""
        self.hangup = self.reading = True
        self.eof, self.error = False, None
        carrier.start(self)

    def on_io(self, readable, writable, hangup):
        if readable and self.reading:
            self.read()
        if writable:
            self.push()

    def on_turn(self):
        self.read()

    def read(self):
        view = self.engine.scratch.receive
        try:
            size = self.carrier.recv_into(view)
        except BlockingIOError:
            self.carrier.rearm(read=True)
        except OSError as error:
            self.error = error
        else:
            self.received += view[:size]
            if size:
                self.engine.schedule(self)
            else:
                self.eof = True

    def push(self):
        while self.out:
            try:
                sent = self.carrier.send(memoryview(self.out))
            except BlockingIOError:
                return self.carrier.rearm(write=True)
            if not sent:
                return None
            self.out = self.out[sent:]
        return None

    def on_fault(self, error):
        self.error = error


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture(params=["plain", "tls"])
def carriers(request, certificate):
    """Return a coroutine function that makes two connected carriers."""

    async def make(engine):
        a, b = tcp_pair()
        if request.param == "plain":
            return SocketCarrier(engine, a), SocketCarrier(engine, b)
        client, server = await asyncio.gather(
            tls_handshake(
                engine,
                a,
                certificate.client_context("x/1"),
                server_side=False,
                server_hostname="edge.test",
                alpn="x/1",
                timeout=5,
                binding=lambda tls: hashlib.sha256(tls.getpeercert(binary_form=True)).digest(),
            ),
            tls_handshake(engine, b, certificate.server_context("x/1"), server_side=True, alpn="x/1", timeout=5),
        )
        return client, server

    make.tls = request.param == "tls"
    return make


def test_megabytes_arrive_whole_both_ways_at_once(run, carriers):
    async def scenario(engine):
        left, right = [Owner(engine, carrier) for carrier in await carriers(engine)]
        generator = random.Random(1)
        there, back = generator.randbytes(5_000_001), generator.randbytes(3_000_017)
        left.out, right.out = there, back
        left.push()
        right.push()
        await until(lambda: len(right.received) == len(there) and len(left.received) == len(back))
        assert right.received == there
        assert left.received == back
        left.carrier.close()
        await until(lambda: right.eof)
        right.carrier.close()

    run(scenario)


def test_a_full_carrier_holds_one_batch_and_goes_on_when_it_drains(run, carriers):
    async def scenario(engine):
        left, right = [Owner(engine, carrier) for carrier in await carriers(engine)]
        right.reading = False
        data = random.Random(2).randbytes(12_000_000)
        left.out = data
        left.push()
        await asyncio.sleep(0.02)
        assert left.out, "the kernel took 12 MB without a reader"
        assert left.carrier.pending_bytes <= 80 * 1024
        right.reading = True
        right.read()
        await until(lambda: len(right.received) == len(data))
        assert right.received == data
        assert left.carrier.pending_bytes == 0
        left.carrier.abort()
        right.carrier.abort()

    run(scenario)


def test_close_delivers_what_was_sent_and_is_an_orderly_end(run, carriers):
    async def scenario(engine):
        left, right = [Owner(engine, carrier) for carrier in await carriers(engine)]
        # Unread bytes at the closing end must not destroy what it said last.
        left.reading = False
        right.out = bytes(100_000)
        right.push()
        left.out = b"last words"
        left.push()
        left.carrier.close()
        left.carrier.close()
        await until(lambda: right.eof)
        assert right.received == b"last words"
        assert right.error is None
        right.carrier.close()

    run(scenario)


def test_abort_is_never_an_orderly_end(run, carriers):
    async def scenario(engine):
        left, right = [Owner(engine, carrier) for carrier in await carriers(engine)]
        left.carrier.abort()
        left.carrier.abort()
        await until(lambda: right.error is not None)
        assert not right.eof
        right.carrier.abort()

    run(scenario)


def test_tls_cut_off_without_goodbye_is_a_truncation(run, certificate):
    async def scenario(engine):
        a, b = tcp_pair()
        raw = b.dup()
        client, server = await asyncio.gather(
            tls_handshake(
                engine, a, certificate.client_context(), server_side=False, server_hostname="edge.test", timeout=5
            ),
            tls_handshake(engine, b, certificate.server_context(), server_side=True, timeout=5),
        )
        left, right = Owner(engine, client), Owner(engine, server)
        right.out = b"half a message"
        right.push()
        await until(lambda: left.received)
        raw.shutdown(socket.SHUT_WR)
        await until(lambda: left.error is not None)
        assert isinstance(left.error, CarrierClosed)
        assert left.received == b"half a message"
        assert not left.eof
        raw.close()
        client.abort()
        server.abort()

    run(scenario)


def test_garbage_in_the_ciphertext_closes_the_carrier(run, certificate):
    async def scenario(engine):
        a, b = tcp_pair()
        raw = b.dup()
        client, server = await asyncio.gather(
            tls_handshake(
                engine, a, certificate.client_context(), server_side=False, server_hostname="edge.test", timeout=5
            ),
            tls_handshake(engine, b, certificate.server_context(), server_side=True, timeout=5),
        )
        left = Owner(engine, client)
        raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await until(lambda: left.error is not None)
        assert isinstance(left.error, CarrierClosed)
        raw.close()
        client.abort()
        server.abort()

    run(scenario)


def test_bytes_that_came_with_the_handshake_are_reported(run, certificate):
    async def scenario(engine):
        a, b = tcp_pair()

        async def talkative_server():
            carrier = await tls_handshake(engine, b, certificate.server_context(), server_side=True, timeout=5)
            carrier.send(memoryview(b"first"))
            return carrier

        client, server = await asyncio.gather(
            tls_handshake(
                engine, a, certificate.client_context(), server_side=False, server_hostname="edge.test", timeout=5
            ),
            talkative_server(),
        )
        owner = Owner(engine, client)
        await until(lambda: owner.received == b"first")
        client.abort()
        server.abort()

    run(scenario)


def test_info_names_addresses_version_and_binding(run, carriers, certificate):
    async def scenario(engine):
        client, server = await carriers(engine)
        assert client.info.peer == server.info.local
        assert client.info.transport == "tcp"
        if carriers.tls:
            assert client.info.tls_version == "TLSv1.3"
            assert client.info.channel_binding == hashlib.sha256(certificate.der).digest()
            assert client.info.cb_type == "tls-server-end-point"
        else:
            assert client.info.tls_version is client.info.channel_binding is client.info.cb_type is None
        Owner(engine, client).carrier.abort()
        Owner(engine, server).carrier.abort()

    run(scenario)


@pytest.mark.parametrize(("name", "alpn"), [("other.test", "x/1"), ("edge.test", "y/1")])
def test_a_wrong_name_or_protocol_fails_the_handshake_and_closes_the_socket(run, certificate, name, alpn):
    async def scenario(engine):
        a, b = tcp_pair()
        client, server = await asyncio.gather(
            tls_handshake(
                engine,
                a,
                certificate.client_context(alpn),
                server_side=False,
                server_hostname=name,
                alpn=alpn,
                timeout=5,
            ),
            tls_handshake(engine, b, certificate.server_context("x/1"), server_side=True, alpn="x/1", timeout=5),
            return_exceptions=True,
        )
        assert isinstance(client, ssl.SSLError)
        assert a.fileno() == -1
        if isinstance(server, Exception):
            assert b.fileno() == -1
        else:
            server.abort()

    run(scenario)


def test_a_silent_peer_runs_into_the_handshake_timeout(run, certificate):
    async def scenario(engine):
        a, b = tcp_pair()
        with pytest.raises(TimeoutError):
            await tls_handshake(engine, a, certificate.server_context(), server_side=True, timeout=0.02)
        assert a.fileno() == -1
        b.close()

    run(scenario)
