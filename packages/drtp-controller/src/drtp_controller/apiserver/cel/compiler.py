"""From the tree of an expression to its type and to code that evaluates it.

Rules:
- Types are checked here, as a real API server does when it takes a definition: a rule that names an undeclared field
  is refused then, not when an object comes along.
- Code is a closure over a frame, a list with a slot for each variable; nothing is looked up by name at run time.
- An error in one side of `&&` and `||` counts only if the other side does not decide.
- Loops count their steps against a budget: no rule, and no object, stops the server.
What must not enter: schemas (types.py), objects and paths (rules.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from drtp_controller.apiserver.cel import extensions, functions  # noqa: F401 - they enter their functions
from drtp_controller.apiserver.cel.code import (
    Code,
    Frame,
    conjunction,
    direct,
    disjunction,
    dispatched,
    equality_of,
    has_field,
    item_of,
    maybe_field,
    maybe_item,
    merged,
    opened,
    selection,
    truth,
)
from drtp_controller.apiserver.cel.loops import loop
from drtp_controller.apiserver.cel.signatures import UNSUPPORTED, Overload, overloads
from drtp_controller.apiserver.cel.syntax import (
    Call,
    CelSyntaxError,
    Ident,
    Index,
    ListLiteral,
    Literal,
    Macro,
    MapLiteral,
    Node,
    Select,
    parse,
)
from drtp_controller.apiserver.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NULL,
    OBJECT,
    STRING,
    TIMESTAMP,
    TYPE,
    UINT,
    Type,
    fits,
    list_of,
    map_of,
    optional_of,
    substituted,
)
from drtp_controller.apiserver.cel.values import NONE, CelError, Optional, TypeValue, map_key, type_name
from drtp_controller.apiserver.formats import compile_pattern

MAX_STEPS = 1_000_000
"""Steps of loops that one evaluation may take; the real server's limit is of the same order."""

_TYPE_NAMES = {
    t.name: t for t in (BOOL, BYTES, DOUBLE, DURATION, INT, NULL, STRING, TIMESTAMP, UINT, Type("list"), Type("map"))
}


class CelCompileError(Exception):
    """The expression cannot be compiled; the message is that of a real API server."""


class CelUnsupportedError(Exception):
    """The expression may be right, but uses what this server does not evaluate."""


@attrs.frozen
class Program:
    """A compiled expression."""

    type: Type
    names: frozenset[str]
    """The variables it uses."""
    _code: Code
    _slots: int
    _order: tuple[str, ...]

    def run(self, /, **variables: Any) -> Any:
        """Return the value of the expression. Raises `CelError`."""
        frame: Frame = [None] * self._slots
        frame[0] = MAX_STEPS
        for slot, name in enumerate(self._order, 1):
            frame[slot] = variables.get(name)
        try:
            return self._code(frame)
        except RecursionError as error:
            raise CelError("the object is nested too deeply") from error
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
            # signatures are checked for values, not for the items of lists: [1, 'a'].sum() comes as far as here
            raise CelError("no such overload") from error


def compile_expression(text: str, variables: Mapping[str, Type]) -> Program:
    """Compile an expression that may use these variables.

    Raises:
        CelCompileError: it is not valid.
        CelUnsupportedError: it needs what this server lacks.
    """
    try:
        tree = parse(text)
        compiler = _Compiler(variables)
        kind, code = compiler.compile(tree)
    except (CelSyntaxError, _InvalidError) as error:
        raise CelCompileError(_located(text, error.message, error.position)) from None
    return Program(kind, frozenset(compiler.used), code, compiler.slots, tuple(variables))


def _located(text: str, message: str, position: int) -> str:
    line_start = text.rfind("\n", 0, position) + 1
    line = text.count("\n", 0, position) + 1
    column = position - line_start + 1
    shown = text[line_start:].partition("\n")[0]
    return f"compilation failed: ERROR: <input>:{line}:{column}: {message}\n | {shown}\n | {'.' * (column - 1)}^"


