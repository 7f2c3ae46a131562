"""What one edge daemon is started with, as checked values.

Rules:
- Everything that can be wrong is found here, before a socket is opened, and says which option it was.

What must not live here: where the values come from (``cli``), and what is done with them (``daemon``).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from drtp_api.errors import DrtpError
from drtp_edge.ports import PortRange

__all__ = [
    "DaemonConfig",
    "HostPort",
    "Network",
    "parse_coordinates",
    "parse_gateways",
    "parse_ports",
    "parse_transports",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LATITUDE = re.compile(r"[+-]?([0-9]|[1-8][0-9])(\.[0-9]{1,8})?|[+-]?90(\.0{1,8})?")
_LONGITUDE = re.compile(r"[+-]?([0-9]|[1-9][0-9]|1[0-7][0-9])(\.[0-9]{1,8})?|[+-]?180(\.0{1,8})?")


@attrs.frozen
class HostPort:
    """A host and a port; IPv6 literals are written in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, option: str, default_port: int | None = None) -> HostPort:
        """Read ``HOST:PORT``, ``[V6]:PORT``, or ``HOST`` where there is a default port.

        Raises:
            DrtpError: DRTP-1010 for the port, DRTP-1007 for the rest; the message names the option.
        """
        if text.startswith("["):
            host, _, rest = text[1:].partition("]")
            port = rest.removeprefix(":") if rest.startswith(":") else ""
        else:
            host, colon, port = text.rpartition(":")
            if not colon:
                host, port = text, ""
        if not host:
            raise DrtpError("DRTP-1007", f"{option} {text!r} names no host", hint="Write HOST:PORT.")
        if not port and default_port is not None:
            return cls(host, default_port)
        if not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise DrtpError("DRTP-1010", f"{option} {text!r}: {port!r} is not a port")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_coordinates(text: str) -> tuple[str, str]:
    """Return latitude and longitude as decimal strings.

    Raises:
        DrtpError: DRTP-1007; out of range or not decimal.
    """
    latitude, _, longitude = (part.strip() for part in text.partition(","))
    if not _LATITUDE.fullmatch(latitude) or not _LONGITUDE.fullmatch(longitude):
        raise DrtpError(
            "DRTP-1007", f"--coordinates {text!r} is not a place", hint="Write LAT,LON in degrees: 52.52,13.405"
        )
    return latitude, longitude


def parse_ports(text: str) -> PortRange:
    """Return the range of data ports.

    Raises:
        DrtpError: DRTP-1010.
    """
    try:
        return PortRange.parse(text)
    except ValueError as error:
        raise DrtpError("DRTP-1010", f"--data-ports: {error}", hint="Write A-B, or 0 for any free port.") from error


def parse_gateways(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Return the networks that gateways connect from.

    Raises:
        DrtpError: DRTP-1008.
    """
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise DrtpError("DRTP-1008", f"--gateway-cidr: {error}") from error


def parse_transports(texts: tuple[str, ...], default: HostPort) -> Mapping[str, HostPort]:
    """Return where each transport listens: ``NAME`` at the default address, ``NAME=HOST:PORT`` at its own.

    Raises:
        DrtpError: DRTP-1007 or DRTP-1010.
    """
    found: dict[str, HostPort] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        found[name] = HostPort.parse(address, option="--transport") if equals else default
    if len(set(found.values())) < len(found) and default.port:
        raise DrtpError(
            "DRTP-1007", "two transports listen on one address", hint="Write --transport NAME=HOST:PORT for each."
        )
    return found


@attrs.frozen(kw_only=True)
class DaemonConfig:
    """One edge daemon.

    Attributes:
        name: The DRTPServer's name.
        coordinates: Latitude and longitude.
        city: Code of the city, such as FRA.
        kubeconfig: Where the control plane is; None finds it as kubectl would.
        standalone: Services and keys instead of a control plane.
        transports: Where each transport listens for agents.
        advertise: What agents are told to dial; None means where we listen.
        tls_cert: Certificate chain, PEM.
        tls_key: Its key.
        ca_bundle: What agents shall trust, PEM; None means the system's authorities.
        server_name: The name in the certificate; the first one in it by default.
        data_host: The pod's address.
        data_ports: Where to vend data ports from.
        gateways: Networks that gateways connect from; empty for any.
        admin: Where the admin endpoint listens.
        direct_host: Where public ports are bound in direct mode.
        direct_http_port: The port that HTTP services share; 0 for none.
        acl: Access backends by name with their options.
        observers: Plugins that tap events.
        drain: Seconds for streams at the end.
        outage_grace: Seconds by which an outage of the control plane may extend grants.
        capacity: Tunnels.
        spin_us: Microseconds to poll before sleeping; None chooses.
    """

    name: str
    coordinates: tuple[str, str]
    transports: Mapping[str, HostPort]
    admin: HostPort
    city: str = ""
    kubeconfig: Path | None = None
    standalone: Path | None = None
    advertise: HostPort | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ca_bundle: Path | None = None
    server_name: str | None = None
    data_host: str = "127.0.0.1"
    data_ports: PortRange = PortRange()
    gateways: tuple[Network, ...] = ()
    direct_host: str | None = None
    direct_http_port: int = 0
    acl: Mapping[str, Mapping[str, Any]] = attrs.field(factory=lambda: {"cidr": {}})
    observers: tuple[str, ...] = ()
    drain: float = 60.0
    outage_grace: float = 86_400.0
    capacity: int = 10_000
    spin_us: int | None = None

    def __attrs_post_init__(self) -> None:
        """Check what options have to do with each other."""
        if self.standalone is None and (self.tls_cert is None or self.tls_key is None):
            raise DrtpError("DRTP-3002", "agents need --tls-cert and --tls-key to recognise this edge")
        if self.direct_http_port and self.direct_host is None:
            raise DrtpError("DRTP-1004", "--direct-http-port needs --direct")
