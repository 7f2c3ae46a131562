from __future__ import annotations

import pytest

from drtp_controller.apiserver.formats import compile_pattern, is_label_value, is_qualified_name, matches_format
from drtp_controller.apiserver.schema import apply_defaults, prune, validate


def faults(schema, value):
    return [str(fault) for fault in validate(schema, value, "spec")]


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer"}, "5", 'spec: Invalid value: "string": spec in body must be of type integer: "string"'),
        ({"type": "integer"}, True, 'spec: Invalid value: "boolean": spec in body must be of type integer: "boolean"'),
        ({"type": "integer"}, 1.5, 'spec: Invalid value: "number": spec in body must be of type integer: "number"'),
        ({"type": "string"}, None, 'spec: Invalid value: "null": spec in body must be of type string: "null"'),
        ({"type": "object"}, [], 'spec: Invalid value: "array": spec in body must be of type object: "array"'),
        (
            {"type": "integer", "maximum": 5},
            6,
            "spec: Invalid value: 6: spec in body should be less than or equal to 5",
        ),
        (
            {"type": "integer", "minimum": 5},
            4,
            "spec: Invalid value: 4: spec in body should be greater than or equal to 5",
        ),
        (
            {"type": "integer", "minimum": 5, "exclusiveMinimum": True},
            5,
            "spec: Invalid value: 5: spec in body should be greater than 5",
        ),
        ({"type": "integer", "multipleOf": 5}, 7, "spec: Invalid value: 7: spec in body should be a multiple of 5"),
        (
            {"type": "integer", "format": "int32"},
            2**31,
            "spec: Invalid value: 2147483648: spec in body must be of type int32: 2147483648",
        ),
        ({"type": "string", "maxLength": 2}, "abc", "spec: Too long: may not be more than 2 bytes"),
        (
            {"type": "string", "minLength": 1},
            "",
            'spec: Invalid value: "": spec in body should be at least 1 chars long',
        ),
        (
            {"type": "string", "pattern": "^a$"},
            "a\n",
            "spec: Invalid value: \"a\\n\": spec in body should match '^a$'",
        ),
        (
            {"type": "string", "enum": ["a", "b"]},
            "c",
            'spec: Unsupported value: "c": supported values: "a", "b"',
        ),
        ({"type": "object", "required": ["x"]}, {}, "spec.x: Required value"),
        (
            {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
            [1, 2],
            "spec: Too many: 2: must have at most 1 items",
        ),
        ({"type": "array", "minItems": 1}, [], "spec: Invalid value: 0: spec in body should have at least 1 items"),
        (
            {"type": "array", "items": {"type": "integer"}},
            [1, "a"],
            'spec[1]: Invalid value: "string": spec[1] in body must be of type integer: "string"',
        ),
        (
            {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            ["a", "a"],
            'spec[1]: Duplicate value: "a"',
        ),
        (
            {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object"},
            },
            [{"k": 1, "v": 1}, {"k": 1, "v": 2}],
            'spec[1]: Duplicate value: {"k":1}',
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"a": 1},
            'spec.a: Invalid value: "integer": spec.a in body must be of type string: "integer"',
        ),
        (
            {"x-kubernetes-int-or-string": True},
            1.5,
            'spec: Invalid value: "number": spec in body must be of type integer,string: "number"',
        ),
        (
            {"type": "string", "format": "date-time"},
            "today",
            'spec: Invalid value: "today": spec in body must be of type date-time: "today"',
        ),
        (
            {"type": "integer", "not": {"enum": [3]}},
            3,
            "spec: Invalid value: 3: spec in body must not validate the schema (not)",
        ),
        (
            {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": 1, "b": 1},
            'spec: Invalid value: {"a":1,"b":1}: spec in body must validate one and only one schema (oneOf)',
        ),
        (
            {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {},
            "spec: Invalid value: {}: spec in body must validate at least one schema (anyOf)",
        ),
    ],
)
def test_a_violation_is_told_in_the_words_of_the_real_server(schema, value, expected):
    assert faults(schema, value) == [expected]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 5.0),
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True}, "a"),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"any": None}),
        ({"type": "string", "format": "unheard-of"}, "x"),
    ],
)
def test_what_the_schema_admits_is_admitted(schema, value):
    assert faults(schema, value) == []


SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "default": 3},
        "inner": {
            "type": "object",
            "default": {},
            "properties": {"mode": {"type": "string", "default": "a"}},
        },
        "list": {
            "type": "array",
            "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}},
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {"type": "integer"}}}},
    },
}


def test_defaults_reach_into_defaults_lists_and_nulls():
    value = {"n": None, "list": [{}, {"p": "UDP"}]}
    apply_defaults(SCHEMA, value)
    assert value == {"n": 3, "inner": {"mode": "a"}, "list": [{"p": "TCP"}, {"p": "UDP"}]}


def test_defaults_are_not_shared_between_objects():
    one, two = {}, {}
    apply_defaults(SCHEMA, one)
    one["inner"]["mode"] = "changed"
    apply_defaults(SCHEMA, two)
    assert two["inner"]["mode"] == "a"


def test_unknown_fields_go_and_are_named():
    value = {"x": 1, "inner": {"y": 1}, "list": [{"z": 1}], "free": {"w": 1}, "map": {"any": {"k": 1, "v": 1}}}
    assert prune(SCHEMA, value) == ["x", "inner.y", "list[0].z", "map.any.v"]
    assert value == {"inner": {}, "list": [{}], "free": {"w": 1}, "map": {"any": {"k": 1}}}


def test_patterns_mean_what_re2_makes_of_them():
    assert not compile_pattern("^a$").search("a\n")
    assert not compile_pattern(r"^\d+$").search("\u0663")
    assert compile_pattern(r"^[$a]+\$$").search("a$$")


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date-time", "2026-11-23T10:00:00Z", "2026-11-23"),
        ("date-time", "2026-11-23T10:00:00.123456+02:00", "2026-13-23T10:00:00Z"),
        ("date", "2026-11-23", "2026-11-31"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
        ("ipv6", "fd00::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
        ("byte", "YQ==", "Y!"),
        ("duration", "1h30m", "soon"),
        ("uuid", "00000000-0000-0000-0000-000000000000", "0"),
    ],
)
def test_formats(name, good, bad):
    assert matches_format(name, good)
    assert not matches_format(name, bad)


def test_label_keys_and_values():
    assert is_qualified_name("topology.datum.net/city-code")
    assert is_qualified_name("app")
    assert not is_qualified_name("a/b/c")
    assert not is_qualified_name("-a")
    assert not is_qualified_name("x" * 64)
    assert is_label_value("")
    assert is_label_value("A_b.c")
    assert not is_label_value("a b")
    assert not is_label_value("a\n")
