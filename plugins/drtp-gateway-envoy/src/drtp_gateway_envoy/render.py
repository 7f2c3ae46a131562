"""From exposures to the text of Envoy's configuration files. Pure: same exposures, same bytes.

Rules:
- A file's version is the digest of its content, so that an unchanged file is recognised without reading it.
- One faulty exposure is left out and named; it never spoils the file of the others. Envoy refuses a whole route
  configuration for one duplicate host name, so everything it would refuse is found here.
- An RDS file holds one resource, or Envoy rejects it; CDS and LDS files hold all.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from drtp_api.gateways import Backend, Exposure, ExposureStatus
from drtp_api.resources import Protocol
from drtp_gateway_envoy import clusters, listeners, routes
from drtp_gateway_envoy.networks import Network, parse_networks
from drtp_gateway_envoy.options import HTTP_LISTENER, EnvoyOptions, typed

__all__ = ["ConfigFile", "Plan", "Rendered", "Settings", "assemble", "bootstrap", "render"]

CDS: Final = "cds/cds.json"
LDS: Final = "lds/lds.json"
RDS: Final = "rds/rds.json"

_HOSTNAME: Final = re.compile(
    r"(?=.{1,253}$)(\*\.)?([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
)
_CACHE: Final = 32_768


@attrs.frozen(kw_only=True)
class Settings:
    """What the whole configuration depends on beside the exposures.

    ``run_id`` starts the connection ids that edges log, so that those of two runs differ. ``refuser`` is the port on
    loopback that resets visitors of TCP services without a tunnel.
    """

    directory: Path
    host: str
    http_port: int
    run_id: str
    options: EnvoyOptions
    refuser: int | None = None


@attrs.frozen
class ConfigFile:
    """One file: its path below the directory, the version Envoy will report, and the bytes."""

    path: str
    version: str
    content: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Plan:
    """What one exposure became. ``listener`` is ``None`` for HTTP, which has a virtual host instead."""

    name: str
    protocol: Protocol
    listener: str | None


@attrs.frozen(kw_only=True)
class Rendered:
    """The configuration as fragments by name, and what could not be rendered."""

    clusters: Mapping[str, str]
    listeners: Mapping[str, str]
    routes: ConfigFile
    plans: Mapping[str, Plan]
    faults: Mapping[str, ExposureStatus]

    @property
    def cluster_file(self) -> ConfigFile:
        """The CDS file."""
        return assemble(CDS, self.clusters.values())

    @property
    def listener_file(self) -> ConfigFile:
        """The LDS file."""
        return assemble(LDS, self.listeners.values())


def assemble(path: str, fragments: Iterable[str]) -> ConfigFile:
    """Return the file that holds these resources."""
    body = ",\n".join(fragments)
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    return ConfigFile(path, version, f'{{"version_info":"{version}","resources":[\n{body}\n]}}\n'.encode())


def _text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


# Rendering a thousand services from nothing takes a noticeable pause; an edit renders what it touched.


@functools.lru_cache(_CACHE)
def _networks(allow: tuple[str, ...] | None) -> tuple[Network, ...] | None:
    return None if allow is None else parse_networks(allow)


@functools.lru_cache(_CACHE)
def _cluster(name: str, service: str, protocol: Protocol, backends: tuple[Backend, ...], settings: Settings) -> str:
    return _text(
        clusters.cluster(
            name,
            service,
            protocol,
            backends,
            run_id=settings.run_id,
            options=settings.options,
            refuser=settings.refuser,
        )
    )


@functools.lru_cache(_CACHE)
def _listener(service: str, protocol: Protocol, port: int, allow: tuple[str, ...] | None, settings: Settings) -> str:
    networks = _networks(allow)
    if protocol is Protocol.UDP:
        return _text(listeners.udp_listener(settings.host, port, service, networks))
    return _text(listeners.tcp_listener(settings.host, port, service, networks))


@functools.lru_cache(_CACHE)
def _virtual_host(service: str, hostnames: tuple[str, ...], allow: tuple[str, ...] | None) -> str:
    return _text(routes.virtual_host(service, hostnames, _networks(allow)))


def _fault(code: str, message: str) -> ExposureStatus:
    return ExposureStatus(programmed=False, reason="Invalid", message=message, code=code)


@attrs.define
class _Claims:
    """Who has which port and host name; the first in the order of service keys keeps it."""

    ports: dict[tuple[bool, int], str] = attrs.field(factory=dict)
    hostnames: dict[str, str] = attrs.field(factory=dict)

    def check(self, exposure: Exposure, http_port: int) -> ExposureStatus | None:
        """Claim the exposure's port or names; return what is wrong with it, claiming nothing then."""
        try:
            _networks(exposure.allow)
        except ValueError as error:
            return _fault("DRTP-1008", str(error))
        if exposure.protocol is not Protocol.HTTP:
            return self._check_port(exposure, http_port)
        for name in exposure.hostnames:
            if not _HOSTNAME.fullmatch(name):
                return _fault("DRTP-5004", f"{name!r} is not a host name")
            if (owner := self.hostnames.get(name)) is not None:
                return _fault("DRTP-2013", f"{name} belongs to {owner}")
        self.hostnames |= dict.fromkeys(exposure.hostnames, exposure.key)
        return None

    def _check_port(self, exposure: Exposure, http_port: int) -> ExposureStatus | None:
        if exposure.port is None or not 0 < exposure.port < 65536:
            return _fault("DRTP-1010", f"port {exposure.port} is not a port")
        key = exposure.protocol is Protocol.UDP, exposure.port
        owner = "the gateway's HTTP services" if key == (False, http_port) else self.ports.get(key)
        if owner is not None:
            return _fault("DRTP-5003", f"port {exposure.port} belongs to {owner}")
        self.ports[key] = exposure.key
        return None


