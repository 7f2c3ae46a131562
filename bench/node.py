"""One end of the bare data path in a process of its own: ``node.py edge`` or ``node.py agent``.

Rules:

- Only the data plane, the transport and the core: no control plane, access lists, metrics or records. What those cost
  is the difference to the product's rows.
- The edge prints its ports as a line of JSON, the agent prints one when its tunnel is up; both run until killed.

What must not live here: measuring.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
from pathlib import Path

from drtp_api.dataplane.dial import start_connect
from drtp_api.dataplane.engine import Engine, create_engine, settle
from drtp_api.dataplane.listen import Listener, bind_tcp
from drtp_api.dataplane.testing import SERVICE, TrustingEnd, make_certificate
from drtp_api.transports import DialTarget, ListenConfig
from drtp_protocol import Address, ConnectionEstablished, Limits, OpenMetadata, Role, StreamOpened
from drtp_transport_tcp import TcpConfig, TcpTransport


class Edge(TrustingEnd):
    """Opens a stream for every visitor."""

    def visitor(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        stream_id = self.tunnel.open(OpenMetadata(service=SERVICE, source=Address(socket.inet_aton(peer[0]), peer[1])))
        self.tunnel.attach(stream_id, sock)


class Agent(TrustingEnd):
    """Connects every stream with the service."""

    service = ("127.0.0.1", 0)

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.established = asyncio.Event()

    def on_tunnel_event(self, tunnel, event) -> None:
        if type(event) is StreamOpened:
            sock, connecting = start_connect(self.service)
            tunnel.attach(event.stream_id, sock, connecting=connecting)
            return
        if type(event) is ConnectionEstablished:
            self.established.set()
        super().on_tunnel_event(tunnel, event)


def sizes(options: argparse.Namespace) -> dict[str, object]:
    limits = Limits(max_streams=20_000, max_frame=options.frame, base_window=options.window)
    return {"limits": limits, "turn_size": options.turn, "pack_size": options.pack}


def transport_of(options: argparse.Namespace) -> TcpTransport:
    return TcpTransport(
        TcpConfig(allow_plaintext=True, send_buffer=options.send_buffer or None, notsent_lowat=options.lowat or None)
    )


async def edge(engine: Engine, options: argparse.Namespace) -> None:
    ends: list[Edge] = []

    def arrived(carrier) -> None:
        end = Edge(engine, carrier, Role.EDGE, **sizes(options))
        ends.append(end)
        end.tunnel.start()

    certificate = make_certificate(options.directory) if options.tls else None
    listener = await transport_of(options).listen(
        engine,
        ListenConfig(
            host="127.0.0.1",
            port=0,
            tls=options.tls,
            certificate_file=str(certificate.certificate_file) if certificate else None,
            key_file=str(certificate.key_file) if certificate else None,
        ),
        arrived,
    )
    visitors = Listener(engine, bind_tcp("127.0.0.1", 0), lambda sock, peer: ends[0].visitor(sock, peer))  # noqa: PLW0108 - no end is there yet
    print(json.dumps({"visitors": visitors.address[1], "tunnel": listener.address[1]}), flush=True)


async def agent(engine: Engine, options: argparse.Namespace) -> None:
    Agent.service = ("127.0.0.1", options.service)
    target = DialTarget(
        address="127.0.0.1",
        port=options.edge,
        server_name="edge.test",
        ca_pem=(options.directory / "edge.test.crt").read_text() if options.tls else None,
        tls=options.tls,
    )
    carrier = await transport_of(options).dial(engine, target, timeout=5)
    end = Agent(engine, carrier, Role.AGENT, **sizes(options))
    end.tunnel.start()
    await end.established.wait()
    print("{}", flush=True)


async def main(options: argparse.Namespace) -> None:
    engine = create_engine(kind=options.engine, spin_us=options.spin)
    await (edge if options.role == "edge" else agent)(engine, options)
    settle()
    await asyncio.Event().wait()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["edge", "agent"])
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--plain", dest="tls", action="store_false")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--edge", type=int, default=0)
    parser.add_argument("--service", type=int, default=0)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--spin", type=int, default=None, help="microseconds; none chooses as the product does")
    parser.add_argument("--frame", type=int, default=65536)
    parser.add_argument("--window", type=int, default=65536)
    parser.add_argument("--turn", type=int, default=None)
    parser.add_argument("--pack", type=int, default=None)
    parser.add_argument("--send-buffer", type=int, default=0)
    parser.add_argument("--lowat", type=int, default=128 * 1024)
    parser.add_argument("--profile", default="", help="write a profile to this file when interrupted")
    return parser.parse_args()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    settings = parse()
    if settings.profile:
        import cProfile
        import signal

        profile = cProfile.Profile()

        def dump(*_) -> None:
            profile.disable()
            profile.dump_stats(f"{settings.profile}.{settings.role}")
            raise SystemExit(0)

        signal.signal(signal.SIGTERM, dump)
        profile.enable()
    asyncio.run(main(settings))
