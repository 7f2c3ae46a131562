from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.kube import BadRequest, Invalid
from drtp_controller.apiserver.patches import json_patch, merge_patch
from drtp_controller.apiserver.strategic import strategic_merge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_follow_the_rfc(target, patch, result):
    assert merge_patch(target, patch) == result


@given(JSON, JSON)
def test_a_merge_patch_applied_twice_changes_nothing_more(target, patch):
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@pytest.mark.parametrize(
    ("document", "operation", "result"),
    [
        ({"a": 1}, {"op": "add", "path": "/b", "value": 2}, {"a": 1, "b": 2}),
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": 1}, {"op": "add", "path": "/a", "value": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": 1, "b": 2}, {"op": "remove", "path": "/a"}, {"b": 2}),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        ({"a": 1}, {"op": "replace", "path": "/a", "value": 2}, {"a": 2}),
        ({"a": [1]}, {"op": "replace", "path": "/a/0", "value": 2}, {"a": [2]}),
        ({"a/b": 1, "c~d": 2}, {"op": "remove", "path": "/a~1b"}, {"c~d": 2}),
        ({"a": 1}, {"op": "move", "from": "/a", "path": "/b"}, {"b": 1}),
        ({"a": {"x": 1}}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": {"x": 1}, "b": {"x": 1}}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": 1}, {"a": 1}),
        ({"a": 1}, {"op": "replace", "path": "", "value": {"z": 1}}, {"z": 1}),
    ],
)
def test_json_patches_follow_the_rfc(document, operation, result):
    assert json_patch(document, [operation]) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/none/deep", "value": 1},
        {"op": "add", "path": "/list/5", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "remove", "path": "/list/-"},
        {"op": "test", "path": "/number", "value": 2},
        {"op": "test", "path": "/number", "value": True},
        {"op": "move", "from": "/map", "path": "/map/inside"},
        {"op": "add", "path": "/number/x", "value": 1},
        {"op": "add", "path": "number", "value": 1},
        {"op": "bend", "path": "/number"},
        {"op": "add", "path": "/x"},
        {"op": "add"},
    ],
)
def test_an_operation_that_cannot_be_done_is_refused_and_changes_nothing(operation):
    document = {"list": [1], "number": 1, "map": {}}
    with pytest.raises(Invalid, match="operation 1"):
        json_patch(document, [{"op": "add", "path": "/new", "value": 1}, operation])
    assert document == {"list": [1], "number": 1, "map": {}}


def test_a_json_patch_is_a_list():
    with pytest.raises(BadRequest):
        json_patch({}, {"op": "add"})
    with pytest.raises(BadRequest):
        json_patch({}, ["add"])


@given(
    st.dictionaries(st.sampled_from("abc"), JSON),
    st.lists(
        st.dictionaries(
            st.sampled_from(["op", "path", "from", "value"]),
            st.sampled_from(["add", "remove", "/a", "/b/0", "/c/-", 1, None]),
        ),
        max_size=4,
    ),
)
def test_json_patches_never_fail_in_another_way(document, operations):
    with contextlib.suppress(Invalid, BadRequest):
        json_patch(document, operations)


PORTS = {
    "type": "object",
    "properties": {
        "ports": {
            "type": "array",
            "x-kubernetes-patch-merge-key": "port",
            "items": {"type": "object", "properties": {"port": {"type": "integer"}}},
        },
        "finalizers": {"type": "array", "x-kubernetes-patch-strategy": "merge", "items": {"type": "string"}},
        "plain": {"type": "array", "items": {"type": "string"}},
    },
}
TARGET = {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}], "finalizers": ["x"], "plain": ["p"]}


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"ports": [{"port": 2, "name": "c"}]}, {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "c"}]}),
        ({"ports": [{"port": 3}]}, {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}, {"port": 3}]}),
        ({"ports": [{"port": 1, "$patch": "delete"}]}, {"ports": [{"port": 2, "name": "b"}]}),
        ({"ports": [{"port": 9}, {"$patch": "replace"}]}, {"ports": [{"port": 9}]}),
        (
            {"$setElementOrder/ports": [{"port": 2}, {"port": 1}], "ports": []},
            {"ports": [{"port": 2, "name": "b"}, {"port": 1, "name": "a"}]},
        ),
        ({"finalizers": ["y"]}, {"finalizers": ["x", "y"]}),
        ({"$deleteFromPrimitiveList/finalizers": ["x"]}, {"finalizers": []}),
        ({"plain": ["q"]}, {"plain": ["q"]}),
        ({"plain": None}, {"plain": ...}),
        ({"$retainKeys": ["plain"]}, {"ports": ..., "finalizers": ...}),
        ({"$patch": "replace", "only": 1}, {"only": 1, "ports": ..., "finalizers": ..., "plain": ...}),
        ({"ports": [{"port": 1, "name": None}]}, {"ports": [{"port": 1}, {"port": 2, "name": "b"}]}),
    ],
)
def test_strategic_patches_follow_the_schema(patch, result):
    expected = {key: value for key, value in (TARGET | result).items() if value is not ...}
    assert strategic_merge(TARGET, patch, PORTS) == expected


def test_a_strategic_patch_without_merge_key_is_refused():
    with pytest.raises(Invalid, match="merge key port"):
        strategic_merge(TARGET, {"ports": [{"name": "z"}]}, PORTS)
    with pytest.raises(Invalid, match="directive"):
        strategic_merge(TARGET, {"$patch": "bend"}, PORTS)
