"""Converting the draft's manifests: every known fault is mended with a warning, and nothing else can happen."""

from __future__ import annotations

import copy
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from drtp_api.errors import DrtpError
from drtp_controller.apiserver import Api, Store
from drtp_controller.apiserver.options import WriteOptions
from drtp_controller.apiserver.preloads import preloaded_documents
from drtp_controller.apiserver.rbac import SYSTEM_USER
from drtp_controller.cli.main import run
from drtp_controller.convert import Options, convert
from drtp_controller.convert.values import decimal_degrees, dns_label, dns_subdomain

DATA = Path(__file__).parent / "data"
DRAFT = (DATA / "draft.yaml").read_text()
BODIES = list(yaml.safe_load_all(DRAFT))


def dumped(*bodies):
    return yaml.safe_dump_all(bodies, allow_unicode=True, sort_keys=False)


def only(text, **options):
    conversion = convert(text, Options(**options))
    (document,) = conversion.documents
    return document, conversion.warnings


def body(kind, **changes):
    found = copy.deepcopy(next(b for b in BODIES if b["kind"] == kind))
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = found
        for name in parents:
            target = target[name]
        target[last] = value
    return found


# ---- the whole draft


@pytest.mark.parametrize(
    ("options", "valid", "warnings"),
    [
        ([], "valid.yaml", "warnings.txt"),
        (["--service", "db", "--route-version", "v1alpha2"], "valid-service.yaml", "warnings-service.txt"),
    ],
)
def test_the_draft_becomes_what_it_is_known_to_become(capsys, options, valid, warnings):
    assert run(["convert", str(DATA / "draft.yaml"), *options]) == 0
    out, err = capsys.readouterr()
    assert out == (DATA / valid).read_text()
    assert err == (DATA / warnings).read_text()


