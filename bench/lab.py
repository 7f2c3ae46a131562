"""The agent end for the ``drtp-edge`` chain: a tunnel to a stand-alone edge, authenticated by a pre-shared key.

Rules: it prints a line of JSON when its tunnel is up and runs until killed. It keeps no history of streams, which would
count as memory of idle connections.
What must not live here: measuring.
"""

from __future__ import annotations

import argparse
import asyncio
import resource

from drtp_api.dataplane.engine import create_engine, settle
from drtp_api.transports import DialTarget
from drtp_edge.testing import LabAgent
from drtp_transport_tcp import TcpConfig, TcpTransport


class Forgetful(list):
    """A list that stays empty."""

    def append(self, item: object) -> None:
        """Forget it."""


async def main(options: argparse.Namespace) -> None:
    engine = create_engine()
    target = DialTarget(address="127.0.0.1", port=options.edge, server_name="edge.test", ca_pem=None, tls=False)
    carrier = await TcpTransport(TcpConfig(allow_plaintext=True)).dial(engine, target, timeout=5)
    psk = (options.key_id.encode(), options.key.encode())
    agent = LabAgent(engine, carrier, ("127.0.0.1", options.service), services=(options.name,), psk=psk)
    agent.opened, agent.summaries = Forgetful(), Forgetful()
    await asyncio.wait_for(agent.established.wait(), 5)
    settle()
    print("{}", flush=True)
    await agent.closed.wait()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--edge", type=int, required=True, help="port of the tunnel")
    parser.add_argument("--service", type=int, required=True, help="port of the local service")
    parser.add_argument("--name", required=True, help="the service's key, namespace/name")
    parser.add_argument("--key-id", required=True)
    parser.add_argument("--key", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(main(parse()))
