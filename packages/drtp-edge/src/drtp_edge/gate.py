"""Who may visit which service: joins what the catalogue knows with what the access backends say.

Rules:
- Everything that is not known to be allowed is denied: an unknown service, a missing list, an unknown address.
- The answer is immediate wherever every backend answers at once.

What must not live here: how an access list is evaluated; backends do that.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

import attrs

from drtp_api.acl import AclBackend, Decision, Verdict, Visitor, decide_all
from drtp_edge.catalog import Catalog
from drtp_protocol.metadata import Address

__all__ = ["Gate", "ip_of"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def ip_of(address: Address) -> IPAddress | None:
    """Return the IP address, None if it is unknown; an IPv4 address mapped into IPv6 becomes IPv4."""
    packed = address.packed
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed)
    if len(packed) == 16:
        ip = ipaddress.IPv6Address(packed)
        return ip.ipv4_mapped or ip
    return None


@attrs.define
class Gate:
    """Decides about visitors.

    Args:
        catalog: What is known of services and lists.
        backends: Asked in order; deny overrides.
    """

    catalog: Catalog
    backends: Sequence[AclBackend]

    def decide(self, service: str, source: Address) -> Decision | asyncio.Future[Decision]:
        """Return the decision about a visitor of a service, or a future of it."""
        known = self.catalog.service(service)
        if known is None:
            return Decision(Verdict.DENY, "service/unknown", "the control plane does not know the service")
        if known.missing is not None:
            return Decision(Verdict.DENY, "acl/missing", f"access list {known.missing!r} does not exist")
        ip = ip_of(source)
        if ip is None:
            return Decision(Verdict.DENY, "source/unknown", "the visitor's address is unknown")
        visitor = Visitor(service=known.service, lists=known.lists, source=ip, source_port=source.port)
        return decide_all(self.backends, visitor)

    async def aclose(self) -> None:
        """Release the backends."""
        for backend in self.backends:
            await backend.aclose()
