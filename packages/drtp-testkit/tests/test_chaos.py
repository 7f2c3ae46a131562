"""The chaos relay does what it says, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from drtp_testkit.chaos import ChaosRelay, Conditions, Shaper
from drtp_testkit.clock import FakeClock


def test_bytes_are_late_by_the_latency_and_never_overtake_each_other():
    shaper = Shaper(Conditions(latency=0.1, jitter=0.5), seed=7)
    times = [due for now in (0.0, 0.01, 0.02, 0.5) for due, _ in shaper.shape(b"x", now)]
    assert times == sorted(times)
    assert 0.1 <= times[0] <= 0.6
    assert shaper.end(0.5) >= times[-1]


def test_the_same_seed_makes_the_same_weather():
    def times(seed):
        return [due for due, _ in Shaper(Conditions(jitter=1.0, slice_size=1), seed).shape(b"abcdef", 0.0)]

    assert times(3) == times(3)
    assert times(3) != times(4)


def test_bandwidth_spaces_the_pieces_out():
    shaper = Shaper(Conditions(bandwidth=1000.0, slice_size=100))
    pieces = list(shaper.shape(bytes(500), 10.0))
    assert [due for due, _ in pieces] == pytest.approx([10.1, 10.2, 10.3, 10.4, 10.5])
    ((due, _),) = shaper.shape(bytes(100), 20.0)
    assert due == pytest.approx(20.1)


def test_slices_add_up_to_what_came():
    pieces = [piece for _, piece in Shaper(Conditions(slice_size=3)).shape(b"abcdefgh", 0.0)]
    assert pieces == [b"abc", b"def", b"gh"]


def test_a_clock_moves_by_hand_and_forwards_only():
    clock = FakeClock(5.0)
    assert clock.advance(2.5) == clock() == clock.now == 7.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


@contextlib.asynccontextmanager
async def echo_behind_a_relay():
    writers = []

    async def echo(reader, writer):
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with ChaosRelay(server.sockets[0].getsockname()[:2], seed=1) as relay:
        yield relay
    for writer in writers:
        writer.transport.abort()
    server.close()
    await asyncio.sleep(0.01)


def play(scenario):
    async def main():
        async with asyncio.timeout(20), echo_behind_a_relay() as relay:
            await scenario(relay)

    asyncio.run(main())


def test_bytes_and_half_close_pass_whole_through_bad_weather():
    async def scenario(relay):
        relay.up.slice_size, relay.up.jitter, relay.down.latency = 700, 0.001, 0.01
        reader, writer = await asyncio.open_connection(*relay.address)
        sent = bytes(itertools.islice(itertools.cycle(range(251)), 200_000))
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent
        assert relay.accepted == 1
        writer.close()

    play(scenario)


def test_latency_counts_in_both_directions():
    async def scenario(relay):
        relay.up.latency = relay.down.latency = 0.05
        reader, writer = await asyncio.open_connection(*relay.address)
        clock = asyncio.get_running_loop().time
        before = clock()
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"
        assert clock() - before >= 0.1
        writer.close()

    play(scenario)


def test_a_half_open_connection_swallows_bytes_and_ends_but_stays():
    async def scenario(relay):
        reader, writer = await asyncio.open_connection(*relay.address)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        relay.half_open()
        writer.write(b"lost")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        assert relay.connections == 1
        relay.half_open(False)
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after"
        writer.close()

    play(scenario)


def test_a_reset_reaches_both_ends():
    async def scenario(relay):
        reader, writer = await asyncio.open_connection(*relay.address)
        writer.write(b"x")
        await reader.readexactly(1)
        relay.reset_all()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()

    play(scenario)


def test_a_refusing_relay_keeps_its_connections_and_comes_back_on_its_port():
    async def scenario(relay):
        reader, writer = await asyncio.open_connection(*relay.address)
        writer.write(b"x")
        await reader.readexactly(1)
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*relay.address)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        address = relay.address
        await relay.listen()
        assert relay.address == address
        _, other = await asyncio.open_connection(*address)
        for each in (writer, other):
            each.close()

    play(scenario)


def test_back_pressure_passes_through():
    async def scenario(relay):
        relay.up.bandwidth = 1000.0
        _, writer = await asyncio.open_connection(*relay.address)
        writer.transport.set_write_buffer_limits(high=1)
        writer.write(bytes(64 << 20))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.2)
        writer.transport.abort()

    play(scenario)
