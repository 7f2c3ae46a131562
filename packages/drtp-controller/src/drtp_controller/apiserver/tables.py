"""What `kubectl get` prints: objects as a meta.k8s.io/v1 Table. Pure; the present is passed in.

Rules: Name first, then the kind's own columns, and Age when it has none of its own; a cell without a value is
null, an age without a date is `<unknown>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from drtp_api.kube import Obj
from drtp_controller.apiserver.jsonpath import compile_path
from drtp_controller.apiserver.kinds import Column, Kind

_NAME = Column(
    "Name",
    "string",
    ".metadata.name",
    format="name",
    description="Name must be unique within a namespace.",
)
_AGE = Column("Age", "date", ".metadata.creationTimestamp", description="Time since the object was created.")


def columns_of(kind: Kind) -> list[Column]:
    """Return the columns of a kind, with the name in front."""
    own = list(kind.columns)
    return [_NAME, *own] if own else [_NAME, _AGE]


def make_table(
    kind: Kind,
    objects: Iterable[Obj],
    *,
    now: datetime,
    include: str = "Metadata",
    metadata: Obj | None = None,
    with_columns: bool = True,
) -> Obj:
    """Return the Table of some objects.

    Args:
        kind: gives the columns.
        objects: the rows.
        now: the present, for ages.
        include: what each row carries of its object: None, Metadata or Object.
        metadata: the list's metadata.
        with_columns: the later events of a watch leave the definitions out.
    """
    columns = columns_of(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata or {},
        "columnDefinitions": [_definition(column) for column in columns] if with_columns else [],
        "rows": [_row(obj, columns, now, include) for obj in objects],
    }


def _definition(column: Column) -> Obj:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(obj: Obj, columns: list[Column], now: datetime, include: str) -> Obj:
    row: Obj = {"cells": [_cell(obj, column, now) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = partial_metadata(obj)
    return row


def partial_metadata(obj: Obj) -> Obj:
    """Return an object's metadata as a PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _cell(obj: Obj, column: Column, now: datetime) -> Any:
    if column.compute is not None:
        return column.compute(obj)
    found = compile_path(column.json_path)(obj)
    value = found[0] if found else None
    if column.type == "date":
        return format_age(value, now)
    if value is None:
        return None
    match column.type:
        case "integer":
            return int(value) if isinstance(value, (int, float)) else None
        case "number":
            return value if isinstance(value, (int, float)) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _:
            return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(item)}" for key, item in sorted(value.items())) + "]"
    return str(value)


def format_age(timestamp: Any, now: datetime) -> str:
    """Return the time since a timestamp as kubectl writes it: 45s, 3m12s, 2h, 5d."""
    try:
        then = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return "<unknown>"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = int((now - then).total_seconds())
    if seconds < -1:
        return "<invalid>"
    return _duration(max(seconds, 0))


def _duration(seconds: int) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _pair(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
