"""The core: what follows from deletions, what the server itself sets, definitions, and what only its options change."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from drtp_api.kube import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DRTP_SERVICES,
    ENDPOINT_SLICES,
    EVENTS,
    NAMESPACES,
    SECRETS,
    SERVICES,
    BadRequest,
    Forbidden,
    Invalid,
    Key,
    NotFound,
    Resource,
    Unavailable,
)
from drtp_controller.apiserver import Api, LocalKube, Role, Store, User
from drtp_controller.apiserver.crds import check_crd, prepare_crd
from drtp_controller.apiserver.gateway_crds import gateway_crd_documents
from drtp_controller.apiserver.options import DeleteOptions
from drtp_controller.apiserver.preloads import preloaded_documents
from drtp_controller.apiserver.rbac import SYSTEM_USER

ADMIN = User("admin", Role.ADMIN)


def client(api, user=ADMIN):
    return LocalKube(api, user=user)


def config_map(name="cm", **metadata):
    return {"metadata": {"name": name, **metadata}, "data": {"a": "1"}}


def owner(obj, **more):
    return [
        {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": obj["metadata"]["name"],
            "uid": obj["metadata"]["uid"],
        }
        | more
    ]


def run(body):
    asyncio.run(body)


def delete(api, resource, name, propagation, namespace="default"):
    kind = api.registry.require(resource.group, resource.version, resource.plural)
    return api.delete(ADMIN, kind, Key(namespace, name), DeleteOptions(propagation=propagation))


# ---- garbage collection


def test_an_orphaned_dependent_is_let_go(api):
    async def body():
        kube = client(api)
        parent = await kube.create(CONFIG_MAPS, config_map("p"), "default")
        await kube.create(CONFIG_MAPS, config_map("c", ownerReferences=owner(parent)), "default")
        delete(api, CONFIG_MAPS, "p", "Orphan")
        child = await kube.get(CONFIG_MAPS, "c", "default")
        assert "ownerReferences" not in child["metadata"]

    run(body())


def test_foreground_deletion_keeps_the_owner_until_its_dependents_are_gone(api):
    async def body():
        kube = client(api)
        parent = await kube.create(CONFIG_MAPS, config_map("p"), "default")
        held = config_map("c", ownerReferences=owner(parent), finalizers=["x.io/y"])
        await kube.create(CONFIG_MAPS, held, "default")
        outcome = delete(api, CONFIG_MAPS, "p", "Foreground")
        assert not outcome.removed
        assert outcome.obj["metadata"]["finalizers"] == ["foregroundDeletion"]
        await kube.merge_patch(CONFIG_MAPS, "c", {"metadata": {"finalizers": None}}, "default")
        for name in ("c", "p"):
            with pytest.raises(NotFound):
                await kube.get(CONFIG_MAPS, name, "default")

    run(body())


def test_a_dependent_of_an_owner_that_never_was_goes_at_once(api):
    async def body():
        kube = client(api)
        ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "no-such-uid"}}
        await kube.create(CONFIG_MAPS, config_map("c", ownerReferences=owner(ghost)), "default")
        with pytest.raises(NotFound):
            await kube.get(CONFIG_MAPS, "c", "default")

    run(body())


def test_an_owner_of_a_kind_that_is_not_served_counts_as_alive(api):
    async def body():
        kube = client(api)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "pod-uid"}}
        await kube.create(CONFIG_MAPS, config_map("c", ownerReferences=owner(pod)), "default")
        assert await kube.get(CONFIG_MAPS, "c", "default")

    run(body())


def test_a_cycle_of_owners_ends(api):
    async def body():
        kube = client(api)
        one = await kube.create(CONFIG_MAPS, config_map("one"), "default")
        two = await kube.create(CONFIG_MAPS, config_map("two", ownerReferences=owner(one)), "default")
        await kube.merge_patch(CONFIG_MAPS, "one", {"metadata": {"ownerReferences": owner(two)}}, "default")
        await kube.delete(CONFIG_MAPS, "one", "default")
        assert (await kube.list(CONFIG_MAPS, "default")).items == []

    run(body())


def test_a_thousand_dependents_and_a_long_chain_are_no_problem(api):
    async def body():
        kube = client(api)
        top = parent = await kube.create(CONFIG_MAPS, config_map("top"), "default")
        for number in range(300):
            parent = await kube.create(
                CONFIG_MAPS, config_map(f"chain-{number}", ownerReferences=owner(parent)), "default"
            )
        for number in range(300):
            await kube.create(SECRETS, {"metadata": {"name": f"s{number}", "ownerReferences": owner(top)}}, "default")
        await kube.delete(CONFIG_MAPS, "top", "default")
        assert (await kube.list(CONFIG_MAPS, "default")).items == []
        assert (await kube.list(SECRETS, "default")).items == []

    run(body())


def test_a_start_finishes_what_a_crash_left(tmp_path):
    store = Store(tmp_path / "s")
    api = Api(store)

    async def body():
        kube = client(api)
        parent = await kube.create(CONFIG_MAPS, config_map("p"), "default")
        await kube.create(CONFIG_MAPS, config_map("c", ownerReferences=owner(parent)), "default")
        await kube.create(NAMESPACES, {"metadata": {"name": "going"}})

    run(body())
    maps = api.registry.require("", "v1", "configmaps")
    # the crash: the owner is gone and nothing that follows was done
    store.remove(maps.collection, store.get(maps.collection, Key("default", "p")).decode())
    namespaces = api.registry.require("", "v1", "namespaces")
    going = store.get(namespaces.collection, Key("", "going")).decode()
    going["metadata"] |= {"deletionTimestamp": api.now(), "finalizers": ["customresourcecleanup.apiextensions.k8s.io"]}
    store.put(namespaces.collection, going)
    store.close()
    store = Store(tmp_path / "s")
    api = Api(store)
    assert store.scan(maps.collection) == []
    assert store.get(namespaces.collection, Key("", "going")) is None
    store.close()


# ---- what the server keeps to itself


def test_namespaces_of_the_system_cannot_be_deleted(api):
    async def body():
        for name in ("default", "drtp-system", "kube-system"):
            with pytest.raises(Forbidden, match="may not be deleted"):
                await client(api).delete(NAMESPACES, name)

    run(body())


def test_immutable_maps_stay_as_they_are(api):
    async def body():
        kube = client(api)
        await kube.create(CONFIG_MAPS, config_map() | {"immutable": True}, "default")
        for patch in ({"data": {"a": "2"}}, {"immutable": False}):
            with pytest.raises(Invalid, match="immutable"):
                await kube.merge_patch(CONFIG_MAPS, "cm", patch, "default")
        await kube.merge_patch(CONFIG_MAPS, "cm", {"metadata": {"labels": {"a": "b"}}}, "default")

    run(body())


def test_the_type_of_a_secret_stays(api):
    async def body():
        kube = client(api)
        await kube.create(SECRETS, {"metadata": {"name": "s"}, "type": "drtp.datumapis.com/enrolment"}, "default")
        with pytest.raises(Invalid, match="type: Invalid value"):
            await kube.merge_patch(SECRETS, "s", {"type": "Opaque"}, "default")

    run(body())


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"ports": []}, "spec.ports"),
        ({"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name"),
        ({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}, "spec.ports[1].name"),
        ({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}, "spec.ports[1]"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 1, "targetPort": 70000}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 1}], "type": "Magic"}, "spec.type"),
    ],
)
def test_a_service_that_makes_no_sense_is_refused(api, spec, field):
    async def body():
        with pytest.raises(Invalid) as caught:
            await client(api).create(SERVICES, {"metadata": {"name": "s"}, "spec": spec}, "default")
        assert field in caught.value.fields

    run(body())


def test_cluster_ips_are_never_given_twice_and_come_back_after_deletion(api):
    async def body():
        kube = client(api)
        spec = {"ports": [{"port": 80}]}
        made = [
            await kube.create(SERVICES, {"metadata": {"name": f"s{n}"}, "spec": spec}, "default") for n in range(50)
        ]
        addresses = {obj["spec"]["clusterIP"] for obj in made}
        assert len(addresses) == 50
        await kube.delete(SERVICES, "s7", "default")
        again = await kube.create(SERVICES, {"metadata": {"name": "s7"}, "spec": spec}, "default")
        assert again["spec"]["clusterIP"] == made[7]["spec"]["clusterIP"]
        headless = {"metadata": {"name": "h"}, "spec": spec | {"clusterIP": "None"}}
        assert (await kube.create(SERVICES, headless, "default"))["spec"]["clusterIPs"] == ["None"]
        with pytest.raises(Invalid, match="may not change once set"):
            await kube.merge_patch(SERVICES, "s1", {"spec": {"clusterIP": "10.96.0.99"}}, "default")

    run(body())


def slice_of(address, family="IPv4"):
    return {"metadata": {"name": "s"}, "addressType": family, "endpoints": [{"addresses": [address]}]}


@pytest.mark.parametrize(
    ("address", "family", "words"),
    [
        ("127.0.0.1", "IPv4", "loopback"),
        ("::1", "IPv6", "loopback"),
        ("0.0.0.0", "IPv4", "unspecified"),
        ("169.254.1.1", "IPv4", "link-local"),
        ("224.0.0.1", "IPv4", "multicast"),
        ("10.0.0.1", "IPv6", "must be an IPv6 address"),
        ("host", "IPv4", "must be a valid IPv4 address"),
    ],
)
def test_endpoint_addresses_are_checked(api, address, family, words):
    async def body():
        with pytest.raises(Invalid, match=words):
            await client(api).create(ENDPOINT_SLICES, slice_of(address, family), "default")

    run(body())


def test_loopback_endpoints_are_a_choice_of_whoever_runs_the_server(store):
    api = Api(store, allow_loopback_endpoints=True)

    async def body():
        kube = client(api)
        await kube.create(ENDPOINT_SLICES, slice_of("127.0.0.1"), "default")
        with pytest.raises(Invalid, match="link-local"):
            await kube.create(ENDPOINT_SLICES, slice_of("169.254.1.1"), "default")

    run(body())


def test_kubernetes_events_are_forgotten_after_their_time(store):
    present = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    api = Api(store, clock=lambda: present)

    async def body():
        kube = client(api)
        for name, minutes in (("old", 61), ("new", 5)):
            event = {
                "metadata": {"name": name},
                "involvedObject": {"namespace": "default"},
                "lastTimestamp": (present - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            await kube.create(EVENTS, event, "default")
        assert api.expire_events(3600) == 1
        assert [e["metadata"]["name"] for e in (await kube.list(EVENTS, "default")).items] == ["new"]

    run(body())


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"labels": {"a b": "c"}}, "metadata.labels"),
        ({"labels": {"a": "b c"}}, "metadata.labels"),
        ({"labels": {"a": 1}}, "metadata.labels.a"),
        ({"labels": []}, None),
        ({"annotations": {"x": "y" * 300_000}}, "metadata.annotations"),
        ({"finalizers": ["no/such/thing"]}, "metadata.finalizers"),
        ({"ownerReferences": [{"kind": "x"}]}, "metadata.ownerReferences[0].uid"),
        ({"name": None}, "metadata.name"),
    ],
)
def test_metadata_is_checked(api, metadata, field):
    async def body():
        obj = config_map(**metadata) if "name" not in metadata else {"metadata": {}}
        if field is None:
            assert await client(api).create(CONFIG_MAPS, obj, "default")
            return
        with pytest.raises(Invalid) as caught:
            await client(api).create(CONFIG_MAPS, obj, "default")
        assert field in caught.value.fields

    run(body())


def test_a_body_of_another_kind_is_refused(api):
    async def body():
        with pytest.raises(BadRequest, match="kind is 'Secret'"):
            await client(api).create(CONFIG_MAPS, config_map() | {"kind": "Secret"}, "default")
        with pytest.raises(BadRequest, match="resourceVersion should not be set"):
            await client(api).create(CONFIG_MAPS, config_map(resourceVersion="5"), "default")

    run(body())


def test_a_closed_client_says_so(api):
    async def body():
        kube = client(api)
        await kube.close()
        with pytest.raises(Unavailable):
            await kube.list(CONFIG_MAPS)

    run(body())


# ---- definitions


WIDGETS = Resource("test.example.com", "v1", "widgets", "Widget")


def definition(**spec):
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "metadata": {"name": "widgets.test.example.com"},
        "spec": {
            "group": "test.example.com",
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [version],
        }
        | spec,
    }


@pytest.mark.parametrize("document", preloaded_documents(), ids=lambda document: document["metadata"]["name"])
def test_our_own_definitions_are_faultless(document):
    prepare_crd(document, None)
    assert check_crd(document, None) == []


def test_gateway_definitions_cover_the_kinds_we_program():
    kinds = {document["spec"]["names"]["kind"] for document in gateway_crd_documents()}
    assert kinds == {
        "GatewayClass",
        "Gateway",
        "ListenerSet",
        "HTTPRoute",
        "TCPRoute",
        "UDPRoute",
        "TLSRoute",
        "ReferenceGrant",
    }


def test_versions_of_one_kind_share_their_objects(api):
    async def body():
        kube = client(api)
        one = definition()["spec"]["versions"][0]
        await kube.create(
            CUSTOM_RESOURCE_DEFINITIONS, definition(versions=[one, one | {"name": "v2", "storage": False}])
        )
        await kube.create(WIDGETS, {"metadata": {"name": "w"}, "spec": {"n": 1}}, "default")
        newer = Resource("test.example.com", "v2", "widgets", "Widget")
        found = await kube.get(newer, "w", "default")
        assert (found["apiVersion"], found["spec"]) == ("test.example.com/v2", {"n": 1})
        found["spec"]["n"] = 2
        assert (await kube.update(newer, found))["metadata"]["generation"] == 2
        assert (await kube.get(WIDGETS, "w", "default"))["apiVersion"] == "test.example.com/v1"

    run(body())


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"group": "other.example.com"}, "metadata.name"),
        ({"versions": []}, "spec.versions"),
        ({"conversion": {"strategy": "Webhook"}}, "spec.conversion.strategy"),
        ({"versions": [{"name": "v1", "served": True, "storage": True}]}, "spec.versions[0].schema.openAPIV3Schema"),
        (
            {
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"x": {}}}},
                    }
                ]
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[x].type",
        ),
    ],
)
def test_a_definition_that_cannot_be_served_is_refused(api, spec, field):
    async def body():
        with pytest.raises(Invalid) as caught:
            await client(api).create(CUSTOM_RESOURCE_DEFINITIONS, definition(**spec))
        assert field in caught.value.fields

    run(body())


def test_names_that_are_taken_are_not_served_and_the_condition_says_so(api):
    async def body():
        kube = client(api)
        names = {"kind": "Widget", "plural": "widgets", "shortNames": ["drtpsvc"]}
        # another group may use any name; within a group it must be free
        await kube.create(CUSTOM_RESOURCE_DEFINITIONS, definition(names=names))
        clash = definition(names={"kind": "Widget", "plural": "wodgets"})
        clash["metadata"]["name"] = "wodgets.test.example.com"
        made = await kube.create(CUSTOM_RESOURCE_DEFINITIONS, clash)
        conditions = {c["type"]: c for c in made["status"]["conditions"]}
        assert conditions["Established"]["status"] == "False"
        assert "Widget" in conditions["NamesAccepted"]["message"]
        with pytest.raises(NotFound):
            await kube.list(Resource("test.example.com", "v1", "wodgets", "Widget"), "default")

    run(body())


def test_a_definition_waits_for_its_held_objects(api):
    async def body():
        kube = client(api)
        await kube.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
        await kube.create(WIDGETS, {"metadata": {"name": "w", "finalizers": ["x.io/y"]}}, "default")
        await kube.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.test.example.com")
        assert (await kube.get(CUSTOM_RESOURCE_DEFINITIONS, "widgets.test.example.com"))["metadata"][
            "deletionTimestamp"
        ]
        await kube.merge_patch(WIDGETS, "w", {"metadata": {"finalizers": None}}, "default")
        with pytest.raises(NotFound):
            await kube.get(CUSTOM_RESOURCE_DEFINITIONS, "widgets.test.example.com")

    run(body())


def test_preloaded_objects_are_brought_up_to_date_and_otherwise_left_alone(store):
    api = Api(store)
    api.preload(preloaded_documents())
    before = store.revision
    api.preload(preloaded_documents())
    assert store.revision == before
    documents = preloaded_documents()
    documents[0]["spec"]["names"]["shortNames"] = ["changed"]
    api.preload(documents)
    assert store.revision == before + 1
    kind = api.registry.find("drtp.datumapis.com", "v1alpha1", documents[0]["spec"]["names"]["plural"])
    assert kind.short_names == ("changed",)


def test_definitions_survive_a_restart(tmp_path):
    store = Store(tmp_path / "s")
    api = Api(store)
    run(client(api).create(CUSTOM_RESOURCE_DEFINITIONS, definition()))
    store.close()
    store = Store(tmp_path / "s")
    assert Api(store).registry.find("test.example.com", "v1", "widgets") is not None
    store.close()


def test_status_of_our_kinds_needs_no_spec_rights(api):
    edge = User("edge-1", Role.EDGE)

    async def body():
        await client(api).create(
            DRTP_SERVICES, {"metadata": {"name": "s"}, "spec": {"application": {"protocol": "TCP"}}}, "default"
        )
        with pytest.raises(Forbidden):
            await client(api, edge).merge_patch(DRTP_SERVICES, "s", {"spec": {"maxAgents": 2}}, "default")

    run(body())


def test_the_server_itself_may_do_everything():
    assert SYSTEM_USER.role is Role.ADMIN
