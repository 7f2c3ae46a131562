"""Streams and sockets joined by a tunnel, over real sockets, both engines, plain and TLS."""

import asyncio
import random
import socket
import struct
from pathlib import Path

import pytest

from drtp_api.dataplane.dial import start_connect
from drtp_api.dataplane.testing import tcp_pair
from drtp_protocol import (
    DialDetail,
    ErrorCode,
    GoAwayReceived,
    Limits,
    StreamAccepted,
    StreamReset,
    Tuning,
    WrongState,
)

from .conftest import AgentEnd, receive, receive_end, send_all, until

SIZES = [0, 1, 100, 16_384, 65_528, 65_529, 300_001]


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def reset(sock):
    """Close with a real RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_bytes_of_every_size_arrive_exactly_both_ways_at_once(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        generator = random.Random(11)

        async def exchange(there, back):
            stream_id, visitor, service = await pair.visit()

            async def one_way(source, sink, data):
                await send_all(source, data)
                source.shutdown(socket.SHUT_WR)
                received, end = await receive_end(sink)
                assert end == "eof"
                assert received == data

            await asyncio.gather(one_way(visitor, service, there), one_way(service, visitor, back))
            edge, agent = await pair.over(stream_id)
            assert (edge.bytes_in, edge.bytes_out) == (agent.bytes_in, agent.bytes_out) == (len(there), len(back))
            assert edge.code is agent.code is ErrorCode.NO_ERROR

        sizes = [(generator.choice(SIZES), generator.choice(SIZES)) for _ in range(12)]
        sizes += [(generator.randrange(1_500_000), generator.randrange(1_500_000)) for _ in range(3)]
        await asyncio.gather(*(exchange(generator.randbytes(a), generator.randbytes(b)) for a, b in sizes))
        assert not pair.edge.tunnel.stream_count
        await pair.finish()

    run(scenario)


@pytest.mark.parametrize("first", ["visitor", "service"])
def test_a_half_close_leaves_the_other_direction_open(run, rig, first):
    async def scenario(engine):
        pair = await rig(engine)
        stream_id, visitor, service = await pair.visit()
        early, late = (visitor, service) if first == "visitor" else (service, visitor)
        early.send(b"question")
        early.shutdown(socket.SHUT_WR)
        assert await receive_end(late) == (b"question", "eof")
        answer = random.Random(3).randbytes(400_000)
        await asyncio.gather(send_all(late, answer), _expect(early, answer))
        late.close()
        assert (await receive_end(early))[1] == "eof"
        edge, agent = await pair.over(stream_id)
        assert edge.closed_by == ("local" if first == "visitor" else "peer")
        assert agent.closed_by == ("peer" if first == "visitor" else "local")
        await pair.finish()

    run(scenario)


async def _expect(sock, data):
    assert await receive(sock, len(data)) == data


@pytest.mark.parametrize("who", ["visitor", "service"])
@pytest.mark.parametrize("moved", [0, 70_000])
def test_a_reset_arrives_as_a_reset_at_the_other_end(run, rig, who, moved):
    async def scenario(engine):
        pair = await rig(engine)
        stream_id, visitor, service = await pair.visit()
        data = bytes(moved)
        if moved:
            await asyncio.gather(send_all(visitor, data), _expect(service, data))
        await until(lambda: pair.edge.of(StreamAccepted))
        broken, other = (visitor, service) if who == "visitor" else (service, visitor)
        reset(broken)
        assert await receive_end(other) == (b"", "reset")
        edge, agent = await pair.over(stream_id)
        assert edge.closed_by == agent.closed_by == "reset"
        assert edge.code is agent.code is ErrorCode.CANCEL
        assert edge.reset_by_peer is (who == "service")
        assert agent.reset_by_peer is (who == "visitor")
        await pair.finish()

    run(scenario)


def test_a_service_that_closes_early_resets_what_it_did_not_read(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        stream_id, visitor, service = await pair.visit()
        sending = asyncio.create_task(send_all(visitor, bytes(8_000_000)))
        await receive(service, 10_000)
        service.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await sending
        edge, _ = await pair.over(stream_id)
        assert edge.closed_by == "reset"
        assert edge.reset_by_peer
        await pair.finish()

    run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_random_ends_never_turn_a_cut_stream_into_a_whole_one(run, rig, seed):
    async def scenario(engine):
        pair = await rig(engine)
        generator = random.Random(seed)

        async def one():
            stream_id, visitor, service = await pair.visit()
            data = generator.randbytes(generator.randrange(1, 600_000))
            cut = generator.randrange(len(data))
            orderly = generator.random() < 0.5
            await asyncio.sleep(generator.random() * 0.003)

            async def source():
                await send_all(visitor, data if orderly else data[:cut])
                if orderly:
                    visitor.shutdown(socket.SHUT_WR)
                else:
                    reset(visitor)

            _, (received, end) = await asyncio.gather(source(), receive_end(service))
            if orderly:
                assert end == "eof"
                assert received == data
            else:
                assert end == "reset"
                assert data.startswith(received)
            service.close()
            await pair.over(stream_id)

        await asyncio.gather(*(one() for _ in range(20)))
        await pair.finish()

    run(scenario)


def test_a_burst_larger_than_the_receive_buffer_is_read_to_its_end(run, rig):
    """What was left in the carrier when the sender fell silent needs no further report from the kernel."""

    async def scenario(engine):
        pair = await rig(engine, limits=Limits(base_window=4_000_000))
        for _ in range(20):
            stream_id, visitor, service = await pair.visit()
            data = bytes(1_200_000)
            async with asyncio.timeout(2):
                await asyncio.gather(send_all(visitor, data), _expect(service, data))
            visitor.close()
            service.close()
            await pair.over(stream_id)
        await pair.finish()

    run(scenario)


def test_a_stalled_reader_does_not_stop_its_neighbours_and_memory_stays_within_its_window(run, rig):
    async def scenario(engine):
        pair = await rig(engine, tuning=Tuning(max_window=262_144))
        stalled_id, stalled, _ = await pair.visit()
        _, quick, quick_service = await pair.visit()
        filling = asyncio.create_task(send_all(stalled, bytes(32_000_000)))
        data = random.Random(5).randbytes(3_000_000)
        for _ in range(3):
            await asyncio.gather(send_all(quick, data), _expect(quick_service, data))
            assert pair.agent.tunnel.leftover_bytes(stalled_id) <= 262_144
        assert pair.agent.tunnel.leftover_bytes(stalled_id) > 0
        assert not filling.done()
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        await pair.finish()

    run(scenario)


def test_a_reader_that_wakes_up_gets_everything(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        stream_id, visitor, service = await pair.visit()
        data = random.Random(6).randbytes(9_000_000)

        async def sluggish():
            await asyncio.sleep(0.05)
            return await receive_end(service)

        async def source():
            await send_all(visitor, data)
            visitor.shutdown(socket.SHUT_WR)

        _, (received, end) = await asyncio.gather(source(), sluggish())
        assert received == data
        assert end == "eof"
        service.close()
        await pair.over(stream_id)
        await pair.finish()

    run(scenario)


def test_two_hundred_connections_leave_no_descriptor_and_no_stream_behind(run, rig):
    async def scenario(engine):
        pair = await rig(engine)

        async def visit(number):
            stream_id, visitor, service = await pair.visit()
            await send_all(visitor, b"x" * (number * 37))
            if number % 3 == 0:
                reset(visitor)
                assert (await receive_end(service))[1] == "reset"
            else:
                visitor.shutdown(socket.SHUT_WR)
                assert len((await receive_end(service))[0]) == number * 37
            service.close()
            visitor.close()
            await pair.over(stream_id)

        await visit(1)
        before = descriptors(), len(engine._handlers)
        for batch in range(10):
            await asyncio.gather(*(visit(batch * 20 + number) for number in range(20)))
        assert (descriptors(), len(engine._handlers)) == before
        for end in (pair.edge, pair.agent):
            assert not end.tunnel.stream_count
            assert not end.tunnel._held
            assert not end.tunnel.connection.stream_ids
        await pair.finish()

    run(scenario)


@pytest.mark.parametrize("how", ["reset", "eof"])
def test_a_carrier_cut_in_the_middle_resets_every_visitor(run, rig, how):
    async def scenario(engine):
        pair = await rig(engine)
        visits = [await pair.visit() for _ in range(3)]
        await until(lambda: len(pair.edge.of(StreamAccepted)) == 3)
        raw = pair.edge.raw.dup() if how == "eof" else None
        sending = [asyncio.create_task(send_all(service, bytes(50_000_000))) for _, _, service in visits]
        await asyncio.gather(*(receive(visitor, 100_000) for _, visitor, _ in visits))
        if how == "reset":
            pair.edge.tunnel.abort()
        else:
            raw.shutdown(socket.SHUT_RDWR)
        for stream_id, visitor, _ in visits:
            assert (await receive_end(visitor))[1] == "reset"
            await until(lambda stream_id=stream_id: stream_id in pair.edge.summaries)
            assert pair.edge.summaries[stream_id].closed_by == "tunnel"
        await until(lambda: pair.agent.ended)
        for task in sending:
            with pytest.raises(OSError):
                await task
        assert isinstance(pair.edge.ended[0], OSError)
        assert pair.edge.tunnel.closed
        if raw is not None:
            raw.close()
        await pair.finish()

    run(scenario)


def test_a_polite_close_tells_the_peer_why_and_resets_what_is_open(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        _, visitor, service = await pair.visit()
        pair.edge.tunnel.close(ErrorCode.SUPERSEDED)
        pair.edge.tunnel.close()
        await until(lambda: pair.agent.ended)
        assert [event.code for event in pair.agent.of(GoAwayReceived)] == [ErrorCode.SUPERSEDED]
        assert pair.agent.ended[0].code is ErrorCode.SUPERSEDED
        for sock in (visitor, service):
            assert await receive_end(sock) == (b"", "reset")
        await pair.finish()

    run(scenario)


def test_a_drain_lets_streams_finish_and_then_ends_in_order(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        stream_id, visitor, service = await pair.visit()
        pair.edge.tunnel.go_away(ErrorCode.DRAINING, drain=10)
        await until(lambda: pair.agent.of(GoAwayReceived))
        data = random.Random(8).randbytes(2_000_000)

        async def source():
            await send_all(visitor, data)
            visitor.close()

        async def sink():
            received, end = await receive_end(service)
            assert end == "eof"
            assert received == data
            service.close()

        await asyncio.gather(source(), sink())
        edge, agent = await pair.over(stream_id)
        assert edge.code is agent.code is ErrorCode.NO_ERROR
        await until(lambda: pair.edge.ended and pair.agent.ended)
        assert pair.edge.ended == pair.agent.ended == (None,)
        await pair.finish()

    run(scenario)


def test_the_last_bytes_of_a_drained_tunnel_arrive_though_its_carrier_is_slow(run, rig):
    async def scenario(engine):
        pair = await rig(engine, limits=Limits(base_window=1_000_000))
        pair.edge.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        stream_id, visitor, service = await pair.visit()
        service.shutdown(socket.SHUT_WR)
        assert await receive_end(visitor) == (b"", "eof")
        pair.edge.tunnel.go_away(drain=10)
        data = random.Random(10).randbytes(700_000)

        async def source():
            await send_all(visitor, data)
            visitor.close()

        _, (received, end) = await asyncio.gather(source(), receive_end(service))
        assert end == "eof"
        assert received == data
        edge, agent = await pair.over(stream_id)
        assert edge.code is agent.code is ErrorCode.NO_ERROR
        await until(lambda: pair.agent.ended)
        assert pair.agent.ended == (None,)
        await pair.finish()

    run(scenario)


def test_a_stream_that_ended_well_reaches_its_slow_socket_after_the_tunnel_is_gone(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        inner, visitor = socket.socketpair()
        for sock in (inner, visitor):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        pair.socks.append(visitor)
        stream_id = pair.edge.visit(inner)
        visitor.shutdown(socket.SHUT_WR)
        await until(lambda: stream_id in pair.agent.peers)
        service = pair.agent.peers[stream_id]
        assert (await receive_end(service))[1] == "eof"
        data = random.Random(9).randbytes(60_000)
        await send_all(service, data)
        service.close()
        await until(lambda: stream_id in pair.agent.summaries)
        await until(lambda: stream_id not in pair.edge.tunnel.connection.stream_ids)
        assert pair.edge.tunnel.leftover_bytes(stream_id)
        pair.edge.tunnel.close()
        assert await receive_end(visitor) == (data, "eof")
        await until(lambda: stream_id in pair.edge.summaries)
        assert pair.edge.summaries[stream_id].code is ErrorCode.NO_ERROR
        await pair.finish()

    run(scenario)


class Unanswered(AgentEnd):
    """Leaves every stream open without a socket, until a test attaches one."""

    def connect(self, stream_id):
        self.peers[stream_id] = None


def test_bytes_sent_before_a_socket_is_found_are_held_and_delivered(run, rig):
    async def scenario(engine):
        pair = await rig(engine, agent_type=Unanswered)
        stream_id, visitor, _ = await pair.visit()
        visitor.send(b"early words")
        visitor.shutdown(socket.SHUT_WR)
        await until(lambda: pair.agent.tunnel.leftover_bytes(stream_id) == 11)
        inner, service = socket.socketpair()
        inner.setblocking(False)
        service.setblocking(False)
        pair.socks.append(service)
        pair.agent.tunnel.attach(stream_id, inner, preface=b"PROXY ")
        assert await receive_end(service) == (b"PROXY early words", "eof")
        service.close()
        edge, agent = await pair.over(stream_id)
        assert edge.bytes_in == agent.bytes_in == 11
        await pair.finish()

    run(scenario)


def test_what_is_held_before_accept_is_bounded_by_the_base_window(run, rig):
    async def scenario(engine):
        pair = await rig(engine, agent_type=Unanswered, limits=Limits(base_window=20_000))
        stream_id, visitor, _ = await pair.visit()
        sending = asyncio.create_task(send_all(visitor, bytes(10_000_000)))
        await until(lambda: pair.agent.tunnel.leftover_bytes(stream_id) == 20_000)
        await asyncio.sleep(0.01)
        assert pair.agent.tunnel.leftover_bytes(stream_id) == 20_000
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        pair.agent.tunnel.reset(stream_id, ErrorCode.REFUSED)
        assert not pair.agent.tunnel._held
        await pair.finish()

    run(scenario)


def test_a_refused_stream_can_be_detached_and_tried_on_another_tunnel(run, rig):
    async def scenario(engine):
        first = await rig(engine, agent_type=Unanswered)
        second = await rig(engine)
        moved = []

        def retry(tunnel, event):
            if isinstance(event, StreamReset):
                assert tunnel.unaccepted() == [event.stream_id]
                sock, early = tunnel.detach(event.stream_id)
                moved.append(second.edge.visit(sock, early=early, retain=True))

        first.edge.on_tunnel_event = retry
        stream_id, visitor, _ = await first.visit(retain=True)
        visitor.send(b"hello ")
        await until(lambda: first.agent.tunnel.leftover_bytes(stream_id) == 6)
        first.agent.tunnel.reset(stream_id, ErrorCode.REFUSED)
        await until(lambda: moved)
        visitor.send(b"again")
        visitor.shutdown(socket.SHUT_WR)
        await until(lambda: second.agent.peers)
        service = second.agent.peers[moved[0]]
        assert await receive_end(service) == (b"hello again", "eof")
        service.send(b"welcome")
        service.close()
        assert await receive_end(visitor) == (b"welcome", "eof")
        assert (await second.over(moved[0]))[0].bytes_in == 11
        assert stream_id not in first.edge.summaries
        await first.finish()
        await second.finish()

    run(scenario)


def test_a_lost_tunnel_gives_unaccepted_streams_back_and_resets_the_accepted(run, rig):
    async def scenario(engine):
        first, second = await rig(engine), await rig(engine)
        _, accepted, _ = await first.visit(retain=True)
        await until(lambda: first.edge.of(StreamAccepted))
        first.agent.connect = first.agent.peers.setdefault
        _, pending, _ = await first.visit(retain=True)
        pending.send(b"keep me")
        saved = []

        def save(tunnel, error):
            for stream_id in tunnel.unaccepted():
                sock, early = tunnel.detach(stream_id)
                saved.append(second.edge.visit(sock, early=early))

        first.edge.on_tunnel_closed = save
        await until(lambda: any(first.agent.tunnel.leftover_bytes(number) for number in first.agent.peers))
        first.agent.tunnel.abort()
        assert await receive_end(accepted) == (b"", "reset")
        await until(lambda: second.agent.peers)
        service = second.agent.peers[saved[0]]
        assert await receive(service, 7) == b"keep me"
        pending.close()
        service.close()
        await second.over(saved[0])
        await first.finish()
        await second.finish()

    run(scenario)


def test_an_accepted_or_unretained_stream_cannot_be_detached(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        stream_id, *_ = await pair.visit(retain=True)
        await until(lambda: pair.edge.of(StreamAccepted))
        with pytest.raises(WrongState):
            pair.edge.tunnel.detach(stream_id)
        with pytest.raises(WrongState):
            pair.edge.tunnel.detach(stream_id + 2)
        await pair.finish()

    run(scenario)


class Dialling(AgentEnd):
    """Connects to an address, as the real agent does."""

    address = ("127.0.0.1", 0)

    def connect(self, stream_id):
        sock, connecting = start_connect(self.address)
        if not connecting:
            self.peers[stream_id] = None
        self.tunnel.attach(stream_id, sock, connecting=connecting)

    def on_connect_failed(self, tunnel, stream_id, error):
        super().on_connect_failed(tunnel, stream_id, error)
        tunnel.reset(stream_id, ErrorCode.DIAL_FAILED, DialDetail.CONNECTION_REFUSED, "nobody there")


def test_a_service_that_refuses_is_told_to_the_opener_and_the_visitor_is_reset(run, rig):
    async def scenario(engine):
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = gone.getsockname()
        pair = await rig(engine, agent_type=Dialling)
        pair.agent.address = address
        inner, visitor = socket.socketpair()
        inner.setblocking(False)
        visitor.setblocking(False)
        pair.socks.append(visitor)
        stream_id = pair.edge.visit(inner)
        await until(lambda: stream_id in pair.edge.summaries)
        summary = pair.edge.summaries[stream_id]
        assert (summary.code, summary.detail) == (ErrorCode.DIAL_FAILED, DialDetail.CONNECTION_REFUSED)
        assert summary.reason == "nobody there"
        assert isinstance(pair.agent.failures[stream_id], ConnectionRefusedError)
        await pair.finish()

    run(scenario)


def test_a_connecting_socket_gets_early_bytes_once_it_is_connected(run, rig):
    async def scenario(engine):
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        pair = await rig(engine, agent_type=Dialling)
        pair.agent.address = listener.getsockname()
        pair.agent.connect = lambda stream_id: _connect_slowly(pair.agent, stream_id)
        stream_id, visitor, _ = await pair.visit()
        visitor.send(b"first")
        service, _ = await asyncio.get_running_loop().sock_accept(listener)
        service.setblocking(False)
        pair.socks.append(service)
        assert await receive(service, 5) == b"first"
        service.close()
        visitor.close()
        edge, agent = await pair.over(stream_id)
        assert agent.connected is not None
        assert edge.code is ErrorCode.NO_ERROR
        listener.close()
        await pair.finish()

    run(scenario)


def _connect_slowly(agent, stream_id):
    sock, _ = start_connect(agent.address)
    agent.peers[stream_id] = None
    agent.tunnel.attach(stream_id, sock, connecting=True)


def test_a_stream_opened_and_reset_in_one_breath_leaves_nothing_behind(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        inner, visitor = tcp_pair()
        pair.socks.append(visitor)
        stream_id = pair.edge.visit(inner)
        pair.edge.tunnel.reset(stream_id, ErrorCode.CANCEL)
        assert await receive_end(visitor) == (b"", "reset")
        await until(lambda: stream_id in pair.agent.summaries)
        assert not pair.agent.tunnel.stream_count
        assert not pair.agent.tunnel._held
        pair.socks.append(pair.agent.peers[stream_id])
        await pair.finish()

    run(scenario)


def test_attaching_to_a_stream_that_is_over_is_refused_and_keeps_the_socket(run, rig):
    async def scenario(engine):
        pair = await rig(engine, agent_type=Unanswered)
        stream_id, visitor, _ = await pair.visit()
        reset(visitor)
        await until(lambda: pair.agent.of(StreamReset))
        inner, outer = socket.socketpair()
        with pytest.raises(WrongState):
            pair.agent.tunnel.attach(stream_id, inner)
        assert inner.fileno() >= 0
        inner.close()
        outer.close()
        await pair.finish()

    run(scenario)


def test_a_handler_that_raises_costs_its_stream_and_not_the_tunnel(run, rig):
    async def scenario(engine):
        pair = await rig(engine)
        connect = pair.agent.connect
        pair.agent.connect = lambda _: 1 // 0
        engine.expected_faults = 1
        inner, visitor = socket.socketpair()
        inner.setblocking(False)
        visitor.setblocking(False)
        stream_id = pair.edge.visit(inner)
        await until(lambda: stream_id in pair.edge.summaries)
        assert pair.edge.summaries[stream_id].code is ErrorCode.INTERNAL
        visitor.close()
        pair.agent.connect = connect
        _, visitor, service = await pair.visit()
        visitor.send(b"unharmed")
        assert await receive(service, 8) == b"unharmed"
        await pair.finish()

    run(scenario)


def test_a_silent_peer_is_noticed_by_the_timers(run, rig):
    async def scenario(engine):
        tuning = Tuning(keepalive=0.05, dead_after=0.15)
        pair = await rig(engine, tuning=tuning)
        _, visitor, _ = await pair.visit()
        await asyncio.sleep(0.3)
        assert pair.edge.ended is None, "keepalive keeps a living tunnel"
        engine.remove(pair.agent.tunnel.carrier._sock)
        pair.agent.tunnel._closed = True
        await until(lambda: pair.edge.ended)
        assert pair.edge.ended[0].code is ErrorCode.IDLE_TIMEOUT
        assert (await receive_end(visitor))[1] == "reset"
        pair.agent.tunnel._closed = False
        pair.agent.tunnel.abort()
        await pair.finish()

    run(scenario)
