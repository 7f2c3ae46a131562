"""What a picker plugin provides: which tunnel servers an agent gets.

Rules:
- Pure and deterministic: the same candidates and place give the same order.
- The picker orders; the controller filters (ready, not draining, capacity) and assigns roles, so that the
  second server stands in another city wherever one is available.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs

from drtp_api.resources import Server

__all__ = ["CITY_LABEL", "Picker", "PickerFactory", "Place", "city_of", "spread"]

CITY_LABEL = "topology.datum.net/city-code"


@attrs.frozen(kw_only=True)
class Place:
    """What is known of where an agent is; any part may be unknown.

    ``round_trips`` are seconds by server name, measured by the agent.
    """

    wan_ip: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    round_trips: Mapping[str, float] = attrs.field(factory=dict)


class Picker(Protocol):
    """Orders servers for an agent, best first."""

    name: str

    def order(self, place: Place, candidates: Sequence[Server]) -> Sequence[Server]:
        """Return every candidate, best first."""
        ...


@runtime_checkable
class PickerFactory(Protocol):
    """Makes a picker from its options."""

    config_type: type[Any]

    def __call__(self, config: Any) -> Picker:
        """Return the picker; ``config`` is an instance of ``config_type``."""
        ...


def city_of(server: Server) -> str:
    """Return the server's city code, or its own name where none is set."""
    return server.metadata.labels.get(CITY_LABEL, server.metadata.name)


def spread(ordered: Sequence[Server], count: int) -> tuple[Server, ...]:
    """Return the first ``count`` servers, each in a city of its own as long as cities last."""
    chosen: list[Server] = []
    for fresh_city in (True, False):
        for server in ordered:
            if len(chosen) == count:
                return tuple(chosen)
            taken = {city_of(s) for s in chosen}
            if server not in chosen and (not fresh_city or city_of(server) not in taken):
                chosen.append(server)
    return tuple(chosen)
