"""The gateway with a real Envoy: visitors get where they should, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import attrs
import pytest

from drtp_api.errors import DrtpError
from drtp_api.gateways import Backend, Exposure
from drtp_api.resources import Protocol

pytestmark = pytest.mark.real


def test_a_tcp_visitor_reaches_the_service_with_its_own_address(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.greet_and_echo) as (edge,):
            port = kit.free_port()
            await rig.programmed(kit.tcp("default/pg", port, edge))
            reader, writer = await rig.visit(port, "127.0.0.7")
            writer.write(b"ping")
            assert await reader.readexactly(10) == b"hello\nping"
            (visit,) = edge.visits
            assert visit.source == writer.get_extra_info("sockname")
            assert visit.tlvs[0xE0] == b"default/pg"
            run_id, _, number = visit.tlvs[0x05].decode().partition("-")
            assert len(run_id) == 8
            assert int(number) > 0
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_http_is_routed_by_host_name_and_the_host_header_kept(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.http_answer("A"), kit.http_answer("B")) as (a, b):
            await rig.programmed(
                kit.http("default/a", "a.prism.localhost", a),
                kit.http("default/b", "b.prism.localhost", b),
                kit.http("default/off", "off.prism.localhost"),
            )
            status, text = await rig.request("a.prism.localhost:8880", "X-Forwarded-For: 203.0.113.66\r\n")
            assert (status, text.splitlines()[0]) == (200, "A")
            head = text.lower()
            assert "host: a.prism.localhost:8880\r\n" in head
            assert "x-forwarded-for: 127.0.0.1\r\n" in head
            assert "203.0.113.66" not in head
            assert (await rig.request("B.PRISM.localhost."))[1].startswith("B")
            assert await rig.request("nobody.prism.localhost") == (404, "no such tunnel\n")
            assert await rig.request("off.prism.localhost") == (503, "tunnel not online\n")

    asyncio.run(main())


@pytest.mark.parametrize("death", ["refuses", "swallows"])
def test_no_new_connection_fails_when_one_of_two_edges_dies(kit, tmp_path, death):
    """An edge that is gone refuses; one behind a cut network swallows, as does a listener whose queue is full."""

    async def main():
        async with (
            kit.running(tmp_path, connect_timeout=0.25) as rig,
            kit.edges(kit.greet_and_echo, kit.greet_and_echo) as (one, two),
            contextlib.AsyncExitStack() as stack,
        ):
            port = kit.free_port()
            await rig.programmed(kit.tcp("default/pg", port, one, two))
            clock = asyncio.get_running_loop().time
            worst = 0.0
            for attempt in range(40):
                if attempt == 10:
                    one.stop()
                    if death == "swallows":
                        stack.enter_context(full_listener(one.port))
                before = clock()
                reader, writer = await rig.visit(port)
                assert await reader.readexactly(6) == b"hello\n"
                worst = max(worst, clock() - before)
                writer.close()
                await asyncio.sleep(0.01)
            assert len(two.visits) >= 30
            assert worst < 1.0

    asyncio.run(main())


@contextlib.contextmanager
def full_listener(port: int):
    """Listen without ever accepting, queue full: the kernel drops what comes, as a cut network would."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield


def test_no_request_fails_when_one_of_two_edges_dies(kit, tmp_path):
    async def main():
        async with (
            kit.running(tmp_path) as rig,
            kit.edges(kit.http_answer("one"), kit.http_answer("two")) as (one, two),
        ):
            await rig.programmed(kit.http("default/web", "web.prism.localhost", one, two))
            statuses = []
            for attempt in range(30):
                if attempt == 10:
                    one.stop()
                statuses.append((await rig.request("web.prism.localhost", method="POST"))[0])
            assert statuses == [200] * 30
            assert len(two.visits) >= 20

    asyncio.run(main())


def test_a_taken_port_is_reported_and_others_are_served(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.greet_and_echo) as (edge,):
            with socket.create_server(("127.0.0.1", 0)) as squatter:
                taken, free = squatter.getsockname()[1], kit.free_port()
                wanted = [kit.tcp("default/a", taken, edge), kit.tcp("default/b", free, edge)]
                for _ in range(2):
                    statuses = await rig.gateway.apply(wanted)
                    assert statuses["default/a"].code == "DRTP-5003"
                    assert str(taken) in statuses["default/a"].message
                    assert statuses["default/b"].programmed
                    reader, writer = await rig.visit(free)
                    assert await reader.readexactly(6) == b"hello\n"
                    writer.close()
            await rig.programmed(*wanted)
            reader, writer = await rig.visit(taken)
            assert await reader.readexactly(6) == b"hello\n"
            writer.close()

    asyncio.run(main())


