from __future__ import annotations

import msgspec
import pytest

from drtp_api.kube import BadRequest
from drtp_controller.apiserver.selectors import parse_fields, parse_labels, parse_selector
from drtp_controller.apiserver.store import make_record


def record(labels=None, **fields):
    metadata = {"name": "n", "namespace": "ns", "labels": labels or {}}
    return make_record(msgspec.json.encode({"apiVersion": "v1", "kind": "T", "metadata": metadata, **fields}))


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a = b", {"a": "b"}, True),
        ("a=", {"a": ""}, True),
        ("a=b", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b,c)", {}, False),
        ("a notin (b,c)", {"a": "d"}, True),
        ("a notin (b,c)", {}, True),
        ("a", {"a": "x"}, True),
        ("!a", {"a": "x"}, False),
        ("a in (b,c),!d,e=f", {"a": "b", "e": "f"}, True),
        ("example.com/a=b", {"example.com/a": "b"}, True),
    ],
)
def test_label_selectors(selector, labels, matches):
    assert parse_selector(selector, "").matches(record(labels)) is matches


@pytest.mark.parametrize("selector", ["a in", "a in (b", "=b", "a=b c", "a,,b", "(a)", "a=b!", "-a=b"])
def test_a_label_selector_that_cannot_be_read_is_refused(selector):
    with pytest.raises(BadRequest):
        parse_labels(selector)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("metadata.name=n", True),
        ("metadata.name!=n", False),
        ("metadata.namespace=ns,metadata.name=n", True),
        ("spec.port=80", True),
        ("spec.port=81", False),
        ("spec.missing=", True),
        ("spec.on=true", True),
        ("type==Opaque", True),
    ],
)
def test_field_selectors(selector, matches):
    obj = record(type="Opaque", spec={"port": 80, "on": True})
    assert parse_selector("", selector).matches(obj) is matches


def test_a_field_selector_that_cannot_be_read_is_refused():
    with pytest.raises(BadRequest, match="can't understand"):
        parse_fields("metadata.name")


def test_nothing_matches_what_is_not_there():
    assert not parse_selector("", "").matches(None)
