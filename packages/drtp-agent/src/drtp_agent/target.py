"""What the user points at: the local service, parsed and judged before anything is dialled.

Rules:
- Parsing does no I/O; a name is resolved when a visitor comes, not here.
- What cannot be served yet is refused with a code, never accepted and then broken.
- A target that means "every interface" is refused: a listener's wildcard is no address to connect to.

What must not live here: dialling, and the public side of a service.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import SplitResult, urlsplit

import attrs

from drtp_api.errors import DrtpError
from drtp_api.resources import Application, Protocol

__all__ = ["Detail", "Target", "forbidden_reason", "parse_detail", "parse_target", "target_of_application"]

UNIX_PATH_MAX: Final = 107
"""Bytes that ``sun_path`` holds on Linux without its final zero; the smallest of our platforms is 103, close enough."""

_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?)*\.?$"
)
_SCHEMES = {"http": Protocol.HTTP, "tcp": Protocol.TCP}
_LATER = {
    "https": ("TLS to the local service", "Use http:// for a plain service, or tcp:// to pass the TLS through."),
    "udp": ("a UDP service", "Use tcp:// or http:// with this version."),
}
_METADATA = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192")))
"""Where clouds answer questions about the machine, credentials included; not all of them are link-local."""


@attrs.frozen(kw_only=True)
class Target:
    """A local service: a TCP host and port, or the path of a Unix socket."""

    protocol: Protocol
    host: str | None = None
    port: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        """Return the form that :func:`parse_target` reads."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return f"{self.protocol.value.lower()}://{host}:{self.port}"

    @property
    def address(self) -> str:
        """The address for people: ``host:port`` or the path."""
        return self.path if self.path is not None else str(self).partition("://")[2]

    @property
    def label(self) -> str:
        """What a name for the service is made of: letters, digits and hyphens, starting with a letter."""
        if self.path is not None:
            raw = PurePosixPath(self.path).stem
        elif self.host in {"localhost", "127.0.0.1", "::1"}:
            raw = f"{'web' if self.protocol is Protocol.HTTP else self.protocol.value}-{self.port}"
        else:
            first = (self.host or "").partition(".")[0]
            raw = f"{'host' if first.isdigit() or ':' in first else first}-{self.port}"
        cleaned = re.sub(r"[^a-z0-9]+", "-", raw.lower()).strip("-")
        return cleaned if cleaned[:1].isalpha() else f"svc-{cleaned}".rstrip("-")

    def application(self) -> Application:
        """Return how the control plane describes this service."""
        if self.path is not None:
            return Application(protocol=self.protocol)
        if self.host is not None and _literal(self.host) is not None:
            return Application(protocol=self.protocol, ip=self.host, port=self.port)
        return Application(protocol=self.protocol, hostname=self.host, port=self.port)


@attrs.frozen(kw_only=True)
class Detail:
    """The seed's ``$SERVICE_DETAIL``: Name/Type/Hostname[/IP]/Port."""

    name: str
    target: Target
    hostname: str
    ip: str | None = None


def parse_target(text: str, protocol: Protocol | None = None) -> Target:
    """Return the target that ``text`` names; a bare port, HOST:PORT and ``unix:`` mean HTTP.

    Args:
        text: 8080, :8080, HOST:PORT, ``http://H[:P]``, ``tcp://H:P`` or ``unix:/path``; IPv6 in brackets.
        protocol: What ``--protocol`` says; it must not contradict the scheme.

    Raises:
        DrtpError: DRTP-1001 cannot be understood; DRTP-1002 a wildcard address; DRTP-1004 the protocol contradicts
            the scheme; DRTP-1012 not supported yet; DRTP-4008 an address that must not be served.
    """
    if protocol is Protocol.UDP:
        _refuse_later("udp")
    if text.startswith("unix:"):
        return _unix(text, protocol or Protocol.HTTP)
    if "://" in text:
        return _url(text, protocol)
    return _checked(text, *_host_port(text, text), protocol or Protocol.HTTP)


def parse_detail(text: str) -> Detail:
    """Return the parts of ``NAME/TYPE/HOST[/IP]/PORT`` (seed, section Proposal).

    Raises:
        DrtpError: as :func:`parse_target`.
    """
    parts = text.split("/")
    if len(parts) not in {4, 5} or not all(parts):
        raise DrtpError("DRTP-1001", f"{text!r} is not NAME/TYPE/HOST[/IP]/PORT",
                        hint="For example PostgreSQL/TCP/db.corp.example/5432.")  # fmt: skip
    name, kind, host, *ip, port = parts
    if kind.lower() in _LATER:
        _refuse_later(kind.lower())
    try:
        protocol = _SCHEMES[kind.lower()]
    except KeyError:
        raise DrtpError("DRTP-1001", f"{text!r}: the type is {kind!r}, expected TCP, UDP or HTTP") from None
    if ip and _literal(ip[0]) is None:
        raise DrtpError("DRTP-1001", f"{text!r}: {ip[0]!r} is not an IP address")
    target = _checked(text, (ip or [host])[0], _port(port, text), protocol)
    return Detail(name=name, target=target, hostname=host, ip=ip[0] if ip else None)


