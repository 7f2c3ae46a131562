"""What every Kubernetes API we use must do: the embedded one in-process and over HTTP, and a real cluster.

Here: objects, schemas and status. Patches and deletions are in test_conformance_changes.py, lists and watches in
test_conformance_reading.py.
"""

from __future__ import annotations

import base64

import pytest

from drtp_api.kube import (
    CONFIG_MAPS,
    DRTP_SERVICES,
    ENDPOINT_SLICES,
    GATEWAY_GROUP,
    LISTENER_SETS,
    SECRETS,
    SERVICES,
    TCP_ROUTES,
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    Resource,
)


def config_map(name="cm", data=None, **metadata):
    return {"metadata": {"name": name, **metadata}, "data": data or {"a": "1"}}


def service(name="svc", **exposure):
    return {
        "metadata": {"name": name},
        "spec": {"application": {"protocol": "TCP", "port": 5432}, "exposure": exposure or {"enabled": False}},
    }


def condition(kind="Ready", status="True", **more):
    return {
        "type": kind,
        "status": status,
        "reason": "Tested",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    } | more


# ---- create, read, update, delete


def test_a_created_object_gets_what_the_server_sets(conform):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        metadata = made["metadata"]
        assert made["apiVersion"] == "drtp.datumapis.com/v1alpha1"
        assert made["kind"] == "DRTPService"
        assert metadata["namespace"] == scene.namespace
        assert metadata["generation"] == 1
        assert metadata["uid"]
        assert metadata["resourceVersion"]
        assert metadata["creationTimestamp"].endswith("Z")
        assert await scene.kube.get(DRTP_SERVICES, "svc", scene.namespace) == made

    conform(body)


def test_a_client_cannot_choose_uid_or_creation_time(conform):
    async def body(scene):
        obj = config_map(uid="mine", creationTimestamp="2001-01-01T00:00:00Z")
        made = await scene.kube.create(CONFIG_MAPS, obj, scene.namespace)
        assert made["metadata"]["uid"] != "mine"
        assert made["metadata"]["creationTimestamp"] > "2020"

    conform(body)


def test_names_can_be_generated(conform):
    async def body(scene):
        obj = {"metadata": {"generateName": "gen-"}, "data": {}}
        names = {(await scene.kube.create(CONFIG_MAPS, obj, scene.namespace))["metadata"]["name"] for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("gen-") and len(name) == 9 for name in names)

    conform(body)


def test_a_second_object_of_the_same_name_is_refused(conform):
    async def body(scene):
        await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        with pytest.raises(AlreadyExists, match='configmaps "cm" already exists'):
            await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)

    conform(body)


def test_an_object_needs_its_namespace_to_exist(conform):
    async def body(scene):
        with pytest.raises(NotFound, match='namespaces "no-such" not found'):
            await scene.kube.create(CONFIG_MAPS, config_map(), "no-such")

    conform(body)


def test_the_namespace_in_the_object_must_be_the_one_asked_for(conform):
    async def body(scene):
        with pytest.raises(BadRequest, match="does not match the namespace"):
            await scene.kube.create(CONFIG_MAPS, config_map(namespace="other"), scene.namespace)

    conform(body)


def test_what_is_not_there_is_not_found(conform):
    async def body(scene):
        for attempt in (
            scene.kube.get(CONFIG_MAPS, "none", scene.namespace),
            scene.kube.delete(CONFIG_MAPS, "none", scene.namespace),
            scene.kube.merge_patch(CONFIG_MAPS, "none", {}, scene.namespace),
        ):
            with pytest.raises(NotFound) as caught:
                await attempt
            assert not caught.value.kind_is_missing

    conform(body)


def test_a_kind_that_is_not_served_is_told_from_an_object_that_is_not_there(conform):
    async def body(scene):
        with pytest.raises(NotFound) as caught:
            await scene.kube.list(Resource("nowhere.example.com", "v1", "things", "Thing"), scene.namespace)
        assert caught.value.kind_is_missing

    conform(body)


def test_names_are_checked(conform):
    async def body(scene):
        for name in ("Upper", "under_score", "-dash", "a..b", "x" * 254):
            with pytest.raises(Invalid, match=r"metadata\.name"):
                await scene.kube.create(CONFIG_MAPS, config_map(name), scene.namespace)

    conform(body)


def test_an_update_with_an_old_version_is_a_conflict(conform):
    async def body(scene):
        first = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        second = await scene.kube.update(CONFIG_MAPS, first | {"data": {"a": "2"}})
        assert second["data"] == {"a": "2"}
        with pytest.raises(Conflict, match="the object has been modified"):
            await scene.kube.update(CONFIG_MAPS, first | {"data": {"a": "3"}})

    conform(body)


