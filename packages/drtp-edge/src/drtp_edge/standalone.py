"""Stand-alone mode: services, public ports and pre-shared keys from a file, for benchmarks and laboratories.

Rules:
- It is the real daemon without a control plane: tunnels, access rules and public ports work as always.

What must not live here: anything that a control plane would decide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import attrs
from msgspec import Meta

from drtp_api.errors import DrtpError
from drtp_api.resources import OptionalPort, Protocol
from drtp_api.wire import from_wire
from drtp_edge.catalog import Catalog
from drtp_edge.policy import PresharedKey

__all__ = ["StandaloneFile", "StandaloneService", "load_standalone"]

_SHORTEST_KEY = 16


@attrs.frozen(kw_only=True)
class StandaloneService:
    """One service of the file. ``port`` is public and needs ``--direct``; 0 means none."""

    key: Annotated[str, Meta(pattern=r"^[^/]+/[^/]+$")]
    protocol: Protocol = Protocol.TCP
    port: OptionalPort = 0
    hostnames: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    psk: str = attrs.field(repr=False)
    psk_id: str = "default"


@attrs.frozen(kw_only=True)
class StandaloneFile:
    """The file. ``plaintext`` runs tunnels without TLS, for comparisons with other plaintext tunnels."""

    services: tuple[StandaloneService, ...]
    plaintext: bool = False

    def fill(self, catalog: Catalog) -> None:
        """Put the services into the catalogue."""
        for service in self.services:
            namespace, _, name = service.key.partition("/")
            spec = {
                "application": {"protocol": service.protocol.value},
                "exposure": {"enabled": True, "hostnames": list(service.hostnames)},
                "edgeAllowlistCIDRs": list(service.allow),
            }
            status = {"externalPort": service.port} if service.port else {}
            catalog.put_service({"metadata": {"namespace": namespace, "name": name}, "spec": spec, "status": status})

    def keys(self) -> dict[bytes, PresharedKey]:
        """Return the keys by id; services of one id share its key.

        Raises:
            DrtpError: DRTP-1011; one id has two keys, or a key is short.
        """
        keys: dict[bytes, PresharedKey] = {}
        for service in self.services:
            secret = service.psk.encode()
            if len(secret) < _SHORTEST_KEY:
                raise DrtpError("DRTP-1011", f"{service.key}: the key has fewer than {_SHORTEST_KEY} bytes")
            known = keys.get(service.psk_id.encode())
            if known is not None and known.key != secret:
                raise DrtpError("DRTP-1011", f"{service.key}: key id {service.psk_id!r} has two keys")
            services = (*(known.services if known is not None else ()), service.key)
            keys[service.psk_id.encode()] = PresharedKey(key=secret, services=services)
        return keys


def load_standalone(path: Path) -> StandaloneFile:
    """Read the file.

    Raises:
        DrtpError: DRTP-1011; it cannot be read, or says something else.
    """
    try:
        return from_wire(json.loads(path.read_text()), StandaloneFile, strict=True)
    except OSError as error:
        raise DrtpError("DRTP-1011", f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DrtpError("DRTP-1011", f"{path} is not JSON: {error}") from error
    except DrtpError as error:
        raise DrtpError("DRTP-1011", f"{path}: {error.message}") from error
