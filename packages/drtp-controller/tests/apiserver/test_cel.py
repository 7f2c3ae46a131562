"""The language of rules: what expressions mean, what is refused when they are compiled; nothing else happens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drtp_controller.apiserver.cel.compiler import CelCompileError, CelUnsupportedError, compile_expression
from drtp_controller.apiserver.cel.types import DYN, type_of_schema
from drtp_controller.apiserver.cel.values import CelError, UInt

STRING = {"type": "string"}
SERVER = {"type": "object", "properties": {"role": STRING, "name": STRING, "rtt": {"type": "integer"}}}
SCHEMA = {
    "type": "object",
    "properties": {
        "protocol": STRING,
        "port": {"type": "integer"},
        "ratio": {"type": "number"},
        "on": {"type": "boolean"},
        "loose": {"x-kubernetes-int-or-string": True},
        "labels": {"type": "object", "additionalProperties": STRING},
        "servers": {"type": "array", "items": SERVER},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": STRING},
        "foo-bar": STRING,
        "in": STRING,
        "since": {"type": "string", "format": "date-time"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
OBJECT = {
    "protocol": "TCP",
    "port": 5432,
    "ratio": 0.5,
    "on": True,
    "loose": "50%",
    "labels": {"a": "1", "b.c": "2"},
    "servers": [{"role": "Primary", "name": "x", "rtt": 12}, {"role": "Secondary", "name": "y"}],
    "tags": ["p", "q"],
    "foo-bar": "dashed",
    "in": "word",
}
TYPE = type_of_schema(SCHEMA)


def compiled(text, kind=TYPE):
    return compile_expression(text, {"self": kind, "oldSelf": kind})


def evaluated(text, value=OBJECT, old=OBJECT):
    return compiled(text).run(self=value, oldSelf=old)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 4 / 2 % 3", 5),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("-(-9223372036854775807) + 0", 9223372036854775807),
        ("-9223372036854775808", -(2**63)),
        ("0x10 + 0", 16),
        ("1.5e2", 150.0),
        (".5", 0.5),
        ("3u + 4u", UInt(7)),
        ("1 < 1.5", True),
        ("2u > 1", True),
        ("!true || !false", True),
        ("!!true", True),
        ("true ? 1 : 2", 1),
        ("false ? 1 : true ? 2 : 3", 2),
        ("dyn(1) == 1.0", True),
        ("dyn(true) == dyn(1)", False),
        ("dyn(1) == dyn('1')", False),
        ("dyn([1, 2]) == dyn([1.0, 2.0])", True),
        ("null == dyn(null)", True),
        ("'a' + \"b\" + 'c'", "abc"),
        (r"'\u00e9\x41\101\n\''", "éAA\n'"),
        (r"r'\d' + R\"\n\"".replace('\\"', '"'), r"\d\n"),
        ("'''two\nlines'''", "two\nlines"),
        (r"b'\xff' + b'a'", b"\xffa"),
        ("size('é') == 1 && 'é'.size() == 1", True),
        ("[1, 2, 3,].size()", 3),
        ("{'a': 1, 'b': 2}['b']", 2),
        ("{'a': 1}.a", 1),
        ("{1: 'x'}[dyn(1.0)]", "x"),
        ("2 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': 1}", True),
        ("// a remark\n 1 // and another", 1),
        ("type(1) == int && type('') == string && type(null) == null_type", True),
        ("int('-5') + int(2.9) + int(3u)", 0),
        ("double('1.5') + double(1)", 2.5),
        ("string(1) + string(true) + string(1.5) + string(2.0)", "1true1.52"),
        ("bool('true')", True),
        ("uint(3)", UInt(3)),
        ("bytes('é')", b"\xc3\xa9"),
        ("timestamp('2026-11-23T12:34:56Z').getHours('+02:00')", 14),
        ("timestamp('2026-11-23T12:34:56Z').getMonth()", 10),
        ("timestamp('2026-11-22T00:00:00Z').getDayOfWeek()", 0),
        ("duration('1h30m') > duration('89m')", True),
        ("duration('90s').getMinutes()", 1),
        ("timestamp('2026-11-23T00:00:00Z') + duration('24h') == timestamp('2026-11-24T00:00:00Z')", True),
        ("string(duration('1.5s'))", "1.5s"),
    ],
)
def test_the_language_means_what_its_specification_says(text, value):
    result = compiled(text).run(self=OBJECT)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("self.port == 5432 && self.protocol in ['TCP', 'UDP']", True),
        ("has(self.port) && !has(self.since)", True),
        ("self.labels.a == '1' && self.labels['b.c'] == '2' && 'a' in self.labels", True),
        ("self.foo__dash__bar + self.__in__", "dashedword"),
        ("type(self.loose) == string ? self.loose.endsWith('%') : self.loose > 0", True),
        ("self.ratio * 2.0", 1.0),
        ("self.servers.all(s, s.name != '')", True),
        ("self.servers.exists(s, s.role == 'Tertiary')", False),
        ("self.servers.exists_one(s, s.role == 'Primary')", True),
        ("self.servers.map(s, s.name)", ["x", "y"]),
        ("self.servers.map(s, has(s.rtt), s.rtt)", [12]),
        ("self.servers.filter(s, s.role == 'Secondary')[0].name", "y"),
        ("self.servers.all(i, s, i < 2 && s.name.size() == 1)", True),
        ("self.labels.all(k, k.size() > 0)", True),
        ("self.labels.transformMap(k, v, v + k)", {"a": "1a", "b.c": "2b.c"}),
        ("self.servers.transformList(i, s, i > 0, s.name)", ["y"]),
        ("[self.servers].map(s, s.size())[0]", 2),
        ("self.tags == ['q', 'p']", True),
        ("self.tags + ['q', 'r']", ["p", "q", "r"]),
        ("self.?since.hasValue()", False),
        ("self.?port.orValue(1)", 5432),
        ("self.labels[?'z'].orValue('none')", "none"),
        ("self.servers[?7].optMap(s, s.name).orValue('nobody')", "nobody"),
        ("optional.of(1).optMap(x, x + 1).value()", 2),
        ("[1, ?optional.none(), ?optional.of(3)]", [1, 3]),
        ("{?'a': optional.of(1), ?'b': optional.none()}", {"a": 1}),
    ],
)
def test_fields_lists_maps_and_optionals(text, value):
    assert evaluated(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'abc'.charAt(1) + 'Ab'.lowerAscii() + 'aé'.upperAscii()", "babAé"),
        ("'a,b,c'.split(',', 2)", ["a", "b,c"]),
        ("['a', 'b'].join('-')", "a-b"),
        ("'hello'.replace('l', 'L', 1).substring(1, 4)", "eLl"),
        ("'hello'.indexOf('l') + 'hello'.lastIndexOf('l')", 5),
        ("'  x '.trim()", "x"),
        ("'abc123'.find('[0-9]+') + ['1', '22'].max()", "12322"),
        ("'a1b2'.findAll('[0-9]', 1)", ["1"]),
        ("[3, 1, 2].sum() + [3, 1].min() + [1, 3, 1].lastIndexOf(1)", 9),
        ("[1, 1, 2].isSorted() && ![2, 1].isSorted()", True),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])", True),
        ("isIP('::1') && !isIP('::ffff:1.2.3.4') && !isIP('10.0.0.01')", True),
        ("ip('10.0.0.1').family() == 4 && ip('127.0.0.1').isLoopback() && ip.isCanonical('2001:db8::1')", True),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('0.0.0.0/0')", True),
        ("string(cidr('10.1.2.3/8').masked())", "10.0.0.0/8"),
        ("cidr('10.1.2.3/8').prefixLength()", 8),
        ("!isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/255.0.0.0')", True),
        ("quantity('1.5Gi').isGreaterThan(quantity('1500M')) && quantity('500m').add(quantity('0.5')).asInteger() == 1",
         True),
        ("isQuantity('1Ki') && !isQuantity('1 K')", True),
        ("url('https://u@example.com:8443/p?q=1&q=2').getHostname()", "example.com"),
        ("url('https://example.com:8443/p?q=1&q=2').getQuery()['q']", ["1", "2"]),
        ("isURL('/only/a/path') && !isURL('no url')", True),
    ],
)  # fmt: skip
def test_kubernetes_own_functions(text, value):
    assert compiled(text).run(self=OBJECT) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9223372036854775807 + 1", "integer overflow"),
        ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("self.since", "no such key: since"),
        ("self.labels.nothing", "no such key: nothing"),
        ("self.servers[2]", "index out of bounds: 2"),
        ("int('5.5')", "type conversion error"),
        ("dyn('x') + dyn(1)", "no such overload"),
        ("self.loose > 5", "no such overload"),
        ("dyn(1) ? true : false", "no such overload"),
        ("timestamp('yesterday')", "cannot parse"),
        ("duration('1 hour')", "invalid duration"),
        ("ip('nowhere')", "parse error"),
        ("cidr('10.0.0.0')", "parse error"),
        ("quantity('lots')", "quantities must match"),
        ("optional.none().value()", "dereference"),
        ("'abc'.substring(2, 1)", "invalid substring range"),
        ("[].min()", "called on empty list"),
        ("'a'.matches('(' + self.protocol)", "error parsing regexp"),
    ],
)
def test_what_cannot_be_evaluated_says_why(text, message):
    with pytest.raises(CelError, match=message):
        evaluated(text)


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0 == 1 || true",
        "true || 1 / 0 == 1",
        "!(1 / 0 == 1 && false)",
        "[1, 0].exists(x, 1 / x == 1)",
        "!['a', 'b'].all(x, int(x) == 1 && x == 'a' || x != 'b' && false)",
    ],
)
def test_an_error_does_not_count_where_the_other_side_decides(text):
    assert evaluated(text) is True


def test_an_error_counts_where_nothing_decides():
    with pytest.raises(CelError, match="division by zero"):
        evaluated("[0].all(x, 1 / x == 1)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self.nothing", "ERROR: <input>:1:5: undefined field 'nothing'"),
        ("has(self.servers[0].nothing)", "undefined field 'nothing'"),
        ("self.free.x", "undefined field 'x'"),
        ("self.port.x", "type 'int' does not support field selection"),
        ("self.port == 'x'", r"found no matching overload for '_==_' applied to '\(int, string\)'"),
        ("self.port + 1.5", r"found no matching overload for '_\+_' applied to '\(int, double\)'"),
        ("self.port.startsWith('x')", r"'startsWith' applied to 'int\.\(string\)'"),
        ("self.protocol && true", "expected type 'bool' but found 'string'"),
        ("self.servers.all(s, s.name)", "expected type 'bool' but found 'string'"),
        ("self.port.all(x, true)", "cannot be range of a comprehension"),
        ("self.on ? 1 : 'x'", "found no matching overload for '_?_:_'".replace("?", r"\?")),
        ("[1, 'x']", "expected type 'int' but found 'string'"),
        ("who", r"undeclared reference to 'who'"),
        ("frobnicate(self)", "undeclared reference to 'frobnicate'"),
        ("self.port.frobnicate()", "undeclared reference to 'frobnicate'"),
        ("self.servers.map(s.x, 1)", "argument must be a simple name"),
        ("self.servers[0", "Syntax error: mismatched input '<EOF>' expecting ']'"),
        ("self.port >", "expecting an expression"),
        ("a b", "Syntax error: mismatched input 'b'"),
        ("'open", "token recognition error"),
        (r"'\q'", "invalid escape sequence"),
        ("9223372036854775808", "invalid int literal"),
        ("package", "reserved identifier"),
        ("(" * 100 + "1" + ")" * 100, "nested deeper"),
        ("has(self)", "invalid argument to has"),
    ],
)
def test_what_is_wrong_is_refused_when_it_is_compiled(text, message):
    with pytest.raises(CelCompileError, match=message):
        compiled(text)


def test_a_refusal_shows_the_line_and_the_place():
    with pytest.raises(CelCompileError) as caught:
        compiled("self.port > 0 &&\n  self.prot == 1")
    assert str(caught.value) == (
        "compilation failed: ERROR: <input>:2:7: undefined field 'prot'\n |   self.prot == 1\n | ......^"
    )


@pytest.mark.parametrize(
    "text", ["math.greatest(1, 2)", "semver('1.0.0')", "format.dns1123Label()", r"'a'.matches('\\pL')"]
)
def test_what_kubernetes_has_and_we_have_not_is_told_apart_from_mistakes(text):
    with pytest.raises(CelUnsupportedError):
        compiled(text)


def test_a_program_knows_which_variables_it_uses():
    assert compiled("self.port == oldSelf.port").names == {"self", "oldSelf"}
    assert compiled("[1].all(oldSelf, oldSelf > 0)").names == frozenset()


def test_loops_within_loops_end():
    numbers = "[0,1,2,3,4,5,6,7,8,9]"
    text = "true"
    for name in "abcdefgh":
        text = f"{numbers}.all({name}, {text})"
    with pytest.raises(CelError, match="cost limit exceeded"):
        compiled(text).run(self=OBJECT)


def test_times_are_pythons_own():
    program = compiled("[self]", DYN)
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    assert program.run(self=moment) == [moment]
    assert compiled("self - self", DYN).run(self=timedelta(1)) == timedelta(0)


TOKENS = """
    self port servers protocol labels has in all exists map x size matches null true dyn int string orValue oldSelf
    duration optional 1 0 'a' 1.5 2u " . ( ) [ ] { } , : ? && || ! == < + - * / .? [?
