"""Conformance of lists and watches; see test_conformance.py."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from drtp_api.kube import (
    CONFIG_MAPS,
    DRTP_CONNECTIONS,
    DRTP_GROUP,
    DRTP_SERVERS,
    DRTP_SERVICES,
    EVENTS,
    GATEWAY_GROUP,
    LEASES,
    SECRETS,
    TCP_ROUTES,
    BadRequest,
    Conflict,
    Gone,
    KubeError,
    WatchEventType,
    list_all,
)


def config_map(name="cm", data=None, **metadata):
    return {"metadata": {"name": name, **metadata}, "data": data or {"a": "1"}}


async def collect(kube, resource, namespace, count, **options):
    """Return the first events of a watch, bookmarks left out."""
    found = []
    async with aclosing(kube.watch(resource, namespace, timeout=20, **options)) as events:
        async for event in events:
            if event.type is not WatchEventType.BOOKMARK:
                found.append(event)
            if len(found) == count:
                break
    return found


# ---- lists


def test_lists_select_by_labels(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        for name, labels in (("a", {"app": "x"}), ("b", {"app": "y", "tier": "1"}), ("c", {})):
            await kube.create(SECRETS, {"metadata": {"name": name, "labels": labels}}, namespace)

        async def names(selector):
            return [o["metadata"]["name"] for o in (await kube.list(SECRETS, namespace, label_selector=selector)).items]

        assert await names("app=x") == ["a"]
        assert await names("app!=x") == ["b", "c"]
        assert await names("app in (x,y)") == ["a", "b"]
        assert await names("app notin (x)") == ["b", "c"]
        assert await names("app") == ["a", "b"]
        assert await names("!app") == ["c"]
        assert await names("app=y,tier=1") == ["b"]
        with pytest.raises(BadRequest):
            await names("app in")

    conform(body)


def test_lists_select_by_name_and_namespace(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        for name in ("a", "b"):
            await kube.create(SECRETS, {"metadata": {"name": name}}, namespace)
        one = await kube.list(SECRETS, namespace, field_selector="metadata.name=b")
        assert [o["metadata"]["name"] for o in one.items] == ["b"]
        everywhere = await kube.list(SECRETS, field_selector=f"metadata.namespace={namespace}")
        assert [o["metadata"]["name"] for o in everywhere.items] == ["a", "b"]

    conform(body)


def test_pages_of_a_list_are_one_snapshot(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        for n in range(5):
            await kube.create(SECRETS, {"metadata": {"name": f"s{n}"}}, namespace)
        first = await kube.list(SECRETS, namespace, limit=2)
        await kube.delete(SECRETS, "s3", namespace)
        await kube.create(SECRETS, {"metadata": {"name": "s9"}}, namespace)
        second = await kube.list(SECRETS, namespace, limit=2, continue_token=first.continue_token)
        third = await kube.list(SECRETS, namespace, limit=2, continue_token=second.continue_token)
        names = [o["metadata"]["name"] for page in (first, second, third) for o in page.items]
        assert names == ["s0", "s1", "s2", "s3", "s4"]
        assert third.continue_token == ""
        assert first.resource_version == third.resource_version
        everything = await list_all(kube, SECRETS, namespace, page_size=2)
        assert [o["metadata"]["name"] for o in everything.items] == ["s0", "s1", "s2", "s4", "s9"]

    conform(body)


def test_items_of_a_list_know_their_kind(conform):
    async def body(scene):
        await scene.kube.create(CONFIG_MAPS, config_map(), scene.namespace)
        (item,) = (await scene.kube.list(CONFIG_MAPS, scene.namespace, field_selector="metadata.name=cm")).items
        assert (item["apiVersion"], item["kind"]) == ("v1", "ConfigMap")

    conform(body)


# ---- watches


def test_a_watch_from_a_version_misses_nothing_and_repeats_nothing(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        await kube.create(SECRETS, {"metadata": {"name": "before"}}, namespace)
        start = (await kube.list(SECRETS, namespace)).resource_version
        made = await kube.create(SECRETS, {"metadata": {"name": "a"}}, namespace)
        await kube.merge_patch(SECRETS, "a", {"metadata": {"labels": {"x": "1"}}}, namespace)
        watching = asyncio.create_task(collect(kube, SECRETS, namespace, 4, resource_version=start))
        await asyncio.sleep(0.05)
        await kube.delete(SECRETS, "a", namespace)
        await kube.create(SECRETS, {"metadata": {"name": "b"}}, namespace)
        events = await watching
        assert [(e.type.value, e.object["metadata"]["name"]) for e in events] == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
            ("ADDED", "b"),
        ]
        assert events[0].object == made
        assert events[2].object["metadata"]["labels"] == {"x": "1"}
        versions = [int(e.resource_version) for e in events]
        assert versions == sorted(set(versions))

    conform(body)


def test_a_watch_without_a_version_starts_with_what_is_there(conform):
    async def body(scene):
        await scene.kube.create(SECRETS, {"metadata": {"name": "a"}}, scene.namespace)
        (event,) = await collect(scene.kube, SECRETS, scene.namespace, 1)
        assert (event.type, event.object["metadata"]["name"]) == (WatchEventType.ADDED, "a")

    conform(body)


def test_initial_events_end_with_a_bookmark_that_says_so(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        for name in ("a", "b"):
            await kube.create(SECRETS, {"metadata": {"name": name}}, namespace)
        seen = []
        async with aclosing(kube.watch(SECRETS, namespace, send_initial_events=True, timeout=20)) as events:
            async for event in events:
                seen.append(event)
                if event.ends_initial_events:
                    break
        assert [event.type for event in seen] == [
            WatchEventType.ADDED,
            WatchEventType.ADDED,
            WatchEventType.BOOKMARK,
        ]
        await kube.create(SECRETS, {"metadata": {"name": "c"}}, namespace)
        (event,) = await collect(kube, SECRETS, namespace, 1, resource_version=seen[-1].resource_version)
        assert event.object["metadata"]["name"] == "c"

    conform(body)


def test_an_object_enters_and_leaves_a_selector(conform):
    async def body(scene):
        kube, namespace = scene.kube, scene.namespace
        start = (await kube.list(SECRETS, namespace)).resource_version
        await kube.create(SECRETS, {"metadata": {"name": "a"}}, namespace)

        async def label(value):
            await kube.merge_patch(SECRETS, "a", {"metadata": {"labels": {"show": value}}}, namespace)

        await label("yes")
        await kube.merge_patch(SECRETS, "a", {"metadata": {"annotations": {"n": "1"}}}, namespace)
        await label("no")
        await label("yes")
        await kube.delete(SECRETS, "a", namespace)
        events = await collect(kube, SECRETS, namespace, 5, resource_version=start, label_selector="show=yes")
        assert [event.type.value for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
        assert events[2].object["metadata"]["labels"] == {"show": "yes"}

    conform(body)


def test_a_watch_ends_by_itself_when_its_time_is_over(conform):
    async def body(scene):
        start = (await scene.kube.list(SECRETS, scene.namespace)).resource_version
        events = [
            event async for event in scene.kube.watch(SECRETS, scene.namespace, resource_version=start, timeout=1)
        ]
        assert {event.type for event in events} <= {WatchEventType.BOOKMARK}

    conform(body)


def test_a_watch_of_one_namespace_does_not_see_another(conform):
    async def body(scene):
        kube = scene.kube
        start = (await kube.list(CONFIG_MAPS, scene.namespace)).resource_version
        await kube.create(CONFIG_MAPS, config_map("elsewhere"), "default")
        try:
            await kube.create(CONFIG_MAPS, config_map("here"), scene.namespace)
            (event,) = await collect(
                kube,
                CONFIG_MAPS,
                scene.namespace,
                1,
                resource_version=start,
                field_selector="metadata.name!=kube-root-ca.crt",
            )
            assert event.object["metadata"]["name"] == "here"
        finally:
            await kube.delete(CONFIG_MAPS, "elsewhere", "default")

    conform(body)


def test_a_version_from_long_ago_is_gone(conform):
    async def body(scene):
        if scene.name == "cluster":
            pytest.skip("a cluster compacts in its own time")
        kube = scene.kube
        with pytest.raises(Gone):
            await collect(kube, SECRETS, scene.namespace, 1, resource_version="999999999")

    conform(body)


# ---- the rest


def test_leases_compare_and_swap(conform):
    async def body(scene):
        made = await scene.kube.create(
            LEASES,
            {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}},
            scene.namespace,
        )
        mine = made | {"spec": made["spec"] | {"holderIdentity": "b"}}
        await scene.kube.update(LEASES, mine)
        with pytest.raises(Conflict):
            await scene.kube.update(LEASES, made | {"spec": made["spec"] | {"holderIdentity": "c"}})

    conform(body)


def test_kubernetes_events_belong_to_the_namespace_of_their_object(conform):
    async def body(scene):
        def event(namespace):
            return {
                "metadata": {"generateName": "e-"},
                "involvedObject": {"kind": "DRTPService", "namespace": namespace, "name": "svc"},
                "reason": "Programmed",
                "message": "done",
                "type": "Normal",
            }

        await scene.kube.create(EVENTS, event(scene.namespace), scene.namespace)
        with pytest.raises(KubeError):
            await scene.kube.create(EVENTS, event("default"), scene.namespace)
        found = await scene.kube.list(EVENTS, scene.namespace, field_selector="involvedObject.name=svc")
        assert [item["reason"] for item in found.items] == ["Programmed"]
        none = await scene.kube.list(EVENTS, scene.namespace, field_selector="involvedObject.name=other")
        assert none.items == []

    conform(body)


def test_served_kinds_can_be_asked_for(conform):
    async def body(scene):
        ours = await scene.kube.served_resources(DRTP_GROUP, "v1alpha1")
        assert set(ours) >= {DRTP_SERVERS, DRTP_SERVICES, DRTP_CONNECTIONS}
        assert TCP_ROUTES in await scene.kube.served_resources(GATEWAY_GROUP, "v1")
        assert await scene.kube.served_resources("nowhere.example.com", "v1") == ()

    conform(body)


def test_an_object_that_is_too_large_is_refused(conform):
    async def body(scene):
        with pytest.raises(KubeError):
            await scene.kube.create(CONFIG_MAPS, config_map(data={"a": "x" * 1_600_000}), scene.namespace)

    conform(body)
