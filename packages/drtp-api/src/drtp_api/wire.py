"""Between attrs objects and wire dicts: names, enums, and what is left out.

Rules:
- ``to_wire`` leaves out ``None``, empty tuples and empty dicts; ``from_wire`` restores defaults.
- Unknown keys are errors under ``from_wire(..., strict=True)``; objects read from the API are read leniently,
  because a newer server may send fields that this version does not know.
"""

from __future__ import annotations

import enum
import functools
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

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


def _converter(*, strict: bool) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=strict, detailed_validation=True)
    converter.register_unstructure_hook(enum.Enum, lambda value: value.value)

    def structure_factory(cls: type[Any]) -> Any:
        names = {
            a.name: override(rename=wire_name(a.name))
            for a in attrs.fields(attrs.resolve_types(cls, include_extras=False))
        }
        return make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=strict, **names)  # type: ignore[arg-type]

    def unstructure_factory(cls: type[Any]) -> Any:
        names = {
            a.name: override(rename=wire_name(a.name))
            for a in attrs.fields(attrs.resolve_types(cls, include_extras=False))
        }
        return make_dict_unstructure_fn(cls, converter, **names)  # type: ignore[arg-type]

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
        faults = "; ".join(cattrs.transform_error(error, path=cls.__name__))
        raise DrtpError("DRTP-2009", faults) from error


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
