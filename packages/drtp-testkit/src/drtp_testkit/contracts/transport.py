"""What every transport promises: every byte in order, back-pressure, honest ends, and nothing left behind."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import gc
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import attrs
import psutil
import pytest

from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.engine import Engine, create_engine
from drtp_api.dataplane.testing import TestCertificate, make_certificate
from drtp_api.errors import DrtpError
from drtp_api.transports import DialTarget, ListenConfig, Transport
from drtp_testkit.carriers import CarrierEnd

__all__ = ["TransportContract"]


@attrs.frozen
class _Rig:
    """A transport that listens, and what it takes to dial it."""

    engine: Engine
    transport: Transport
    target: DialTarget
    arrived: asyncio.Queue[Carrier]

    async def pair(self) -> tuple[CarrierEnd, CarrierEnd]:
        """Return both ends of a new carrier: the agent's, the edge's."""
        dialled = await self.transport.dial(self.engine, self.target, timeout=10)
        async with asyncio.timeout(10):
            accepted = await self.arrived.get()
        return CarrierEnd(self.engine, dialled), CarrierEnd(self.engine, accepted)


def _descriptors() -> int:
    gc.collect()
    return psutil.Process().num_fds()


async def _until_released(descriptors: int) -> None:
    """Wait until no more descriptors are open than before; a closed carrier may linger for its peer's end."""
    for _ in range(500):
        if _descriptors() <= descriptors:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{_descriptors() - descriptors} descriptors were left open")


