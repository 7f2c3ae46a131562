"""Between attrs objects and wire dicts: names, enums, and what is left out.

Rules:
- ``to_wire`` leaves out ``None``, empty tuples and empty dicts; ``from_wire`` restores defaults.
- Nothing is coerced: a number is no text, ``null`` is no name.
- Under ``from_wire(..., strict=True)`` unknown keys and values out of bounds are errors, too; objects read from the API
  are read leniently, because a newer server may send fields, and allow values, that this version does not know.
"""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

import attrs
import cattrs
import cattrs.v
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from msgspec import Meta

from drtp_api.errors import DrtpError
from drtp_api.resources import API_VERSION, AccessControlList, Connection, Resource, Server, Service

__all__ = ["KINDS", "from_wire", "kind_of", "object_from_wire", "object_to_wire", "to_wire", "wire_name"]

T = TypeVar("T")

_ACRONYMS = {"ip": "IP", "id": "ID", "cidrs": "CIDRs", "sha256": "SHA256", "url": "URL", "pem": "PEM"}

KINDS: dict[str, type[Resource]] = {
    "DRTPServer": Server,
    "DRTPService": Service,
    "DRTPConnection": Connection,
    "DRTPAccessControlList": AccessControlList,
}


def wire_name(field: str) -> str:
    """Return the camelCase wire name of a Python field, with Kubernetes' acronyms."""
    first, *rest = field.split("_")
    return first + "".join(_ACRONYMS.get(part, part.capitalize()) for part in rest)


def _exactly(*types: type) -> Callable[[Any, Any], Any]:
    """Return a hook that lets values of these types pass and converts nothing; a bool is not an int here."""
    word = " or ".join(t.__name__ for t in types)

    def structure(value: Any, _: Any) -> Any:
        if isinstance(value, types) and (bool in types or not isinstance(value, bool)):
            return value
        raise TypeError(f"expected {word}, got {type(value).__name__}")

    return structure


