"""Reads request bodies strictly: types, unknown fields, and every bound that a message class declares.

Rules:
- The classes of ``drtp_api.registration`` are the schema: ``Annotated[..., Meta(...)]`` bounds are enforced here.
- All faults of a body are reported at once, each with its path in wire names.
- A body that is read never raises anything but DRTP-2009.
"""

from __future__ import annotations

import enum
import functools
import math
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec

from drtp_api.errors import DrtpError
from drtp_api.wire import wire_name

__all__ = ["read_body", "read_message"]

T = TypeVar("T")

_MAX_FAULTS = 10


def read_body(raw: bytes, cls: type[T]) -> T:
    """Return the message in a request body.

    Raises:
        DrtpError: DRTP-2009; it is not JSON, or a field is faulty.
    """
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DrtpError("DRTP-2009", f"the body is not JSON: {error}") from error
    return read_message(data, cls)


def read_message(data: Any, cls: type[T], *, place: str = "body") -> T:
    """Return the message of decoded JSON; ``place`` is where it stood, for who reads of a fault.

    Raises:
        DrtpError: DRTP-2009; the message names each faulty field by its path.
    """
    faults: list[str] = []
    value = _read(data, cls, place, faults)
    if faults:
        more = f" and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise DrtpError("DRTP-2009", "; ".join(faults[:_MAX_FAULTS]) + more)
    return value  # type: ignore[no-any-return]


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _read(data: Any, wanted: Any, path: str, faults: list[str]) -> Any:
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        before = len(faults)
        value = _read(data, args[0], path, faults)
        if len(faults) == before and value is not None:
            faults.extend(f"{path}: {fault}" for meta in args[1:] for fault in _violations(value, meta))
        return value
    if origin in {Union, types.UnionType}:
        if data is None and type(None) in args:
            return None
        (only,) = [a for a in args if a is not type(None)]
        return _read(data, only, path, faults)
    if attrs.has(wanted):
        return _read_object(data, wanted, path, faults)
    if origin is tuple:
        return _read_list(data, args[0], path, faults)
    if origin is dict:
        return _read_mapping(data, args[1], path, faults)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        known = [m.value for m in wanted]
        if data in known:
            return wanted(data)
        faults.append(f"{path}: expected one of {', '.join(map(str, known))}")
        return None
    return _read_plain(data, wanted, path, faults)


def _read_object(data: Any, cls: type[Any], path: str, faults: list[str]) -> Any:
    if not isinstance(data, dict):
        faults.append(f"{path}: expected an object")
        return None
    hints, values, before = _hints(cls), {}, len(faults)  # type: ignore[arg-type]
    known = {wire_name(a.name): a for a in attrs.fields(cls)}
    faults.extend(f"{path}: unknown field {str(key)[:64]!r}" for key in data if key not in known)
    for name, attribute in known.items():
        if name in data:
            values[attribute.name] = _read(data[name], hints[attribute.name], f"{path}.{name}", faults)
        elif attribute.default is attrs.NOTHING:
            faults.append(f"{path}.{name}: is required")
    return cls(**values) if len(faults) == before else None


def _read_list(data: Any, item: Any, path: str, faults: list[str]) -> Any:
    if not isinstance(data, list):
        faults.append(f"{path}: expected a list")
        return None
    return tuple(_read(entry, item, f"{path}[{i}]", faults) for i, entry in enumerate(data))


def _read_mapping(data: Any, item: Any, path: str, faults: list[str]) -> Any:
    if not isinstance(data, dict):
        faults.append(f"{path}: expected an object")
        return None
    return {key: _read(entry, item, f"{path}.{key}", faults) for key, entry in data.items()}


def _read_plain(data: Any, wanted: Any, path: str, faults: list[str]) -> Any:
    if wanted is float and isinstance(data, int | float) and not isinstance(data, bool):
        if math.isfinite(data):
            return float(data)
        faults.append(f"{path}: expected a finite number")
        return None
    if wanted is int and isinstance(data, float) and data.is_integer():
        return int(data)  # JSON has one kind of number: 5.0 is a whole one
    if isinstance(data, bool) is not (wanted is bool) or not isinstance(data, wanted):
        faults.append(f"{path}: expected {_WORDS.get(wanted, wanted)}")
        return None
    return data


_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def _violations(value: Any, meta: Any) -> Iterator[str]:
    if not isinstance(meta, msgspec.Meta):
        return
    if meta.ge is not None and value < meta.ge:
        yield f"{value} is less than {meta.ge}"
    if meta.le is not None and value > meta.le:
        yield f"{value} is more than {meta.le}"
    if meta.min_length is not None and len(value) < meta.min_length:
        yield f"is shorter than {meta.min_length}"
    if meta.max_length is not None and len(value) > meta.max_length:
        yield f"is longer than {meta.max_length}"
    # the end of a string must match as the end, not before a final newline
    if meta.pattern is not None and not re.fullmatch(meta.pattern.removeprefix("^").removesuffix("$"), value):
        yield f"does not match {meta.pattern}"
