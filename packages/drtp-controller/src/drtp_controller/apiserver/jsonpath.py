r"""The subset of kubectl's JSONPath that printer columns use. Pure.

Rules: `.name`, `['name']`, `\.` in names, `[0]`, `[-1]`, `[*]`, `.*` and `[?(@.field=="value")]`; a path that
finds nothing gives an empty list; a path that cannot be parsed is a `ValueError`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

Step: TypeAlias = Callable[[Any], Iterable[Any]]

_TOKEN = re.compile(
    r"""
      \.\*                                                          (?P<all_fields>)
    | \.(?P<name>(?:[\w\-/$]|\\.)+)
    | \[\s*(?P<quote>['"])(?P<quoted>(?:(?!(?P=quote)).)*)(?P=quote)\s*\]
    | \[\s*\*\s*\]                                                  (?P<all_items>)
    | \[\s*(?P<index>-?\d+)\s*\]
    | \[\?\(\s*@(?P<path>[^=!<>]*?)\s*(?P<op>==|!=)\s*(?P<value>'[^']*'|"[^"]*"|[\w.\-]+)\s*\)\]
    """,
    re.VERBOSE,
)


@functools.lru_cache(maxsize=512)
def compile_path(path: str) -> Callable[[Any], list[Any]]:
    """Return a function that finds all values of a path. Raises `ValueError`."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    if text and text[0] not in ".[":
        text = "." + text
    steps: list[Step] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"{path!r} is not a supported JSON path at {text[position:]!r}")
        steps.append(_step(found))
        position = found.end()

    def find(document: Any) -> list[Any]:
        values: list[Any] = [document]
        for step in steps:
            values = [result for value in values for result in step(value)]
        return values

    return find


def _step(found: re.Match[str]) -> Step:
    if (found["all_fields"] is not None) or (found["all_items"] is not None):
        return _children
    if found["index"] is not None:
        return functools.partial(_item, int(found["index"]))
    if found["path"] is not None:
        return functools.partial(_filtered, compile_path(found["path"]), _literal(found["value"]), found["op"] == "==")
    name = found["quoted"] if found["quoted"] is not None else re.sub(r"\\(.)", r"\1", found["name"])
    return functools.partial(_field, name)


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return text[1:-1]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _item(index: int, value: Any) -> Iterable[Any]:
    if isinstance(value, list) and -len(value) <= index < len(value):
        return (value[index],)
    return ()


def _field(name: str, value: Any) -> Iterable[Any]:
    return (value[name],) if isinstance(value, dict) and name in value else ()


def _filtered(find: Callable[[Any], list[Any]], wanted: Any, equal: bool, value: Any) -> Iterable[Any]:
    if not isinstance(value, list):
        return ()
    return [item for item in value if any((found == wanted) == equal for found in find(item))]
