"""What CEL expressions work with at run time, and when two of them are equal.

Rules:
- Values are Python's own where they can be: int, float, str, bytes, bool, None, list, dict, datetime, timedelta.
- A bool is never a number and an int never a bool; numbers of different kinds are equal when they are the same number.
- What goes wrong while a rule runs is a `CelError` with the words of Kubernetes' CEL.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import SplitResult

import attrs

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
UINT_MAX = 2**64 - 1


class CelError(Exception):
    """A rule cannot be evaluated for this object."""


class UInt(int):
    """An unsigned number, of 64 bits."""

    __slots__ = ()


@attrs.frozen
class Optional:
    """A value that may be absent."""

    value: Any = None
    present: bool = False


NONE: Final[Optional] = Optional()


@attrs.frozen
class TypeValue:
    """What `type(x)` returns; equal for equal names."""

    name: str


@attrs.frozen
class Cidr:
    """A network as written: the address may have bits below the prefix."""

    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface


@attrs.frozen
class Quantity:
    """A Kubernetes quantity, such as 1.5Gi."""

    amount: Decimal


def type_name(value: Any) -> str:
    """Return the name of a value's type, as in signatures."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, UInt):
        return "uint"
    for kind, name in _NAMES:
        if isinstance(value, kind):
            return name
    raise CelError(f"unsupported value {type(value).__name__}")


_NAMES: Sequence[tuple[Any, str]] = (
    (str, "string"),
    (int, "int"),
    (float, "double"),
    (dict, "map"),
    (list, "list"),
    (type(None), "null_type"),
    (bytes, "bytes"),
    (datetime, "google.protobuf.Timestamp"),
    (timedelta, "google.protobuf.Duration"),
    (TypeValue, "type"),
    (Optional, "optional_type"),
    ((ipaddress.IPv4Address, ipaddress.IPv6Address), "net.IP"),
    (Cidr, "net.CIDR"),
    (SplitResult, "kubernetes.URL"),
    (Quantity, "kubernetes.Quantity"),
)


def equal(left: Any, right: Any) -> bool:
    """Return whether two values are the same to CEL."""
    if left is None or right is None or isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)):
        return isinstance(right, (int, float)) and left == right
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        if not isinstance(right, dict) or len(left) != len(right):
            return False
        return all(key in right and equal(value, right[key]) for key, value in left.items())
    return type(left) is type(right) and bool(left == right)


def checked_int(number: int) -> int:
    """Return an int that fits. Raises `CelError`."""
    if not INT_MIN <= number <= INT_MAX:
        raise CelError("integer overflow")
    return number


def checked_uint(number: int) -> UInt:
    """Return a uint that fits. Raises `CelError`."""
    if not 0 <= number <= UINT_MAX:
        raise CelError("unsigned integer overflow")
    return UInt(number)


def map_key(key: Any) -> Any:
    """Return a key as maps hold it: numbers of different kinds find the same entry. Raises `CelError`."""
    if isinstance(key, (str, bool)):
        return key
    if isinstance(key, float) and key.is_integer():
        return int(key)
    if isinstance(key, int):
        return int(key)
    raise CelError(f"unsupported key type: {type_name(key)}")
