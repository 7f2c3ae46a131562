"""Single values of the first draft, read: places on earth, names, addresses, words. Pure functions.

Rules: what cannot be understood is a `DrtpError` that says what would be.
"""

from __future__ import annotations

import ipaddress
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from drtp_api.errors import DrtpError

_DEGREES = re.compile(
    r"\s*(?P<sign>[+\-\N{MINUS SIGN}]?)\s*(?P<number>[0-9]{1,3}(?:\.[0-9]{1,20})?)\s*"
    r"(?:\N{DEGREE SIGN}|deg|degrees)?\s*(?P<side>[NSEWnsew]?)\s*",
    re.ASCII,
)
_LIMITS = {"latitude": (90, "NS"), "longitude": (180, "EW")}
_KNOWN_APPLICATIONS = {
    "postgres": "postgresql", "postgresql": "postgresql", "postgressql": "postgresql", "postsqlsql": "postgresql",
    "pgsql": "postgresql", "psql": "postgresql", "mysql": "mysql", "redis": "redis", "mongo": "mongodb",
    "mongodb": "mongodb", "http": "http", "https": "https", "grpc": "grpc",
}  # fmt: skip


def decimal_degrees(kind: str, value: Any, where: str) -> str:
    """Return the latitude or longitude as decimal degrees; south and west are negative.

    Raises:
        DrtpError: DRTP-1011; it is no such number, or out of range.
    """
    limit, sides = _LIMITS[kind]
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    match = _DEGREES.fullmatch(text) if isinstance(text, str) else None
    side = match["side"].upper() if match else ""
    if match is None or (side and side not in sides) or (side and match["sign"]):
        example = f"40.7128 or 40.7128\N{DEGREE SIGN} {sides[0]}"
        raise DrtpError("DRTP-1011", f"{where}: {value!r} is no {kind}; write it as {example}")
    try:
        number = Decimal(match["number"])
    except InvalidOperation:  # pragma: no cover - the pattern admits only digits
        raise DrtpError("DRTP-1011", f"{where}: {value!r} is no {kind}") from None
    if number > limit:
        raise DrtpError("DRTP-1011", f"{where}: {value!r} is beyond {limit} degrees")
    negative = side in {"S", "W"} or match["sign"] in {"-", "\N{MINUS SIGN}"}
    whole, dot, decimals = match["number"].partition(".")
    # a hundred-millionth of a degree is a millimetre; the digits that are kept stay as they were written
    plain = f"{int(whole)}{dot}{decimals[:8]}"
    return f"-{plain}" if negative and number else plain


def dns_subdomain(text: str) -> str:
    """Return a text as the name of an object: lower case, `/` as a dot, everything else unusual as a hyphen."""
    parts = [re.sub(r"[^a-z0-9-]", "-", part.lower()).strip("-") for part in re.split(r"[/.]", text)]
    return ".".join(part for part in parts if part)[:253].strip("-.")


def dns_label(text: str) -> str:
    """Return a text as a DNS label of at most 63 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def application_name(text: str) -> str | None:
    """Return the registered name of a well-known application, however it is spelled; None for others."""
    return _KNOWN_APPLICATIONS.get(re.sub(r"[^a-z]", "", text.lower()))


def pod_address(value: Any, where: str) -> tuple[str, bool]:
    """Return the address of a pod, and whether it was written as a network of one address.

    Raises:
        DrtpError: DRTP-1011; it is no address, or a network of more than one.
    """
    if isinstance(value, str):
        try:
            network = ipaddress.ip_network(value.strip())
        except ValueError:
            network = None
        if network is not None and network.num_addresses == 1:
            return str(network.network_address), "/" in value
    raise DrtpError("DRTP-1011", f"{where}: {value!r} is not the address of one pod; write it as 10.10.10.10")


def unusable_address(text: str) -> str:
    """Return why Kubernetes refuses an address in an EndpointSlice; an empty string when it takes it."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "is no IP address"
    for refused, why in (
        (address.is_loopback, "is a loopback address"),
        (address.is_unspecified, "is the unspecified address"),
        (address.is_link_local, "is a link-local address"),
        (address.is_multicast, "is a multicast address"),
    ):
        if refused:
            return why
    return ""
