"""Rules of schemas: where they are looked for, when they run, what they say, and what a definition is refused for."""

from __future__ import annotations

import pytest

from drtp_api.crds import crd_documents
from drtp_api.kube import Invalid
from drtp_controller.apiserver.cel.rules import SchemaRules, check_rules
from drtp_controller.apiserver.crds import SKIPPED_RULES, kinds_of
from drtp_controller.apiserver.options import WriteOptions
from drtp_controller.apiserver.rbac import SYSTEM_USER

STRING = {"type": "string"}


def rule(text, message="", **more):
    return {"rule": text} | ({"message": message} if message else {}) | more


def obj(properties, *rules, **more):
    return {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)} | more


def spec(schema):
    return {"type": "object", "properties": {"spec": schema}}


def faults(schema, new, old=None):
    wrap = None if old is None else {"spec": old}
    return [str(fault) for fault in SchemaRules(spec(schema)).check({"spec": new}, wrap)]


def test_a_broken_rule_names_the_place_and_says_its_message():
    schema = obj({"a": {"type": "integer"}}, rule("self.a > 0", "spec.a must be positive; raise it"))
    assert faults(schema, {"a": 1}) == []
    assert faults(schema, {"a": 0}) == ['spec: Invalid value: "object": spec.a must be positive; raise it']


def test_a_rule_without_a_message_says_itself():
    assert faults(obj({"a": STRING}, rule("self.a != ''")), {"a": ""}) == [
        "spec: Invalid value: \"object\": failed rule: self.a != ''"
    ]


def test_field_path_and_reason_shape_the_fault():
    entry = rule("has(self.a)", "say a", fieldPath=".a", reason="FieldValueRequired")
    assert faults(obj({"a": STRING}, entry), {}) == ["spec.a: Required value: say a"]
    entry = rule("!has(self.a)", "not now", fieldPath=".a", reason="FieldValueForbidden")
    assert faults(obj({"a": STRING}, entry), {"a": ""}) == ["spec.a: Forbidden: not now"]
    entry = rule("!has(self.a)", "x", fieldPath=".a", reason="FieldValueDuplicate")
    assert faults(obj({"a": STRING}, entry), {"a": ""}) == ['spec.a: Duplicate value: "object"']


def test_a_message_may_be_computed_and_falls_back_when_it_cannot_be():
    entry = rule("self.a < 3", "too big", messageExpression="'a is ' + string(self.a) + ', at most 2'")
    assert faults(obj({"a": {"type": "integer"}}, entry), {"a": 5}) == [
        'spec: Invalid value: "object": a is 5, at most 2'
    ]
    entry = rule("self.a < 3", "too big", messageExpression="self.b")
    assert faults(obj({"a": {"type": "integer"}, "b": STRING}, entry), {"a": 5}) == [
        'spec: Invalid value: "object": too big'
    ]


def test_a_rule_that_cannot_be_evaluated_fails_and_says_why():
    schema = obj({"a": STRING, "b": STRING}, rule("self.b == 'x'", "b must be x"))
    assert faults(schema, {"a": ""}) == ['spec: Invalid value: "object": no such key: b evaluating rule: b must be x']


def test_rules_stand_at_any_depth_and_every_item_is_judged():
    text = STRING | {"x-kubernetes-validations": [rule("self != ''", "no")]}
    number = obj({"n": {"type": "integer"}}, rule("self.n > 0", "n > 0"))
    properties = {
        "list": {"type": "array", "items": number},
        "map": {"type": "object", "additionalProperties": text},
    }
    schema = obj(properties)
    del schema["x-kubernetes-validations"]
    assert faults(schema, {"list": [{"n": 1}, {"n": 0}, {"n": -1}], "map": {"a": "x", "b": ""}}) == [
        'spec.list[1]: Invalid value: "object": n > 0',
        'spec.list[2]: Invalid value: "object": n > 0',
        'spec.map.b: Invalid value: "string": no',
    ]


