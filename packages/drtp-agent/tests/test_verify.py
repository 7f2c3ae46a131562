"""Visits against real sockets that behave in every way a gateway can."""

from __future__ import annotations

import asyncio
import socket

import pytest

from drtp_agent.streams import StreamWatches
from drtp_agent.verify import Reach, http_host, visit
from drtp_api.dataplane.sockopt import reset_close
from drtp_api.registration import ConnectionView
from drtp_api.resources import Address, Protocol
from drtp_protocol import Address as WireAddress
from drtp_protocol import OpenMetadata

SERVICE = "default/web"


def view_of(port, protocol):
    address = Address(protocol=protocol, host="127.0.0.1", port=port)
    url = f"http://web.prism.localhost:{port}/" if protocol is Protocol.HTTP else None
    return ConnectionView(
        name="c", namespace="default", service="web", private=False, programmed=True, url=url, addresses=(address,)
    )


def visited(gateway, protocol=Protocol.TCP):
    """Visit a gateway that is one coroutine function of (reader, writer, watches)."""

    async def scenario():
        watches = StreamWatches()
        writers = []

        async def handle(reader, writer):
            writers.append(writer)
            await gateway(reader, writer, watches)

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        view = view_of(server.sockets[0].getsockname()[1], protocol)
        try:
            return await visit(watches, SERVICE, view, view.addresses[0])
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0.01)

    return asyncio.run(scenario())


def open_stream(watches, peer, *, service=SERVICE, answered=0):
    source = WireAddress.from_host(peer[0], peer[1])
    return watches.opened(OpenMetadata(service=service, source=source), "nyc", lambda: answered)


def settle(watches, seen, *, accepted):
    seen.accepted = accepted
    seen.failed = None if accepted else "connection refused"
    watches.changed(seen)


async def pass_on(reader, writer, watches, accepted=True, answered=100):
    seen = open_stream(watches, writer.get_extra_info("peername"), answered=answered)
    await asyncio.sleep(0)
    settle(watches, seen, accepted=accepted)
    return seen


def test_a_tcp_visit_that_is_connected_to_the_service_is_the_whole_way():
    result = visited(pass_on)
    assert (result.reach, result.exact) == (Reach.SERVICE, True)


def test_a_visit_that_the_service_does_not_take_ends_at_the_tunnel():
    async def gateway(reader, writer, watches):
        await pass_on(reader, writer, watches, accepted=False)

    result = visited(gateway)
    assert (result.reach, result.fault) == (Reach.TUNNEL, "connection refused")


def test_a_gateway_that_hangs_up_is_where_the_visit_ends():
    async def gateway(reader, writer, watches):
        writer.close()

    assert visited(gateway).reach is Reach.GATEWAY


def test_a_gateway_that_resets_at_once_is_where_the_visit_ends():
    async def scenario():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            view = view_of(listener.getsockname()[1], Protocol.TCP)

            def reset():
                reset_close(listener.accept()[0])

            work = asyncio.get_running_loop().run_in_executor(None, reset)
            result = await visit(StreamWatches(), SERVICE, view, view.addresses[0])
            await work
            return result

    result = asyncio.run(scenario())
    assert (result.reach, result.unroutable) == (Reach.GATEWAY, False)


def test_nobody_listening_is_nowhere_and_may_change():
    async def scenario():
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            view = view_of(sock.getsockname()[1], Protocol.TCP)
            return await visit(StreamWatches(), SERVICE, view, view.addresses[0])

    result = asyncio.run(scenario())
    assert (result.reach, result.unroutable) == (Reach.NOWHERE, False)


def test_a_stream_of_another_service_is_not_the_visit():
    async def gateway(reader, writer, watches):
        assert open_stream(watches, writer.get_extra_info("peername"), service="default/other") is None
        writer.close()

    assert visited(gateway).reach is Reach.GATEWAY


def test_the_visits_own_stream_is_preferred_to_a_neighbours():
    async def gateway(reader, writer, watches):
        open_stream(watches, ("203.0.113.7", 9))
        await asyncio.sleep(0.01)
        await pass_on(reader, writer, watches)

    result = visited(gateway)
    assert (result.reach, result.exact) == (Reach.SERVICE, True)


def test_a_translated_visit_is_taken_for_the_stream_that_came():
    async def gateway(reader, writer, watches):
        settle(watches, open_stream(watches, ("203.0.113.7", 9)), accepted=True)

    result = visited(gateway)
    assert (result.reach, result.exact) == (Reach.SERVICE, False)


ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def test_any_http_answer_of_the_service_will_do():
    async def gateway(reader, writer, watches):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"GET / HTTP/1.1\r\nHost: web.prism.localhost:")
        await pass_on(reader, writer, watches)
        writer.write(ANSWER)

    assert visited(gateway, Protocol.HTTP).reach is Reach.SERVICE


def test_an_answer_without_a_stream_is_the_gateways_own():
    async def gateway(reader, writer, watches):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    result = visited(gateway, Protocol.HTTP)
    assert result.reach is Reach.GATEWAY
    assert "200 OK" in result.fault


@pytest.mark.parametrize(("answered", "text"), [(0, ANSWER), (5, b"hello, this is no HTTP\r\n\r\n"), (0, b"")])
def test_an_answer_that_is_not_the_services_or_not_http_ends_at_the_tunnel(answered, text):
    async def gateway(reader, writer, watches):
        await reader.readuntil(b"\r\n\r\n")
        await pass_on(reader, writer, watches, answered=answered)
        writer.write(text)
        writer.write_eof()

    assert visited(gateway, Protocol.HTTP).reach is Reach.TUNNEL


def test_the_host_header_is_the_public_name_with_the_urls_port():
    view = view_of(8880, Protocol.HTTP)
    assert http_host(view, view.addresses[0]) == "web.prism.localhost:8880"
    nameless = ConnectionView(name="c", namespace="d", service="w", private=False, programmed=True)
    assert http_host(nameless, view.addresses[0]) == "127.0.0.1"


def test_watching_ends_with_the_block():
    watches = StreamWatches()
    with watches.watch(SERVICE) as watch:
        open_stream(watches, ("127.0.0.1", 1))
        assert len(watch.streams) == 1
    assert open_stream(watches, ("127.0.0.1", 1)) is None
