"""The functions and operators of the language itself: arithmetic, conversions, texts, times. Pure functions.

Rules: the words of errors are those of Kubernetes' CEL; whatever may overflow is checked.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from drtp_controller.apiserver.cel.signatures import overload
from drtp_controller.apiserver.cel.values import (
    CelError,
    TypeValue,
    UInt,
    checked_int,
    checked_uint,
    equal,
    map_key,
    type_name,
)
from drtp_controller.apiserver.formats import compile_pattern

# ---- arithmetic


@overload("_+_(int, int) -> int")
def _add_int(left: int, right: int) -> int:
    return checked_int(left + right)


@overload("_+_(uint, uint) -> uint")
def _add_uint(left: UInt, right: UInt) -> UInt:
    return checked_uint(int(left) + int(right))


@overload(
    "_+_(double, double) -> double",
    "_+_(string, string) -> string",
    "_+_(bytes, bytes) -> bytes",
    "_+_(list<A>, list<A>) -> list<A>",
)
def _add(left: Any, right: Any) -> Any:
    return left + right


@overload(
    "_+_(duration, duration) -> duration",
    "_+_(timestamp, duration) -> timestamp",
    "_+_(duration, timestamp) -> timestamp",
)
def _add_time(left: Any, right: Any) -> Any:
    return _in_range(lambda: left + right)


@overload("_-_(int, int) -> int")
def _subtract_int(left: int, right: int) -> int:
    return checked_int(left - right)


@overload("_-_(uint, uint) -> uint")
def _subtract_uint(left: UInt, right: UInt) -> UInt:
    return checked_uint(int(left) - int(right))


@overload("_-_(double, double) -> double")
def _subtract_double(left: float, right: float) -> float:
    return left - right


@overload(
    "_-_(duration, duration) -> duration",
    "_-_(timestamp, duration) -> timestamp",
    "_-_(timestamp, timestamp) -> duration",
)
def _subtract_time(left: Any, right: Any) -> Any:
    return _in_range(lambda: left - right)


def _in_range(make: Any) -> Any:
    try:
        return make()
    except OverflowError as error:
        raise CelError("timestamp overflow") from error


@overload("_*_(int, int) -> int")
def _multiply_int(left: int, right: int) -> int:
    return checked_int(left * right)


@overload("_*_(uint, uint) -> uint")
def _multiply_uint(left: UInt, right: UInt) -> UInt:
    return checked_uint(int(left) * int(right))


@overload("_*_(double, double) -> double")
def _multiply_double(left: float, right: float) -> float:
    return left * right


@overload("_/_(int, int) -> int")
def _divide_int(left: int, right: int) -> int:
    if right == 0:
        raise CelError("division by zero")
    # towards zero, not downwards
    quotient = abs(left) // abs(right)
    return checked_int(quotient if (left < 0) == (right < 0) else -quotient)


@overload("_/_(uint, uint) -> uint")
def _divide_uint(left: UInt, right: UInt) -> UInt:
    return UInt(_divide_int(int(left), int(right)))


@overload("_/_(double, double) -> double")
def _divide_double(left: float, right: float) -> float:
    if right == 0:
        return float("nan") if left == 0 or left != left else left * float("inf")  # noqa: PLR0124 - NaN
    return left / right


@overload("_%_(int, int) -> int")
def _modulus_int(left: int, right: int) -> int:
    if right == 0:
        raise CelError("modulus by zero")
    rest = abs(left) % abs(right)
    return rest if left >= 0 else -rest


@overload("_%_(uint, uint) -> uint")
def _modulus_uint(left: UInt, right: UInt) -> UInt:
    return UInt(_modulus_int(int(left), int(right)))


@overload("-_(int) -> int")
def _negate_int(value: int) -> int:
    return checked_int(-value)


@overload("-_(double) -> double")
def _negate_double(value: float) -> float:
    return -value


# ---- order

_NUMBERS = [(a, b) for a in ("int", "uint", "double") for b in ("int", "uint", "double")]
_ORDERED = [*_NUMBERS, *((kind, kind) for kind in ("string", "bytes", "bool", "timestamp", "duration"))]


def _ordered(operator: str) -> tuple[str, ...]:
    return tuple(f"_{operator}_({left}, {right}) -> bool" for left, right in _ORDERED)


@overload(*_ordered("<"))
def _less(left: Any, right: Any) -> bool:
    return bool(left < right)


@overload(*_ordered("<="))
def _less_or_equal(left: Any, right: Any) -> bool:
    return bool(left <= right)


@overload(*_ordered(">"))
def _greater(left: Any, right: Any) -> bool:
    return bool(left > right)


@overload(*_ordered(">="))
def _greater_or_equal(left: Any, right: Any) -> bool:
    return bool(left >= right)


# ---- collections


@overload("_in_(A, list<A>) -> bool")
def _in_list(item: Any, items: list[Any]) -> bool:
    return any(equal(item, other) for other in items)


@overload("_in_(A, map<A, B>) -> bool")
def _in_map(key: Any, entries: dict[Any, Any]) -> bool:
    return map_key(key) in entries


@overload(
    "size(string) -> int",
    "size(bytes) -> int",
    "size(list<A>) -> int",
    "size(map<A, B>) -> int",
    "string.size() -> int",
    "bytes.size() -> int",
    "list<A>.size() -> int",
    "map<A, B>.size() -> int",
)
def _size(value: Any) -> int:
    return len(value)


# ---- texts


@overload("string.startsWith(string) -> bool")
def _starts_with(text: str, prefix: str) -> bool:
    return text.startswith(prefix)


@overload("string.endsWith(string) -> bool")
def _ends_with(text: str, suffix: str) -> bool:
    return text.endswith(suffix)


@overload("string.contains(string) -> bool")
def _contains(text: str, part: str) -> bool:
    return part in text


@overload("string.matches(string) -> bool", "matches(string, string) -> bool")
def _matches(text: str, pattern: str) -> bool:
    try:
        return compile_pattern(pattern).search(text) is not None
    except re.error as error:
        raise CelError(f"error parsing regexp: {error}") from error


# ---- conversions


@overload("dyn(A) -> dyn")
def _dyn(value: Any) -> Any:
    return value


@overload("type(A) -> type")
def _type(value: Any) -> TypeValue:
    return TypeValue(type_name(value))


@overload("bool(bool) -> bool", "bool(string) -> bool")
def _bool(value: bool | str) -> bool:
    if isinstance(value, bool):
        return value
    if value in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if value in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise CelError(f"type conversion error from 'string' to 'bool': {value!r}")


@overload("int(int) -> int", "int(uint) -> int", "int(double) -> int", "int(string) -> int", "int(timestamp) -> int")
def _int(value: Any) -> int:
    match value:
        case str():
            if not re.fullmatch(r"[+-]?[0-9]+", value, re.ASCII):
                raise CelError(f"type conversion error from 'string' to 'int': {value!r}")
            return checked_int(int(value))
        case datetime():
            return int(value.timestamp())
        case float():
            if not -(2**63) < value < 2**63:
                raise CelError("integer overflow")
            return int(value)
        case _:
            return checked_int(int(value))


@overload("uint(uint) -> uint", "uint(int) -> uint", "uint(double) -> uint", "uint(string) -> uint")
def _uint(value: Any) -> UInt:
    if isinstance(value, str):
        if not re.fullmatch(r"\+?[0-9]+", value, re.ASCII):
            raise CelError(f"type conversion error from 'string' to 'uint': {value!r}")
        return checked_uint(int(value))
    if isinstance(value, float) and not 0 <= value < 2**64:
        raise CelError("unsigned integer overflow")
    return checked_uint(int(value))


@overload("double(double) -> double", "double(int) -> double", "double(uint) -> double", "double(string) -> double")
def _double(value: Any) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise CelError(f"type conversion error from 'string' to 'double': {value!r}") from error


@overload("bytes(bytes) -> bytes", "bytes(string) -> bytes")
def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


@overload(*(
    f"string({kind}) -> string"
    for kind in ("string", "int", "uint", "double", "bool", "bytes", "timestamp", "duration")
))  # fmt: skip
def string_of(value: Any) -> str:
    """Return the text that a value converts to."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise CelError("invalid UTF-8 in bytes, cannot convert to string") from error
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return f"{value.total_seconds():g}s"
        case _:
            return str(value)


