"""Allow-lists as Envoy matches them: networks normalised, and grouped so that an edit disturbs few.

Rules:
- Two spellings of one network are one network: Envoy refuses a listener with two chains that match alike.
- Each group becomes a filter chain of its own, because Envoy drains the connections of a chain that changes: a visitor
  who stays allowed must not be cut by an edit that concerns somebody else.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

__all__ = ["NOBODY", "Network", "group", "parse_networks", "prefix_range"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_CHAINS: Final = 128
"""Filter chains of one listener: a chain costs Envoy some kilobytes, so longer lists share them, stably."""

NOBODY: Final[Network] = ipaddress.IPv4Network("255.255.255.255/32")
"""A source that no connection has: Envoy wants at least one chain, also where nobody is allowed."""


def _normalise(text: str) -> Network:
    network = ipaddress.ip_network(text, strict=False)
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _order(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the distinct networks in a stable order; host bits are dropped, mapped IPv4 becomes IPv4.

    Raises:
        ValueError: A text is not a network.
    """
    return tuple(sorted({_normalise(text) for text in texts}, key=_order))


def group(networks: Sequence[Network]) -> dict[str, tuple[Network, ...]]:
    """Return the networks of each filter chain by the chain's name.

    A network stays in its chain whatever else is added or removed, as long as the list stays on its side of
    :data:`MAX_CHAINS`.
    """
    if len(networks) <= MAX_CHAINS:
        return {str(network): (network,) for network in networks}
    chains: dict[str, list[Network]] = {}
    for network in networks:
        chains.setdefault(f"group-{zlib.crc32(str(network).encode()) % MAX_CHAINS}", []).append(network)
    return {name: tuple(members) for name, members in sorted(chains.items())}


def prefix_range(network: Network) -> dict[str, Any]:
    """Return Envoy's ``CidrRange``."""
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