def _of(kind: type[Any], structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the hook, refusing what is not of this kind of container."""
    word = "an object" if kind is Mapping else "a list"

    def checked(value: Any, cls: Any) -> Any:
        if not isinstance(value, (kind, tuple) if kind is list else kind):
            raise TypeError(f"expected {word}, got {type(value).__name__}")
        return structure(value, cls)

    return checked


def _check(value: Any, bounds: Meta) -> None:
    """Check a value against what its type says of it.

    Raises:
        ValueError: It is out of bounds; the message says which.
    """
    if bounds.ge is not None and value < bounds.ge:
        raise ValueError(f"{value} is less than {bounds.ge}")
    if bounds.le is not None and value > bounds.le:
        raise ValueError(f"{value} is more than {bounds.le}")
    if bounds.min_length is not None and len(value) < bounds.min_length:
        raise ValueError(f"shorter than {bounds.min_length}")
    if bounds.max_length is not None and len(value) > bounds.max_length:
        raise ValueError(f"longer than {bounds.max_length}")
    # Not search: ``$`` of Python also matches before a newline at the end, which Kubernetes' does not.
    if bounds.pattern is not None and not re.fullmatch(bounds.pattern, value):
        raise ValueError(f"{value!r} does not match {bounds.pattern}")


def _is_annotated(candidate: Any) -> bool:
    return get_origin(candidate) is Annotated


def _is_tuple(candidate: Any) -> bool:
    return get_origin(candidate) is tuple


def _words(error: BaseException, type_: type[Any] | None) -> str:
    """Return what is wrong with one field, in words for whoever wrote it."""
    match error:
        case KeyError():
            return "missing"
        case TypeError() | ValueError() if error.args and not isinstance(error, cattrs.ForbiddenExtraKeysError):
            return str(error)
        case _:
            return cattrs.v.format_exception(error, type_)


def _names(cls: type[Any]) -> dict[str, Any]:
    resolved = attrs.resolve_types(cls, include_extras=True)
    return {a.name: override(rename=wire_name(a.name)) for a in attrs.fields(resolved)}


def _converter(*, strict: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=strict, detailed_validation=True)
    converter.register_unstructure_hook(enum.Enum, lambda value: value.value)
    for kind, accepted in ((str, (str,)), (bool, (bool,)), (int, (int,)), (float, (int, float))):
        converter.register_structure_hook(kind, _exactly(*accepted))

    def structure_factory(cls: type[Any]) -> Any:
        return _of(Mapping, make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=strict, **_names(cls)))

    def tuple_factory(cls: type[Any]) -> Any:
        # A text is iterable, too: without this "abc" would be three host names.
        return _of(list, homogenous_tuple_structure_factory(cls, converter))

    def unstructure_factory(cls: type[Any]) -> Any:
        return make_dict_unstructure_fn(cls, converter, **_names(cls))

    def annotated_factory(annotated: Any) -> Callable[[Any, Any], Any]:
        inner, *extras = get_args(annotated)
        bounds = [extra for extra in extras if isinstance(extra, Meta)]
        structure = converter.get_structure_hook(inner)

        def checked(value: Any, _: Any) -> Any:
            result = structure(value, inner)
            for bound in bounds:
                _check(result, bound)
            return result

        return checked

    if strict:
        converter.register_structure_hook_factory(_is_annotated, annotated_factory)
    converter.register_structure_hook_factory(_is_tuple, tuple_factory)
    converter.register_structure_hook_factory(attrs.has, structure_factory)
    converter.register_unstructure_hook_factory(attrs.has, unstructure_factory)
    return converter


@functools.cache
def _shared(strict: bool) -> cattrs.Converter:
    return _converter(strict=strict)


def _prune(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: p for k, v in value.items() if (p := _prune(v)) is not None and p not in ({}, [])}
    if isinstance(value, list | tuple):
        return [_prune(v) for v in value]
    return value


def to_wire(value: Any) -> dict[str, Any]:
    """Return the wire dict of an attrs object; ``None`` and empty collections are left out."""
    pruned = _prune(_shared(strict=False).unstructure(value))
    if not isinstance(pruned, dict):
        msg = f"{type(value).__name__} is not an object"
        raise TypeError(msg)
    return pruned


def from_wire(data: Any, cls: type[T], *, strict: bool = False) -> T:
    """Return the attrs object of a wire dict.

    Raises:
        DrtpError: DRTP-2009; the message names each faulty field by its path.
    """
    try:
        return _shared(strict).structure(data, cls)
    except Exception as error:
        faults = cattrs.transform_error(error, path=cls.__name__, format_exception=_words)
        raise DrtpError("DRTP-2009", "; ".join(map(_on_the_wire, faults))) from error


def _on_the_wire(fault: str) -> str:
    """Return the fault with the path in wire names, which are the ones that its author knows."""
    words, at, path = fault.rpartition(" @ ")
    return f"{words}{at}{re.sub(r'[a-z_0-9]+', lambda m: wire_name(m[0]), path)}" if at else fault


def kind_of(value: Resource) -> str:
    """Return the Kubernetes kind of a resource object."""
    return f"DRTP{type(value).__name__}"


def object_from_wire(data: dict[str, Any]) -> Resource:
    """Return the typed resource of an API object, read leniently.

    Raises:
        DrtpError: DRTP-2009; the kind is not ours, or a field is faulty.
    """
    cls = KINDS.get(data.get("kind", ""))
    if cls is None:
        raise DrtpError("DRTP-2009", f"kind {data.get('kind')!r} is not one of {', '.join(KINDS)}")
    return from_wire(data, cls)


def object_to_wire(value: Resource) -> dict[str, Any]:
    """Return the API object of a typed resource, with apiVersion and kind."""
    return {"apiVersion": API_VERSION, "kind": kind_of(value), **to_wire(value)}
