"""Options are set where they exist and skipped where they do not."""

import socket
import time

from drtp_api.dataplane import sockopt
from drtp_api.dataplane.testing import tcp_pair


def test_a_stream_socket_is_quick_patient_and_non_blocking():
    a, b = tcp_pair()
    a.setblocking(True)
    sockopt.tune_stream(a, keepalive=True)
    assert a.gettimeout() == 0
    assert a.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert a.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    a.close()
    b.close()


def test_a_tunnel_socket_counts_as_full_before_megabytes_wait():
    a, b = tcp_pair()
    sockopt.tune_tunnel(a, send_buffer=100_000)
    assert a.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == sockopt.NOTSENT_LOWAT
    assert a.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 200_000
    assert a.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    a.close()
    b.close()


def test_a_unix_socket_is_tuned_without_complaint():
    a, b = socket.socketpair()
    sockopt.tune_stream(a)
    sockopt.tune_tunnel(b)
    assert a.gettimeout() == b.gettimeout() == 0
    a.close()
    b.close()


def test_a_reset_close_is_seen_as_a_reset():
    a, b = tcp_pair()
    sockopt.reset_close(a)
    deadline = time.monotonic() + 5
    while (error := sockopt.pending_error(b)) is None and time.monotonic() < deadline:
        pass
    assert isinstance(error, ConnectionResetError)
    assert sockopt.pending_error(b) is None
    b.close()


def test_the_streams_patience_exceeds_what_the_protocol_calls_stalled():
    from drtp_protocol import Tuning

    assert Tuning().stall < sockopt.STREAM_USER_TIMEOUT
