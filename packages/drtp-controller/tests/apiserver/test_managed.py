from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.kube import Conflict
from drtp_controller.apiserver.fields import (
    compare,
    describe,
    difference,
    fields_of,
    intersection,
    paths,
    union,
)
from drtp_controller.apiserver.managed import Writer, after_update, apply, first_apply

SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "ports": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "port": {"type": "integer"},
                            "protocol": {"type": "string", "default": "TCP"},
                            "name": {"type": "string"},
                        },
                    },
                },
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "plain": {"type": "array", "items": {"type": "string"}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
            },
        }
    },
}


def writer(name="one", subresource=""):
    return Writer(name, "v1", subresource, "2026-01-01T00:00:00Z")


def obj(spec, managers=None):
    metadata = {"name": "x"}
    if managers is not None:
        metadata["managedFields"] = managers
    return {"metadata": metadata, "spec": spec}


def applied(live, spec, name="one", *, force=False):
    config = obj(spec)
    if live is None:
        return first_apply(config, SCHEMA, writer(name))
    return apply(live, config, SCHEMA, writer(name), force=force)


def owners(result):
    return {
        (e["manager"], e["operation"]): {describe(p) for p in paths(e["fieldsV1"])}
        for e in result["metadata"]["managedFields"]
    }


def test_the_set_of_fields_follows_the_list_types():
    spec = {
        "ports": [{"port": 80, "name": "a"}],
        "tags": ["x"],
        "plain": ["p"],
        "whole": {"k": 1},
        "map": {"a": 1},
        "empty": {},
    }
    assert {describe(path) for path in paths(fields_of({"spec": spec}, SCHEMA))} == {
        '.spec.ports[port=80,protocol="TCP"]',
        '.spec.ports[port=80,protocol="TCP"].port',
        '.spec.ports[port=80,protocol="TCP"].name',
        '.spec.tags[="x"]',
        ".spec.plain",
        ".spec.whole",
        ".spec.map.a",
        ".spec.empty",
    }


TREES = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(["f:a", "f:b", "f:c", "."]), inner, min_size=1, max_size=3),
    max_leaves=8,
).map(lambda tree: {key: value for key, value in tree.items() if key != "."})


def clean(tree):
    return {key: {} if key == "." else clean(value) for key, value in tree.items()}


@given(TREES.map(clean), TREES.map(clean))
def test_set_operations_agree_with_sets_of_paths(left, right):
    one, two = set(paths(left)), set(paths(right))
    assert set(paths(union(left, right))) == one | two
    assert set(paths(difference(left, right))) == one - two
    assert set(paths(intersection(left, right))) == one & two