# ---- times

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)


@overload("duration(string) -> duration", "duration(duration) -> duration")
def parse_duration(value: str | timedelta) -> timedelta:
    """Return the duration that a text such as 1h30m names. Raises `CelError`."""
    if isinstance(value, timedelta):
        return value
    sign, text = (-1, value[1:]) if value.startswith("-") else (1, value.removeprefix("+"))
    if text == "0":
        return timedelta()
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise CelError(f"time: invalid duration {value!r}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return timedelta(seconds=sign * _bounded(seconds))


def _bounded(seconds: float) -> float:
    # Go's durations are nanoseconds in 64 bits
    if abs(seconds) > 2**63 / 1e9:
        raise CelError("duration overflow")
    return seconds


@overload("timestamp(string) -> timestamp", "timestamp(int) -> timestamp", "timestamp(timestamp) -> timestamp")
def parse_timestamp(value: str | int | datetime) -> datetime:
    """Return the moment that an RFC 3339 text, a date or a number of seconds names. Raises `CelError`."""
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, int):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(value.upper())
    except (ValueError, OverflowError, OSError) as error:
        raise CelError(f"cannot parse {value!r} as a timestamp") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> Any:
    if match := re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name, re.ASCII):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise CelError(f"unknown time zone {name}") from error


_PARTS_OF_TIME = {
    "getFullYear": lambda t: t.year,
    "getMonth": lambda t: t.month - 1,
    "getDayOfYear": lambda t: t.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda t: t.day - 1,
    "getDate": lambda t: t.day,
    "getDayOfWeek": lambda t: t.isoweekday() % 7,
    "getHours": lambda t: t.hour,
    "getMinutes": lambda t: t.minute,
    "getSeconds": lambda t: t.second,
    "getMilliseconds": lambda t: t.microsecond // 1000,
}
_PARTS_OF_DURATION = {"getHours": 3600.0, "getMinutes": 60.0, "getSeconds": 1.0, "getMilliseconds": 0.001}


def _enter_parts_of_time() -> None:
    for name, part in _PARTS_OF_TIME.items():
        overload(f"timestamp.{name}() -> int", f"timestamp.{name}(string) -> int")(
            lambda moment, zone="UTC", part=part: part(moment.astimezone(_zone(zone)))
        )
    for name, unit in _PARTS_OF_DURATION.items():
        overload(f"duration.{name}() -> int")(lambda value, unit=unit: int(value.total_seconds() / unit))


_enter_parts_of_time()
