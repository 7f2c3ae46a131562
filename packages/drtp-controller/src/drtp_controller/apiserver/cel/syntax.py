"""From the text of a CEL expression to its tree: tokens, then recursive descent after the grammar of the language.

Rules:
- The whole text is read or a `CelSyntaxError` says where not; nothing is guessed.
- Macros are recognised here, because they bind names: `has`, `all`, `exists`, `exists_one`, `map`, `filter` and the
  forms of two variables; so are the marks of optional values.
- Depth is bounded: an expression that is nested deeper than `MAX_DEPTH` is refused, as by a real API server.
What must not enter: types, functions, values other than literals.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import attrs

from drtp_controller.apiserver.cel.values import UInt

MAX_DEPTH = 64
"""Python's stack holds many more; no rule that people write comes near."""

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n\f]+|//[^\n]*)
  | (?P<string>(?:[bB]?[rR]|[rR][bB]|[bB])?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |"(?:\\.|[^\\"\r\n])*"|'(?:\\.|[^\\'\r\n])*'))
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<int>0[xX][0-9a-fA-F]+|\d+)(?P<unsigned>[uU])?
  | (?P<ident>[A-Za-z_][A-Za-z0-9_]*)
  | `(?P<quoted>[A-Za-z0-9_.\-/ ]+)`
  | (?P<punct>&&|\|\||==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\?\"'`])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.|$))", re.DOTALL
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_RESERVED = {
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
}  # fmt: skip
_RELATIONS = {"==", "!=", "<", "<=", ">", ">=", "in"}


class CelSyntaxError(Exception):
    """The text is no expression. `position` is the offset of what is wrong."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


@attrs.frozen
class Literal:
    """A constant."""

    position: int
    value: Any


@attrs.frozen
class Ident:
    """A name."""

    position: int
    name: str


@attrs.frozen
class Select:
    """`operand.field`; `optional` is `.?`, `test` is what `has()` makes of it."""

    position: int
    operand: Node
    field: str
    optional: bool = False
    test: bool = False


@attrs.frozen
class Index:
    """`operand[index]`, or `operand[?index]`."""

    position: int
    operand: Node
    index: Node
    optional: bool = False


@attrs.frozen
class Call:
    """A function, a method when it has a target, or an operator by its name between underscores."""

    position: int
    function: str
    target: Node | None
    args: tuple[Node, ...]


@attrs.frozen
class ListLiteral:
    """`[a, ?b]`; the second of each pair says whether the item is optional."""

    position: int
    items: tuple[tuple[Node, bool], ...]


@attrs.frozen
class MapLiteral:
    """`{key: value, ?key: value}`."""

    position: int
    entries: tuple[tuple[Node, Node, bool], ...]


@attrs.frozen
class Macro:
    """A loop over a list or a map, or `optMap` and `optFlatMap`, which bind one name."""

    position: int
    kind: str
    target: Node
    names: tuple[str, ...]
    args: tuple[Node, ...]


Node: TypeAlias = Literal | Ident | Select | Index | Call | ListLiteral | MapLiteral | Macro

# macro -> numbers of arguments after the target; the first ones are the names it binds
_ONE_NAME = {
    "all": {2}, "exists": {2}, "exists_one": {2}, "existsOne": {2}, "map": {2, 3}, "filter": {2}, "optMap": {2},
    "optFlatMap": {2},
}  # fmt: skip
_TWO_NAMES = {
    "all": {3}, "exists": {3}, "existsOne": {3}, "transformList": {3, 4}, "transformMap": {3, 4},
    "transformMapEntry": {3, 4},
}  # fmt: skip


@attrs.frozen
class _Token:
    kind: str
    text: str
    position: int
    value: Any = None


def parse(text: str) -> Node:
    """Return the tree of an expression. Raises `CelSyntaxError`."""
    return _Parser(text, list(_tokens(text))).whole()


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CelSyntaxError(f"token recognition error at: {text[position]!r}", position)
        if not match.group("space"):
            found.append(_token(match))
        position = match.end()
    found.append(_Token("end", "<EOF>", len(text)))
    return found


def _token(match: re.Match[str]) -> _Token:
    text, position = match.group(), match.start()
    if match.group("string"):
        return _Token("literal", text, position, _string(text, position))
    if match.group("float"):
        return _Token("literal", text, position, float(text))
    if digits := match.group("int"):
        number = int(digits, 0) if digits[:2].lower() == "0x" else int(digits)
        if match.group("unsigned"):
            if number >= 2**64:
                raise CelSyntaxError("invalid uint literal", position)
            return _Token("literal", text, position, UInt(number))
        if number > 2**63:
            raise CelSyntaxError("invalid int literal", position)
        return _Token("literal", text, position, number)
    if quoted := match.group("quoted"):
        return _Token("quoted", quoted, position)
    if match.group("ident"):
        constants = {"true": True, "false": False, "null": None}
        if text in constants:
            return _Token("literal", text, position, constants[text])
        return _Token("punct" if text == "in" else "ident", text, position)
    return _Token("punct", text, position)


def _string(text: str, position: int) -> str | bytes:
    quote_at = min(at for at in (text.find('"'), text.find("'")) if at >= 0)
    prefix, body = text[:quote_at].lower(), text[quote_at:]
    width = 3 if len(body) >= 6 and body[:3] in {'"""', "'''"} else 1
    body = body[width:-width]
    is_bytes = "b" in prefix
    if "r" in prefix:
        return body.encode() if is_bytes else body
    out = bytearray()

    def replaced(match: re.Match[str]) -> str:
        simple, two, four, eight, octal, wrong = match.groups()
        if wrong is not None:
            raise CelSyntaxError("invalid escape sequence", position)
        if simple:
            return _SIMPLE.get(simple, simple)
        code = int(two or four or eight, 16) if not octal else int(octal, 8)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise CelSyntaxError("invalid unicode code point", position)
        return chr(code)

    if not is_bytes:
        return _ESCAPE.sub(replaced, body)
    last = 0
    for match in _ESCAPE.finditer(body):
        out += body[last : match.start()].encode()
        _, two, _, _, octal, _ = match.groups()
        # in bytes an escape of two digits is a byte, not a character
        out += bytes([int(two, 16) if two else int(octal, 8)]) if two or octal else replaced(match).encode()
        last = match.end()
    return bytes(out + body[last:].encode())


class _Parser:
    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        tree = self._expression()
        if self._next.kind != "end":
            raise self._unexpected()
        return tree

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _is(self, *texts: str) -> bool:
        return self._next.kind == "punct" and self._next.text in texts

    def _skip(self, text: str) -> bool:
        if self._is(text):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> _Token:
        if not self._is(text):
            raise self._unexpected(f"expecting '{text}'")
        return self._take()

    def _unexpected(self, why: str = "") -> CelSyntaxError:
        token = self._next
        shown = f"mismatched input '{token.text}'" + (f" {why}" if why else "")
        return CelSyntaxError(f"Syntax error: {shown}", token.position)

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CelSyntaxError(f"expression is nested deeper than {MAX_DEPTH}", self._next.position)
        condition = self._binary(0)
        if self._is("?"):
            position = self._take().position
            then = self._binary(0)
            self._expect(":")
            condition = Call(position, "_?_:_", None, (condition, then, self._expression()))
        self._depth -= 1
        return condition

    _LEVELS = (("||",), ("&&",), tuple(_RELATIONS), ("+", "-"), ("*", "/", "%"))

    def _binary(self, level: int) -> Node:
        if level == len(self._LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while self._is(*self._LEVELS[level]):
            token = self._take()
            left = Call(token.position, f"_{token.text}_", None, (left, self._binary(level + 1)))
        return left

    def _unary(self) -> Node:
        marks: list[_Token] = []
        while self._is("!", "-"):
            marks.append(self._take())
        operand = self._member()
        for mark in reversed(marks):
            if mark.text == "-" and isinstance(operand, Literal) and _is_number(operand.value):
                operand = Literal(mark.position, -operand.value)
            else:
                operand = Call(mark.position, f"{mark.text}_", None, (operand,))
        if isinstance(operand, Literal) and operand.value == 2**63 and type(operand.value) is int:
            raise CelSyntaxError("invalid int literal", operand.position)
        return operand

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if self._is("."):
                node = self._selection(node, self._take())
            elif self._is("["):
                position = self._take().position
                optional = self._skip("?")
                node = Index(position, node, self._expression(), optional)
                self._expect("]")
            else:
                return node

    def _selection(self, operand: Node, dot: _Token) -> Node:
        optional = self._skip("?")
        if self._next.kind not in {"ident", "quoted"}:
            raise self._unexpected("expecting a name")
        name = self._take()
        if optional or name.kind == "quoted" or not self._is("("):
            return Select(dot.position, operand, name.text, optional)
        position = self._take().position
        return self._method(position, operand, name.text, self._arguments(")"))

    def _method(self, position: int, target: Node, name: str, args: tuple[Node, ...]) -> Node:
        for forms, count in ((_ONE_NAME, 1), (_TWO_NAMES, 2)):
            if len(args) in forms.get(name, ()):
                names = [arg.name for arg in args[:count] if isinstance(arg, Ident)]
                if len(names) != count:
                    raise CelSyntaxError("argument must be a simple name", args[0].position)
                return Macro(position, name, target, tuple(names), args[count:])
        return Call(position, name, target, args)

    def _arguments(self, end: str) -> tuple[Node, ...]:
        args: list[Node] = []
        while not self._skip(end):
            if args:
                self._expect(",")
            args.append(self._expression())
        return tuple(args)

    def _primary(self) -> Node:
        token = self._take()
        match token.kind, token.text:
            case "literal", _:
                return Literal(token.position, token.value)
            case "punct", "(":
                inner = self._expression()
                self._expect(")")
                return inner
            case "punct", "[":
                return self._list(token.position)
            case "punct", "{":
                return self._map(token.position)
            case "punct", ".":
                return self._primary()
            case "ident", name:
                return self._named(token, name)
            case _:
                self._at -= 1
                raise self._unexpected("expecting an expression")

    def _named(self, token: _Token, name: str) -> Node:
        if name in _RESERVED:
            raise CelSyntaxError(f"reserved identifier: {name}", token.position)
        if not self._is("("):
            return Ident(token.position, name)
        position = self._take().position
        args = self._arguments(")")
        if name == "has":
            if len(args) != 1 or not isinstance(args[0], Select):
                raise CelSyntaxError("invalid argument to has() macro", position)
            return attrs.evolve(args[0], position=position, test=True)
        return Call(token.position, name, None, args)

    def _list(self, position: int) -> Node:
        items: list[tuple[Node, bool]] = []
        while not self._skip("]"):
            if items:
                self._expect(",")
                if self._skip("]"):
                    break
            optional = self._skip("?")
            items.append((self._expression(), optional))
        return ListLiteral(position, tuple(items))

    def _map(self, position: int) -> Node:
        entries: list[tuple[Node, Node, bool]] = []
        while not self._skip("}"):
            if entries:
                self._expect(",")
                if self._skip("}"):
                    break
            optional = self._skip("?")
            key = self._expression()
            self._expect(":")
            entries.append((key, self._expression(), optional))
        return MapLiteral(position, tuple(entries))


def _is_number(value: Any) -> bool:
    return type(value) in {int, float}
