"""A gateway under test with backends that speak PROXY v2, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import attrs
import pytest

from drtp_api.gateways import Backend, Exposure, GatewayContext, GatewayInfo
from drtp_api.resources import Protocol
from drtp_gateway_envoy.gateway import EnvoyGateway
from drtp_gateway_envoy.options import EnvoyOptions

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
Conduct = Callable[["Visit"], Awaitable[None]]


@attrs.frozen
class Visit:
    """One visitor at a backend, with what PROXY v2 said of it."""

    source: tuple[str, int]
    tlvs: dict[int, bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def read_proxy_header(reader: asyncio.StreamReader) -> tuple[tuple[str, int] | None, dict[int, bytes]]:
    head = await reader.readexactly(16)
    assert head[:12] == SIGNATURE
    body = await reader.readexactly(struct.unpack("!H", head[14:])[0])
    if head[12] == 0x20:
        return None, {}
    assert head[12] == 0x21
    assert head[13] == 0x11
    source = str(ipaddress.IPv4Address(body[:4])), struct.unpack("!H", body[8:10])[0]
    tlvs, rest = {}, body[12:]
    while rest:
        kind, size = struct.unpack("!BH", rest[:3])
        tlvs[kind], rest = rest[3 : 3 + size], rest[3 + size :]
    return source, tlvs


class FakeEdge:
    """A data port of an edge: reads PROXY v2, lets health checks be, shows visitors to its conduct."""

    def __init__(self, conduct: Conduct) -> None:
        self.visits: list[Visit] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._conduct = conduct
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, port: int = 0) -> FakeEdge:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def backend(self) -> Backend:
        return Backend(address="127.0.0.1", port=self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                source, tlvs = await read_proxy_header(reader)
                if source is not None:
                    visit = Visit(source, tlvs, reader, writer)
                    self.visits.append(visit)
                    await self._conduct(visit)
        finally:
            writer.close()

    def stop(self) -> None:
        """Die: nobody listens any more, and every connection breaks."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def greet_and_echo(visit: Visit) -> None:
    """Speak first, as many databases do, then echo."""
    visit.writer.write(b"hello\n")
    while data := await visit.reader.read(65536):
        visit.writer.write(data)
        await visit.writer.drain()


def http_answer(text: str) -> Conduct:
    """Answer every request on the connection with this text and the request's head."""

    async def conduct(visit: Visit) -> None:
        while True:
            head = await visit.reader.readuntil(b"\r\n\r\n")
            body = text.encode() + b"\n" + head
            visit.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            await visit.writer.drain()

    return conduct


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tcp(service: str, port: int, *edges: FakeEdge, **fields: object) -> Exposure:
    backends = tuple(edge.backend for edge in edges)
    return Exposure(service=service, protocol=Protocol.TCP, port=port, backends=backends, **fields)  # type: ignore[arg-type]


def http(service: str, hostname: str, *edges: FakeEdge, **fields: object) -> Exposure:
    backends = tuple(edge.backend for edge in edges)
    return Exposure(
        service=service, protocol=Protocol.HTTP, port=None, hostnames=(hostname,), backends=backends, **fields
    )  # type: ignore[arg-type]


@attrs.frozen
class Rig:
    """A running gateway."""

    gateway: EnvoyGateway
    info: GatewayInfo
    state_dir: Path
    writers: list[asyncio.StreamWriter] = attrs.field(factory=list)

    async def programmed(self, *exposures: Exposure) -> None:
        statuses = await self.gateway.apply(exposures)
        assert {name: status.programmed for name, status in statuses.items()} == {e.service: True for e in exposures}

    async def visit(self, port: int, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        self.writers.append(writer)
        return reader, writer

    async def request(self, host: str, head: str = "", method: str = "GET", body: bytes = b"") -> tuple[int, str]:
        reader, writer = await self.visit(self.info.http_port)
        head += f"Content-Length: {len(body)}\r\n" if body or method != "GET" else ""
        writer.write(f"{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}\r\n".encode() + body)
        async with asyncio.timeout(10):
            answer = (await reader.read(-1)).decode()
        writer.close()
        return int(answer.split(" ", 2)[1]), answer.partition("\r\n\r\n")[2]


@contextlib.asynccontextmanager
async def running(state_dir: Path, http_port: int = 0, **options: object) -> AsyncIterator[Rig]:
    gateway = EnvoyGateway(EnvoyOptions(**options))  # type: ignore[arg-type]
    info = await gateway.start(GatewayContext(state_dir=state_dir, listen_host="127.0.0.1", http_port=http_port))
    try:
        rig = Rig(gateway, info, state_dir)
        try:
            yield rig
        finally:
            for writer in rig.writers:
                writer.transport.abort()
            await asyncio.sleep(0.01)
    finally:
        await gateway.stop()


@contextlib.asynccontextmanager
async def edges(*conducts: Conduct) -> AsyncIterator[list[FakeEdge]]:
    started = [await FakeEdge(conduct).start() for conduct in conducts]
    try:
        yield started
    finally:
        for edge in started:
            edge.stop()
        await asyncio.sleep(0.01)


@pytest.fixture(scope="session")
def kit():
    """The helpers of this file, for tests that cannot import it by name."""
    import sys

    return sys.modules[__name__]
