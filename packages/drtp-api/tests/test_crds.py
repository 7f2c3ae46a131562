"""The generated CRDs: structural, bounded, and saying the same as the classes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from drtp_api import resources as r
from drtp_api.crd_rules import RULES
from drtp_api.crds import KIND_INFO, crd_documents
from drtp_api.wire import object_to_wire

DOCUMENTS = {document["spec"]["names"]["kind"]: document for document in crd_documents()}


def schema_of(kind):
    return DOCUMENTS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema, path=""):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


def test_the_documents_are_plain_json_in_a_stable_order():
    assert json.loads(json.dumps(crd_documents())) == crd_documents()
    assert list(DOCUMENTS) == ["DRTPServer", "DRTPService", "DRTPConnection", "DRTPAccessControlList"]


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_schema_is_structural(kind):
    allowed = {
        "type", "description", "enum", "minimum", "maximum", "pattern", "minLength", "maxLength", "minItems",
        "maxItems", "properties", "additionalProperties", "required", "items", "format", "default",
        "anyOf",
    }  # fmt: skip
    in_logic = {"format", "pattern", "minimum", "maximum", "enum"}
    for path, node in nodes(schema_of(kind)):
        where = f"{kind}{path}"
        assert node.get("x-kubernetes-preserve-unknown-fields") or "type" in node, where
        assert {key for key in node if not key.startswith("x-kubernetes-")} <= allowed, where
        assert not ("properties" in node and "additionalProperties" in node), where
        assert set(node.get("required", ())) <= set(node.get("properties", ())), where
        assert all(set(choice) <= in_logic for choice in node.get("anyOf", ())), where
        if node.get("type") == "array":
            assert "items" in node, where


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_list_maps_have_keys_that_every_item_has(kind):
    found = 0
    for path, node in nodes(schema_of(kind)):
        if node.get("x-kubernetes-list-type") == "map":
            found += 1
            for key in node["x-kubernetes-list-map-keys"]:
                item = node["items"]
                assert key in item["required"] or "default" in item["properties"][key], f"{kind}{path}"
        if node.get("x-kubernetes-list-type") == "set":
            assert node["items"]["type"] == "string", f"{kind}{path}"
    assert found > 0 or kind == "DRTPAccessControlList"


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_list_below_spec_and_status_is_bounded(kind):
    for part in ("spec", "status"):
        for path, node in nodes(schema_of(kind)["properties"][part]):
            if node.get("type") == "array":
                assert "maxItems" in node, f"{kind}.{part}{path}"


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_names_are_those_people_type(kind):
    info = next(i for i in KIND_INFO if i.kind == kind)
    spec = DOCUMENTS[kind]["spec"]
    assert DOCUMENTS[kind]["metadata"]["name"] == f"{info.plural}.drtp.datumapis.com"
    assert spec["names"]["shortNames"] == [info.short_name]
    assert spec["scope"] == ("Cluster" if kind == "DRTPServer" else "Namespaced")
    (version,) = spec["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert version["subresources"] == {"status": {}}
    assert "Age" in {column["name"] for column in version["additionalPrinterColumns"]}


def undeclared(schema, value, path=""):
    if schema.get("x-kubernetes-preserve-unknown-fields") or path == ".metadata":
        return
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        for key, child in value.items():
            if key in schema.get("properties", {}):
                yield from undeclared(schema["properties"][key], child, f"{path}.{key}")
            elif not isinstance(extra, dict):
                yield f"{path}.{key}"
    elif isinstance(value, list):
        for child in value:
            yield from undeclared(schema["items"], child, f"{path}[]")


def full_objects():
    condition = r.Condition(type="Ready", status="True", reason="Up", message="m", observed_generation=1)
    ref = r.LocalReference(name="x")
    yield r.Server(
        metadata=r.Metadata(name="a"),
        spec=r.ServerSpec(
            instance=r.Instance(host="h", id="i"), coordinates=r.Coordinates(latitude="1.5", longitude="-2"),
            endpoints=(r.Endpoint(address="192.0.2.1", port=443),),
            identity=r.ServerIdentity(server_name="a.test", ca_bundle="pem", public_key_sha256="k"),
        ),
        status=r.ServerStatus(pod_ip="10.0.0.1", version="1", lease_ref=ref, conditions=(condition,)),
    )  # fmt: skip
    yield r.Service(
        metadata=r.Metadata(name="a"),
        spec=r.ServiceSpec(
            application=r.Application(protocol=r.Protocol.TCP, name="n", hostname="h", ip="127.0.0.1", port=1),
            exposure=r.Exposure(enabled=True, port=5, hostnames=("a.b",)), edge_allowlist_cidrs=("10.0.0.0/8",),
            acl_ref=ref,
        ),
        status=r.ServiceStatus(
            canonical_hostname="h", url="u", external_port=5, hostnames=("h",), enrollment_secret_ref=ref,
            connection_refs=(ref,),
            addresses=(r.Address(protocol=r.Protocol.TCP, host="h", port=5),), conditions=(condition,),
        ),
    )  # fmt: skip
    yield r.Connection(
        metadata=r.Metadata(name="a"),
        spec=r.ConnectionSpec(
            service_ref=ref, acl_ref=ref,
            client=r.ClientInfo(instance_id="0" * 32, public_key="k", wan_ip="192.0.2.1", version="1", epoch=3),
            servers=(r.ServerAssignment(role=r.Role.PRIMARY, name="s"),),
        ),
        status=r.ConnectionStatus(
            servers=(
                r.ServerBinding(role=r.Role.PRIMARY, name="s", pod_ip="10.0.0.1", pod_port=5, public_address="a:1",
                                rtt_milliseconds=3, transport="tcp"),
            ),
            lease_ref=ref, conditions=(condition,),
        ),
    )  # fmt: skip
    target = r.ObjectReference(name="x", kind="DRTPService")
    yield r.AccessControlList(
        metadata=r.Metadata(name="a"),
        spec=r.AccessControlListSpec(
            target_refs=(target,), rules=(r.AclRule(name="r", action=r.Action.DENY, client_cidrs=("10.0.0.0/8",)),)
        ),
        status=r.AccessControlListStatus(
            ancestors=(r.AncestorStatus(ancestor_ref=target, controller_name="c", conditions=(condition,)),)
        ),
    )


@pytest.mark.parametrize("value", list(full_objects()), ids=lambda v: type(v).__name__)
def test_every_field_that_we_write_is_declared(value):
    wire = object_to_wire(value)
    assert list(undeclared(schema_of(wire["kind"]), wire)) == []
    assert set(wire["spec"]) == set(schema_of(wire["kind"])["properties"]["spec"]["properties"])
    assert set(wire["status"]) == set(schema_of(wire["kind"])["properties"]["status"]["properties"])


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_field_is_described(kind):
    for part in ("spec", "status"):
        for path, node in nodes(schema_of(kind)["properties"][part], f".{part}"):
            if not path.endswith("[]"):
                assert len(node.get("description", "")) > 8, f"{kind}{path}"


def test_every_rule_of_the_table_is_in_a_definition():
    placed = [
        json.dumps(rule, sort_keys=True)
        for kind in DOCUMENTS
        for _, node in nodes(schema_of(kind))
        for rule in node.get("x-kubernetes-validations", ())
    ]
    wanted = [json.dumps(rule.to_schema(), sort_keys=True) for rules in RULES.values() for rule in rules]
    assert sorted(placed) == sorted(wanted)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_messages_of_rules_name_the_field_and_fit_into_a_line(kind):
    for path, node in nodes(schema_of(kind)):
        for rule in node.get("x-kubernetes-validations", ()):
            whole = (path + rule.get("fieldPath", "")).removeprefix(".")
            assert rule["message"].startswith((f"{whole} ", f"{whole}.", f"{whole.removesuffix('[]')} ")), whole
            assert "\n" not in rule["message"]
            assert len(rule["message"]) < 256


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_a_rule_looks_at_is_bounded(kind):
    for path, node in nodes(schema_of(kind)["properties"]["spec"]):
        if "x-kubernetes-validations" not in node:
            continue
        for below, child in nodes(node):
            if child["type"] == "string" and "enum" not in child:
                assert child["maxLength"] <= 65_536, f"{kind}.spec{path}{below}"


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_wide_columns_come_on_top_of_those_for_a_narrow_terminal(kind):
    (version,) = DOCUMENTS[kind]["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    narrow = [column["name"] for column in columns if not column.get("priority")]
    assert narrow[-1] == "Age"
    assert len(narrow) <= 6
    assert len({column["name"] for column in columns}) == len(columns)
    assert any(column.get("priority") for column in columns)


def test_the_page_about_resources_is_generated_from_the_types():
    generator = Path(__file__).parents[3] / "tools" / "gen_resource_docs.py"
    done = subprocess.run([sys.executable, generator, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
