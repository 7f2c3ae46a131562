"""Pieces of code that the compiler puts together: logic, calls, selection, equality of typed values.

Rules: each returns a closure over a frame, or is called by one; what fails is a `CelError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from drtp_controller.apiserver.cel.signatures import Overload
from drtp_controller.apiserver.cel.syntax import Select
from drtp_controller.apiserver.cel.types import Type
from drtp_controller.apiserver.cel.values import NONE, CelError, Optional, equal, map_key

Frame: TypeAlias = list[Any]
Code: TypeAlias = Callable[[Frame], Any]


def truth(value: Any) -> bool:
    """Return a value that must be a bool. Raises `CelError`."""
    if isinstance(value, bool):
        return value
    raise CelError("no such overload")


def conjunction(left: Code, right: Code) -> Code:
    """Return `&&`."""

    def run(frame: Frame) -> bool:
        try:
            if not truth(left(frame)):
                return False
        except CelError:
            if not truth(right(frame)):
                return False
            raise
        return truth(right(frame))

    return run


def disjunction(left: Code, right: Code) -> Code:
    """Return `||`."""

    def run(frame: Frame) -> bool:
        try:
            if truth(left(frame)):
                return True
        except CelError:
            if truth(right(frame)):
                return True
            raise
        return truth(right(frame))

    return run


def direct(code: Callable[..., Any], args: tuple[Code, ...]) -> Code:
    """Return a call whose signature is certain."""
    match args:
        case [only]:
            return lambda frame: code(only(frame))
        case [first, second]:
            return lambda frame: code(first(frame), second(frame))
        case _:
            return lambda frame: code(*[arg(frame) for arg in args])


def dispatched(candidates: list[Overload], args: tuple[Code, ...]) -> Code:
    """Return a call that finds its signature by the values."""

    def run(frame: Frame) -> Any:
        values = tuple(arg(frame) for arg in args)
        for candidate in candidates:
            if candidate.takes(values):
                return candidate.code(*values)
        raise CelError("no such overload")

    return run


def selection(operand: Code, name: str, node: Select) -> Code:
    """Return the selection, or the test, of a field."""
    if node.test:
        return lambda frame: has_field(operand(frame), name)

    def run(frame: Frame) -> Any:
        value = operand(frame)
        if not isinstance(value, dict):
            raise CelError("no such overload")
        try:
            return value[name]
        except KeyError:
            raise CelError(f"no such key: {name}") from None

    return run


def has_field(value: Any, name: str) -> bool:
    """Return whether a value has a field. Raises `CelError` for what has none at all."""
    if value is NONE:
        return False
    if not isinstance(value, dict):
        raise CelError("no such overload")
    return name in value


def opened(value: Any) -> Any:
    """Return what an optional holds, `NONE` when it holds nothing, other values as they are."""
    if isinstance(value, Optional):
        return value.value if value.present else NONE
    return value


def maybe_field(value: Any, name: str) -> Optional:
    """Return a field that may be missing."""
    if isinstance(value, dict) and name in value:
        return Optional(value[name], True)
    return NONE


def maybe_item(value: Any, index: Any) -> Optional:
    """Return an item that may be missing."""
    absent = value is NONE
    if absent:
        return NONE
    try:
        return Optional(item_of(value, index), True)
    except CelError:
        return NONE


def item_of(value: Any, index: Any) -> Any:
    """Return an item of a list or a map. Raises `CelError`."""
    if isinstance(value, dict):
        key = map_key(index)
        if key not in value:
            raise CelError(f"no such key: {key}")
        return value[key]
    if not isinstance(value, list) or isinstance(index, bool) or not isinstance(index, (int, float)):
        raise CelError("no such overload")
    if not 0 <= index < len(value):
        raise CelError(f"index out of bounds: {index}")
    return value[int(index)]


def equality_of(kind: Type) -> Callable[[Any, Any], bool]:
    """Return what compares values of a type: the order of sets and associative lists does not count."""
    if not _has_identity(kind):
        return equal
    if kind.name == "list":
        item = equality_of(kind.args[0])
        if kind.identity is None:
            return lambda a, b: len(a) == len(b) and all(map(item, a, b))
        identity = kind.identity

        def same(left: list[Any], right: list[Any]) -> bool:
            others = {_identity(other, identity): other for other in right}
            return len(left) == len(right) and all(
                (key := _identity(one, identity)) in others and item(one, others[key]) for one in left
            )

        return same
    if kind.fields is not None:
        fields = {field.name: equality_of(field.type) for field in kind.fields.values()}
        return lambda a, b: a.keys() == b.keys() and all(fields.get(k, equal)(v, b[k]) for k, v in a.items())
    value = equality_of(kind.args[-1])
    return lambda a, b: a.keys() == b.keys() and all(value(v, b[k]) for k, v in a.items())


def _has_identity(kind: Type) -> bool:
    inner = [field.type for field in kind.fields.values()] if kind.fields is not None else kind.args
    return kind.identity is not None or any(map(_has_identity, inner))


def _identity(item: Any, keys: tuple[str, ...]) -> Any:
    if not keys:
        return repr(item)
    return tuple(item.get(key) for key in keys) if isinstance(item, dict) else repr(item)


def merged(kind: Type, left: Code, right: Code) -> Code:
    """Return the sum of two sets or associative lists: what is new is appended, what is known replaced in place."""
    identity = kind.identity or ()

    def run(frame: Frame) -> list[Any]:
        merged = {_identity(item, identity): item for item in left(frame)}
        merged.update({_identity(item, identity): item for item in right(frame)})
        return list(merged.values())

    return run