def target_of_application(application: Application) -> Target | None:
    """Return the target that a service's definition names, or ``None`` where it names none.

    Raises:
        DrtpError: DRTP-1012 or DRTP-4008, as :func:`parse_target`.
    """
    host = application.ip or application.hostname
    if application.protocol is Protocol.UDP:
        _refuse_later("udp")
    if host is None or application.port is None:
        return None
    return _checked(f"{host}:{application.port}", host, application.port, application.protocol)


def forbidden_reason(address: str) -> str | None:
    """Say why an IP address must not be dialled on a visitor's behalf, or return ``None``.

    Link-local addresses lead to the machine's provider (credentials included), never to a service one would publish;
    wildcard and group addresses are no service at all.
    """
    ip = _literal(address)
    if ip is None:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip in _METADATA:
        return "it is a cloud's metadata address"
    if ip.is_link_local:
        return "it is link-local"
    if ip.is_multicast:
        return "it is a multicast group"
    if ip.is_unspecified:
        return "it is no address to connect to"
    return None


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refuse_later(scheme: str) -> None:
    what, hint = _LATER[scheme]
    raise DrtpError("DRTP-1012", f"this version does not support {what}", hint=hint)


def _unix(text: str, protocol: Protocol) -> Target:
    path = text.removeprefix("unix:")
    path = path.removeprefix("//")
    if not path.startswith("/"):
        raise DrtpError("DRTP-1001", f"{text!r}: the path of a Unix socket starts with /")
    if len(path.encode()) > UNIX_PATH_MAX:
        raise DrtpError("DRTP-1001", f"{text!r}: the path has {len(path.encode())} bytes, at most {UNIX_PATH_MAX} fit")
    if "\0" in path:
        raise DrtpError("DRTP-1001", f"{text!r}: the path holds a zero byte")
    return Target(protocol=protocol, path=path)


def _url(text: str, protocol: Protocol | None) -> Target:
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise DrtpError("DRTP-1001", f"{text!r}: {error}") from None
    if url.scheme in _LATER:
        _refuse_later(url.scheme)
    meant = _SCHEMES.get(url.scheme)
    if meant is None:
        raise DrtpError("DRTP-1001", f"{text!r}: the scheme {url.scheme!r} is not http, tcp or unix")
    if protocol is not None and protocol is not meant:
        raise DrtpError("DRTP-1004", f"{text!r} contradicts --protocol {protocol.value.lower()}")
    _refuse_extras(text, url)
    default = 80 if meant is Protocol.HTTP else None
    return _checked(text, *_host_port(url.netloc, text, default), meant)


def _refuse_extras(text: str, url: SplitResult) -> None:
    if "@" in url.netloc:
        raise DrtpError("DRTP-1001", "a target carries no user name or password")
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise DrtpError("DRTP-1001", f"{text!r}: a target ends after its port; the whole service is exposed")


def _host_port(netloc: str, text: str, default: int | None = None) -> tuple[str, int]:
    if netloc.isascii() and netloc.isdigit():
        return ("localhost", _port(netloc, text)) if default is None else (netloc, default)
    if netloc.startswith("["):
        host, bracket, rest = netloc[1:].partition("]")
        if not bracket or not isinstance(_literal(host), ipaddress.IPv6Address):
            raise DrtpError("DRTP-1001", f"{text!r}: the brackets do not hold an IPv6 address")
        colon, port = rest[:1], rest[1:]
        if rest and colon != ":":
            raise DrtpError("DRTP-1001", f"{text!r}: a port follows the bracket after a colon")
    else:
        host, colon, port = netloc.rpartition(":")
        if not colon:
            host, port = netloc, ""
        if ":" in host:
            raise DrtpError("DRTP-1001", f"{text!r} is ambiguous", hint=f"Write [{host}]:{port} for IPv6.")
    if not colon:
        if default is None:
            raise DrtpError("DRTP-1001", f"{text!r} has no port")
        return host, default
    return host or "localhost", _port(port, text)


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise DrtpError("DRTP-1001", f"{whole!r}: the port is {text!r}, expected 1 to 65535")
    return int(text)


def _checked(text: str, host: str, port: int, protocol: Protocol) -> Target:
    ip = _literal(host)
    if host in {"*", "0"} or (ip is not None and ip.is_unspecified):
        raise DrtpError("DRTP-1002", f"{text!r} names every interface, not one service",
                        hint=f"Name the address the service listens on, for example localhost:{port}.")  # fmt: skip
    if ip is None:
        host = _name(host, text)
    elif reason := forbidden_reason(host):
        raise DrtpError("DRTP-4008", f"{host} may not be served: {reason}")
    return Target(protocol=protocol, host=host.lower(), port=port)


def _name(host: str, text: str) -> str:
    try:
        ascii_name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    if not _HOST.match(ascii_name) or ascii_name.rstrip(".").rpartition(".")[2].isdigit():
        raise DrtpError("DRTP-1001", f"{text!r}: {host!r} is neither a host name nor an address")
    return ascii_name
