"""The tcp transport: who is trusted, what is refused, and how long it takes."""

import asyncio
import contextlib
import hashlib
import socket
import ssl

import pytest

from drtp_api.dataplane.testing import make_certificate
from drtp_api.errors import DrtpError
from drtp_api.plugins import load_plugins
from drtp_api.transports import DialTarget, ListenConfig
from drtp_transport_tcp import TcpConfig, TcpTransport


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def listen_config(certificate, **changes):
    return ListenConfig(
        host="127.0.0.1",
        port=0,
        certificate_file=str(certificate.certificate_file),
        key_file=str(certificate.key_file),
        **changes,
    )


def target_of(listener, certificate, **changes):
    values = {"server_name": "edge.test", "ca_pem": certificate.pem, **changes}
    return DialTarget(address=listener.address[0], port=listener.address[1], **values)


def test_both_ends_share_the_channel_binding_of_the_leaf_certificate(run, certificate):
    async def scenario(engine):
        arrived = []
        transport = TcpTransport()
        listener = await transport.listen(engine, listen_config(certificate), arrived.append)
        carrier = await transport.dial(engine, target_of(listener, certificate), timeout=5)
        await until(lambda: arrived)
        for info in (carrier.info, arrived[0].info):
            assert info.channel_binding == hashlib.sha256(certificate.der).digest()
            assert info.cb_type == "tls-server-end-point"
            assert info.tls_version == "TLSv1.3"
            assert info.transport == "tcp"
        assert carrier.info.local == arrived[0].info.peer
        carrier.abort()
        arrived[0].abort()
        await listener.close()
        await listener.close()

    run(scenario)


def test_the_name_is_verified_and_not_the_address_dialled(run, certificate):
    async def scenario(engine):
        transport = TcpTransport()
        listener = await transport.listen(engine, listen_config(certificate), lambda carrier: carrier.abort())
        (await transport.dial(engine, target_of(listener, certificate), timeout=5)).abort()
        with pytest.raises(DrtpError) as refused:
            await transport.dial(engine, target_of(listener, certificate, server_name="other.test"), timeout=5)
        assert refused.value.code == "DRTP-4003"
        assert "other.test" in str(refused.value)
        await listener.close()

    run(scenario)


def test_an_edge_of_another_authority_is_not_trusted(run, certificate, tmp_path):
    async def scenario(engine):
        other = make_certificate(tmp_path)
        transport = TcpTransport()
        listener = await transport.listen(engine, listen_config(certificate), lambda carrier: carrier.abort())
        for bundle in (other.pem, None):
            with pytest.raises(DrtpError) as refused:
                await transport.dial(engine, target_of(listener, certificate, ca_pem=bundle), timeout=5)
            assert refused.value.code == "DRTP-4003"
        await until(lambda: not listener.handshakes)
        await listener.close()

    run(scenario)


def test_a_bundle_that_is_none_is_named(run, certificate):
    async def scenario(engine):
        transport = TcpTransport()
        listener = await transport.listen(engine, listen_config(certificate), lambda carrier: carrier.abort())
        with pytest.raises(DrtpError, match="CA bundle"):
            await transport.dial(engine, target_of(listener, certificate, ca_pem="nonsense"), timeout=5)
        await listener.close()

    run(scenario)


def test_tls_1_2_is_refused(run, certificate):
    async def scenario(engine):
        listener = await TcpTransport().listen(engine, listen_config(certificate), lambda carrier: carrier.abort())
        context = certificate.client_context("drtp/1")
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(*listener.address, ssl=context, server_hostname="edge.test")
        await until(lambda: listener.failed_handshakes == 1)
        await listener.close()

    run(scenario)


@pytest.mark.parametrize("offered", [None, "h2"])
def test_a_client_without_our_protocol_gets_no_carrier(run, certificate, offered):
    async def scenario(engine):
        listener = await TcpTransport().listen(engine, listen_config(certificate), lambda _: pytest.fail("carrier"))
        sock = socket.create_connection(listener.address)
        sock.setblocking(False)
        context = certificate.client_context(offered)
        reader = asyncio.open_connection(sock=sock, ssl=context, server_hostname="edge.test")
        _, writer = await reader
        await until(lambda: listener.failed_handshakes == 1)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await listener.close()

    run(scenario)


def test_a_silent_client_is_dropped_after_the_handshake_timeout(run, certificate):
    async def scenario(engine):
        listener = await TcpTransport().listen(
            engine, listen_config(certificate, handshake_timeout=0.05), lambda _: pytest.fail("carrier")
        )
        client = socket.create_connection(listener.address)
        await until(lambda: listener.failed_handshakes == 1)
        client.settimeout(5)
        assert client.recv(1) == b""
        client.close()
        await listener.close()

    run(scenario)


