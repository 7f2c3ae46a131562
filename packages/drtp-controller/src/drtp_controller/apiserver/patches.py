"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902) over plain data. Pure functions.

Rules: the input is never changed; a patch that cannot be applied is an `Invalid` that says which operation failed.
"""

from __future__ import annotations

import copy
from typing import Any

from drtp_api.kube import BadRequest, Invalid

MAX_OPERATIONS = 10_000
"""The limit of kube-apiserver: each operation may copy the document."""


def merge_patch(target: Any, patch: Any) -> Any:
    """Return a target with a merge patch applied: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def json_patch(document: Any, operations: Any) -> Any:
    """Return a document with the operations applied in order.

    Raises:
        BadRequest: the patch is not a list of operations.
        Invalid: an operation names a path that is not there, or a test does not hold.
    """
    if not isinstance(operations, list):
        raise BadRequest("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise BadRequest(f"a JSON patch may have at most {MAX_OPERATIONS} operations")
    result = copy.deepcopy(document)
    for index, operation in enumerate(operations):
        if not isinstance(operation, dict):
            raise BadRequest(f"operation {index} of the JSON patch is not an object")
        try:
            result = _apply(result, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            verb, path = operation.get("op"), operation.get("path")
            raise Invalid(
                f"the server rejected our request due to an error in our request: "
                f"operation {index} ({verb} {path}): {error}"
            ) from error
    return result


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation.get("op"):
        case "add":
            return _add(document, path, copy.deepcopy(operation["value"]))
        case "remove":
            return _remove(document, path)
        case "replace":
            _find(document, path)
            return _replace(document, path, copy.deepcopy(operation["value"]))
        case "move":
            source = _pointer(operation["from"])
            if path[: len(source)] == source and len(path) > len(source):
                raise ValueError("cannot move a value into itself")
            value = _find(document, source)
            return _add(_remove(document, source), path, value)
        case "copy":
            return _add(document, path, copy.deepcopy(_find(document, _pointer(operation["from"]))))
        case "test":
            if not _same(_find(document, path), operation["value"]):
                raise ValueError("the value differs from the tested one")
            return document
        case other:
            raise ValueError(f"unknown operation {other!r}")


def _same(left: Any, right: Any) -> bool:
    """Compare as JSON: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise ValueError(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(part: str, length: int) -> int:
    if not part.isdecimal() or (part != "0" and part.startswith("0")):
        raise ValueError(f"{part!r} is not an index")
    index = int(part)
    if index >= length:
        raise IndexError(f"index {index} is beyond the end")
    return index


def _find(document: Any, path: list[str]) -> Any:
    value = document
    for part in path:
        if isinstance(value, list):
            value = value[_index(part, len(value))]
        elif isinstance(value, dict):
            if part not in value:
                raise KeyError(f"no field {part}")
            value = value[part]
        else:
            raise TypeError(f"{part} is inside a value that has no fields")
    return value


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _find(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise TypeError(f"{last} is inside a value that has no fields")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        return None
    parent, last = _find(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[_index(last, len(parent))]
    elif isinstance(parent, dict):
        if last not in parent:
            raise KeyError(f"no field {last}")
        del parent[last]
    else:
        raise TypeError(f"{last} is inside a value that has no fields")
    return document


def _replace(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _find(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent[_index(last, len(parent))] = value
    else:
        parent[last] = value
    return document