FAULTS = {
    "apiVersion": "DRTPServer worker-001-nyc-ac/instance-xyz: apiVersion datumapis.com/v1alpha is not served",
    "slash in a name": "metadata.name 'worker-001-nyc-ac/instance-xyz' is not a name that Kubernetes takes; written as "
    "worker-001-nyc-ac.instance-xyz",
    "latititude": "metadata.latititude is no field of metadata (its name is latitude); 40.7128° N moved to "
    "spec.coordinates.latitude as '40.7128'",
    "longitude": "74.0060° W moved to spec.coordinates.longitude as '-74.0060'",
    "server_ip": "metadata.server_ip is no field of metadata; 199.38.181.25 moved to spec.endpoints[0].address",
    "no name": "metadata.name is missing; named drtp-connection",
    "Primary in metadata": "metadata.DRTPServer_Primary is no field of metadata; moved to spec.servers",
    "Secondary in metadata": "metadata.DRTPServer_Secondary is no field of metadata; moved to spec.servers",
    "ACL in metadata": "metadata.DRTPServer_ACL is no field of metadata and empty; left out, spec.aclRef.name",
    "status keys": "status.DRTPServer_Primary is a key with capitals and underscore; moved to status.servers",
    "programmed": "programmingStatus 'programmed' is written Programmed",
    "init": "programmingStatus 'init' is written Init",
    "connected": "clientStatus 'connected' is written Connected",
    "waiting": "clientStatus 'waiting' is written Waiting",
    "podCIDR": "podCIDR is an address, not a network; written to podIP as 10.10.10.10",
    "podCIDRPort": "podCIDRPort is called podPort today",
    "empty podCIDR": "status.DRTPServer_Secondary.podCIDR is empty; left out",
    "listener port": "spec.listeners port 54321 is kept",
    "TCPRoute v1": "needs the Gateway API 1.6 or later; --route-version v1alpha2",
    "rules without a dash": "spec.rules is an object; written as a list of one rule",
    "no sectionName": "without sectionName binds to every listener; bound to drtp-gateway",
    "backend name": "backendRefs name DRTPServer_Primary is not a name that Kubernetes takes",
    "one backend": "backendRefs name one server, so that nothing takes over; drtp-connection-secondary added",
    "slice name": "metadata.name 'DRTPServer_Primary' is not a name that Kubernetes takes; written as "
    "drtp-connection-primary",
    "no addresses": "endpoints.addresses are empty; 10.10.10.10 filled in from the connection's Primary server",
    "no known address": "endpoints without an address are refused by Kubernetes; left out",
    "PostsqlSQL": "ports name PostsqlSQL is not a DNS label; written as postgresql",
    "PostgresSQL": "ports name PostgresSQL is not a DNS label; written as postgresql",
    "appProtocol": "appProtocol TCP names a transport, not an application; written to protocol as TCP, and "
    "appProtocol as postgresql",
    "service-name": "label kubernetes.io/service-name is missing, so that the slice belongs to no Service",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_known_fault_of_the_draft_has_its_warning(fault):
    assert any(FAULTS[fault] in warning for warning in convert(DRAFT).warnings)


def test_what_was_converted_needs_no_mending_any_more():
    first = convert(DRAFT)
    again = convert(dumped(*first.documents))
    assert again.documents == first.documents
    mended = [w for w in again.warnings if "kubectl apply leaves it out" not in w and "is kept" not in w]
    assert mended == [
        w for w in mended if "needs the Gateway API" in w or "few gateways resolve" in w or "left out" in w
    ]


def test_the_api_takes_what_was_converted_and_knows_every_field(tmp_path):
    with closing(Store(tmp_path / "store.sqlite")) as store:
        api = Api(store)
        api.preload(preloaded_documents())
        for document in convert(DRAFT, Options(service="db")).documents:
            kind = api.registry.by_kind(document["apiVersion"], document["kind"])
            namespace = "default" if kind.resource.namespaced else None
            made = api.create(SYSTEM_USER, kind, namespace, copy.deepcopy(document), WriteOptions(validation="Strict"))
            assert made.obj["metadata"]["name"] == document["metadata"]["name"]


def test_the_blocks_of_a_markdown_text_are_read():
    fenced = "\n".join(f"# Section\n\nSome *text*: not yaml\n\n```yaml\n{part}\n```\n" for part in DRAFT.split("---\n"))
    assert convert(fenced).documents == convert(DRAFT).documents


def test_json_output_is_a_list_for_kubectl(capsys):
    assert run(["convert", str(DATA / "draft.yaml"), "-o", "json"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["kind"] == "List"
    assert printed["items"] == list(convert(DRAFT).documents)


# ---- single documents


def test_a_reference_that_is_given_is_kept():
    text = dumped(body("DRTPConnection", metadata={
        "name": "Conn_1", "DRTPServer_Primary": "worker-001/a", "DRTPServer_Tertiary": {"name": "w3"},
        "DRTPServer_Secondary": "w2", "DRTPServer_ACL": "selectstar",
    }))  # fmt: skip
    document, warnings = only(text, service="db")
    assert document["metadata"] == {"name": "conn-1"}
    assert document["spec"]["servers"] == [
        {"role": "Primary", "name": "worker-001.a"},
        {"role": "Secondary", "name": "w2"},
        {"role": "Tertiary", "name": "w3"},
    ]
    assert document["spec"]["aclRef"] == {"name": "selectstar"}
    assert document["spec"]["serviceRef"] == {"name": "db"}
    assert document["status"]["servers"][0]["name"] == "worker-001.a"
    assert not any("it is empty" in warning for warning in warnings)


def test_a_network_of_one_address_is_its_address():
    connection = body("DRTPConnection", status__DRTPServer_Primary__podCIDR="10.10.10.10/32")
    document, _ = only(dumped(connection))
    assert document["status"]["servers"][0]["podIP"] == "10.10.10.10"


def test_a_server_of_today_passes_as_it_is():
    server = {
        "apiVersion": "drtp.datumapis.com/v1alpha1",
        "kind": "DRTPServer",
        "metadata": {"name": "a", "labels": {"topology.datum.net/city-code": "NYC"}},
        "spec": {
            "instance": {"host": "h", "id": "i"},
            "coordinates": {"latitude": "1.5", "longitude": "-2"},
            "endpoints": [{"address": "2001:db8::1", "port": 7000, "transport": "tcp"}],
        },
    }
    assert only(dumped(server)) == (server, ())


def test_addresses_that_kubernetes_refuses_are_left_out():
    endpoints = [{"addresses": ["127.0.0.1", "10.0.0.7", "169.254.1.1", "0.0.0.0"]}]
    document, warnings = only(dumped(body("EndpointSlice", endpoints=endpoints)))
    assert document["endpoints"] == [{"addresses": ["10.0.0.7"]}]
    for text in ("127.0.0.1 is a loopback address", "169.254.1.1 is a link-local", "0.0.0.0 is the unspecified"):
        assert any(text in warning for warning in warnings)


def test_the_address_type_follows_the_addresses():
    document, _ = only(dumped(body("EndpointSlice", endpoints=[{"addresses": ["2001:db8::1"]}])))
    assert document["addressType"] == "IPv6"


def test_unknown_fields_are_left_out_with_a_warning_each():
    gateway = body("Gateway", metadata__colour="blue", surprise=1)
    gateway["spec"]["listeners"][0]["speed"] = "fast"
    document, warnings = only(dumped(gateway))
    assert document == body("Gateway")
    for path in ("metadata.colour", "surprise", "spec.listeners[0].speed"):
        assert f"Gateway drtp-gateway: {path} is not a known field; left out" in warnings


def test_a_route_keeps_its_other_backends_beside_the_service():
    route = body("TCPRoute")
    route["spec"]["rules"]["backendRefs"].append({"name": "other", "port": 1})
    document, _ = only(dumped(route), service="db")
    assert document["spec"]["rules"][0]["backendRefs"] == [
        {"group": "drtp.datumapis.com", "kind": "DRTPService", "name": "db"}, {"name": "other", "port": 1},
    ]  # fmt: skip


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "this is not YAML: line 1"),
        ("", "there is no document"),
        ("- 1", "document 1 is not an object"),
        ("a: &x 1\nb: *x", "aliases are not read"),
        ("a: 1\na: 2", "a is there twice"),
        ("1: 2", "the key 1 is not a text"),
        ("a: .inf", "no number that JSON knows"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("[" * 5000, "this is not YAML"),
        ("kind: Pod", "document 1: kind 'Pod' is none of DRTPServer"),
        ("kind: Gateway\napiVersion: v1", "apiVersion 'v1' is not of group gateway.networking.k8s.io"),
        ("kind: DRTPServer\napiVersion: apps/v1", "apiVersion 'apps/v1' is not drtp.datumapis.com/v1alpha1"),
        (dumped(body("DRTPServer", metadata__latititude="somewhere")), "latititude: 'somewhere' is no latitude"),
        (dumped(body("DRTPServer", metadata__longitude="190° W")), "beyond 180 degrees"),
        (dumped(body("DRTPServer", metadata={"name": "x"})), "spec.coordinates.latitude is missing"),
        (dumped(body("DRTPConnection", status__DRTPServer_Primary__podCIDR="10.0.0.0/8")), "not the address of one"),
        (dumped(body("DRTPConnection", status__DRTPServer_Primary__clientStatus="lost")), "none of Waiting, Connected"),
        (dumped(body("DRTPConnection", metadata__DRTPServer_Primary=7)), "must be the name of an object"),
        (dumped(body("DRTPConnection", status__DRTPServer_Primary__podCIDRPort=70000)), "status.servers[0].podPort"),
        (dumped(body("Gateway", spec__listeners="x")), "spec.listeners must be a list of objects"),
        (dumped(body("Gateway", spec="x")), "spec must be an object"),
        (dumped(body("Gateway", metadata__name="Not_A_Name")), "metadata.name"),
        (dumped(body("EndpointSlice", endpoints=[{"addresses": ["10.0.0.1", "::2"]}])), "mix IPv4 and IPv6"),
    ],
)  # fmt: skip
def test_what_cannot_be_mended_says_what_and_exits_with_65(tmp_path, capsys, text, says):
    path = tmp_path / "input.yaml"
    path.write_text(text)
    assert run(["convert", str(path)]) == 65
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: DRTP-1011 " in err
    assert says in err


def test_files_that_cannot_be_read_are_said(tmp_path, capsys):
    assert run(["convert", str(tmp_path / "none.yaml")]) == 65
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert run(["convert", str(tmp_path / "binary")]) == 65
    assert "not UTF-8" in capsys.readouterr().err


def test_a_service_must_have_the_name_of_an_object():
    with pytest.raises(DrtpError, match="DRTP-1003"):
        convert(DRAFT, Options(service="My Service"))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("latitude", "40.7128° N", "40.7128"),
        ("longitude", "74.0060° W", "-74.0060"),
        ("latitude", "33.8688 s", "-33.8688"),
        ("longitude", "-74", "-74"),
        ("longitude", "\N{MINUS SIGN}0.5", "-0.5"),
        ("latitude", 40.7, "40.7"),
        ("latitude", "0° S", "0"),
        ("latitude", "007.5", "7.5"),
        ("longitude", "180", "180"),
        ("latitude", "1.123456789012", "1.12345678"),
    ],
)
def test_places_are_read_as_people_write_them(kind, value, expected):
    assert decimal_degrees(kind, value, "x") == expected


