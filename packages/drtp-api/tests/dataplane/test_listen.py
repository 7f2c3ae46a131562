"""The listener accepts, survives a full descriptor table, and can be held."""

import asyncio
import errno
import socket

import pytest

from drtp_api.dataplane.listen import Listener, bind_tcp
from drtp_api.dataplane.sockopt import STREAM_USER_TIMEOUT


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def listening(engine, accepted):
    return Listener(engine, bind_tcp("127.0.0.1", 0), lambda sock, _: accepted.append(sock))


def close_all(*socks):
    for sock in socks:
        sock.close()


def test_a_crowd_is_accepted_and_every_socket_is_non_blocking(run):
    async def scenario(engine):
        accepted = []
        listener = listening(engine, accepted)
        clients = [socket.create_connection(listener.address) for _ in range(100)]
        await until(lambda: len(accepted) == 100)
        assert all(sock.gettimeout() == 0 for sock in accepted)
        listener.close()
        listener.close()
        close_all(*clients, *accepted)

    run(scenario)


class FullTable:
    """A listening socket whose process has no descriptors left for a while."""

    def __init__(self, sock, failures):
        self.sock, self.failures = sock, failures

    def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.sock.accept()

    def __getattr__(self, name):
        return getattr(self.sock, name)


def test_a_full_descriptor_table_turns_one_visitor_away_and_serves_the_next(run, monkeypatch):
    monkeypatch.setattr("drtp_api.dataplane.listen._PAUSE", 0.02)

    async def scenario(engine):
        accepted = []
        listener = listening(engine, accepted)
        listener._sock = FullTable(listener._sock, 1)
        turned_away = socket.create_connection(listener.address)
        await until(lambda: listener.exhausted == 1)
        assert listener.paused
        turned_away.setblocking(False)
        await until(lambda: _is_reset(turned_away))
        assert listener._reserve is not None
        served = socket.create_connection(listener.address)
        await until(lambda: accepted)
        assert not listener.paused
        listener.close()
        close_all(turned_away, served, *accepted)

    run(scenario)


def _is_reset(sock):
    try:
        sock.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    raise AssertionError("an orderly end instead of a reset")


def test_a_connection_that_failed_before_it_was_accepted_costs_nobody_else(run):
    class Aborted(FullTable):
        def accept(self):
            if self.failures:
                self.failures -= 1
                raise ConnectionAbortedError
            return self.sock.accept()

    async def scenario(engine):
        accepted = []
        listener = listening(engine, accepted)
        listener._sock = Aborted(listener._sock, 3)
        client = socket.create_connection(listener.address)
        await until(lambda: accepted)
        listener.close()
        close_all(client, *accepted)

    run(scenario)


def test_a_held_listener_leaves_connections_in_the_backlog(run):
    async def scenario(engine):
        accepted = []
        listener = listening(engine, accepted)
        listener.hold()
        client = socket.create_connection(listener.address)
        await asyncio.sleep(0.02)
        assert not accepted
        listener.release()
        await until(lambda: accepted)
        listener.close()
        close_all(client, *accepted)

    run(scenario)


def test_a_callback_that_raises_costs_its_connection_only(run):
    async def scenario(engine):
        accepted = []

        def fussy(sock, peer):
            if not accepted:
                accepted.append(None)
                raise RuntimeError("not this one")
            accepted.append(sock)

        engine.expected_faults = 1
        listener = Listener(engine, bind_tcp("127.0.0.1", 0), fussy)
        clients = [socket.create_connection(listener.address) for _ in range(2)]
        await until(lambda: len(accepted) == 2)
        clients[0].setblocking(False)
        await until(lambda: _is_reset(clients[0]))
        listener.close()
        close_all(*clients, accepted[1])

    run(scenario)


def test_an_address_in_use_is_refused_and_leaks_nothing():
    first = bind_tcp("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        bind_tcp(*first.getsockname())
    first.close()


def test_processes_can_share_a_port_if_both_say_so():
    first = bind_tcp("127.0.0.1", 0, reuse_port=True)
    second = bind_tcp(*first.getsockname(), reuse_port=True)
    first.close()
    second.close()


def test_accepted_sockets_inherit_the_options_of_streams():
    listener = bind_tcp("127.0.0.1", 0)
    with socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == STREAM_USER_TIMEOUT * 1000
        accepted.close()
    listener.close()
