"""The libraries that Kubernetes adds to CEL: texts, lists, sets, patterns, URLs, addresses, quantities. Pure.

Rules: signatures and errors are Kubernetes'; a library we lack is named in `signatures.UNSUPPORTED`.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from drtp_controller.apiserver.cel.signatures import overload
from drtp_controller.apiserver.cel.values import (
    NONE,
    CelError,
    Cidr,
    Optional,
    Quantity,
    checked_int,
    equal,
)
from drtp_controller.apiserver.formats import compile_pattern

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# ---- texts


@overload("string.charAt(int) -> string")
def _char_at(text: str, at: int) -> str:
    if not 0 <= at <= len(text):
        raise CelError(f"index out of range: {at}")
    return text[at : at + 1]


@overload("string.indexOf(string) -> int", "string.indexOf(string, int) -> int")
def _index_of(text: str, part: str, start: int = 0) -> int:
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    return text.find(part, start)


@overload("string.lastIndexOf(string) -> int", "string.lastIndexOf(string, int) -> int")
def _last_index_of(text: str, part: str, start: int | None = None) -> int:
    if start is None:
        return text.rfind(part)
    if not 0 <= start <= len(text):
        raise CelError(f"index out of range: {start}")
    return text.rfind(part, 0, start + len(part))


@overload("list<string>.join() -> string", "list<string>.join(string) -> string")
def _join(texts: list[str], separator: str = "") -> str:
    return separator.join(texts)


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}


@overload("string.lowerAscii() -> string")
def _lower(text: str) -> str:
    return text.translate(_LOWER)


@overload("string.upperAscii() -> string")
def _upper(text: str) -> str:
    return text.translate(_UPPER)


@overload("string.replace(string, string) -> string", "string.replace(string, string, int) -> string")
def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    return text.replace(old, new, count)


@overload("string.split(string) -> list<string>", "string.split(string, int) -> list<string>")
def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        return list(text) if limit < 0 else [*text[: limit - 1], text[limit - 1 :]]
    return text.split(separator, limit - 1 if limit > 0 else -1)


@overload("string.substring(int) -> string", "string.substring(int, int) -> string")
def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    return text[start:end]


@overload("string.trim() -> string")
def _trim(text: str) -> str:
    return text.strip()


@overload("string.reverse() -> string", "list<A>.reverse() -> list<A>")
def _reverse(value: Any) -> Any:
    return value[::-1]


@overload("string.find(string) -> string")
def _find(text: str, pattern: str) -> str:
    found = compile_pattern(pattern).search(text)
    return found.group() if found else ""


@overload("string.findAll(string) -> list<string>", "string.findAll(string, int) -> list<string>")
def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match.group() for match in compile_pattern(pattern).finditer(text)]
    return found if limit < 0 else found[:limit]


# ---- lists and sets


def _some(items: list[Any], name: str) -> list[Any]:
    if not items:
        raise CelError(f"{name} called on empty list")
    return items


@overload("list<A>.isSorted() -> bool")
def _is_sorted(items: list[Any]) -> bool:
    return all(left <= right for left, right in itertools.pairwise(items))


@overload("list<A>.sum() -> A")
def _sum(items: list[Any]) -> Any:
    if not items:
        return 0
    total = sum(items[1:], items[0])
    return checked_int(total) if type(total) is int else total


@overload("list<A>.min() -> A")
def _min(items: list[Any]) -> Any:
    return min(_some(items, "min"))


@overload("list<A>.max() -> A")
def _max(items: list[Any]) -> Any:
    return max(_some(items, "max"))


@overload("list<A>.indexOf(A) -> int")
def _index_of_item(items: list[Any], wanted: Any) -> int:
    return next((at for at, item in enumerate(items) if equal(item, wanted)), -1)


@overload("list<A>.lastIndexOf(A) -> int")
def _last_index_of_item(items: list[Any], wanted: Any) -> int:
    return next((at for at in range(len(items) - 1, -1, -1) if equal(items[at], wanted)), -1)


@overload("list<A>.slice(int, int) -> list<A>")
def _slice(items: list[Any], start: int, end: int) -> list[Any]:
    if not 0 <= start <= end <= len(items):
        raise CelError(f"cannot slice({start}, {end}), list length is {len(items)}")
    return items[start:end]


@overload("list<A>.distinct() -> list<A>")
def _distinct(items: list[Any]) -> list[Any]:
    out: list[Any] = []
    for item in items:
        if not any(equal(item, known) for known in out):
            out.append(item)
    return out


@overload("list<A>.sort() -> list<A>")
def _sort(items: list[Any]) -> list[Any]:
    return sorted(items)


@overload("list<A>.flatten() -> list<dyn>")
def _flatten(items: list[Any]) -> list[Any]:
    return [inner for item in items for inner in (item if isinstance(item, list) else [item])]


@overload("lists::range(int) -> list<int>")
def _range(count: int) -> list[int]:
    if count > 100_000:
        raise CelError(f"lists::range({count}) is too long")
    return list(range(count))


def _has(items: Iterable[Any], wanted: Any) -> bool:
    return any(equal(item, wanted) for item in items)


@overload("sets::contains(list<A>, list<A>) -> bool")
def _contains_all(items: list[Any], others: list[Any]) -> bool:
    return all(_has(items, other) for other in others)


@overload("sets::equivalent(list<A>, list<A>) -> bool")
def _equivalent(items: list[Any], others: list[Any]) -> bool:
    return _contains_all(items, others) and _contains_all(others, items)


@overload("sets::intersects(list<A>, list<A>) -> bool")
def _intersects(items: list[Any], others: list[Any]) -> bool:
    return any(_has(items, other) for other in others)


# ---- optional values


@overload("optional::of(A) -> optional<A>")
def _optional_of(value: Any) -> Optional:
    return Optional(value, True)


@overload("optional::none() -> optional<dyn>")
def _optional_none() -> Optional:
    return NONE


@overload("optional::ofNonZeroValue(A) -> optional<A>")
def _optional_non_zero(value: Any) -> Optional:
    return Optional(value, True) if value else NONE


@overload("optional<A>.hasValue() -> bool")
def _has_value(value: Optional) -> bool:
    return value.present


@overload("optional<A>.value() -> A")
def _value(value: Optional) -> Any:
    if not value.present:
        raise CelError("optional::none() dereference")
    return value.value


@overload("optional<A>.orValue(A) -> A")
def _or_value(value: Optional, other: Any) -> Any:
    return value.value if value.present else other


@overload("optional<A>.or(optional<A>) -> optional<A>")
def _or(value: Optional, other: Optional) -> Optional:
    return value if value.present else other


# ---- URLs


def _parse_url(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return None
    absolute = bool(url.scheme) or text.startswith("/")
    return url if absolute and not re.search(r"[\x00-\x20\x7f]", text) else None


@overload("isURL(string) -> bool")
def _is_url(text: str) -> bool:
    return _parse_url(text) is not None


@overload("url(string) -> url")
def _url(text: str) -> SplitResult:
    url = _parse_url(text)
    if url is None:
        raise CelError(f'URL parse error during conversion from string: parse "{text}": invalid URI for request')
    return url


@overload("url.getScheme() -> string")
def _scheme(url: SplitResult) -> str:
    return url.scheme


@overload("url.getHost() -> string")
def _host(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2]


@overload("url.getHostname() -> string")
def _hostname(url: SplitResult) -> str:
    return _host(url).removesuffix(f":{url.port}").strip("[]")


@overload("url.getPort() -> string")
def _port(url: SplitResult) -> str:
    return "" if url.port is None else str(url.port)


@overload("url.getEscapedPath() -> string")
def _path(url: SplitResult) -> str:
    return url.path


@overload("url.getQuery() -> map<string, list<string>>")
def _query(url: SplitResult) -> dict[str, list[str]]:
    return parse_qs(url.query, keep_blank_values=True)


# ---- addresses


def _parse_ip(text: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    strange = isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address.scope_id)
    return None if strange else address


def _parse_cidr(text: str) -> Cidr | None:
    host, slash, bits = text.partition("/")
    if not slash or not bits.isdecimal() or (len(bits) > 1 and bits[0] == "0") or _parse_ip(host) is None:
        return None
    try:
        return Cidr(ipaddress.ip_interface(text))
    except ValueError:
        return None


@overload("isIP(string) -> bool")
def _is_ip(text: str) -> bool:
    return _parse_ip(text) is not None


@overload("ip(string) -> ip")
def _ip(text: str) -> IPAddress:
    address = _parse_ip(text)
    if address is None:
        raise CelError(f'IP Address "{text}" parse error during conversion from string')
    return address


@overload("ip::isCanonical(string) -> bool")
def _is_canonical(text: str) -> bool:
    return str(_ip(text)) == text


@overload("ip.family() -> int")
def _family(address: IPAddress) -> int:
    return address.version


@overload("ip.isUnspecified() -> bool")
def _is_unspecified(address: IPAddress) -> bool:
    return address.is_unspecified


@overload("ip.isLoopback() -> bool")
def _is_loopback(address: IPAddress) -> bool:
    return address.is_loopback


@overload("ip.isLinkLocalUnicast() -> bool")
def _is_link_local(address: IPAddress) -> bool:
    return address.is_link_local


@overload("ip.isLinkLocalMulticast() -> bool")
def _is_link_local_multicast(address: IPAddress) -> bool:
    network = "224.0.0.0/24" if address.version == 4 else "ff02::/16"
    return address in ipaddress.ip_network(network)


@overload("ip.isGlobalUnicast() -> bool")
def _is_global_unicast(address: IPAddress) -> bool:
    broadcast = address == ipaddress.IPv4Address("255.255.255.255")
    others = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not (broadcast or others)


@overload("string(ip) -> string")
def _ip_text(address: IPAddress) -> str:
    return str(address)


@overload("isCIDR(string) -> bool")
def _is_cidr(text: str) -> bool:
    return _parse_cidr(text) is not None


@overload("cidr(string) -> cidr")
def _cidr(text: str) -> Cidr:
    found = _parse_cidr(text)
    if found is None:
        raise CelError(f'CIDR "{text}" parse error during conversion from string')
    return found


@overload("cidr.containsIP(ip) -> bool", "cidr.containsIP(string) -> bool")
def _contains_ip(cidr: Cidr, address: IPAddress | str) -> bool:
    return (_ip(address) if isinstance(address, str) else address) in cidr.address.network


@overload("cidr.containsCIDR(cidr) -> bool", "cidr.containsCIDR(string) -> bool")
def _contains_cidr(cidr: Cidr, other: Cidr | str) -> bool:
    inner = (_cidr(other) if isinstance(other, str) else other).address.network
    outer: Any = cidr.address.network
    return inner.version == outer.version and bool(outer.supernet_of(inner))


@overload("cidr.ip() -> ip")
def _cidr_ip(cidr: Cidr) -> IPAddress:
    return cidr.address.ip


@overload("cidr.masked() -> cidr")
def _masked(cidr: Cidr) -> Cidr:
    return Cidr(ipaddress.ip_interface(str(cidr.address.network)))


@overload("cidr.prefixLength() -> int")
def _prefix_length(cidr: Cidr) -> int:
    return cidr.address.network.prefixlen


@overload("string(cidr) -> string")
def _cidr_text(cidr: Cidr) -> str:
    return str(cidr.address)


# ---- quantities

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d{1,3}))?\Z", re.ASCII)
_BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")} | {
    letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)
}


def _parse_quantity(text: str) -> Quantity | None:
    match = _QUANTITY.match(text)
    if match is None:
        return None
    number, binary, decimal, exponent = match.groups()
    scale = _BINARY[binary] if binary else _DECIMAL[decimal] if decimal else Decimal(10) ** int(exponent or 0)
    return Quantity(Decimal(number) * scale)


@overload("isQuantity(string) -> bool")
def _is_quantity(text: str) -> bool:
    return _parse_quantity(text) is not None


@overload("quantity(string) -> quantity")
def _quantity(text: str) -> Quantity:
    found = _parse_quantity(text)
    if found is None:
        raise CelError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    return found


@overload("quantity.sign() -> int")
def _sign(value: Quantity) -> int:
    return (value.amount > 0) - (value.amount < 0)


@overload("quantity.isInteger() -> bool")
def _is_integer(value: Quantity) -> bool:
    return value.amount == value.amount.to_integral_value()


@overload("quantity.asInteger() -> int")
def _as_integer(value: Quantity) -> int:
    if not _is_integer(value):
        raise CelError("cannot convert value to integer")
    return checked_int(int(value.amount))


@overload("quantity.asApproximateFloat() -> double")
def _as_float(value: Quantity) -> float:
    return float(value.amount)


@overload("quantity.isGreaterThan(quantity) -> bool")
def _is_greater(value: Quantity, other: Quantity) -> bool:
    return value.amount > other.amount


@overload("quantity.isLessThan(quantity) -> bool")
def _is_less(value: Quantity, other: Quantity) -> bool:
    return value.amount < other.amount


@overload("quantity.compareTo(quantity) -> int")
def _compare(value: Quantity, other: Quantity) -> int:
    return (value.amount > other.amount) - (value.amount < other.amount)


@overload("quantity.add(quantity) -> quantity", "quantity.add(int) -> quantity")
def _add_quantity(value: Quantity, other: Quantity | int) -> Quantity:
    return Quantity(value.amount + (other if isinstance(other, int) else other.amount))


@overload("quantity.sub(quantity) -> quantity", "quantity.sub(int) -> quantity")
def _subtract_quantity(value: Quantity, other: Quantity | int) -> Quantity:
    return Quantity(value.amount - (other if isinstance(other, int) else other.amount))
