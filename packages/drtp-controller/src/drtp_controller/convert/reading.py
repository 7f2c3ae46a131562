"""From text to documents: YAML, or the YAML blocks of a Markdown text.

Rules:
- Only what JSON can say is read: no dates, tags, aliases, keys that are no texts or come twice, nor infinite numbers.
- A document that is only comments is none; a text without any document is an error.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from drtp_api.errors import DrtpError
from drtp_api.kube import Obj

MAX_TEXT = 1_048_576
"""Characters; the manifests of a whole fleet are smaller."""
_FENCED = re.compile(r"^```ya?ml[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_JSON_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    """Reads YAML as JSON would be read."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.get_mark()
            raise yaml.constructor.ConstructorError(None, None, "aliases are not read", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _JSON_TAGS
}


def read_documents(text: str) -> list[Obj]:
    """Return the documents of a text.

    Raises:
        DrtpError: DRTP-1011; it is not YAML, or a document is no object.
        RecursionError: a document is nested too deeply.
    """
    if len(text) > MAX_TEXT:
        raise DrtpError("DRTP-1011", f"the text has {len(text)} characters, more than {MAX_TEXT}")
    blocks = _FENCED.findall(text) or [text]
    documents = [document for block in blocks for document in _documents(block)]
    found = [document for document in documents if document is not None]
    for index, document in enumerate(found):
        if not isinstance(document, dict):
            raise DrtpError("DRTP-1011", f"document {index + 1} is not an object with apiVersion, kind and metadata")
        _check(document, f"document {index + 1}")
    if not found:
        raise DrtpError("DRTP-1011", "there is no document in it")
    return found


def _documents(text: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise DrtpError("DRTP-1011", f"this is not YAML: {where}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, LookupError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DrtpError("DRTP-1011", f"this is not YAML: {reason}") from error


def _check(value: Any, path: str) -> None:
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise DrtpError("DRTP-1011", f"{path}: the key {key!r} is not a text; put it into quotes")
                _check(item, f"{path}: {key}")
        case list():
            for item in value:
                _check(item, path)
        case int() if abs(value) >= 2**63:
            raise DrtpError("DRTP-1011", f"{path}: a number has more than 64 bits")
        case float() if not math.isfinite(value):
            raise DrtpError("DRTP-1011", f"{path}: {value} is no number that JSON knows")
        case _:
            pass
