"""Both engines keep the contract of drtp_api.dataplane.engine."""

import asyncio
import socket

import pytest

from drtp_api.dataplane.engine import Handler, create_engine, default_spin_us, on_battery, settle
from drtp_api.dataplane.testing import tcp_pair


class Recorder(Handler):
    """Notes every call, reads until dry, and can be told to misbehave."""

    def __init__(self, engine, sock):
        self.scheduled = False
        self.engine, self.sock = engine, sock
        self.reports, self.turns, self.faults = [], 0, []
        self.received = bytearray()
        self.eof = False
        self.reading = True
        self.on_turn_do = lambda: None
        self.on_io_do = lambda: None

    def on_io(self, readable, writable, hangup):
        self.reports.append((readable, writable, hangup))
        self.on_io_do()
        if readable and self.reading:
            self.read()

    def read(self):
        try:
            while data := self.sock.recv(1 << 16):
                self.received += data
            self.eof = True
        except BlockingIOError:
            self.engine.rearm(self.sock, read=True)

    def on_turn(self):
        self.turns += 1
        self.on_turn_do()

    def on_fault(self, error):
        self.faults.append(error)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_a_new_descriptor_is_reported_writable_and_bytes_are_reported(run):
    async def scenario(engine):
        a, b = tcp_pair()
        handler = Recorder(engine, a)
        engine.add(a, handler)
        await until(lambda: any(writable for _, writable, _ in handler.reports))
        b.send(b"one")
        await until(lambda: handler.received == b"one")
        b.send(b"two")
        await until(lambda: handler.received == b"onetwo")
        b.close()
        await until(lambda: handler.eof)
        engine.remove(a)
        a.close()

    run(scenario)


def test_unread_bytes_are_reported_once_and_do_not_spin(run):
    async def scenario(engine):
        a, b = tcp_pair()
        handler = Recorder(engine, a)
        handler.reading = False
        engine.add(a, handler)
        b.send(b"x")
        await until(lambda: any(readable for readable, _, _ in handler.reports))
        settled = len(handler.reports)
        await asyncio.sleep(0.05)
        assert len(handler.reports) <= settled + 1
        handler.reading = True
        handler.read()
        b.send(b"y")
        await until(lambda: handler.received == b"xy")
        engine.remove(a)
        a.close()
        b.close()

    run(scenario)


def test_a_full_socket_is_reported_when_it_drains(run):
    async def scenario(engine):
        a, b = tcp_pair()
        handler = Recorder(engine, a)
        engine.add(a, handler)
        await until(lambda: handler.reports)
        sent = 0
        try:
            while True:
                sent += a.send(bytes(1 << 16))
        except BlockingIOError:
            engine.rearm(a, write=True)
        handler.reports.clear()
        got = 0
        while got < sent:
            try:
                got += len(b.recv(1 << 20))
            except BlockingIOError:
                await asyncio.sleep(0)
        await until(lambda: any(writable for _, writable, _ in handler.reports))
        engine.remove(a)
        a.close()
        b.close()

    run(scenario)


def test_a_scheduled_handler_runs_once_however_often_it_is_scheduled(run):
    async def scenario(engine):
        a, b = tcp_pair()
        handler = Recorder(engine, a)
        engine.schedule(handler)
        engine.schedule(handler)
        await until(lambda: handler.turns)
        await asyncio.sleep(0.01)
        assert handler.turns == 1
        a.close()
        b.close()

    run(scenario)


def test_a_handler_that_never_finishes_leaves_the_loop_to_others(run):
    async def scenario(engine):
        a, b = tcp_pair()
        greedy, neighbour = Recorder(engine, a), Recorder(engine, b)
        greedy.on_turn_do = lambda: engine.schedule(greedy)
        engine.add(b, neighbour)
        engine.schedule(greedy)
        beats = 0
        a.send(b"hello")
        while neighbour.received != b"hello" or beats < 10:
            await asyncio.sleep(0)
            beats += 1
        assert greedy.turns > 1
        greedy.on_turn_do = lambda: None
        engine.remove(b)
        a.close()
        b.close()

    run(scenario)


@pytest.mark.parametrize("place", ["on_io", "on_turn"])
def test_a_handler_that_raises_is_removed_and_its_neighbour_lives_on(run, place):
    async def scenario(engine):
        a, b = tcp_pair()
        c, d = tcp_pair()
        faulty, neighbour = Recorder(engine, a), Recorder(engine, c)

        def fail():
            raise ValueError("a defect")

        if place == "on_io":
            faulty.on_io_do = fail
        else:
            faulty.on_turn_do = fail
        engine.expected_faults = 1
        engine.add(a, faulty)
        engine.add(c, neighbour)
        engine.schedule(faulty)
        await until(lambda: faulty.faults)
        assert isinstance(faulty.faults[0], ValueError)
        faulty.on_io_do = faulty.on_turn_do = lambda: None
        reports = len(faulty.reports)
        b.send(b"nobody listens")
        d.send(b"still here")
        await until(lambda: neighbour.received == b"still here")
        assert len(faulty.reports) == reports
        engine.remove(c)
        for sock in (a, b, c, d):
            sock.close()

    run(scenario)