def test_transition_rules_run_on_updates_only():
    schema = obj(
        {"a": STRING | {"x-kubernetes-validations": [rule("self == oldSelf", "spec.a is fixed")]}, "b": STRING}
    )
    assert faults(schema, {"a": "1"}) == []
    assert faults(schema, {"a": "1", "b": "x"}, {"a": "1"}) == []
    assert faults(schema, {"a": "2"}, {"a": "1"}) == ['spec.a: Invalid value: "string": spec.a is fixed']
    assert faults(schema, {"a": "2"}, {}) == []


def test_a_transition_rule_may_ask_for_creation_too():
    entry = rule("!oldSelf.hasValue() || oldSelf.value() == self", "fixed", optionalOldSelf=True)
    schema = obj({"a": STRING | {"x-kubernetes-validations": [entry]}})
    assert faults(schema, {"a": "1"}) == []
    assert faults(schema, {"a": "2"}, {"a": "1"}) == ['spec.a: Invalid value: "string": fixed']


def keyed(item):
    return {
        "type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["role"],
    }  # fmt: skip


ITEM = obj({"role": STRING, "name": STRING}, rule("self.name == oldSelf.name", "name is fixed"), required=["role"])


def test_items_of_associative_lists_are_paired_by_their_keys_wherever_they_stand():
    schema = obj({"servers": keyed(ITEM)})
    old = [{"role": "P", "name": "x"}, {"role": "S", "name": "y"}]
    assert faults(schema, {"servers": list(reversed(old))}, {"servers": old}) == []
    assert faults(schema, {"servers": [{"role": "T", "name": "z"}]}, {"servers": old}) == []
    new = [{"role": "S", "name": "z"}, {"role": "P", "name": "x"}]
    assert faults(schema, {"servers": new}, {"servers": old}) == [
        'spec.servers[0]: Invalid value: "object": name is fixed'
    ]


def test_what_an_update_leaves_alone_is_not_judged_again():
    schema = obj({"a": obj({"n": {"type": "integer"}}, rule("self.n > 0", "positive")), "b": STRING})
    bad = {"a": {"n": 0}, "b": "x"}
    assert len(faults(schema, bad)) == 1
    assert faults(schema, bad | {"b": "y"}, bad) == []
    assert len(faults(schema, bad | {"a": {"n": -1}}, bad)) == 1


def test_the_order_of_a_set_is_no_change():
    entry = rule("self == oldSelf", "fixed")
    schema = obj(
        {"a": {"type": "array", "items": STRING, "x-kubernetes-list-type": "set", "x-kubernetes-validations": [entry]}}
    )
    assert faults(schema, {"a": ["x", "y"]}, {"a": ["y", "x"]}) == []
    assert len(faults(schema, {"a": ["x", "z"]}, {"a": ["y", "x"]})) == 1


def test_values_come_as_the_schema_says():
    schema = obj(
        {
            "n": {"type": "number"},
            "t": {"type": "array", "items": {"type": "string", "format": "date-time"}},
            "d": {"type": "string", "format": "duration"},
            "b": {"type": "string", "format": "byte"},
        },
        rule("self.n / 2.0 == 0.5", "n"),
        rule("self.t.all(t, t.getFullYear() == 2026)", "t"),
        rule("self.d.getMinutes() == 90", "d"),
        rule("size(self.b) == 3", "b"),
    )
    assert faults(schema, {"n": 1, "t": ["2026-11-23T00:00:00Z"], "d": "1h30m", "b": "abc"}) == []


def test_null_is_not_judged():
    schema = obj({"a": STRING | {"nullable": True, "x-kubernetes-validations": [rule("self != ''", "no")]}})
    assert faults(schema, {"a": None}) == []