def test_a_denied_visitor_gets_no_byte_and_the_service_no_visit(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.greet_and_echo) as (edge,):
            some, none = kit.free_port(), kit.free_port()
            await rig.programmed(
                kit.tcp("default/some", some, edge, allow=("127.0.0.9/32", "::ffff:127.0.0.8/128", "10.1.2.3/8")),
                kit.tcp("default/none", none, edge, allow=()),
            )
            for port in (some, none):
                reader, writer = await rig.visit(port)
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            assert edge.visits == []
            for allowed in ("127.0.0.9", "127.0.0.8"):
                reader, writer = await rig.visit(some, allowed)
                assert await reader.readexactly(6) == b"hello\n"
                writer.close()

    asyncio.run(main())


def test_an_edited_allow_list_cuts_only_whom_it_removes(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path, drain_seconds=1) as rig, kit.edges(kit.greet_and_echo) as (edge,):
            port = kit.free_port()
            service = kit.tcp("default/pg", port, edge, allow=("127.0.0.2/32", "127.0.0.3/32"))
            await rig.programmed(service)
            stays, leaves = await rig.visit(port, "127.0.0.2"), await rig.visit(port, "127.0.0.3")
            for reader, _ in (stays, leaves):
                assert await reader.readexactly(6) == b"hello\n"
            await rig.programmed(attrs.evolve(service, allow=("127.0.0.2/32", "127.0.0.4/32")))
            denied, _ = await rig.visit(port, "127.0.0.3")
            with contextlib.suppress(ConnectionError):
                assert await denied.read() == b""
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    assert await leaves[0].read() == b""
            stays[1].write(b"still here")
            assert await stays[0].readexactly(10) == b"still here"
            welcome, _ = await rig.visit(port, "127.0.0.4")
            assert await welcome.readexactly(6) == b"hello\n"

    asyncio.run(main())


def test_an_http_allow_list_answers_403(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.http_answer("web")) as (edge,):
            service = kit.http("default/web", "web.prism.localhost", edge, allow=("10.0.0.0/8",))
            await rig.programmed(service)
            assert (await rig.request("web.prism.localhost", "X-Forwarded-For: 10.0.0.1\r\n"))[0] == 403
            await rig.programmed(attrs.evolve(service, allow=("10.0.0.0/8", "127.0.0.0/8")))
            assert (await rig.request("web.prism.localhost"))[0] == 200
            await rig.programmed(attrs.evolve(service, allow=()))
            assert (await rig.request("web.prism.localhost"))[0] == 403

    asyncio.run(main())


