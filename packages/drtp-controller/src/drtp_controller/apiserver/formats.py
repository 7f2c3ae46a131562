"""String formats and patterns of schemas. Pure functions.

Rules: patterns mean what RE2 makes of them (ASCII classes, `$` only at the very end); an unknown format admits
everything, as in the real server.
"""

from __future__ import annotations

import base64
import binascii
import functools
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)
_DURATION = re.compile(r"([+-]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)\s*)+\Z", re.ASCII)
_ESCAPED_OR_CLASS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\$", re.DOTALL)


@functools.lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern with RE2's meaning: Python's `$` would also match before a last newline."""

    def translate(found: re.Match[str]) -> str:
        text = found.group()
        return {"$": r"\Z", r"\z": r"\Z"}.get(text, text)

    return re.compile(_ESCAPED_OR_CLASS.sub(translate, pattern), re.ASCII)


def _parses(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            parse(value)
        except ValueError:
            return False
        return True

    return check


def _is_date_time(value: str) -> bool:
    return bool(_DATE_TIME.match(value)) and _parses(datetime.fromisoformat)(value.upper())


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True


def _is_cidr(value: str) -> bool:
    host, _, bits = value.partition("/")
    # Go reads neither netmasks nor addresses without a prefix length, zones or leading zeros
    plain = bits.isascii() and bits.isdigit() and (bits == "0" or not bits.startswith("0")) and "%" not in host
    return plain and _parses(lambda text: ipaddress.ip_network(text, strict=False))(value)


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_date_time,
    "date": _parses(lambda value: datetime.strptime(value, "%Y-%m-%d")),  # noqa: DTZ007 - a date has no zone
    "duration": lambda value: bool(_DURATION.match(value)),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _is_cidr,
    "byte": _is_base64,
    "uuid": _parses(uuid.UUID),
    "uri": lambda value: ":" in value,
}


def matches_format(name: str, value: str) -> bool:
    """Return whether a string has a format; formats that are not known admit everything."""
    check = _FORMATS.get(name)
    return check is None or check(value)


def is_dns_label(value: str) -> bool:
    """Return whether a value is an RFC 1123 label: at most 63 characters."""
    return len(value) <= 63 and bool(_DNS_LABEL.match(value))


def is_dns_subdomain(value: str) -> bool:
    """Return whether a value is an RFC 1123 subdomain: labels joined by dots, at most 253 characters."""
    return len(value) <= 253 and all(bool(_DNS_LABEL.match(label)) for label in value.split("."))


_QUALIFIED_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z")


def is_qualified_name(value: str) -> bool:
    """Return whether a value may be the key of a label: an optional DNS prefix, a slash, and a name."""
    prefix, slash, name = value.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        return False
    return len(name) <= 63 and bool(_QUALIFIED_NAME.match(name))


def is_label_value(value: str) -> bool:
    """Return whether a value may be the value of a label: empty, or at most 63 plain characters."""
    return value == "" or (len(value) <= 63 and bool(_QUALIFIED_NAME.match(value)))