def render(exposures: Sequence[Exposure], settings: Settings) -> Rendered:
    """Return the configuration of exactly these exposures."""
    claims = _Claims()
    plans: dict[str, Plan] = {}
    faults: dict[str, ExposureStatus] = {}
    cluster_texts: dict[str, str] = {}
    hosts: list[str] = []
    listener_texts = {HTTP_LISTENER: _http_listener(settings)}
    for exposure in sorted(exposures, key=lambda e: e.key):
        name, protocol = exposure.key, exposure.protocol
        if name in plans or name in faults:
            faults[name] = _fault("DRTP-5004", "the exposure stands twice in the desired state")
            continue
        try:
            cluster = _cluster(name, exposure.service, protocol, exposure.backends, settings)
        except ValueError as error:
            faults[name] = _fault("DRTP-5004", f"backend: {error}")
            continue
        if (fault := claims.check(exposure, settings.http_port)) is not None:
            faults[name] = fault
            continue
        listener: str | None = None
        if protocol is Protocol.HTTP:
            # Envoy wants a domain: a service without a name is not reachable and has no virtual host.
            if exposure.hostnames:
                hosts.append(_virtual_host(name, exposure.hostnames, exposure.allow))
        else:
            assert exposure.port is not None
            listener = listeners.listener_name(protocol.value, exposure.port)
            listener_texts[listener] = _listener(name, protocol, exposure.port, exposure.allow, settings)
        cluster_texts[name] = cluster
        plans[name] = Plan(name=name, protocol=protocol, listener=listener)
    return Rendered(
        clusters=cluster_texts, listeners=listener_texts, routes=assemble(RDS, [_route_text(hosts)]),
        plans=plans, faults=faults,
    )  # fmt: skip


@functools.lru_cache(8)
def _http_listener(settings: Settings) -> str:
    return _text(listeners.http_listener(settings.host, settings.http_port, str(settings.directory / RDS)))


def _route_text(hosts: Sequence[str]) -> str:
    """Return the route configuration with rendered virtual hosts put in front of the one for unknown names."""
    return _text(routes.route_configuration([])).replace(
        '"virtual_hosts":[', '"virtual_hosts":[' + "".join(f"{h}," for h in hosts), 1
    )


def bootstrap(settings: Settings, admin_socket: str) -> bytes:
    """Return Envoy's bootstrap file: where the other files are, the admin socket, and the limit on connections."""

    def source(path: str) -> dict[str, Any]:
        return {"resource_api_version": "V3", "path_config_source": {"path": str(settings.directory / path)}}

    limit = typed(
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=settings.options.max_connections,
    )
    message = {
        "node": {"id": f"drtp-{settings.run_id}", "cluster": "drtp"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": {"cds_config": source(CDS), "lds_config": source(LDS)},
        "overload_manager": {
            "resource_monitors": [
                {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": limit}
            ]
        },
    }
    return json.dumps(message, indent=1).encode()