def test_websocket_upgrades_pass_and_carry_bytes_both_ways(kit, tmp_path):
    async def upgrade(visit):
        head = await visit.reader.readuntil(b"\r\n\r\n")
        assert b"upgrade: websocket" in head.lower()
        visit.writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await kit.greet_and_echo(visit)

    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(upgrade) as (edge,):
            await rig.programmed(kit.http("default/ws", "ws.prism.localhost", edge))
            reader, writer = await rig.visit(rig.info.http_port)
            writer.write(
                b"GET /chat HTTP/1.1\r\nHost: ws.prism.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            writer.write(b"frames")
            assert await reader.readexactly(12) == b"hello\nframes"
            writer.close()

    asyncio.run(main())


def test_a_killed_envoy_comes_back_with_its_configuration(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.http_answer("web")) as (edge,):
            service = kit.http("default/web", "web.prism.localhost", edge)
            await rig.programmed(service)
            first = rig.gateway.pid
            os.kill(first, signal.SIGKILL)
            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(OSError, IndexError):
                        if (await rig.request("web.prism.localhost"))[0] == 200:
                            break
                    await asyncio.sleep(0.05)
            assert rig.gateway.restarts == 1
            assert rig.gateway.pid != first
            await rig.programmed(attrs.evolve(service, hostnames=("new.prism.localhost",)))
            assert (await rig.request("new.prism.localhost"))[0] == 200

    asyncio.run(main())


def test_changes_leave_other_services_connections_alone(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path, drain_seconds=1) as rig, kit.edges(kit.greet_and_echo) as (edge,):
            port, gone = kit.free_port(), kit.free_port()
            keep = kit.tcp("default/keep", port, edge)
            await rig.programmed(keep, kit.tcp("default/gone", gone, edge))
            reader, writer = await rig.visit(port)
            leaving, _ = await rig.visit(gone)
            assert await leaving.readexactly(6) == b"hello\n"
            others = [kit.http(f"default/w{i}", f"w{i}.prism.localhost", edge) for i in range(5)]
            await rig.programmed(keep, *others, kit.tcp("default/other", kit.free_port(), edge))
            await rig.programmed(keep)
            await rig.programmed(attrs.evolve(keep, backends=()))
            with pytest.raises(ConnectionRefusedError):
                await rig.visit(gone)
            # When the removed service's visitor has been cut, the time in which another could be cut has passed too.
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    assert await leaving.read() == b""
            writer.write(b"alive")
            assert await reader.readexactly(11) == b"hello\nalive"
            assert "default/gone" not in (tmp_path / "envoy" / "cds" / "cds.json").read_text()
            # The port is free again at once, also for a service of another name.
            await rig.programmed(kit.tcp("default/heir", gone, edge))
            writer.close()

    asyncio.run(main())


def test_only_requests_that_are_safe_to_repeat_are_repeated(kit, tmp_path):
    async def fail(visit):
        await visit.reader.readuntil(b"\r\n\r\n")
        kit.reset(visit.writer)

    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(fail, fail) as (one, two):
            await rig.programmed(kit.http("default/web", "web.prism.localhost", one, two))
            status, text = await rig.request("web.prism.localhost", method="POST", body=b"pay")
            assert (status, "closed the connection" in text) == (502, True)
            assert len(one.visits) + len(two.visits) == 1
            assert (await rig.request("web.prism.localhost"))[0] in {502, 503}
            assert len(one.visits) + len(two.visits) > 2

    asyncio.run(main())


def test_a_crashing_service_does_not_take_its_tunnel_offline(kit, tmp_path):
    crashing = True

    async def conduct(visit):
        if not crashing:
            await kit.http_answer("back")(visit)
        await visit.reader.readuntil(b"\r\n\r\n")
        kit.reset(visit.writer)

    async def main():
        nonlocal crashing
        async with kit.running(tmp_path) as rig, kit.edges(conduct, conduct) as (one, two):
            await rig.programmed(kit.http("default/web", "web.prism.localhost", one, two))
            for _ in range(5):
                assert (await rig.request("web.prism.localhost", method="POST"))[0] == 502
            crashing = False
            assert [(await rig.request("web.prism.localhost", method="POST"))[0] for _ in range(5)] == [200] * 5

    asyncio.run(main())


def test_a_reset_stays_a_reset(kit, tmp_path):
    async def fail(visit):
        visit.writer.write(b"half an answer")
        await visit.writer.drain()
        await visit.reader.read(1)
        kit.reset(visit.writer)

    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(fail) as (edge,):
            port = kit.free_port()
            await rig.programmed(kit.tcp("default/db", port, edge))
            reader, writer = await rig.visit(port)
            assert await reader.readexactly(14) == b"half an answer"
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()

    asyncio.run(main())


def test_a_tcp_service_without_a_tunnel_resets_its_visitors(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.greet_and_echo) as (edge,):
            port = kit.free_port()
            service = kit.tcp("default/db", port)
            await rig.programmed(service)
            for _ in range(5):
                reader, _ = await rig.visit(port)
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            await rig.programmed(attrs.evolve(service, backends=(edge.backend,)))
            reader, _ = await rig.visit(port)
            assert await reader.readexactly(6) == b"hello\n"

    asyncio.run(main())


def test_a_large_upload_streams_through(kit, tmp_path):
    async def count(visit):
        await visit.reader.readuntil(b"\r\n\r\n")
        total = 0
        while total < 8_000_000:
            total += len(await visit.reader.read(65536))
        visit.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n%d" % total)

    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(count) as (edge,):
            await rig.programmed(kit.http("default/web", "web.prism.localhost", edge))
            assert await rig.request("web.prism.localhost", method="POST", body=bytes(8_000_000)) == (200, "8000000")

    asyncio.run(main())


def test_a_standby_is_used_only_when_the_first_is_away(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.http_answer("1st"), kit.http_answer("2nd")) as (a, b):
            service = kit.http("default/web", "web.prism.localhost")
            first = attrs.evolve(a.backend, priority=0)
            second = attrs.evolve(b.backend, priority=1)
            await rig.programmed(attrs.evolve(service, backends=(first, second)))
            assert {(await rig.request("web.prism.localhost"))[1][:3] for _ in range(6)} == {"1st"}
            await rig.programmed(attrs.evolve(service, backends=(attrs.evolve(first, ready=False), second)))
            assert {(await rig.request("web.prism.localhost"))[1][:3] for _ in range(6)} == {"2nd"}

    asyncio.run(main())


def test_udp_datagrams_pass_and_an_allow_list_drops_the_others(kit, tmp_path):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            self.transport.sendto(data.upper(), addr)

    async def main():
        loop = asyncio.get_running_loop()
        async with kit.running(tmp_path) as rig:
            echo, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
            port = kit.free_port()
            backend = Backend(address="127.0.0.1", port=echo.get_extra_info("sockname")[1])
            await rig.programmed(
                Exposure(service="default/dns", protocol=Protocol.UDP, port=port, backends=(backend,),
                         allow=("127.0.0.5/32",))
            )  # fmt: skip
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
            ):
                for sock, source in ((ours, "127.0.0.5"), (theirs, "127.0.0.6")):
                    sock.setblocking(False)
                    sock.bind((source, 0))
                    sock.connect(("127.0.0.1", port))
                theirs.send(b"secret?")
                ours.send(b"ping")
                async with asyncio.timeout(5):
                    assert await loop.sock_recv(ours, 100) == b"PING"
                with pytest.raises(BlockingIOError):
                    theirs.recv(100)
            echo.close()

    asyncio.run(main())