def test_an_update_of_a_custom_object_must_name_the_version(conform):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        del made["metadata"]["resourceVersion"]
        with pytest.raises(Invalid, match="must be specified for an update"):
            await scene.kube.update(DRTP_SERVICES, made)

    conform(body)


def test_an_update_cannot_reach_a_successor_of_the_same_name(conform):
    async def body(scene):
        first = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        await scene.kube.delete(CONFIG_MAPS, "cm", scene.namespace)
        await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        del first["metadata"]["resourceVersion"]
        with pytest.raises(Conflict):
            await scene.kube.update(CONFIG_MAPS, first)

    conform(body)


def test_a_write_that_changes_nothing_keeps_the_version(conform):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        same = await scene.kube.update(DRTP_SERVICES, made)
        assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        patched = await scene.kube.merge_patch(DRTP_SERVICES, "svc", {"spec": {}}, scene.namespace)
        assert patched["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    conform(body)


def test_the_generation_counts_changes_of_the_spec_only(conform):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        labelled = await scene.kube.merge_patch(
            DRTP_SERVICES, "svc", {"metadata": {"labels": {"a": "b"}}}, scene.namespace
        )
        assert labelled["metadata"]["generation"] == 1
        assert labelled["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
        changed = await scene.kube.merge_patch(DRTP_SERVICES, "svc", {"spec": {"maxAgents": 3}}, scene.namespace)
        assert changed["metadata"]["generation"] == 2
        changed["status"] = {"conditions": [condition()]}
        assert (await scene.kube.update_status(DRTP_SERVICES, changed))["metadata"]["generation"] == 2

    conform(body)


def test_a_dry_run_answers_as_if_and_writes_nothing(conform):
    async def body(scene):
        made = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace, dry_run=True)
        assert made["metadata"]["uid"]
        with pytest.raises(NotFound):
            await scene.kube.get(CONFIG_MAPS, "cm", scene.namespace)
        real = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        dry = await scene.kube.update(CONFIG_MAPS, real | {"data": {"a": "9"}}, dry_run=True)
        assert dry["data"] == {"a": "9"}
        assert await scene.kube.get(CONFIG_MAPS, "cm", scene.namespace) == real

    conform(body)


def test_what_a_client_gets_is_its_own_copy(conform):
    async def body(scene):
        made = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        made["data"]["a"] = "changed here"
        again = await scene.kube.get(CONFIG_MAPS, "cm", scene.namespace)
        again["data"]["a"] = "and here"
        assert (await scene.kube.get(CONFIG_MAPS, "cm", scene.namespace))["data"] == {"a": "1"}

    conform(body)


def test_secrets_keep_plain_strings_encoded(conform):
    async def body(scene):
        made = await scene.kube.create(
            SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "välue"}}, scene.namespace
        )
        assert base64.b64decode(made["data"]["k"]).decode() == "välue"
        assert "stringData" not in made
        assert made["type"] == "Opaque"

    conform(body)


# ---- schemas


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.application"),
        ({"application": {"protocol": "SMTP"}}, "spec.application.protocol"),
        ({"application": {"protocol": "TCP", "port": 70000}}, "spec.application.port"),
        ({"application": {"protocol": "TCP", "port": "80"}}, "spec.application.port"),
        ({"application": {"protocol": "TCP"}, "edgeAllowlistCIDRs": ["no"]}, "spec.edgeAllowlistCIDRs[0]"),
        ({"application": {"protocol": "TCP"}, "exposure": {"port": -1}}, "spec.exposure.port"),
    ],
)
def test_a_violation_of_the_schema_names_the_field(conform, spec, field):
    async def body(scene):
        with pytest.raises(Invalid) as caught:
            await scene.kube.create(DRTP_SERVICES, {"metadata": {"name": "bad"}, "spec": spec}, scene.namespace)
        assert field in caught.value.fields
        assert field in caught.value.message

    conform(body)


def test_defaults_are_filled_in_and_unknown_fields_dropped(conform):
    async def body(scene):
        obj = service()
        obj["spec"]["unheardOf"] = 1
        obj["spec"]["application"]["also"] = {"deep": True}
        made = await scene.kube.create(DRTP_SERVICES, obj, scene.namespace)
        assert "unheardOf" not in made["spec"]
        assert "also" not in made["spec"]["application"]
        assert made["spec"]["maxAgents"] == 1

    conform(body)


def test_a_patch_is_validated_like_a_new_object(conform):
    async def body(scene):
        await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        with pytest.raises(Invalid, match=r"spec\.exposure\.port"):
            await scene.kube.merge_patch(DRTP_SERVICES, "svc", {"spec": {"exposure": {"port": 70000}}}, scene.namespace)

    conform(body)