def test_the_root_knows_its_name():
    schema = spec(obj({})) | {"x-kubernetes-validations": [rule("self.metadata.name != 'no'", "choose another name")]}
    rules = SchemaRules(schema)
    assert rules.check({"metadata": {"name": "yes"}, "spec": {}}, None) == []
    assert [fault.message for fault in rules.check({"metadata": {"name": "no"}, "spec": {}}, None)] == [
        'Invalid value: "object": choose another name'
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (rule("self.nope == 1"), "undefined field 'nope'"),
        (rule("self.a"), "must evaluate to a bool"),
        (rule("self.a == "), "Syntax error"),
        (rule(""), "rule is not specified"),
        (rule("has(self.a) &&\n has(self.l)"), "message must be specified"),
        (rule("has(self.a)", "two\nlines"), "must not contain line breaks"),
        (rule("has(self.a)", reason="Because"), "must be one of"),
        (rule("has(self.a)", messageExpression="1"), "must evaluate to a string"),
        (rule("has(self.a)", messageExpression="self.nope"), "undefined field 'nope'"),
    ],
)
def test_a_definition_with_a_faulty_rule_is_refused_with_its_place(entry, said):
    found, unsupported = check_rules(spec(obj({"a": STRING, "l": {"type": "array", "items": STRING}}, entry)), "schema")
    assert unsupported == []
    (fault,) = found
    assert fault.field.startswith("schema.properties[spec].x-kubernetes-validations[0].")
    assert said in str(fault)


def test_old_values_cannot_be_asked_for_where_items_cannot_be_paired():
    schema = spec(
        obj({"l": {"type": "array", "items": STRING | {"x-kubernetes-validations": [rule("self == oldSelf")]}}})
    )
    (fault,) = check_rules(schema, "schema")[0]
    assert "oldSelf cannot be used on the uncorrelatable portion of the schema" in fault.message


# ---- in the server


def definition(*rules, plural="things"):
    schema = spec(obj({"a": {"type": "integer"}, "b": STRING}, *rules))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"kind": plural[:-1].capitalize(), "plural": plural},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def install(api, *rules):
    crds = api.registry.require("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    return api.create(SYSTEM_USER, crds, None, definition(*rules), WriteOptions())


def make(api, a, b=""):
    kind = api.registry.require("example.com", "v1", "things")
    body = {"metadata": {"generateName": "t-"}, "spec": {"a": a} | ({"b": b} if b else {})}
    return api.create(SYSTEM_USER, kind, None, body, WriteOptions()).obj


def test_the_server_takes_a_definition_and_holds_objects_to_its_rules(api):
    assert install(api, rule("self.a > 0", "spec.a must be positive")).warnings == ()
    make(api, 1)
    with pytest.raises(Invalid, match=r'is invalid: spec: Invalid value: "object": spec.a must be positive'):
        make(api, 0)


def test_the_server_refuses_a_definition_with_a_faulty_rule(api):
    with pytest.raises(Invalid, match="undefined field 'nope'"):
        install(api, rule("self.nope > 0", "x"))


def test_a_rule_that_is_not_evaluated_is_a_warning_and_a_condition_and_the_others_hold(api):
    outcome = install(api, rule("math.greatest(self.a, 5) == 5", "x"), rule("self.a > 0", "positive"))
    (warning,) = outcome.warnings
    place = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule"
    assert warning == f"{place}: this server does not evaluate math.greatest"
    (condition,) = [c for c in outcome.obj["status"]["conditions"] if c["type"] == SKIPPED_RULES]
    assert (condition["status"], condition["reason"]) == ("True", "NotEvaluated")
    assert f"{place}: math.greatest" in condition["message"]
    assert make(api, 9)["spec"] == {"a": 9}
    with pytest.raises(Invalid, match="positive"):
        make(api, 0)


def test_rules_are_not_tried_on_an_object_of_the_wrong_shape(api):
    install(api, rule("self.a > 0", "positive"))
    with pytest.raises(
        Invalid, match="some validation rules were not checked because the object was invalid"
    ) as caught:
        make(api, "one")
    assert "positive" not in str(caught.value)


@pytest.mark.parametrize("document", crd_documents(), ids=lambda d: d["spec"]["names"]["kind"])
def test_our_own_definitions_compile_completely(document):
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert check_rules(schema, "") == ([], [])
    (kind,) = kinds_of(document)
    assert kind.rules is not None