def test_a_state_directory_too_deep_for_a_socket_works(kit, tmp_path):
    async def main():
        deep = tmp_path / ("d" * 120)
        async with kit.running(deep) as rig:
            assert len(rig.info.details["admin"]) <= 107
            await rig.programmed(kit.http("default/web", "web.prism.localhost"))
            assert (await rig.request("web.prism.localhost"))[0] == 503
            return Path(rig.info.details["admin"]).parent

    assert not asyncio.run(main()).exists()


def test_a_taken_http_port_is_an_error_of_start(kit, tmp_path):
    async def main(port):
        async with kit.running(tmp_path, http_port=port):
            pytest.fail("started")

    with socket.create_server(("127.0.0.1", 0)) as squatter, pytest.raises(DrtpError, match="DRTP-5003"):
        asyncio.run(main(squatter.getsockname()[1]))


def test_an_envoy_that_ends_is_reported_with_its_last_words(kit, tmp_path):
    program = tmp_path / "envoy"
    program.write_text("#!/bin/sh\necho the flux is gone >&2\nexit 3\n")
    program.chmod(0o755)

    async def main(binary):
        async with kit.running(tmp_path / "state", binary=str(binary)):
            pytest.fail("started")

    with pytest.raises(DrtpError, match="DRTP-5002 ended with status 3\nthe flux is gone"):
        asyncio.run(main(program))
    with pytest.raises(DrtpError, match="DRTP-5001"):
        asyncio.run(main(tmp_path / "missing"))


def test_faulty_exposures_are_named_and_others_served(kit, tmp_path):
    async def main():
        async with kit.running(tmp_path) as rig, kit.edges(kit.http_answer("web")) as (edge,):
            statuses = await rig.gateway.apply(
                [
                    kit.http("default/a", "web.prism.localhost", edge),
                    kit.http("default/b", "web.prism.localhost", edge),
                    kit.http("default/c", "not a name", edge),
                    kit.tcp("default/d", rig.info.http_port, edge),
                    kit.tcp("default/e", kit.free_port(), edge, allow=("10.0.0.0/33",)),
                ]
            )
            assert {name: status.code for name, status in statuses.items()} == {
                "default/a": None, "default/b": "DRTP-2013", "default/c": "DRTP-5004", "default/d": "DRTP-5003",
                "default/e": "DRTP-1008",
            }  # fmt: skip
            assert (await rig.request("web.prism.localhost"))[0] == 200

    asyncio.run(main())
