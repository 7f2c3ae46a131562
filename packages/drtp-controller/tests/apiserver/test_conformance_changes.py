"""Conformance of patches, server-side apply and deletion; see test_conformance.py."""

from __future__ import annotations

import pytest

from drtp_api.kube import (
    CONFIG_MAPS,
    DRTP_SERVICES,
    NAMESPACES,
    SECRETS,
    SERVICES,
    Conflict,
    Invalid,
    KubeError,
    NotFound,
    PatchType,
    UnsupportedMediaType,
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


# ---- patches


def test_json_patches_test_and_change(conform):
    async def body(scene):
        await scene.kube.create(CONFIG_MAPS, config_map(data={"a": "1", "b": "2"}), scene.namespace)

        def patch(*operations):
            return scene.kube.patch(CONFIG_MAPS, "cm", list(operations), scene.namespace, patch_type=PatchType.JSON)

        changed = await patch(
            {"op": "test", "path": "/data/a", "value": "1"},
            {"op": "replace", "path": "/data/a", "value": "9"},
            {"op": "move", "from": "/data/b", "path": "/data/c"},
        )
        assert changed["data"] == {"a": "9", "c": "2"}
        with pytest.raises(KubeError):
            await patch({"op": "test", "path": "/data/a", "value": "1"})
        with pytest.raises(KubeError):
            await patch({"op": "remove", "path": "/data/none"})

    conform(body)


def test_strategic_patches_merge_lists_of_builtin_kinds_by_key(conform):
    async def body(scene):
        ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
        await scene.kube.create(SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": ports}}, scene.namespace)
        patched = await scene.kube.patch(
            SERVICES,
            "s",
            {"spec": {"ports": [{"port": 81, "targetPort": 8081}]}},
            scene.namespace,
            patch_type=PatchType.STRATEGIC,
        )
        assert {port["name"]: port["targetPort"] for port in patched["spec"]["ports"]} == {"a": 80, "b": 8081}

    conform(body)


def test_strategic_patches_of_custom_kinds_are_refused(conform):
    async def body(scene):
        await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        with pytest.raises(UnsupportedMediaType):
            await scene.kube.patch(DRTP_SERVICES, "svc", {}, scene.namespace, patch_type=PatchType.STRATEGIC)

    conform(body)


def test_a_merge_patch_may_ask_for_a_version(conform):
    async def body(scene):
        made = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        version = made["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "data": {"a": "2"}}
        await scene.kube.merge_patch(CONFIG_MAPS, "cm", patch, scene.namespace)
        with pytest.raises(Conflict):
            await scene.kube.merge_patch(CONFIG_MAPS, "cm", patch, scene.namespace)

    conform(body)


# ---- server-side apply


async def applied(scene, data, *, force=False, resource=CONFIG_MAPS, name="cm", subresource=""):
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}} | data
    return await scene.kube.patch(
        resource,
        name,
        body,
        scene.namespace,
        patch_type=PatchType.APPLY,
        force=force,
        subresource=subresource,
    )


def test_an_apply_creates_changes_and_removes_what_it_no_longer_names(conform):
    async def body(scene):
        made = await applied(scene, {"data": {"a": "1", "b": "2"}})
        assert made["metadata"]["uid"]
        await scene.kube.merge_patch(CONFIG_MAPS, "cm", {"data": {"c": "3"}}, scene.namespace)
        changed = await applied(scene, {"data": {"a": "9"}})
        assert changed["data"] == {"a": "9", "c": "3"}

    conform(body)


def test_a_repeated_apply_changes_nothing(conform):
    async def body(scene):
        first = await applied(scene, {"data": {"a": "1"}})
        again = await applied(scene, {"data": {"a": "1"}})
        assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]

    conform(body)


def test_an_apply_over_another_managers_field_is_a_conflict_unless_forced(conform):
    async def body(scene):
        made = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        assert made["metadata"]["managedFields"][0]["operation"] == "Update"
        with pytest.raises(Conflict, match=r"\.data\.a"):
            await applied(scene, {"data": {"a": "2"}})
        taken = await applied(scene, {"data": {"a": "2"}}, force=True)
        assert taken["data"] == {"a": "2"}
        assert (await applied(scene, {"data": {"a": "3"}}))["data"] == {"a": "3"}

    conform(body)


def test_an_apply_merges_associative_lists_by_their_keys(conform):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        made["status"] = {"conditions": [condition("Accepted"), condition("Programmed")]}
        await scene.kube.update_status(DRTP_SERVICES, made)
        ready = {"status": {"conditions": [condition("Ready")]}}
        merged = await applied(scene, ready, resource=DRTP_SERVICES, name="svc", subresource="status")
        assert [c["type"] for c in merged["status"]["conditions"]] == ["Accepted", "Programmed", "Ready"]
        without = await applied(
            scene, {"status": {"conditions": []}}, resource=DRTP_SERVICES, name="svc", subresource="status"
        )
        assert [c["type"] for c in without["status"]["conditions"]] == ["Accepted", "Programmed"]

    conform(body)