def test_a_removed_handler_hears_nothing_even_of_events_already_polled(run):
    async def scenario(engine):
        pairs = [tcp_pair() for _ in range(2)]
        handlers = [Recorder(engine, a) for a, _ in pairs]
        for handler, other in zip(handlers, reversed(handlers), strict=True):
            handler.on_io_do = lambda other=other: engine.remove(other.sock)
        for handler in handlers:
            engine.add(handler.sock, handler)
        await asyncio.sleep(0.02)
        assert sorted(bool(handler.reports) for handler in handlers) == [False, True]
        for handler, (a, b) in zip(handlers, pairs, strict=True):
            engine.remove(handler.sock)
            a.close()
            b.close()

    run(scenario)


def test_a_replaced_handler_takes_over_the_descriptor(run):
    async def scenario(engine):
        a, b = tcp_pair()
        first, second = Recorder(engine, a), Recorder(engine, a)
        engine.add(a, first)
        await until(lambda: first.reports)
        engine.replace(a, second)
        second.read()
        b.send(b"for the second")
        await until(lambda: second.received == b"for the second")
        assert not first.received
        engine.remove(a)
        a.close()
        b.close()

    run(scenario)


def test_watching_a_descriptor_twice_is_refused(run):
    async def scenario(engine):
        a, b = tcp_pair()
        engine.add(a, Recorder(engine, a))
        with pytest.raises(ValueError, match="already watched"):
            engine.add(a, Recorder(engine, a))
        engine.remove(a)
        engine.remove(a)
        a.close()
        b.close()

    run(scenario)


def test_timers_fire_and_can_be_cancelled(run):
    async def scenario(engine):
        fired = []
        engine.call_later(0.001, lambda: fired.append("kept"))
        engine.call_later(0.001, lambda: fired.append("cancelled")).cancel()
        await until(lambda: fired)
        await asyncio.sleep(0.005)
        assert fired == ["kept"]

    run(scenario)


def test_more_ready_sockets_than_one_poll_returns_are_all_served(run):
    async def scenario(engine):
        pairs = [tcp_pair() for _ in range(300)]
        handlers = [Recorder(engine, a) for a, _ in pairs]
        for handler in handlers:
            engine.add(handler.sock, handler)
        for _, b in pairs:
            b.send(b"ping")
        await until(lambda: all(handler.received == b"ping" for handler in handlers))
        for handler, (a, b) in zip(handlers, pairs, strict=True):
            engine.remove(handler.sock)
            a.close()
            b.close()

    run(scenario)


def test_an_engine_can_be_closed_twice_and_from_inside_a_turn(run):
    async def scenario(engine):
        a, b = tcp_pair()
        handler = Recorder(engine, a)
        handler.on_turn_do = engine.close
        engine.schedule(handler)
        await until(lambda: handler.turns)
        engine.close()
        engine.schedule(handler)
        await asyncio.sleep(0.005)
        assert handler.turns == 1
        a.close()
        b.close()

    run(scenario)


def test_a_spin_that_does_not_pay_is_tried_less_and_less():
    async def scenario():
        engine = create_engine(kind="epoll", spin_us=2000)
        a, b = tcp_pair()
        handler = Recorder(engine, a)
        engine.add(a, handler)
        for count in range(1, 101):
            b.send(b"x")
            await until(lambda count=count: len(handler.received) == count)
        assert engine._lost_bets == 8
        assert engine._turns_to_skip > 0
        engine.close()
        a.close()
        b.close()

    asyncio.run(scenario())


def test_the_spin_is_off_where_it_cannot_pay(monkeypatch, tmp_path):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert default_spin_us() == 0
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("drtp_api.dataplane.engine.on_battery", lambda: True)
    assert default_spin_us() == 0
    battery = tmp_path / "BAT0"
    battery.mkdir()
    (battery / "status").write_text("Discharging\n")
    assert on_battery(tmp_path)
    (battery / "status").write_text("Charging\n")
    assert not on_battery(tmp_path)
    assert not on_battery(tmp_path / "absent")


def test_asking_for_epoll_where_there_is_none_says_so(monkeypatch):
    async def scenario():
        monkeypatch.setattr("drtp_api.dataplane.epoll.available", lambda: False)
        with pytest.raises(OSError, match="no epoll"):
            create_engine(kind="epoll")
        engine = create_engine()
        assert not engine.edge_triggered
        engine.close()

    asyncio.run(scenario())


def test_plain_descriptors_are_watched_too(run):
    async def scenario(engine):
        a, b = socket.socketpair()
        a.setblocking(False)
        handler = Recorder(engine, a)
        engine.add(a.fileno(), handler)
        b.send(b"by number")
        await until(lambda: handler.received == b"by number")
        engine.remove(a.fileno())
        a.close()
        b.close()

    run(scenario)


def test_settling_keeps_the_collector_on_but_makes_it_rare():
    import gc

    before = gc.get_threshold()
    try:
        settle()
        assert gc.isenabled()
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
