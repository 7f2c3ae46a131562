"""Direct mode over real sockets: public ports, hosts, and taking over."""

from __future__ import annotations

import asyncio
import socket

import pytest

from drtp_edge.limits import EdgeLimits


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def http(port, host, *, path="/", extra=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() + extra)
    return reader, writer


async def whole(reader, writer):
    data = await reader.read()
    writer.close()
    return data


def direct(scenario, lab, tmp_path, **options):
    port = free_port()
    lab.run(scenario, tmp_path, direct_host="127.0.0.1", direct_http_port=port, **options)


def connection(name, service, roles, **clients):
    servers = [{"role": role, "name": server} for role, server in roles.items()]
    bindings = [
        {"role": role, "name": server, "clientStatus": clients.get(server.replace("-", "_"), "Waiting")}
        for role, server in roles.items()
    ]
    client = {"instanceID": "00" * 16, "publicKey": "x"}
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {"serviceRef": {"name": service}, "client": client, "servers": servers},
        "status": {"servers": bindings},
    }


def test_a_tcp_service_is_reached_at_its_public_port_with_the_visitors_own_address(lab, tmp_path):
    async def scenario(here):
        port = free_port()
        here.catalog.put_service(lab.service("web", externalPort=port))
        agent = await here.agent()
        await lab.until(lambda: port in here.edge.direct.owned())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        mine = writer.get_extra_info("sockname")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        assert str(agent.opened[0].source) == f"127.0.0.1:{mine[1]}"
        assert str(agent.opened[0].destination) == f"127.0.0.1:{port}"
        assert here.edge.direct.public_address("default/web") == f"127.0.0.1:{port}"
        agent.tunnel.abort()
        await lab.until(lambda: port not in here.edge.direct.owned())
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

    direct(scenario, lab, tmp_path)