def test_endpoint_slices_refuse_loopback_addresses(conform):
    async def body(scene):
        def a_slice(address):
            return {
                "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "x"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [{"name": "t", "port": 80, "protocol": "TCP"}],
            }

        with pytest.raises(Invalid, match="loopback"):
            await scene.kube.create(ENDPOINT_SLICES, a_slice("127.0.0.1"), scene.namespace)
        made = await scene.kube.create(ENDPOINT_SLICES, a_slice("10.1.2.3"), scene.namespace)
        made["addressType"] = "IPv6"
        with pytest.raises(Invalid, match="addressType"):
            await scene.kube.update(ENDPOINT_SLICES, made)

    conform(body)


def test_services_without_selector_get_an_address_and_a_target_port(conform):
    async def body(scene):
        made = await scene.kube.create(
            SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 5432}]}}, scene.namespace
        )
        assert made["spec"]["clusterIP"].count(".") == 3
        assert made["spec"]["ports"] == [{"port": 5432, "protocol": "TCP", "targetPort": 5432}]
        again = await scene.kube.merge_patch(SERVICES, "s", {"metadata": {"labels": {"a": "b"}}}, scene.namespace)
        assert again["spec"]["clusterIP"] == made["spec"]["clusterIP"]

    conform(body)


def test_gateway_objects_are_accepted_with_their_defaults(conform):
    async def body(scene):
        listeners = [{"name": "tcp-54321", "protocol": "TCP", "port": 54321}]
        made = await scene.kube.create(
            LISTENER_SETS,
            {"metadata": {"name": "l"}, "spec": {"parentRef": {"name": "gw"}, "listeners": listeners}},
            scene.namespace,
        )
        assert made["spec"]["parentRef"] == {"group": GATEWAY_GROUP, "kind": "Gateway", "name": "gw"}
        assert made["spec"]["listeners"][0]["allowedRoutes"] == {"namespaces": {"from": "Same"}}
        route = await scene.kube.create(
            TCP_ROUTES,
            {
                "metadata": {"name": "r"},
                "spec": {
                    "parentRefs": [{"kind": "ListenerSet", "name": "l"}],
                    "rules": [{"backendRefs": [{"name": "s", "port": 80}]}],
                },
            },
            scene.namespace,
        )
        assert route["spec"]["rules"][0]["backendRefs"][0]["weight"] == 1
        with pytest.raises(Invalid, match=r"spec\.listeners\[0\]\.port"):
            await scene.kube.merge_patch(
                LISTENER_SETS, "l", {"spec": {"listeners": [listeners[0] | {"port": 0}]}}, scene.namespace
            )

    conform(body)


# ---- status


def test_status_and_the_rest_are_written_separately(conform):
    async def body(scene):
        made = await scene.kube.create(
            DRTP_SERVICES, service() | {"status": {"canonicalHostname": "x.example"}}, scene.namespace
        )
        assert "canonicalHostname" not in made.get("status", {})
        wanted = made | {"status": {"conditions": [condition()]}, "spec": made["spec"] | {"maxAgents": 9}}
        with_status = await scene.kube.update_status(DRTP_SERVICES, wanted)
        assert with_status["spec"]["maxAgents"] == 1
        assert with_status["status"]["conditions"][0]["type"] == "Ready"
        changed = await scene.kube.update(
            DRTP_SERVICES, with_status | {"spec": wanted["spec"], "status": {"conditions": []}}
        )
        assert changed["spec"]["maxAgents"] == 9
        assert changed["status"]["conditions"][0]["type"] == "Ready"

    conform(body)


def test_a_stale_status_write_is_a_conflict(conform):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        await scene.kube.update_status(DRTP_SERVICES, made | {"status": {"conditions": [condition()]}})
        with pytest.raises(Conflict):
            await scene.kube.update_status(
                DRTP_SERVICES, made | {"status": {"conditions": [condition(status="False")]}}
            )

    conform(body)


def test_status_can_be_patched(conform):
    async def body(scene):
        await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        patch = {"status": {"conditions": [condition()]}, "spec": {"maxAgents": 7}}
        patched = await scene.kube.merge_patch(DRTP_SERVICES, "svc", patch, scene.namespace, subresource="status")
        assert patched["status"]["conditions"][0]["status"] == "True"
        assert patched["spec"]["maxAgents"] == 1

    conform(body)


def test_two_conditions_of_one_type_are_refused(conform):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        with pytest.raises(Invalid, match=r"status\.conditions\[1\].*Duplicate"):
            await scene.kube.update_status(DRTP_SERVICES, made | {"status": {"conditions": [condition(), condition()]}})

    conform(body)
