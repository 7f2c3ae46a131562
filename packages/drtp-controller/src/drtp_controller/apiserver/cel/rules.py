"""The rules of a schema: compiled once, checked as a real API server checks a definition, evaluated for objects.

Rules:
- A rule sees `self`, and `oldSelf` where the two can be paired: not below a list whose items have no keys.
- A rule that looks at `oldSelf` runs on updates only, unless it says `optionalOldSelf`.
- What an update leaves unchanged is not judged again, except by rules that look at `oldSelf`.
- A rule that this server cannot evaluate is listed in `unsupported`, with its place and the reason; it is not run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from drtp_controller.apiserver.cel.code import equality_of
from drtp_controller.apiserver.cel.compiler import (
    CelCompileError,
    CelUnsupportedError,
    Program,
    compile_expression,
)
from drtp_controller.apiserver.cel.functions import parse_duration, parse_timestamp
from drtp_controller.apiserver.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    STRING,
    TIMESTAMP,
    Schema,
    Type,
    fits,
    optional_of,
    type_of_schema,
)
from drtp_controller.apiserver.cel.values import NONE, CelError, Optional, equal
from drtp_controller.apiserver.faults import DUPLICATE, FORBIDDEN, INVALID, REQUIRED, Fault, invalid, required
from drtp_controller.apiserver.schema import child_path, list_map_keys

KEY = "x-kubernetes-validations"
_REASONS = {
    "FieldValueInvalid": INVALID,
    "FieldValueForbidden": FORBIDDEN,
    "FieldValueRequired": REQUIRED,
    "FieldValueDuplicate": DUPLICATE,
}
_ABSENT = object()


@attrs.frozen
class _Rule:
    text: str
    program: Program
    message: str
    message_program: Program | None
    field: str
    reason: str
    optional_old: bool

    @property
    def transition(self) -> bool:
        return "oldSelf" in self.program.names


@attrs.frozen
class _Node:
    """A place in the schema with rules, or with rules below it."""

    kind: str
    rules: tuple[_Rule, ...]
    convert: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]
    properties: dict[str, _Node]
    values: _Node | None
    items: _Node | None
    keys: list[str] | None
    watchful: bool
    """Whether a rule here or below looks at `oldSelf`: only then is an unchanged value looked at."""


@attrs.define
class SchemaRules:
    """The rules of one schema; compiled when first needed."""

    schema: Schema
    _compiled: _Compilation | None = None

    def check(self, new: Any, old: Any | None) -> list[Fault]:
        """Return what the rules have against an object; `old` is what an update replaces."""
        root = self.compiled.root
        if root is None:
            return []
        return list(_evaluate(root, new, _ABSENT if old is None else old, ""))

    @property
    def compiled(self) -> _Compilation:
        """The compiled rules with what was wrong with them."""
        if self._compiled is None:
            self._compiled = _compile(self.schema)
        return self._compiled

    @functools.cached_property
    def any(self) -> bool:
        """Whether there are rules at all."""
        return _mentions(self.schema)


@attrs.frozen
class _Compilation:
    root: _Node | None
    faults: tuple[Fault, ...]
    unsupported: tuple[tuple[str, str], ...]


def check_rules(schema: Schema, path: str) -> tuple[list[Fault], list[tuple[str, str]]]:
    """Return what is wrong with the rules of a schema, and which cannot be evaluated here and why."""
    if not _mentions(schema):
        return [], []
    found = _compile(schema, path)
    return list(found.faults), list(found.unsupported)


def _mentions(schema: Any) -> bool:
    if isinstance(schema, dict):
        return KEY in schema or any(map(_mentions, schema.values()))
    return isinstance(schema, list) and any(map(_mentions, schema))


# ---- compiling


def _compile(schema: Schema, path: str = "") -> _Compilation:
    maker = _Maker()
    root = maker.node(schema, path, root=True, paired=True)
    return _Compilation(root, tuple(maker.faults), tuple(maker.unsupported))


class _Maker:
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.unsupported: list[tuple[str, str]] = []

    def node(self, schema: Schema, path: str, *, root: bool = False, paired: bool) -> _Node | None:
        kind = type_of_schema(schema, root=root)
        rules = self._rules(schema, kind, path, paired=paired) if schema.get(KEY) else []
        properties: dict[str, _Node] = {}
        for name, sub in (schema.get("properties") or {}).items():
            made = self.node(sub, f"{path}.properties[{name}]", paired=paired)
            if made is not None:
                properties[name] = made
        values, items = schema.get("additionalProperties"), schema.get("items")
        keys = list_map_keys(schema)
        below_values = below_items = None
        if isinstance(values, dict):
            below_values = self.node(values, f"{path}.additionalProperties", paired=paired)
        if isinstance(items, dict):
            below_items = self.node(items, f"{path}.items", paired=paired and keys is not None)
        if not (rules or properties or below_values or below_items):
            return None
        below = [node for node in (*properties.values(), below_values, below_items) if node is not None]
        return _Node(
            str(schema.get("type", "")),
            tuple(rules),
            _converter(schema) or _as_is,
            equality_of(kind) if kind is not None else equal,
            properties,
            below_values,
            below_items,
            keys,
            any(rule.transition for rule in rules) or any(node.watchful for node in below),
        )

    def _rules(self, schema: Schema, kind: Type | None, path: str, *, paired: bool) -> list[_Rule]:
        found = []
        for index, entry in enumerate(schema[KEY]):
            where = f"{path}.{KEY}[{index}]"
            made = self._rule(entry, kind, where, paired=paired)
            if made is not None:
                found.append(made)
        return found

    def _rule(self, entry: Any, kind: Type | None, where: str, *, paired: bool) -> _Rule | None:
        text = entry.get("rule") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text.strip():
            self.faults.append(required(f"{where}.rule", "rule is not specified"))
            return None
        if kind is None:
            self.faults.append(invalid(f"{where}.rule", text, "rules are not possible where the schema has no type"))
            return None
        optional_old = bool(entry.get("optionalOldSelf"))
        variables = {"self": kind, "oldSelf": optional_of(kind) if optional_old else kind}
        program = self._program(text, variables, BOOL, f"{where}.rule")
        message_text = entry.get("messageExpression")
        message_program = None
        if message_text:
            message_program = self._program(message_text, variables, STRING, f"{where}.messageExpression")
        self._check_entry(entry, text, where)
        if program is None:
            return None
        if "oldSelf" in program.names and not paired:
            why = "oldSelf cannot be used on the uncorrelatable portion of the schema"
            self.faults.append(invalid(f"{where}.rule", text, why))
            return None
        return _Rule(
            text,
            program,
            str(entry.get("message") or ""),
            message_program,
            str(entry.get("fieldPath") or ""),
            str(entry.get("reason") or "FieldValueInvalid"),
            optional_old,
        )

    def _check_entry(self, entry: dict[str, Any], text: str, where: str) -> None:
        message = entry.get("message") or ""
        if "\n" in text.strip() and not message:
            self.faults.append(required(f"{where}.message", "message must be specified if rule contains line breaks"))
        if "\n" in message:
            self.faults.append(invalid(f"{where}.message", message, "message must not contain line breaks"))
        if entry.get("reason") and entry["reason"] not in _REASONS:
            why = f"must be one of {', '.join(_REASONS)}"
            self.faults.append(invalid(f"{where}.reason", entry["reason"], why))

    def _program(self, text: str, variables: dict[str, Type], wanted: Type, where: str) -> Program | None:
        try:
            program = compile_expression(text, variables)
        except CelCompileError as error:
            self.faults.append(invalid(where, text, str(error)))
            return None
        except CelUnsupportedError as error:
            self.unsupported.append((where, str(error)))
            return None
        if not fits(wanted, program.type, {}):
            self.faults.append(invalid(where, text, f"must evaluate to a {wanted}"))
            return None
        return program


def _as_is(value: Any) -> Any:
    return value


def _converter(schema: Schema) -> Callable[[Any], Any] | None:
    """Return what makes CEL values of JSON's for a schema; None where they are the same."""
    kind = schema.get("type")
    scalar = type_of_schema(schema) if kind in {"string", "number"} else None
    match scalar:
        case None:
            pass
        case _ if scalar == DOUBLE:
            return float
        case _ if scalar == TIMESTAMP:
            return parse_timestamp
        case _ if scalar == DURATION:
            return parse_duration
        case _ if scalar == BYTES:
            return str.encode
    if kind == "array" and isinstance(schema.get("items"), dict):
        return _list_converter(_converter(schema["items"]))
    if kind != "object":
        return None
    below = {name: _converter(sub) for name, sub in (schema.get("properties") or {}).items()}
    values = schema.get("additionalProperties")
    others = _converter(values) if isinstance(values, dict) else None
    changing = {name: convert for name, convert in below.items() if convert is not None}
    if not changing and others is None:
        return None

    def convert_object(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        out = {}
        for name, item in value.items():
            convert = changing.get(name, None if name in below else others)
            out[name] = item if convert is None or item is None else convert(item)
        return out

    return convert_object


def _list_converter(item: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if item is None:
        return None
    return lambda value: [None if one is None else item(one) for one in value]


# ---- evaluating


def _evaluate(node: _Node, value: Any, old: Any, path: str, *, unchanged: bool = False) -> Iterator[Fault]:
    if value is None:
        return
    if old is None:
        old = _ABSENT
    # what is unchanged as a whole is so in every part: one comparison is enough
    unchanged = unchanged or (old is not _ABSENT and node.same(value, old))
    if unchanged and not node.watchful:
        return
    for rule in node.rules:
        if rule.transition:
            if old is _ABSENT and not rule.optional_old:
                continue
        elif unchanged:
            continue
        fault = _run(node, rule, value, old, path)
        if fault is not None:
            yield fault
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, item in value.items():
            below = node.properties.get(name, node.values)
            if below is not None:
                where = child_path(path, name)
                yield from _evaluate(below, item, before.get(name, _ABSENT), where, unchanged=unchanged)
    elif isinstance(value, list) and node.items is not None:
        pair = _paired(node.keys, old)
        for index, item in enumerate(value):
            yield from _evaluate(node.items, item, pair(item), f"{path}[{index}]", unchanged=unchanged)


def _paired(keys: list[str] | None, old: Any) -> Callable[[Any], Any]:
    if keys is None or not isinstance(old, list):
        return lambda _item: _ABSENT
    known = {_key(item, keys): item for item in old if isinstance(item, dict)}
    return lambda item: known.get(_key(item, keys), _ABSENT) if isinstance(item, dict) else _ABSENT


def _key(item: dict[str, Any], keys: list[str]) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in keys)


def _run(node: _Node, rule: _Rule, value: Any, old: Any, path: str) -> Fault | None:
    field = f"{path}{rule.field}".removeprefix(".") if rule.field else path
    try:
        variables = {"self": node.convert(value)}
        if rule.transition:
            known = NONE if old is _ABSENT else node.convert(old)
            variables["oldSelf"] = Optional(known, old is not _ABSENT) if rule.optional_old else known
        if rule.program.run(**variables) is True:
            return None
    except CelError as error:
        shown = rule.message or rule.text
        return Fault(field, f'Invalid value: "{node.kind}": {error} evaluating rule: {shown}')
    return _fault(node, rule, variables, field)


def _fault(node: _Node, rule: _Rule, variables: dict[str, Any], field: str) -> Fault:
    message = rule.message or f"failed rule: {rule.text.strip()}"
    if rule.message_program is not None:
        try:
            made = rule.message_program.run(**variables).strip()
        except CelError:
            made = ""
        if made and "\n" not in made:
            message = made
    match _REASONS[rule.reason]:
        case reason if reason == REQUIRED:
            return Fault(field, f"Required value: {message}", reason)
        case reason if reason == FORBIDDEN:
            return Fault(field, f"Forbidden: {message}", reason)
        case reason if reason == DUPLICATE:
            return Fault(field, f'Duplicate value: "{node.kind}"', reason)
        case reason:
            return Fault(field, f'Invalid value: "{node.kind}": {message}', reason)