def test_differences_are_found_per_item_of_an_associative_list():
    old = {"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}], "tags": ["x", "y"]}}
    new = {"spec": {"ports": [{"port": 2, "name": "c"}, {"port": 3}], "tags": ["y", "z"]}}
    changed, removed = compare(old, new, SCHEMA)
    assert {describe(path) for path in paths(changed)} == {
        '.spec.ports[port=2,protocol="TCP"].name',
        '.spec.ports[port=3,protocol="TCP"]',
        '.spec.ports[port=3,protocol="TCP"].port',
        '.spec.tags[="z"]',
    }
    assert {describe(path) for path in paths(removed)} == {
        '.spec.ports[port=1,protocol="TCP"]',
        '.spec.ports[port=1,protocol="TCP"].port',
        '.spec.ports[port=1,protocol="TCP"].name',
        '.spec.tags[="x"]',
    }


def test_an_update_owns_what_it_changes_and_takes_it_from_others():
    first = obj({"a": 1, "b": 1})
    first["metadata"]["managedFields"] = after_update(None, first, SCHEMA, writer("one"))
    second = obj({"a": 2, "b": 1, "c": 1}, first["metadata"]["managedFields"])
    second["metadata"]["managedFields"] = after_update(first, second, SCHEMA, writer("two"))
    assert owners(second) == {("one", "Update"): {".spec.b"}, ("two", "Update"): {".spec.a", ".spec.c"}}


def test_an_update_that_changes_nothing_keeps_the_entries():
    first = obj({"a": 1})
    first["metadata"]["managedFields"] = entries = after_update(None, first, SCHEMA, writer("one"))
    assert after_update(first, obj({"a": 1}, entries), SCHEMA, writer("two")) is entries


def test_the_number_of_updating_managers_is_bounded():
    live = obj({"f0": 1})
    live["metadata"]["managedFields"] = after_update(None, live, SCHEMA, writer("m0"))
    for number in range(1, 30):
        new = obj(live["spec"] | {f"f{number}": 1}, live["metadata"]["managedFields"])
        new["metadata"]["managedFields"] = after_update(live, new, SCHEMA, writer(f"m{number}"))
        live = new
    assert len(live["metadata"]["managedFields"]) <= 10
    owned = set().union(*owners(live).values())
    assert owned == {f".spec.f{number}" for number in range(30)}


def test_an_apply_removes_what_it_named_before_and_nothing_else():
    live = applied(None, {"a": 1, "b": 1, "tags": ["x", "y"], "ports": [{"port": 1}, {"port": 2}]})
    live = applied(live, {"c": 1, "tags": ["z"]}, "two")
    live = applied(live, {"a": 1, "tags": ["y"], "ports": [{"port": 2}]})
    assert live["spec"] == {"a": 1, "c": 1, "tags": ["y", "z"], "ports": [{"port": 2}]}


def test_a_shared_field_stays_until_its_last_manager_lets_go():
    live = applied(None, {"a": 1})
    live = applied(live, {"a": 1}, "two")
    live = applied(live, {"b": 1})
    assert live["spec"]["a"] == 1
    live = applied(live, {}, "two")
    assert live["spec"] == {"b": 1}


def test_an_item_with_another_managers_field_stays_with_its_keys():
    live = applied(None, {"ports": [{"port": 1, "protocol": "UDP"}]})
    updated = obj({"ports": [{"port": 1, "protocol": "UDP", "name": "n"}]}, live["metadata"]["managedFields"])
    updated["metadata"]["managedFields"] = after_update(live, updated, SCHEMA, writer("two"))
    live = applied(updated, {"ports": []})
    assert live["spec"]["ports"] == [{"port": 1, "protocol": "UDP", "name": "n"}]


def test_conflicts_name_managers_and_fields():
    live = applied(None, {"a": 1, "ports": [{"port": 1, "name": "x"}]})
    with pytest.raises(Conflict) as caught:
        applied(live, {"a": 2, "ports": [{"port": 1, "name": "y"}]}, "two")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.a\n- .spec.ports[port=1,protocol="TCP"].name'
    )
    assert [cause["reason"] for cause in caught.value.details["causes"]] == ["FieldManagerConflict"] * 2


def test_force_takes_the_fields_over():
    live = applied(None, {"a": 1, "b": 1})
    live = applied(live, {"a": 2}, "two", force=True)
    assert live["spec"] == {"a": 2, "b": 1}
    assert owners(live) == {("one", "Apply"): {".spec.b"}, ("two", "Apply"): {".spec.a"}}


def test_an_atomic_map_is_replaced_as_a_whole():
    live = applied(None, {"whole": {"a": 1, "b": 2}})
    live = applied(live, {"whole": {"a": 1}})
    assert live["spec"]["whole"] == {"a": 1}


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "a": st.integers(0, 2),
        "map": st.dictionaries(st.sampled_from("xy"), st.integers(0, 2), min_size=1),
        "tags": st.lists(st.sampled_from("pq"), unique=True, min_size=1),
        "plain": st.lists(st.sampled_from("pq"), min_size=1),
        "ports": st.lists(
            st.fixed_dictionaries({"port": st.integers(1, 2)}, optional={"name": st.sampled_from("mn")}),
            unique_by=lambda port: port["port"],
            min_size=1,
        ),
    },
)


@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), SPECS), min_size=1, max_size=5))
def test_a_forced_apply_wins_and_repeats_as_a_no_op(steps):
    live = None
    for name, spec in steps:
        live = applied(live, spec, name, force=True)
        live.setdefault("spec", {})
        wanted = set(paths(fields_of({"spec": spec} if spec else {}, SCHEMA)))
        present = set(paths(fields_of({"spec": live["spec"]}, SCHEMA)))
        if spec:
            assert wanted <= present
        again = applied(live, spec, name, force=False)
        again.setdefault("spec", {})
        assert json.dumps(again, sort_keys=True) == json.dumps(live, sort_keys=True)


@given(SPECS, SPECS)
def test_letting_go_of_everything_leaves_the_other_managers_objects_alone(mine, theirs):
    live = applied(None, theirs, "theirs")
    live.setdefault("spec", {})
    before = json.dumps(live["spec"], sort_keys=True)
    try:
        live = applied(live, mine, "mine")
    except Conflict:
        return
    live = applied(live, {}, "mine")
    left = live.get("spec", {})
    for container in ("tags",):
        if container in left:
            left[container] = [value for value in theirs.get(container, []) if value in left[container]]
    assert json.dumps(left, sort_keys=True) == before