class _InvalidError(Exception):
    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


@attrs.frozen
class _Variable:
    slot: int
    type: Type


class _Compiler:
    def __init__(self, variables: Mapping[str, Type]) -> None:
        self.scope = {name: _Variable(slot, kind) for slot, (name, kind) in enumerate(variables.items(), 1)}
        self.slots = len(self.scope) + 1
        self.used: set[str] = set()
        self._globals = set(variables)

    def compile(self, node: Node) -> tuple[Type, Code]:
        """Return the type of a node and its code."""
        match node:
            case Literal(value=value):
                return _literal_type(value), lambda _frame: value
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Index():
                return self._index(node)
            case Call():
                return self._call(node)
            case ListLiteral():
                return self._list(node)
            case MapLiteral():
                return self._map(node)
            case Macro():
                return self._macro(node)

    # ---- names and fields

    def _ident(self, node: Ident) -> tuple[Type, Code]:
        variable = self.scope.get(node.name)
        if variable is not None:
            if node.name in self._globals:
                self.used.add(node.name)
            slot = variable.slot
            return variable.type, lambda frame: frame[slot]
        if node.name in _TYPE_NAMES:
            value = TypeValue(node.name)
            return TYPE, lambda _frame: value
        raise _undeclared(node.name, node.position)

    def _select(self, node: Select) -> tuple[Type, Code]:
        kind, operand = self.compile(node.operand)
        chained = kind.name == "optional_type"
        inner = kind.args[0] if chained else kind
        name, result = self._field(inner, node)
        code = selection(operand, name, node)
        if not (chained or node.optional):
            return (BOOL if node.test else result), code
        if node.test:
            return BOOL, lambda frame: has_field(opened(operand(frame)), name)
        return optional_of(result), lambda frame: maybe_field(opened(operand(frame)), name)

    def _field(self, kind: Type, node: Select) -> tuple[str, Type]:
        if kind == DYN:
            return node.field, DYN
        if kind.name == "map":
            return node.field, kind.args[1]
        if kind.name != OBJECT or kind.fields is None:
            raise _InvalidError(f"type '{kind}' does not support field selection", node.position)
        field = kind.fields.get(node.field)
        if field is None:
            raise _InvalidError(f"undefined field '{node.field}'", node.position)
        return field.name, field.type

    def _index(self, node: Index) -> tuple[Type, Code]:
        kind, operand = self.compile(node.operand)
        index_kind, index = self.compile(node.index)
        chained = kind.name == "optional_type"
        inner = kind.args[0] if chained else kind
        if inner.name == "list" and fits(INT, index_kind, {}):
            result = inner.args[0]
        elif inner.name == "map" and fits(inner.args[0], index_kind, {}):
            result = inner.args[1]
        elif inner == DYN:
            result = DYN
        else:
            raise _no_overload("_[_]", (inner, index_kind), node.position)
        if chained or node.optional:
            return optional_of(result), lambda frame: maybe_item(opened(operand(frame)), index(frame))
        return result, lambda frame: item_of(operand(frame), index(frame))

    # ---- literals

    def _list(self, node: ListLiteral) -> tuple[Type, Code]:
        parts = [(*self.compile(item), optional) for item, optional in node.items]
        kind = DYN
        for (item, _), (found, _, optional) in zip(node.items, parts, strict=True):
            kind = self._same(kind, _unwrapped(found, optional), item)
        if not any(optional for _, _, optional in parts):
            codes = [code for _, code, _ in parts]
            return list_of(kind), lambda frame: [code(frame) for code in codes]

        def build(frame: Frame) -> list[Any]:
            out: list[Any] = []
            for _, code, optional in parts:
                value = code(frame)
                if not optional:
                    out.append(value)
                elif value.present:
                    out.append(value.value)
            return out

        return list_of(kind), build

    def _same(self, known: Type, found: Type, node: Node) -> Type:
        if known == DYN:
            return found
        if not fits(known, found, {}):
            raise _InvalidError(f"expected type '{known}' but found '{found}'", node.position)
        return known

    def _map(self, node: MapLiteral) -> tuple[Type, Code]:
        parts = [(*self.compile(key), *self.compile(value), optional) for key, value, optional in node.entries]
        key_kind = value_kind = DYN
        for (key, value, _), (key_type, _, value_type, _, optional) in zip(node.entries, parts, strict=True):
            key_kind = self._same(key_kind, key_type, key)
            value_kind = self._same(value_kind, _unwrapped(value_type, optional), value)

        def build(frame: Frame) -> dict[Any, Any]:
            out: dict[Any, Any] = {}
            for _, key, _, value, optional in parts:
                made = value(frame)
                if not optional:
                    out[map_key(key(frame))] = made
                elif made.present:
                    out[map_key(key(frame))] = made.value
            return out

        return map_of(key_kind, value_kind), build

    # ---- calls

    def _call(self, node: Call) -> tuple[Type, Code]:
        match node.function:
            case "_&&_":
                return BOOL, conjunction(*self._booleans(node))
            case "_||_":
                return BOOL, disjunction(*self._booleans(node))
            case "!_":
                (operand,) = self._booleans(node)
                return BOOL, lambda frame: not truth(operand(frame))
            case "_?_:_":
                return self._conditional(node)
            case "_==_" | "_!=_":
                return self._equality(node)
        if isinstance(node.target, Ident) and node.target.name not in self.scope:
            library = f"{node.target.name}.{node.function}"
            if overloads(library, method=False) or node.target.name in UNSUPPORTED:
                return self._function(attrs.evolve(node, function=library, target=None))
        return self._function(node)

    def _booleans(self, node: Call) -> list[Code]:
        codes = []
        for arg in node.args:
            kind, code = self.compile(arg)
            if not fits(BOOL, kind, {}):
                raise _InvalidError(f"expected type 'bool' but found '{kind}'", arg.position)
            codes.append(code)
        return codes

    def _conditional(self, node: Call) -> tuple[Type, Code]:
        (condition,) = self._booleans(attrs.evolve(node, args=node.args[:1]))
        then_kind, then = self.compile(node.args[1])
        else_kind, other = self.compile(node.args[2])
        if not (fits(then_kind, else_kind, {}) or fits(else_kind, then_kind, {})):
            raise _no_overload("_?_:_", (BOOL, then_kind, else_kind), node.position)
        kind = else_kind if then_kind == NULL else then_kind
        return kind, lambda frame: then(frame) if truth(condition(frame)) else other(frame)

    def _equality(self, node: Call) -> tuple[Type, Code]:
        (left_kind, left), (right_kind, right) = (self.compile(arg) for arg in node.args)
        if not (fits(left_kind, right_kind, {}) or fits(right_kind, left_kind, {})):
            raise _no_overload(node.function, (left_kind, right_kind), node.position)
        same = equality_of(left_kind if left_kind != DYN else right_kind)
        if node.function == "_==_":
            return BOOL, lambda frame: same(left(frame), right(frame))
        return BOOL, lambda frame: not same(left(frame), right(frame))

    def _function(self, node: Call) -> tuple[Type, Code]:
        name, position = node.function, node.position
        method = node.target is not None
        known = overloads(name, method=method)
        nodes = (*((node.target,) if node.target is not None else ()), *node.args)
        if not known:
            if name.partition(".")[0] in UNSUPPORTED:
                raise CelUnsupportedError(name)
            if node.target is not None:
                self.compile(node.target)
            raise _undeclared(name, position)
        kinds, codes = zip(*map(self.compile, nodes), strict=True) if nodes else ((), ())
        fitting: list[Overload] = []
        results: list[Type] = []
        for candidate in known:
            bound: dict[str, Type] = {}
            if candidate.fits(kinds, bound):
                fitting.append(candidate)
                results.append(substituted(candidate.result, bound))
        if not fitting:
            raise _no_overload(name, kinds, position, method=method)
        self._check_pattern(name, nodes)
        result = results[0] if all(other == results[0] for other in results) else DYN
        if name == "_+_" and kinds[0].identity is not None:
            return kinds[0], merged(kinds[0], *codes)
        certain = len(fitting) == 1 and all(
            kind != DYN or param.is_parameter or param == DYN
            for kind, param in zip(kinds, fitting[0].params, strict=True)
        )
        return result, direct(fitting[0].code, codes) if certain else dispatched(fitting, codes)

    def _check_pattern(self, name: str, nodes: tuple[Node, ...]) -> None:
        if name not in {"matches", "find", "findAll"} or not isinstance(nodes[1], Literal):
            return
        try:
            compile_pattern(nodes[1].value)
        except re.error as error:
            # Python's patterns lack some of RE2's classes: what it cannot read may still be right
            raise CelUnsupportedError(f"pattern {nodes[1].value!r} ({error})") from error

    # ---- loops

    def _macro(self, node: Macro) -> tuple[Type, Code]:
        kind, target = self.compile(node.target)
        if node.kind in {"optMap", "optFlatMap"}:
            return self._optional_macro(node, kind, target)
        first, second = self._loop_types(kind, node)
        one = second if kind.name == "list" else first
        kinds = (first, second) if len(node.names) == 2 else (one,)
        bound = dict(zip(node.names, kinds, strict=True))
        saved = dict(self.scope)
        slots = []
        for name, item in bound.items():
            slots.append(self.slots)
            self.scope[name] = _Variable(self.slots, item)
            self.slots += 1
        shadowed = self._globals
        self._globals = shadowed - set(node.names)
        try:
            parts = [self.compile(arg) for arg in node.args]
        finally:
            self.scope, self._globals = saved, shadowed
        try:
            return loop(node.kind, target, slots, parts, one)
        except TypeError as error:
            raise _InvalidError(str(error), node.args[0].position) from error

    def _loop_types(self, kind: Type, node: Macro) -> tuple[Type, Type]:
        match kind.name:
            case "list":
                return INT, kind.args[0]
            case "map":
                return kind.args[0], kind.args[1]
            case "dyn":
                return DYN, DYN
            case _:
                why = f"expression of type '{kind}' cannot be range of a comprehension (must be list, map, or dynamic)"
                raise _InvalidError(why, node.target.position)

    def _optional_macro(self, node: Macro, kind: Type, target: Code) -> tuple[Type, Code]:
        if kind.name not in {"optional_type", "dyn"}:
            raise _no_overload(node.kind, (kind,), node.position, method=True)
        slot, saved = self.slots, dict(self.scope)
        self.scope[node.names[0]] = _Variable(slot, kind.args[0] if kind.args else DYN)
        self.slots += 1
        try:
            result, code = self.compile(node.args[0])
        finally:
            self.scope = saved
        flat = node.kind == "optFlatMap"

        def run(frame: Frame) -> Any:
            value = target(frame)
            if not isinstance(value, Optional):
                raise CelError("no such overload")
            if not value.present:
                return NONE
            frame[slot] = value.value
            made = code(frame)
            return made if flat else Optional(made, True)

        return (result if flat else optional_of(result)), run


def _literal_type(value: Any) -> Type:
    return next(t for t in (BOOL, UINT, INT, DOUBLE, STRING, BYTES, NULL) if t.name == type_name(value))


def _no_overload(name: str, kinds: tuple[Type, ...], position: int, *, method: bool = False) -> _InvalidError:
    shown = ", ".join(map(str, kinds[1:] if method else kinds))
    applied = f"'{kinds[0]}.({shown})'" if method else f"'({shown})'"
    return _InvalidError(f"found no matching overload for '{name}' applied to {applied}", position)


def _undeclared(name: str, position: int) -> Exception:
    if name in UNSUPPORTED:
        return CelUnsupportedError(name)
    return _InvalidError(f"undeclared reference to '{name}' (in container '')", position)


def _unwrapped(kind: Type, optional: bool) -> Type:
    return kind.args[0] if optional and kind.args else kind