"""
WORDS = st.sampled_from([*TOKENS.split(), " "])


@given(st.lists(WORDS, max_size=25).map("".join) | st.text(max_size=40))
@example("self.servers.map(x, self.servers.map(x, x))")
@example("self.labels.map(x, x)[0][0]")
def test_any_text_is_a_program_or_refused_and_any_program_ends_with_a_value_or_a_cel_error(text):
    try:
        program = compiled(text)
    except (CelCompileError, CelUnsupportedError):
        return
    try:
        program.run(self=OBJECT, oldSelf=OBJECT)
    except CelError:
        return


DEEP = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, max_size=3),
    max_leaves=8,
)
PROGRAMS = [
    compiled(text, DYN)
    for text in """
        self == oldSelf; self.a == oldSelf; self.all(x, x == 1); self.a.b + 1 > 2; size(self) > 1; self[0] == self.a
        self.map(x, string(x)).join(); self.exists(k, v, k == v); int(self) < 5; self in oldSelf; has(self.a)
        self.?a.b.orValue(3) == 3; self < oldSelf; -self == 1; self.matches(oldSelf); self ? 1 : 2; self.sum() > 1
        timestamp(self) < timestamp(oldSelf); duration(self) == self; self[?0].hasValue(); {self: 1}; self.distinct()
        self.max() == self.sort()[0]; quantity(self).isInteger(); cidr(self).containsIP(oldSelf); url(self).getPort()
    """.replace("\n", ";").split(";")
    if text.strip()
]


@given(DEEP, DEEP, st.sampled_from(PROGRAMS))
def test_any_value_makes_a_value_or_a_cel_error(value, old, program):
    try:
        program.run(self=value, oldSelf=old)
    except CelError:
        return