@pytest.mark.parametrize("value", ["40.7 W", "-40 N", "ninety", "91", None, True, [], "1e2", "nan"])
def test_what_is_no_latitude_is_refused(value):
    with pytest.raises(DrtpError, match="DRTP-1011"):
        decimal_degrees("latitude", value, "x")


@given(st.text(max_size=80))
def test_names_made_of_any_text_are_names_or_empty(text):
    for made, limit in ((dns_subdomain(text), 253), (dns_label(text), 63)):
        assert len(made) <= limit
        assert all(c.isascii() and (c.isalnum() or c in "-.") for c in made)
        assert made == made.strip("-.").lower()


# ---- any input

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(
    ["", "x", "10.0.0.1", "::1", "127.0.0.1/8", "DRTPServer_Primary", "TCP", "IPv6", "FQDN", "40° N", "a/b", "v1"]
) | st.text(max_size=6)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "kind", "spec", "status", "metadata", "role", "servers", "addresses", "rules", "ports"]
            )
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = [path for path in places(BODIES) if path]


def changed(place, value):
    bodies = copy.deepcopy(BODIES)
    target = bodies
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return bodies


def attempt(text, service):
    try:
        return convert(text, Options(service=service))
    except DrtpError as error:
        return error


@given(st.sampled_from(PLACES), VALUES, st.sampled_from([None, "db"]))
def test_a_draft_with_anything_anywhere_is_converted_or_refused_with_a_code(place, value, service):
    outcome = attempt(yaml.safe_dump_all(changed(place, value), allow_unicode=True), service)
    if isinstance(outcome, DrtpError):
        assert outcome.code == "DRTP-1011"
    else:
        assert convert(dumped(*outcome.documents), Options(service=service)).documents == outcome.documents


@given(st.text(max_size=200) | VALUES.map(yaml.safe_dump))
def test_any_text_is_refused_with_a_code(text):
    with pytest.raises(DrtpError, match="DRTP-1011"):
        convert(text)
