"""The command as users meet it: a process, its one line, its end, its errors."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from drtp_api.dataplane.engine import create_engine
from drtp_api.dataplane.testing import make_certificate
from drtp_api.errors import DrtpError
from drtp_api.transports import DialTarget
from drtp_edge.cli import main
from drtp_edge.standalone import load_standalone
from drtp_edge.testing import LabAgent
from drtp_transport_tcp import TcpConfig, TcpTransport

COMMAND = [sys.executable, "-m", "drtp_edge"]
PSK = "correct horse battery staple"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def fails(*arguments, code, exit_code):
    """Run the command as a process and return what it complained."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == exit_code, done.stderr
    assert code in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def refuses(*arguments, code, exit_code):
    """The same without a process, for what is refused before anything starts."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == exit_code, done.stderr
    assert code in done.stderr
    assert done.stdout == ""
    return done.stderr


def standalone(tmp_path, *, plaintext, **service):
    path = tmp_path / "standalone.json"
    entry = {"key": "default/web", "psk": PSK, "pskID": "lab", **service}
    path.write_text(json.dumps({"services": [entry], "plaintext": plaintext}))
    return path


@pytest.mark.parametrize("plaintext", [False, True])
def test_the_standalone_daemon_serves_drains_and_ends_with_zero(tmp_path, plaintext):
    certificate = make_certificate(tmp_path)
    public = free_port()
    path = standalone(tmp_path, plaintext=plaintext, port=public)
    process = subprocess.Popen(
        [
            *COMMAND,
            *("--name", "edge-1", "--standalone", str(path), "--tunnel-listen", "127.0.0.1:0"),
            *("--tls-cert", str(certificate.certificate_file), "--tls-key", str(certificate.key_file)),
            *("--direct", "127.0.0.1", "--spin-us", "0", "--log-format", "json", "--drain", "5"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        report = json.loads(process.stdout.readline())
        assert report["type"] == "edge_ready"
        assert (report["name"], report["pid"]) == ("edge-1", process.pid)
        asyncio.run(_visit(report, certificate, public, plaintext))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0, errors
        records = [json.loads(line) for line in errors.splitlines()]
        (access,) = [r for r in records if r["event"] == "access"]
        assert (access["service"], access["outcome"], access["bytes_in"]) == ("default/web", "served", 5)
    finally:
        process.kill()
        process.communicate()


async def _visit(report, certificate, public, plaintext):
    async def echo(reader, writer):
        writer.write(await reader.readexactly(5))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    engine = create_engine(spin_us=0)
    host, _, port = report["tunnel"].rpartition(":")
    transport = TcpTransport(TcpConfig(allow_plaintext=plaintext))
    target = DialTarget(
        address=host, port=int(port), server_name="edge.test", ca_pem=certificate.pem, tls=not plaintext
    )
    carrier = await transport.dial(engine, target, timeout=5)
    agent = LabAgent(engine, carrier, server.sockets[0].getsockname(), psk=(b"lab", PSK.encode()))
    await asyncio.wait_for(agent.established.wait(), 5)
    deadline = time.monotonic() + 5
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", public)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the public port did not open"
            await asyncio.sleep(0.02)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 5) == b"hello"
    writer.close()
    agent.tunnel.close()
    server.close()
    await asyncio.sleep(0.05)
    engine.close()


def test_help_is_quick_and_needs_nothing():
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=20, check=True)
    for option in ("--name", "--coordinates", "--tunnel-listen", "--direct-http-port", "--standalone", "--drain"):
        assert option in done.stdout


def test_the_command_line_imports_nothing_heavy_before_it_is_needed():
    heavy = ("asyncio", "aiohttp", "structlog", "attrs")
    code = f"import sys, drtp_edge.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"


def test_mistakes_of_the_command_line_have_codes():
    fails("--name", "e", "--coordinates", "95,0", code="DRTP-1007", exit_code=78)
    refuses("--name", "e", "--tunnel-listen", "here:99999", code="DRTP-1010", exit_code=2)
    refuses("--name", "e", "--data-ports", "9-1", code="DRTP-1010", exit_code=2)
    refuses("--name", "e", "--gateway-cidr", "10.0.0.1/8", code="DRTP-1008", exit_code=2)
    refuses("--name", "e", code="DRTP-3002", exit_code=78)


def test_the_environment_stands_in_for_options_and_options_win(monkeypatch):
    monkeypatch.setenv("DRTP_EDGE_COORDINATES", "95,0")
    monkeypatch.setenv("DRTP_EDGE_NAME", "from-the-environment")
    refuses(code="DRTP-1007", exit_code=78)
    refuses("--coordinates", "52.52,13.405", code="DRTP-3002", exit_code=78)


def test_a_faulty_standalone_file_is_named(tmp_path):
    path = tmp_path / "s.json"
    with pytest.raises(DrtpError, match=r"s\.json: No such file"):
        load_standalone(path)
    for text, complaint in (
        ("{", "not JSON"),
        ('{"services": [], "colour": 1}', "colour"),
        ('{"services": [{"key": "default/web", "protocol": "IPX", "psk": "0123456789abcdef"}]}', "protocol"),
    ):
        path.write_text(text)
        with pytest.raises(DrtpError, match=complaint) as caught:
            load_standalone(path)
        assert caught.value.code == "DRTP-1011"
    path.write_text('{"services": [{"key": "default/web", "psk": "short"}]}')
    with pytest.raises(DrtpError, match="fewer than 16"):
        load_standalone(path).keys()


def test_a_taken_tunnel_port_and_an_unknown_plugin_have_codes(tmp_path):
    certificate = make_certificate(tmp_path)
    path = standalone(tmp_path, plaintext=False)
    common = (
        *("--name", "e", "--standalone", str(path)),
        *("--tls-cert", str(certificate.certificate_file), "--tls-key", str(certificate.key_file)),
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        fails(*common, "--tunnel-listen", address, code="DRTP-3001", exit_code=78)
    fails(*common, "--transport", "carrier-pigeon", code="DRTP-6001", exit_code=78)
    fails(*common, "--acl", "oracle", "--tunnel-listen", "127.0.0.1:0", code="DRTP-6001", exit_code=78)
