"""Wire dicts: names, defaults, and what is refused."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drtp_api import resources as r
from drtp_api.errors import DrtpError
from drtp_api.registration import RegisterRequest
from drtp_api.wire import KINDS, from_wire, kind_of, object_from_wire, object_to_wire, to_wire, wire_name


@pytest.mark.parametrize(
    ("field", "wire"),
    [
        ("name", "name"), ("pod_ip", "podIP"), ("wan_ip", "wanIP"), ("instance_id", "instanceID"),
        ("edge_allowlist_cidrs", "edgeAllowlistCIDRs"), ("client_cidrs", "clientCIDRs"), ("ca_pem", "caPEM"),
        ("public_key_sha256", "publicKeySHA256"), ("rtt_milliseconds", "rttMilliseconds"), ("api_url", "apiURL"),
    ],
)  # fmt: skip
def test_fields_have_the_names_of_kubernetes(field, wire):
    assert wire_name(field) == wire


def service(**spec):
    return r.Service(
        metadata=r.Metadata(name="web", namespace="default"),
        spec=r.ServiceSpec(application=r.Application(protocol=r.Protocol.HTTP), **spec),
    )


def test_what_is_absent_or_empty_is_left_out():
    assert object_to_wire(service()) == {
        "apiVersion": "drtp.datumapis.com/v1alpha1",
        "kind": "DRTPService",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "application": {"protocol": "HTTP"},
            "exposure": {"enabled": False, "nature": "Public", "port": 0},
            "servers": {"replicas": 2, "standby": False},
            "maxAgents": 1,
        },
    }


names = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
cidrs = st.lists(st.sampled_from(["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]), max_size=3).map(tuple)
rules = st.builds(r.AclRule, name=names, action=st.sampled_from(r.Action), client_cidrs=cidrs)
lists = st.builds(
    r.AccessControlList,
    metadata=st.builds(r.Metadata, name=names, labels=st.dictionaries(names, names, max_size=2)),
    spec=st.builds(
        r.AccessControlListSpec, mode=st.sampled_from(r.AclMode), default_action=st.sampled_from(r.Action),
        enforce_at=st.lists(st.sampled_from(r.EnforceAt), min_size=1, max_size=2, unique=True).map(tuple),
        rules=st.lists(rules, max_size=3).map(tuple),
    ),
)  # fmt: skip
connections = st.builds(
    r.Connection,
    metadata=st.builds(r.Metadata, name=names),
    spec=st.builds(
        r.ConnectionSpec, service_ref=st.builds(r.LocalReference, name=names),
        client=st.builds(r.ClientInfo, instance_id=st.just("0" * 32), public_key=st.just("k"), epoch=st.integers(0)),
        servers=st.lists(
            st.builds(r.ServerAssignment, role=st.sampled_from(r.Role), name=names), max_size=2,
        ).map(tuple),
    ),
    status=st.builds(
        r.ConnectionStatus,
        servers=st.lists(
            st.builds(r.ServerBinding, role=st.sampled_from(r.Role), name=names,
                      pod_port=st.none() | st.integers(1, 65535)), max_size=2,
        ).map(tuple),
    ),
)  # fmt: skip


# The first object of a kind compiles its converter, which takes longer than the rest together.
@settings(deadline=None)
@given(lists | connections)
def test_objects_survive_the_wire(value):
    wire = object_to_wire(value)
    assert object_from_wire(wire) == value
    assert object_to_wire(object_from_wire(wire)) == wire


def test_every_kind_has_its_class():
    assert {kind: cls.__name__ for kind, cls in KINDS.items()} == {
        f"DRTP{cls.__name__}": cls.__name__ for cls in KINDS.values()
    }
    assert kind_of(service()) == "DRTPService"
    with pytest.raises(DrtpError, match="DRTP-2009 kind 'Pod' is not one of DRTPServer"):
        object_from_wire({"kind": "Pod"})


def test_an_object_from_a_newer_server_is_read():
    wire = object_to_wire(service())
    wire["metadata"]["managedFields"] = [{}]
    wire["spec"]["colour"] = "green"
    assert object_from_wire(wire) == service()


@pytest.mark.parametrize(
    ("data", "cls", "fault"),
    [
        ({"name": None}, r.LocalReference, "expected str, got NoneType @ LocalReference.name"),
        ({"name": 5}, r.LocalReference, "expected str, got int @ LocalReference.name"),
        ({}, r.LocalReference, "missing @ LocalReference.name"),
        ([], r.LocalReference, "expected an object, got list @ LocalReference"),
        ({"address": "a", "port": "80"}, r.Endpoint, "expected int, got str @ Endpoint.port"),
        ({"address": "a", "port": True}, r.Endpoint, "expected int, got bool @ Endpoint.port"),
        ({"replicas": 1, "standby": 1}, r.ServiceServers, "expected bool, got int @ ServiceServers.standby"),
        ({"hostnames": "abc"}, r.Exposure, "expected a list, got str @ Exposure.hostnames"),
        ({"hostnames": {"a": 1}}, r.Exposure, "expected a list, got dict @ Exposure.hostnames"),
        ({"name": "a", "labels": 5}, r.Metadata, "expected a mapping @ Metadata.labels"),
        ({"protocol": "SCTP"}, r.Application, "'SCTP' is not a valid Protocol @ Application.protocol"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_nothing_is_coerced(data, cls, fault, strict):
    with pytest.raises(DrtpError) as caught:
        from_wire(data, cls, strict=strict)
    assert (caught.value.code, caught.value.message) == ("DRTP-2009", fault)


@pytest.mark.parametrize(
    ("data", "cls", "fault"),
    [
        ({"name": "a", "x": 1}, r.LocalReference, "extra fields found (x) @ LocalReference"),
        ({"address": "a", "port": 70000}, r.Endpoint, "70000 is more than 65535 @ Endpoint.port"),
        ({"address": "a", "port": 0}, r.Endpoint, "0 is less than 1 @ Endpoint.port"),
        ({"address": "", "port": 1}, r.Endpoint, "shorter than 1 @ Endpoint.address"),
        ({"replicas": 4}, r.ServiceServers, "4 is more than 3 @ ServiceServers.replicas"),
        ({"enforceAt": []}, r.AccessControlListSpec, "shorter than 1 @ AccessControlListSpec.enforceAt"),
        ({"hostnames": ["-bad-"]}, r.Exposure, "@ Exposure.hostnames[0]"),
        ({"name": "abc\n"}, r.LocalReference, "'abc\\n' does not match"),
    ],
)
def test_strict_reading_knows_the_bounds_and_lenient_reading_does_not_ask(data, cls, fault):
    with pytest.raises(DrtpError) as caught:
        from_wire(data, cls, strict=True)
    assert fault in caught.value.message
    from_wire(data, cls)


def test_faults_are_named_by_their_wire_path():
    data = {"service": {"name": "web"}, "publicKey": "x", "instanceID": "0", "epoch": -1,
            "definition": {"application": {"protocol": "TCP", "port": 0}, "edgeAllowlistCIDRs": [7]}}  # fmt: skip
    with pytest.raises(DrtpError) as caught:
        from_wire(data, RegisterRequest, strict=True)
    for path in ("publicKey", "instanceID", "epoch", "definition.application.port", "definition.edgeAllowlistCIDRs[0]"):
        assert f"@ RegisterRequest.{path}" in caught.value.message


def test_only_objects_are_written():
    with pytest.raises(TypeError):
        to_wire(5)
    assert to_wire(attrs.evolve(service().spec.exposure, hostnames=("a.b",)))["hostnames"] == ["a.b"]