def test_handshakes_beyond_the_bound_wait_in_the_backlog_and_are_served_later(run, certificate):
    async def scenario(engine):
        arrived = []
        transport = TcpTransport()
        config = listen_config(certificate, handshakes=2, handshake_timeout=0.3)
        listener = await transport.listen(engine, config, arrived.append)
        silent = [socket.create_connection(listener.address) for _ in range(4)]
        await until(lambda: listener.handshakes == 2)
        carrier = await transport.dial(engine, target_of(listener, certificate), timeout=5)
        assert listener.failed_handshakes == 4
        await until(lambda: arrived)
        carrier.abort()
        arrived[0].abort()
        for sock in silent:
            sock.close()
        await listener.close()

    run(scenario)


def test_closing_a_listener_gives_up_handshakes_under_way(run, certificate):
    async def scenario(engine):
        listener = await TcpTransport().listen(engine, listen_config(certificate), lambda _: pytest.fail("carrier"))
        client = socket.create_connection(listener.address)
        await until(lambda: listener.handshakes == 1)
        await listener.close()
        assert not listener.handshakes
        client.settimeout(5)
        assert client.recv(1) == b""
        client.close()

    run(scenario)


def test_dialling_nobody_and_dialling_the_silent_are_unreachable(run, certificate):
    async def scenario(engine):
        transport = TcpTransport()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            host, port = silent.getsockname()
            target = DialTarget(address=host, port=port, server_name="edge.test", ca_pem=certificate.pem)
            with pytest.raises(DrtpError) as late:
                await transport.dial(engine, target, timeout=0.05)
            assert late.value.code == "DRTP-4002"
        with pytest.raises(DrtpError) as refused:
            await transport.dial(engine, target, timeout=5)
        assert refused.value.code == "DRTP-4002"
        assert refused.value.retryable

    run(scenario)


def test_plaintext_is_refused_unless_allowed(run, certificate):
    async def scenario(engine):
        config = ListenConfig(host="127.0.0.1", port=0, tls=False)
        with pytest.raises(DrtpError) as refused:
            await TcpTransport().listen(engine, config, lambda _: None)
        assert refused.value.code == "DRTP-1007"
        arrived = []
        open_transport = TcpTransport(TcpConfig(allow_plaintext=True))
        listener = await open_transport.listen(engine, config, arrived.append)
        target = target_of(listener, certificate, tls=False)
        with pytest.raises(DrtpError):
            await TcpTransport().dial(engine, target, timeout=5)
        carrier = await open_transport.dial(engine, target, timeout=5)
        await until(lambda: arrived)
        assert carrier.info.tls_version is carrier.info.channel_binding is None
        carrier.abort()
        arrived[0].abort()
        await listener.close()

    run(scenario)


@pytest.mark.parametrize("fault", ["none", "absent", "garbage", "wrong key"])
def test_a_certificate_that_cannot_be_used_is_named(run, certificate, tmp_path, fault):
    files = {
        "none": (None, None),
        "absent": (str(tmp_path / "absent.crt"), str(certificate.key_file)),
        "garbage": (str(certificate.key_file), str(certificate.key_file)),
        "wrong key": (str(certificate.certificate_file), str(make_certificate(tmp_path).key_file)),
    }

    async def scenario(engine):
        chain, key = files[fault]
        config = ListenConfig(host="127.0.0.1", port=0, certificate_file=chain, key_file=key)
        with pytest.raises(DrtpError) as refused:
            await TcpTransport().listen(engine, config, lambda _: None)
        assert refused.value.code == "DRTP-3002"

    run(scenario)


def test_a_port_in_use_is_named(run, certificate):
    async def scenario(engine):
        transport = TcpTransport()
        listener = await transport.listen(engine, listen_config(certificate), lambda _: None)
        config = ListenConfig(
            host="127.0.0.1",
            port=listener.address[1],
            certificate_file=str(certificate.certificate_file),
            key_file=str(certificate.key_file),
        )
        with pytest.raises(DrtpError) as refused:
            await transport.listen(engine, config, lambda _: None)
        assert refused.value.code == "DRTP-3001"
        assert str(listener.address[1]) in str(refused.value)
        await listener.close()

    run(scenario)


def test_the_plugin_registers_and_takes_its_options():
    plugins = load_plugins()
    transport = plugins.transports.create("tcp", {"allowPlaintext": True})
    assert transport.config.allow_plaintext
    with pytest.raises(DrtpError) as refused:
        plugins.transports.create("tcp", {"allowPlain": True})
    assert refused.value.code == "DRTP-6004"
