"""The table of functions: each entry a signature in words, such as `string.matches(string) -> bool`, and its code.

Rules:
- The signature is the only place that knows types; the code may rely on them.
- A method is looked up by its name and the type of its target, a function by its name; operators are functions.
- What Kubernetes has and we have not stands in `UNSUPPORTED`: it is reported, never taken for a typing error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import attrs

from drtp_controller.apiserver.cel.types import Type, fits
from drtp_controller.apiserver.cel.values import type_name

F = TypeVar("F", bound=Callable[..., Any])

UNSUPPORTED = frozenset({
    "authorizer", "cel", "format", "isSemver", "jsonpatch", "math", "quote", "semver", "strings",
})  # fmt: skip
"""Functions and libraries of newer Kubernetes versions that this server does not evaluate."""


@attrs.frozen
class Overload:
    """One signature of a function; a method's target is its first parameter."""

    name: str
    method: bool
    params: tuple[Type, ...]
    result: Type
    code: Callable[..., Any] = attrs.field(repr=False)

    def fits(self, args: tuple[Type, ...], bound: dict[str, Type]) -> bool:
        """Return whether it takes arguments of these types; binds its type parameters."""
        return len(args) == len(self.params) and all(
            fits(wanted, given, bound) for wanted, given in zip(self.params, args, strict=True)
        )

    def takes(self, values: tuple[Any, ...]) -> bool:
        """Return whether it takes these values."""
        return all(holds(wanted, value) for wanted, value in zip(self.params, values, strict=True))


def holds(wanted: Type, value: Any) -> bool:
    """Return whether a value is of a signature's type; items are not looked at."""
    return wanted.is_parameter or wanted.name == "dyn" or wanted.name == type_name(value)


_FUNCTIONS: dict[tuple[str, bool], list[Overload]] = {}
_SIGNATURE = re.compile(r"(?:(?P<target>[\w.]+(?:<.*?>)?)\.)?(?P<name>[^\s(]+)\((?P<params>.*)\) -> (?P<result>.+)\Z")
_PART = re.compile(r"[\w.]+(?:<(?:[^<>]|<[^<>]*>)*>)?")
_SHORT = {
    "timestamp": "google.protobuf.Timestamp",
    "duration": "google.protobuf.Duration",
    "optional": "optional_type",
    "ip": "net.IP",
    "cidr": "net.CIDR",
    "url": "kubernetes.URL",
    "quantity": "kubernetes.Quantity",
}


def overload(*signatures: str) -> Callable[[F], F]:
    """Enter a function's code under its signatures; `library::name(...)` is a function, not a method."""

    def enter(code: F) -> F:
        for signature in signatures:
            made = _parsed(signature, code)
            _FUNCTIONS.setdefault((made.name, made.method), []).append(made)
        return code

    return enter


def overloads(name: str, *, method: bool) -> list[Overload]:
    """Return every signature of a function; an empty list when there is no such function."""
    return _FUNCTIONS.get((name, method), [])


def _parsed(signature: str, code: Callable[..., Any]) -> Overload:
    match = _SIGNATURE.fullmatch(signature)
    assert match is not None, signature
    target, name = match["target"], match["name"].replace("::", ".")
    params = [*([target] if target else []), *_PART.findall(match["params"])]
    return Overload(name, target is not None, tuple(map(_type, params)), _type(match["result"]), code)


def _type(text: str) -> Type:
    name, _, args = text.partition("<")
    inner = tuple(_type(part) for part in _PART.findall(args[:-1])) if args else ()
    return Type(_SHORT.get(name, name), inner)