class TransportContract(abc.ABC):
    """Inherit this for any transport. Set ``engine_kind`` to try another engine."""

    engine_kind = "auto"
    max_pending_bytes = 1 << 20
    """What a carrier may hold back itself: memory is bounded by us, not by a peer that does not read."""

    @abc.abstractmethod
    def make_transport(self) -> Transport:
        """Return a new transport."""

    def listen_config(self, certificate: TestCertificate) -> ListenConfig:
        """Return how to listen on loopback on any port."""
        return ListenConfig(
            host="127.0.0.1", port=0, certificate_file=str(certificate.certificate_file),
            key_file=str(certificate.key_file),
        )  # fmt: skip

    def dial_target(self, address: tuple[str, int], certificate: TestCertificate) -> DialTarget:
        """Return how to dial a listener that uses this certificate."""
        return DialTarget(address=address[0], port=address[1], server_name="edge.test", ca_pem=certificate.pem)

    @contextlib.asynccontextmanager
    async def rig(self, tmp_path: Path) -> AsyncIterator[_Rig]:
        """Listen with a new certificate."""
        engine = create_engine(kind=self.engine_kind)  # type: ignore[arg-type]
        certificate = make_certificate(tmp_path)
        transport = self.make_transport()
        arrived: asyncio.Queue[Carrier] = asyncio.Queue()
        listener = await transport.listen(engine, self.listen_config(certificate), arrived.put_nowait)
        try:
            yield _Rig(engine, transport, self.dial_target(listener.address, certificate), arrived)
        finally:
            await listener.close()
            await listener.close()
            engine.close()

    def play(self, tmp_path: Path, scenario: Callable[[_Rig], Awaitable[None]]) -> None:
        """Run a scenario on a listening transport."""

        async def main() -> None:
            async with self.rig(tmp_path) as rig:
                await scenario(rig)

        asyncio.run(main())

    def test_every_byte_arrives_in_order_both_ways_at_once(self, tmp_path: Path) -> None:
        """Whatever the sizes of the writes."""
        chance = random.Random(20)  # noqa: S311
        there = [chance.randbytes(chance.choice((1, 7, 1_000, 16_384, 16_385, 100_000))) for _ in range(60)]
        back = [chance.randbytes(chance.choice((1, 8, 65_536, 65_537))) for _ in range(60)]

        async def scenario(rig: _Rig) -> None:
            agent, edge = await rig.pair()
            for one, other in zip(there, back, strict=True):
                agent.send(one)
                edge.send(other)
                await asyncio.sleep(0)
            total_there, total_back = sum(map(len, there)), sum(map(len, back))
            await edge.until(lambda: len(edge.received) >= total_there)
            await agent.until(lambda: len(agent.received) >= total_back)
            assert edge.received == b"".join(there)
            assert agent.received == b"".join(back)
            agent.carrier.abort()
            edge.carrier.abort()

        self.play(tmp_path, scenario)

    def test_a_stalled_reader_stops_its_sender_in_bounded_memory(self, tmp_path: Path) -> None:
        """And when it reads again, nothing is missing."""
        size = 32 << 20

        async def scenario(rig: _Rig) -> None:
            agent, edge = await rig.pair()
            edge.reading = False
            agent.send(bytes(size))
            for _ in range(50):
                await asyncio.sleep(0.002)
                assert agent.carrier.pending_bytes <= self.max_pending_bytes
            assert agent.unsent > 0
            edge.resume()
            await edge.until(lambda: len(edge.received) >= size, seconds=30)
            assert edge.received.count(0) == size
            agent.carrier.abort()
            edge.carrier.abort()

        self.play(tmp_path, scenario)

    def test_an_orderly_close_delivers_everything_first(self, tmp_path: Path) -> None:
        """The last frame (GOAWAY, usually) must not be lost to the end that follows it."""

        async def scenario(rig: _Rig) -> None:
            descriptors = _descriptors()
            agent, edge = await rig.pair()
            agent.send(b"x" * 50_000 + b"bye")
            await agent.until(lambda: not agent.unsent)
            agent.carrier.close()
            agent.carrier.close()
            await edge.until(lambda: edge.ended)
            assert edge.ended == "eof"
            assert len(edge.received) == 50_003
            assert edge.received.endswith(b"bye")
            edge.carrier.close()
            await _until_released(descriptors)

        self.play(tmp_path, scenario)

    def test_an_abort_is_no_orderly_end(self, tmp_path: Path) -> None:
        """Or a truncated stream would pass for a whole one."""

        async def scenario(rig: _Rig) -> None:
            agent, edge = await rig.pair()
            agent.send(b"half a frame")
            await edge.until(lambda: edge.received)
            agent.carrier.abort()
            agent.carrier.abort()
            await edge.until(lambda: edge.ended)
            assert edge.ended != "eof"
            edge.carrier.abort()

        self.play(tmp_path, scenario)

    def test_both_ends_know_each_other_and_the_channel(self, tmp_path: Path) -> None:
        """The binding is what an agent's proof is tied to: both ends must see the same one."""

        async def scenario(rig: _Rig) -> None:
            agent, edge = await rig.pair()
            ours, theirs = agent.carrier.info, edge.carrier.info
            assert ours.transport == theirs.transport == rig.transport.name
            assert (ours.local, ours.peer) == (theirs.peer, theirs.local)
            assert ours.channel_binding
            assert (ours.channel_binding, ours.cb_type) == (theirs.channel_binding, theirs.cb_type)
            agent.carrier.abort()
            edge.carrier.abort()

        self.play(tmp_path, scenario)

    def test_an_edge_that_cannot_be_trusted_is_refused(self, tmp_path: Path) -> None:
        """By its name, and by who vouches for it."""
        (tmp_path / "other").mkdir()
        stranger = make_certificate(tmp_path / "other")

        async def scenario(rig: _Rig) -> None:
            for target in (
                attrs.evolve(rig.target, server_name="other.test"),
                attrs.evolve(rig.target, ca_pem=stranger.pem),
            ):
                with pytest.raises(DrtpError, match="DRTP-4003"):
                    await rig.transport.dial(rig.engine, target, timeout=10)

        self.play(tmp_path, scenario)

    def test_nobody_there_is_a_coded_error(self, tmp_path: Path) -> None:
        """At once where the port is shut."""

        async def scenario(rig: _Rig) -> None:
            with socket.socket() as shut:
                shut.bind(("127.0.0.1", 0))
                target = attrs.evolve(rig.target, port=shut.getsockname()[1])
                with pytest.raises(DrtpError, match="DRTP-4002"):
                    await rig.transport.dial(rig.engine, target, timeout=2)

        self.play(tmp_path, scenario)

    def test_a_silent_peer_ends_the_dial_in_time_and_a_cancelled_dial_leaves_nothing(self, tmp_path: Path) -> None:
        """Neither descriptors nor tasks."""

        async def scenario(rig: _Rig) -> None:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                target = attrs.evolve(rig.target, port=silent.getsockname()[1])
                descriptors, tasks = _descriptors(), len(asyncio.all_tasks())
                before = time.monotonic()
                with pytest.raises(DrtpError, match="DRTP-4002"):
                    await rig.transport.dial(rig.engine, target, timeout=0.2)
                assert time.monotonic() - before < 2
                for pause in (0.0, 0.001, 0.05):
                    dial = asyncio.create_task(rig.transport.dial(rig.engine, target, timeout=10))
                    await asyncio.sleep(pause)
                    dial.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await dial
                await _until_released(descriptors)
                assert len(asyncio.all_tasks()) == tasks

        self.play(tmp_path, scenario)

    def test_a_closed_listener_refuses_and_spares_the_carriers_it_made(self, tmp_path: Path) -> None:
        """A draining edge accepts nobody and cuts nobody."""

        async def main() -> None:
            engine = create_engine(kind=self.engine_kind)  # type: ignore[arg-type]
            certificate = make_certificate(tmp_path)
            transport, arrived = self.make_transport(), asyncio.Queue[Carrier]()
            listener = await transport.listen(engine, self.listen_config(certificate), arrived.put_nowait)
            target = self.dial_target(listener.address, certificate)
            agent, edge = await _Rig(engine, transport, target, arrived).pair()
            await listener.close()
            with pytest.raises(DrtpError, match="DRTP-4002"):
                await transport.dial(engine, target, timeout=2)
            agent.send(b"still here")
            await edge.until(lambda: edge.received == b"still here")
            agent.carrier.abort()
            edge.carrier.abort()
            engine.close()

        asyncio.run(main())
