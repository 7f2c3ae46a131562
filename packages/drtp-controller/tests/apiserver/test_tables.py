from __future__ import annotations

from datetime import UTC, datetime

import pytest

from drtp_controller.apiserver.jsonpath import compile_path
from drtp_controller.apiserver.tables import format_age, make_table

DOCUMENT = {
    "metadata": {"name": "x", "labels": {"topology.datum.net/city-code": "FRA"}},
    "spec": {"list": [{"a": 1}, {"a": 2}], "map": {"k": "v"}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Accepted", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".metadata.name", ["x"]),
        ("{.metadata.name}", ["x"]),
        (r".metadata.labels.topology\.datum\.net/city-code", ["FRA"]),
        (".metadata.labels['topology.datum.net/city-code']", ["FRA"]),
        (".spec.list[0].a", [1]),
        (".spec.list[-1].a", [2]),
        (".spec.list[9].a", []),
        (".spec.list[*].a", [1, 2]),
        (".spec.map.*", ["v"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type=='Accepted')].status", ["False"]),
        ('.status.conditions[?(@.type!="Ready")].type', ["Accepted"]),
        (".spec.none.deeper", []),
        (".metadata.name.deeper", []),
    ],
)
def test_paths_find_what_they_name(path, values):
    assert compile_path(path)(DOCUMENT) == values


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b)]", "..a", ".a b"])
def test_a_path_that_is_not_supported_is_refused(path):
    with pytest.raises(ValueError, match="JSON path"):
        compile_path(path)


NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("then", "age"),
    [
        ("2026-11-23T12:00:00Z", "0s"),
        ("2026-11-23T11:58:01Z", "119s"),
        ("2026-11-23T11:57:30Z", "2m30s"),
        ("2026-11-23T11:57:00Z", "3m"),
        ("2026-11-23T11:00:00Z", "60m"),
        ("2026-11-23T08:30:00Z", "3h30m"),
        ("2026-11-22T12:00:00Z", "24h"),
        ("2026-11-20T09:00:00Z", "3d3h"),
        ("2026-10-23T12:00:00Z", "31d"),
        ("2024-11-01T12:00:00Z", "2y22d"),
        ("2026-11-23T12:01:00Z", "<invalid>"),
        (None, "<unknown>"),
    ],
)
def test_ages_are_written_as_kubectl_writes_them(then, age):
    assert format_age(then, NOW) == age


def test_a_table_has_the_kinds_columns_and_null_for_what_is_missing(api):
    kind = api.registry.require("drtp.datumapis.com", "v1alpha1", "drtpservices")
    obj = {
        "metadata": {"name": "s", "creationTimestamp": "2026-11-23T11:59:00Z"},
        "spec": {"application": {"protocol": "TCP"}, "exposure": {"enabled": True}},
    }
    table = make_table(kind, [obj], now=NOW)
    cells = {
        column["name"]: (cell, column["priority"])
        for column, cell in zip(table["columnDefinitions"], table["rows"][0]["cells"], strict=True)
    }
    narrow = {name: cell for name, (cell, priority) in cells.items() if priority == 0}
    assert narrow == {
        "Name": "s", "Protocol": "TCP", "Hostname": None, "Port": None, "Public": True, "Ready": None, "Age": "60s",
    }  # fmt: skip
    assert cells["URL"] == (None, 1)
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert "spec" not in table["rows"][0]["object"]


def test_a_table_of_secrets_counts_entries_and_shows_none(api):
    kind = api.registry.require("", "v1", "secrets")
    obj = {"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "c2VjcmV0", "b": ""}}
    assert make_table(kind, [obj], now=NOW)["rows"][0]["cells"] == ["s", "Opaque", 2, "<unknown>"]