def test_http_services_share_a_port_and_the_host_decides(lab, tmp_path):
    async def scenario(here):
        here.catalog.put_service(lab.service("web", "HTTP", canonicalHostname="web.prism.localhost"))
        here.catalog.put_service(lab.service("db", "HTTP", canonicalHostname="db.prism.localhost"))
        web = await here.agent()
        db = await here.agent(services=("default/db",), instance=b"d" * 16)
        port = here.edge.options.direct_http_port
        await lab.until(here.edge.direct.owned)
        for host, agent in (("WEB.prism.localhost:1234", web), ("db.prism.localhost.", db)):
            reader, writer = await http(port, host, extra=b"body")
            echoed = await reader.readexactly(len(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n") + 4)
            assert echoed.endswith(b"\r\n\r\nbody"), "the head was not passed on as it came"
            writer.write(b"more of the same connection")
            assert await reader.readexactly(27) == b"more of the same connection"
            writer.close()
            assert len(agent.opened) == 1
        assert here.edge.direct.public_address("default/web") == f"127.0.0.1:{port}"

    direct(scenario, lab, tmp_path)


def test_an_unknown_host_is_not_found_and_an_offline_service_says_so(lab, tmp_path):
    async def scenario(here):
        here.catalog.put_service(lab.service("web", "HTTP", canonicalHostname="web.prism.localhost"))
        here.edge.sync()
        port = here.edge.options.direct_http_port
        await lab.until(here.edge.direct.owned)
        answer = await whole(*await http(port, "other.example"))
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"other.example" in answer
        answer = await whole(*await http(port, "web.prism.localhost"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Tunnel not online" in answer

    direct(scenario, lab, tmp_path)


def test_a_head_that_crawls_is_cut_with_an_answer(lab, tmp_path):
    async def scenario(here):
        here.edge.sync()
        await lab.until(here.edge.direct.owned)
        reader, writer = await asyncio.open_connection("127.0.0.1", here.edge.options.direct_http_port)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        assert here.edge.hits.counts["http_head_timeout"] == 1

    direct(scenario, lab, tmp_path, limits=EdgeLimits(http_head_timeout=0.1))


def test_an_oversized_head_is_refused(lab, tmp_path):
    async def scenario(here):
        here.edge.sync()
        await lab.until(here.edge.direct.owned)
        port = here.edge.options.direct_http_port
        answer = await whole(*await http(port, "x", path="/" + "y" * 20_000))
        assert answer.startswith(b"HTTP/1.1 431 ")

    direct(scenario, lab, tmp_path)


def test_a_service_that_is_not_exposed_has_no_public_port(lab, tmp_path):
    async def scenario(here):
        port = free_port()
        hidden = lab.service("web", externalPort=port)
        hidden["spec"]["exposure"]["enabled"] = False
        here.catalog.put_service(hidden)
        await here.agent()
        assert port not in here.edge.direct.owned()
        await asyncio.sleep(0.3)
        assert port not in here.edge.direct.owned()

    direct(scenario, lab, tmp_path)


def test_the_second_edge_takes_over_within_a_second_when_the_owner_goes(lab, tmp_path):
    http_port = free_port()
    public = free_port()
    options = {"direct_host": "127.0.0.1", "direct_http_port": http_port}

    async def scenario(first):
        second = lab.Lab(first.engine, first.certificate, name="edge-2", **options)
        await second.start()
        try:
            for here in (first, second):
                here.catalog.put_service(lab.service("web", externalPort=public))
                here.catalog.put_connection(connection("web-0", "web", {"Primary": "edge-1", "Secondary": "edge-2"}))
            await second.agent()
            await first.agent()
            # The secondary may be first to have a tunnel: it waits a moment, and the primary takes the port at once.
            await lab.until(lambda: public in first.edge.direct.owned() or public in second.edge.direct.owned())
            owner, other = (first, second) if public in first.edge.direct.owned() else (second, first)
            assert public not in other.edge.direct.owned()
            await owner.edge.close()
            async with asyncio.timeout(1.0):
                while public not in other.edge.direct.owned():
                    await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection("127.0.0.1", public)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()
            await lab.until(lambda: other.edge.stats.visitors_now == 0)
        finally:
            await second.close(engine=False)

    lab.run(scenario, tmp_path, **options)


def test_the_primary_is_first_where_both_could_take_the_port(lab, tmp_path):
    http_port = free_port()
    public = free_port()
    options = {"direct_host": "127.0.0.1", "direct_http_port": http_port}

    async def scenario(first):
        second = lab.Lab(first.engine, first.certificate, name="edge-2", **options)
        await second.start()
        try:
            await second.agent()
            await first.agent()
            for here in (second, first):
                here.catalog.put_connection(connection("web-0", "web", {"Primary": "edge-1", "Secondary": "edge-2"}))
                here.catalog.put_service(lab.service("web", externalPort=public))
                here.edge.sync()
            assert public in first.edge.direct.owned()
            await asyncio.sleep(0.3)
            assert public not in second.edge.direct.owned()
            assert first.edge.direct.public_address("default/web")
            assert second.edge.direct.public_address("default/web") is None
        finally:
            await second.close(engine=False)

    lab.run(scenario, tmp_path, **options)


def test_an_edge_without_http_tunnels_leaves_the_port_to_one_that_has_them(lab, tmp_path):
    async def scenario(here):
        here.catalog.put_service(lab.service("web", "HTTP", canonicalHostname="web.prism.localhost"))
        here.edge.sync()
        await lab.until(here.edge.direct.owned)
        roles = {"Primary": "edge-2", "Secondary": "edge-1"}
        here.catalog.put_connection(connection("web-0", "web", roles, edge_2="Connected"))
        here.edge.sync()
        assert not here.edge.direct.owned()
        here.catalog.put_connection(connection("web-0", "web", roles, edge_2="Disconnected"))
        here.edge.sync()
        await lab.until(here.edge.direct.owned)

    direct(scenario, lab, tmp_path)
