"""Envoy's admin interface on a Unix socket: what it runs, what it refused, and why.

Rules:
- Only questions; nothing here changes Envoy.
- The socket is for this user alone: whoever reaches it can stop Envoy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

__all__ = ["Admin", "AdminError", "parse_stats", "refused_listeners"]

_STAT: Final = re.compile(r'^(\S+): (?:"([^"]*)"|(\S+))$', re.MULTILINE)


class AdminError(Exception):
    """Envoy's admin interface did not answer."""


def parse_stats(text: str) -> dict[str, str]:
    """Return the statistics of ``/stats`` by name; quotes of text values are gone."""
    return {m[1]: m[2] if m[2] is not None else m[3] for m in _STAT.finditer(text)}


def refused_listeners(dump: Mapping[str, Any]) -> dict[str, str]:
    """Return why Envoy refused a listener, by listener name, from a dump of the dynamic listeners."""
    refused = {}
    for entry in dump.get("configs", ()):
        if (error := entry.get("error_state")) is None:
            continue
        # A listener that never worked has an entry without a name of its own.
        name = entry.get("name") or error.get("failed_configuration", {}).get("name")
        if name:
            refused[name] = error.get("details", "no reason given")
    return refused


class Admin:
    """A client of one Envoy's admin interface."""

    def __init__(self, socket_path: str) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=socket_path, limit=4), timeout=aiohttp.ClientTimeout(total=5)
        )

    async def close(self) -> None:
        """Release the connections. Idempotent."""
        await self._session.close()

    async def get(self, path: str, **query: str) -> str:
        """Return the body of a page.

        Raises:
            AdminError: No answer, or none that is a success.
        """
        try:
            async with self._session.get(f"http://envoy{path}", params=query) as response:
                body = await response.text()
                if response.status != 200:
                    raise AdminError(f"{path}: {response.status} {body[:200]}")
                return body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AdminError(f"{path}: {error or type(error).__name__}") from error

    async def ready(self) -> bool:
        """Return whether Envoy has loaded its configuration and serves."""
        try:
            return (await self.get("/ready")).startswith("LIVE")
        except AdminError:
            return False

    async def versions(self) -> dict[str, str]:
        """Return the version of every file that Envoy runs with, by statistic.

        Raises:
            AdminError: No answer.
        """
        # Text readouts are a handful; a filter over all statistics would look at a hundred for each cluster.
        return parse_stats(await self.get("/stats", type="TextReadouts", filter=r"version_text$"))

    async def rejections(self) -> dict[str, str]:
        """Return how often each file was rejected or unreadable, by statistic.

        Raises:
            AdminError: No answer.
        """
        text = await self.get("/stats", type="Counters", usedonly="", filter=r"\.update_(rejected|failure)$")
        return {name: count for name, count in parse_stats(text).items() if count != "0"}

    async def refused_listeners(self) -> dict[str, str]:
        """Return why listeners were refused, by name.

        Raises:
            AdminError: No answer.
        """
        # The entry of a listener that never worked has no name, so a filter by name would hide it.
        return refused_listeners(json.loads(await self.get("/config_dump", resource="dynamic_listeners")))

    async def warming_clusters(self) -> frozenset[str]:
        """Return the clusters that wait for the first check of their backends; until then an older one serves.

        Raises:
            AdminError: No answer.
        """
        dump = json.loads(await self.get("/config_dump", resource="dynamic_warming_clusters"))
        return frozenset(entry.get("cluster", {}).get("name", "") for entry in dump.get("configs", ()))

    async def server_version(self) -> str:
        """Return Envoy's own description of its version: commit, number, build.

        Raises:
            AdminError: No answer.
        """
        return str(json.loads(await self.get("/server_info")).get("version", ""))