# ---- deletion


def test_finalizers_hold_an_object_until_the_last_one_goes(conform):
    async def body(scene):
        await scene.kube.create(CONFIG_MAPS, config_map(finalizers=["drtp.datumapis.com/x"]), scene.namespace)
        await scene.kube.delete(CONFIG_MAPS, "cm", scene.namespace)
        marked = await scene.kube.get(CONFIG_MAPS, "cm", scene.namespace)
        assert marked["metadata"]["deletionTimestamp"]
        with pytest.raises(Invalid, match="finalizers"):
            await scene.kube.merge_patch(
                CONFIG_MAPS,
                "cm",
                {"metadata": {"finalizers": ["drtp.datumapis.com/x", "drtp.datumapis.com/y"]}},
                scene.namespace,
            )
        await scene.kube.merge_patch(CONFIG_MAPS, "cm", {"metadata": {"finalizers": None}}, scene.namespace)
        with pytest.raises(NotFound):
            await scene.kube.get(CONFIG_MAPS, "cm", scene.namespace)

    conform(body)


def test_a_deletion_may_ask_for_one_object_of_that_name(conform):
    async def body(scene):
        made = await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        with pytest.raises(Conflict):
            await scene.kube.delete(CONFIG_MAPS, "cm", scene.namespace, uid="another")
        with pytest.raises(Conflict):
            await scene.kube.delete(CONFIG_MAPS, "cm", scene.namespace, resource_version="1")
        metadata = made["metadata"]
        await scene.kube.delete(
            CONFIG_MAPS,
            "cm",
            scene.namespace,
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
        )
        with pytest.raises(NotFound):
            await scene.kube.get(CONFIG_MAPS, "cm", scene.namespace)

    conform(body)


def owned_by(*owners):
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
        for owner in owners
    ]


def test_what_an_object_owns_goes_with_it_through_all_generations(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        top = await kube.create(DRTP_SERVICES, service(), namespace)
        middle = await kube.create(CONFIG_MAPS, config_map("middle", ownerReferences=owned_by(top)), namespace)
        await kube.create(SECRETS, {"metadata": {"name": "leaf", "ownerReferences": owned_by(middle)}}, namespace)
        await kube.delete(DRTP_SERVICES, "svc", namespace)

        async def gone():
            left = [*(await kube.list(SECRETS, namespace)).items, *(await kube.list(CONFIG_MAPS, namespace)).items]
            return not {"middle", "leaf"} & {obj["metadata"]["name"] for obj in left}

        await scene.eventually(gone)

    conform(body)


def test_a_dependent_stays_while_one_owner_lives(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        one = await kube.create(CONFIG_MAPS, config_map("one"), namespace)
        two = await kube.create(CONFIG_MAPS, config_map("two"), namespace)
        await kube.create(CONFIG_MAPS, config_map("child", ownerReferences=owned_by(one, two)), namespace)
        await kube.delete(CONFIG_MAPS, "one", namespace)
        assert await kube.get(CONFIG_MAPS, "child", namespace)
        await kube.delete(CONFIG_MAPS, "two", namespace)

        async def gone():
            names = {obj["metadata"]["name"] for obj in (await kube.list(CONFIG_MAPS, namespace)).items}
            return "child" not in names

        await scene.eventually(gone)

    conform(body)


def test_a_namespace_takes_its_objects_with_it(conform):
    async def body(scene):
        kube = scene.kube
        name = scene.namespace + "-b"
        await kube.create(NAMESPACES, {"metadata": {"name": name}})
        await kube.create(CONFIG_MAPS, config_map(), name)
        await kube.create(DRTP_SERVICES, service(), name)
        await kube.delete(NAMESPACES, name)

        async def gone():
            return not [n for n in (await kube.list(NAMESPACES)).items if n["metadata"]["name"] == name]

        await scene.eventually(gone)
        assert (await kube.list(DRTP_SERVICES, name)).items == []

    conform(body)


def test_nothing_new_enters_a_namespace_that_is_going(conform):
    async def body(scene):
        kube = scene.kube
        name = scene.namespace + "-c"
        await kube.create(NAMESPACES, {"metadata": {"name": name}})
        await kube.create(CONFIG_MAPS, config_map("held", finalizers=["drtp.datumapis.com/x"]), name)
        await kube.delete(NAMESPACES, name)
        with pytest.raises(KubeError, match="terminated"):
            await kube.create(CONFIG_MAPS, config_map("late"), name)

        async def marked():
            return "deletionTimestamp" in (await kube.get(CONFIG_MAPS, "held", name))["metadata"]

        await scene.eventually(marked)
        await kube.merge_patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, name)

    conform(body)
