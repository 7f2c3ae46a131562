"""What every gateway promises: a status for each exposure, idempotence, and nothing left behind."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil

from drtp_api.gateways import Backend, Exposure, Gateway, GatewayContext, GatewayInfo
from drtp_api.resources import Protocol

__all__ = ["GatewayContract"]


class GatewayContract(abc.ABC):
    """Inherit this for any gateway."""

    listens = True
    """Whether the gateway itself listens on the public ports of this machine."""

    @abc.abstractmethod
    def make_gateway(self) -> Gateway:
        """Return a new gateway that was not started; called within a running loop."""

    def public(self, exposure: Exposure) -> Exposure:
        """Return the exposure with whatever else must be true before the gateway can program it."""
        return exposure

    @contextlib.asynccontextmanager
    async def started(self, state_dir: Path) -> AsyncIterator[tuple[Gateway, GatewayInfo]]:
        """Run a gateway on loopback with any free HTTP port."""
        gateway = self.make_gateway()
        info = await gateway.start(GatewayContext(state_dir=state_dir, listen_host="127.0.0.1", http_port=0))
        try:
            yield gateway, info
        finally:
            await gateway.stop()
            await gateway.stop()

    def tcp(self, name: str) -> Exposure:
        """Return a TCP exposure on a free port."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return self.public(
            Exposure(
                service=f"default/{name}", protocol=Protocol.TCP, port=port,
                backends=(Backend(address="127.0.0.1", port=9),),
            )
        )  # fmt: skip

    def http(self, name: str) -> Exposure:
        """Return an HTTP exposure."""
        return self.public(
            Exposure(
                service=f"default/{name}", protocol=Protocol.HTTP, port=None, hostnames=(f"{name}.prism.localhost",),
                backends=(Backend(address="127.0.0.1", port=9),),
            )
        )  # fmt: skip

    @staticmethod
    def is_open(port: int | None) -> bool:
        """Return whether somebody listens on the port."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port or 0), timeout=2):
            return True
        return False

    def test_it_says_how_visitors_reach_it(self, tmp_path: Path) -> None:
        """A host to dial as given and a real port."""

        async def main() -> GatewayInfo:
            async with self.started(tmp_path) as (_, info):
                return info

        info = asyncio.run(main())
        assert info.host == "127.0.0.1"
        assert 0 < info.http_port < 65536

    def test_every_exposure_gets_a_status(self, tmp_path: Path) -> None:
        """By service key, and nothing else stands in the answer."""

        async def main() -> None:
            async with self.started(tmp_path) as (gateway, _):
                wanted = [self.tcp("db"), self.http("web"), self.http("shop")]
                statuses = await gateway.apply(wanted)
                assert {name: s.programmed for name, s in statuses.items()} == {e.service: True for e in wanted}
                assert all(s.code is None for s in statuses.values())
                assert await gateway.apply([]) == {}

        asyncio.run(main())

    def test_apply_is_idempotent(self, tmp_path: Path) -> None:
        """The same question has the same answer, in any order, and what was reachable stays so."""

        async def main() -> None:
            async with self.started(tmp_path) as (gateway, _):
                db, web = self.tcp("db"), self.http("web")
                first = await gateway.apply([db, web])
                assert await gateway.apply([web, db]) == first
                assert await gateway.apply([db, web]) == first
                assert self.is_open(db.port) is self.listens

        asyncio.run(main())

    def test_what_is_no_longer_wanted_is_removed(self, tmp_path: Path) -> None:
        """And what is wanted again comes back."""

        async def main() -> None:
            async with self.started(tmp_path) as (gateway, _):
                db, other = self.tcp("db"), self.tcp("other")
                await gateway.apply([db, other])
                await gateway.apply([other])
                assert (self.is_open(db.port), self.is_open(other.port)) == (False, self.listens)
                await gateway.apply([db, other])
                assert self.is_open(db.port) is self.listens

        asyncio.run(main())

    def test_a_stopped_gateway_leaves_neither_process_nor_port(self, tmp_path: Path) -> None:
        """Nor does one that was never started mind being stopped."""

        async def main() -> int | None:
            await self.make_gateway().stop()
            async with self.started(tmp_path) as (gateway, _):
                db = self.tcp("db")
                await gateway.apply([db])
            return db.port

        before = {child.pid for child in psutil.Process().children(recursive=True)}
        port = asyncio.run(main())
        assert not {child.pid for child in psutil.Process().children(recursive=True)} - before
        assert not self.is_open(port)
