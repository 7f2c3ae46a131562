"""The HTTP face: who may come in, what is refused, what a stop and a restart look like to clients."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
from contextlib import aclosing

import aiohttp
import aiohttp.web
import pytest

from drtp_api.kube import (
    CONFIG_MAPS,
    DRTP_SERVICES,
    SECRETS,
    Conflict,
    Forbidden,
    HttpKube,
    Key,
    KubeConfig,
    Reflector,
    Unauthorized,
    Unavailable,
    WatchEventType,
    load_kubeconfig,
)
from drtp_controller.apiserver.rbac import Role, User


def serve(embedded, tmp_path, body, **options):
    async def main():
        async with (
            embedded.make_server(tmp_path / "state", **options) as server,
            aiohttp.ClientSession(base_url=server.url) as session,
            asyncio.timeout(30),
        ):
            await body(server, session)

    asyncio.run(main())


ADMIN = {"Authorization": "Bearer admin-token"}
OPERATOR = User("operator", Role.ADMIN)
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": "1"}}
PATH = "/api/v1/namespaces/default/configmaps"


def test_only_health_and_version_are_open(embedded, tmp_path):
    async def body(_server, session):
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            assert (await session.get(path)).status == 200
        for path in ("/api", "/apis", "/openapi/v3", PATH, "/nowhere"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
                response = await session.get(path, headers=headers)
                assert response.status == 401
                assert (await response.json())["reason"] == "Unauthorized"

    serve(embedded, tmp_path, body)


def test_a_client_learns_of_a_wrong_token_and_a_missing_right(embedded, tmp_path):
    async def body(server, _session):
        async with embedded.http_client(server, "wrong") as kube:
            with pytest.raises(Unauthorized):
                await kube.list(CONFIG_MAPS)
            with pytest.raises(Unauthorized):
                async for _event in kube.watch(CONFIG_MAPS):
                    pass
        async with embedded.http_client(server, "reader-token") as kube:
            with pytest.raises(Forbidden, match='User "bob" cannot create resource "configmaps"'):
                await kube.create(CONFIG_MAPS, CONFIG_MAP, "default")
            with pytest.raises(Forbidden, match="cannot watch"):
                async for _event in kube.watch(SECRETS):
                    pass

    serve(embedded, tmp_path, body)


def test_a_rotated_token_file_is_read_again(embedded, tmp_path):
    async def body(server, _session):
        file = tmp_path / "token"
        file.write_text("wrong")
        async with HttpKube(KubeConfig(server.url, token_file=file)) as kube:
            with pytest.raises(Unauthorized):
                await kube.list(CONFIG_MAPS)
            file.write_text("admin-token\n")
            assert (await kube.list(CONFIG_MAPS)).items == []

    serve(embedded, tmp_path, body)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", PATH, b"{", {"Content-Type": "application/json"}, 400),
        ("POST", PATH, b"[]", {"Content-Type": "application/json"}, 400),
        ("POST", PATH, b'{"metadata": 1}', {"Content-Type": "application/json"}, 400),
        ("POST", PATH, b"\tx: [", {"Content-Type": "application/yaml"}, 400),
        ("POST", PATH, b"k8s\x00\xff\xff", {"Content-Type": "application/vnd.kubernetes.protobuf"}, 400),
        ("POST", PATH, b'{"kind":"Secret","metadata":{"name":"x"}}', {}, 400),
        ("POST", PATH + "?dryRun=Some", b"{}", {}, 400),
        ("POST", PATH + "?fieldValidation=Maybe", b"{}", {}, 400),
        ("POST", PATH, b"x" * (3 * 1024 * 1024 + 1), {}, 413),
        ("PATCH", PATH + "/cm", b"{}", {"Content-Type": "application/json"}, 415),
        ("PATCH", PATH + "/cm", b"{}", {"Content-Type": "application/apply-patch+yaml"}, 400),
        ("PUT", PATH, b"{}", {}, 405),
        ("POST", PATH + "/cm", b"{}", {}, 405),
        ("GET", PATH + "/cm/status", b"", {}, 404),
        ("GET", "/api/v1/configmaps/cm", b"", {}, 404),
        ("GET", "/api/v2/configmaps", b"", {}, 404),
        ("GET", "/apis/none/v1/x", b"", {}, 404),
        ("GET", PATH + "?labelSelector=a+in", b"", {}, 400),
        ("GET", PATH + "?limit=many", b"", {}, 400),
        ("GET", PATH + "?continue=zzz", b"", {}, 400),
        ("GET", PATH + "?watch=perhaps", b"", {}, 400),
        ("GET", PATH + "?watch=1&resourceVersion=abc", b"", {}, 400),
        ("GET", PATH + "?resourceVersion=abc&resourceVersionMatch=Exact", b"", {}, 400),
        ("GET", PATH, b"", {"Accept": "application/vnd.kubernetes.protobuf"}, 406),
        ("DELETE", PATH + "/none", b'{"propagationPolicy":"Sideways"}', {}, 400),
    ],
)
def test_a_request_that_makes_no_sense_gets_a_status_that_says_so(
    embedded, tmp_path, method, path, body, headers, status
):
    async def run(_server, session):
        response = await session.request(method, path, data=io.BytesIO(body), headers=ADMIN | headers)
        answer = await response.json()
        assert (response.status, answer["kind"], answer["code"]) == (status, "Status", status)
        assert answer["message"]

    serve(embedded, tmp_path, run)


def test_yaml_is_taken_as_json_with_dates_as_strings(embedded, tmp_path):
    async def body(_server, session):
        text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {when: 2026-11-23}\n"
        headers = ADMIN | {"Content-Type": "application/yaml"}
        answer = await (await session.post(PATH, data=text, headers=headers)).json()
        assert answer["data"] == {"when": "2026-11-23"}

    serve(embedded, tmp_path, body)


def test_unknown_fields_are_warned_about_or_refused(embedded, tmp_path):
    async def body(_server, session):
        odd = CONFIG_MAP | {"unheardOf": 1}
        response = await session.post(PATH, json=odd, headers=ADMIN)
        assert response.status == 201
        assert response.headers["Warning"] == '299 - "unknown field \\"unheardOf\\""'
        response = await session.post(PATH + "?fieldValidation=Strict", json=odd, headers=ADMIN)
        assert response.status == 400
        assert 'unknown field \\"unheardOf\\"' in await response.text()

    serve(embedded, tmp_path, body)


def test_metadata_alone_can_be_asked_for(embedded, tmp_path):
    async def body(_server, session):
        await session.post(PATH, json=CONFIG_MAP, headers=ADMIN)
        accept = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
        answer = await (await session.get(PATH, headers=ADMIN | accept)).json()
        assert answer["kind"] == "PartialObjectMetadataList"
        assert [set(item) for item in answer["items"]] == [{"kind", "apiVersion", "metadata"}]

    serve(embedded, tmp_path, body)


def test_the_writer_is_the_field_manager_or_the_program(embedded, tmp_path):
    async def body(_server, session):
        for query, agent, manager in (("?fieldManager=me", "x/1", "me"), ("", "curl/8.0 (linux)", "curl")):
            await session.post(PATH + query, json=CONFIG_MAP, headers=ADMIN | {"User-Agent": agent})
            answer = await (await session.get(PATH + "/cm", headers=ADMIN)).json()
            assert [entry["manager"] for entry in answer["metadata"]["managedFields"]] == [manager]
            await session.delete(PATH + "/cm", headers=ADMIN)

    serve(embedded, tmp_path, body)


def test_an_unforeseen_failure_is_a_status_without_a_traceback(embedded, tmp_path, caplog):
    async def body(server, session):
        server.app._handlers.api = None
        response = await session.get(PATH, headers=ADMIN)
        assert response.status == 500
        assert "Traceback" not in await response.text()

    serve(embedded, tmp_path, body)
    assert "NoneType" in caplog.text


def test_a_watch_opens_before_anything_happens(embedded, tmp_path):
    async def body(_server, session):
        response = await session.get(PATH + "?watch=1&resourceVersion=1", headers=ADMIN)
        assert response.status == 200
        response.close()

    serve(embedded, tmp_path, body)


def test_a_compacted_version_is_told_as_an_event_of_the_watch(embedded, tmp_path):
    async def body(server, session):
        server.store.compact(keep=1)
        response = await session.get(PATH + "?watch=1&resourceVersion=3", headers=ADMIN)
        event = json.loads(await response.text())
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")

    serve(embedded, tmp_path, body)


def test_a_watcher_that_leaves_is_forgotten(embedded, tmp_path):
    async def body(server, _session):
        async with (
            embedded.http_client(server) as kube,
            aclosing(kube.watch(CONFIG_MAPS, send_initial_events=True)) as events,
        ):
            async for _event in events:
                break
            assert len(server.app._streams) == 1
        while server.app._streams:
            await asyncio.sleep(0.01)
        collection = server.api.registry.require("", "v1", "configmaps").collection
        assert not server.store._waiters[collection]

    serve(embedded, tmp_path, body)


def test_one_slow_watcher_does_not_hold_up_another(embedded, tmp_path):
    async def body(server, session):
        slow = await session.get(PATH + "?watch=1&resourceVersion=1", headers=ADMIN)
        kube = server.kube(OPERATOR)
        seen = asyncio.create_task(_count(embedded.http_client(server), 60))
        await asyncio.sleep(0.1)
        big = "x" * 200_000
        for number in range(60):
            await kube.create(
                CONFIG_MAPS, CONFIG_MAP | {"metadata": {"name": f"n{number}"}, "data": {"a": big}}, "default"
            )
            await asyncio.sleep(0)
        assert await seen == 60
        slow.close()

    serve(embedded, tmp_path, body)


async def _count(kube, wanted):
    count = 0
    async with kube, aclosing(kube.watch(CONFIG_MAPS, "default", resource_version="1")) as events:
        async for event in events:
            count += event.type is WatchEventType.ADDED
            if count == wanted:
                return count
    return count


def test_a_stop_ends_watches_cleanly_and_a_restart_resumes_them_without_a_list(embedded, tmp_path):
    async def main():
        server = embedded.make_server(tmp_path / "state")
        await server.start()
        port = server.port
        changes = []
        async with embedded.http_client(server) as kube:
            reflector = Reflector(kube, DRTP_SERVICES, on_change=changes.append)
            running = asyncio.create_task(reflector.run())
            await reflector.synced.wait()
            await server.kube(OPERATOR).create(DRTP_SERVICES, drtp_service("one"), "default")
            while len(changes) < 1:
                await asyncio.sleep(0.01)
            await server.stop()
            server = embedded.make_server(tmp_path / "state", port=port)
            await server.kube(OPERATOR).create(DRTP_SERVICES, drtp_service("two"), "default")
            await server.start()
            while len(changes) < 2:
                await asyncio.sleep(0.01)
            assert sorted(key.name for key in reflector.cache) == ["one", "two"]
            assert reflector.state.relists == 1
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await server.stop()

    asyncio.run(asyncio.wait_for(main(), 30))


def drtp_service(name):
    return {"metadata": {"name": name}, "spec": {"application": {"protocol": "TCP", "port": 1}}}


def test_a_reflector_lists_again_when_the_history_is_gone(embedded, tmp_path):
    async def body(server, _session):
        kube = embedded.http_client(server)
        reflector = Reflector(kube, DRTP_SERVICES, sleep=lambda _seconds: asyncio.sleep(0.01))
        running = asyncio.create_task(reflector.run())
        await reflector.synced.wait()
        local = server.kube(OPERATOR)
        server.app.end_watches()
        for name in ("a", "b"):
            await local.create(DRTP_SERVICES, drtp_service(name), "default")
        server.store.compact(keep=0)
        while len(reflector.cache) < 2:
            await asyncio.sleep(0.01)
        assert reflector.cache[Key("default", "a")]["metadata"]["name"] == "a"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await kube.close()

    serve(embedded, tmp_path, body)


def test_tls_is_checked_against_the_certificate_of_the_kubeconfig(embedded, tmp_path, certificate):
    async def main():
        async with embedded.make_server(tmp_path / "state", certificate) as server:
            file = tmp_path / "kubeconfig"
            file.write_text(json.dumps(server.kubeconfig("admin-token")))
            async with HttpKube(load_kubeconfig(file)) as kube:
                assert (await kube.list(CONFIG_MAPS)).items == []
            async with HttpKube(KubeConfig(server.url, token="admin-token")) as kube:
                with pytest.raises(Unavailable) as caught:
                    await kube.list(CONFIG_MAPS)
                assert isinstance(caught.value.__cause__, aiohttp.ClientConnectorCertificateError | ssl.SSLError)

    asyncio.run(main())


def test_a_port_that_is_taken_is_named(embedded, tmp_path):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server = embedded.make_server(tmp_path / "state", port=taken.getsockname()[1])
            with pytest.raises(Unavailable, match="cannot listen on 127"):
                await server.start()
            await server.stop()

    asyncio.run(main())


def test_a_server_that_is_down_is_unavailable(embedded, tmp_path):
    async def main():
        async with embedded.make_server(tmp_path / "state") as server:
            url = server.url
        async with HttpKube(KubeConfig(url, token="x")) as kube:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await kube.list(CONFIG_MAPS)
            with pytest.raises(Unavailable, match="cannot be reached"):
                async for _event in kube.watch(CONFIG_MAPS):
                    pass

    asyncio.run(main())


def test_an_answer_that_is_not_from_kubernetes_is_unavailable():
    async def main():
        async def handler(_request):
            return aiohttp.web.Response(text="<html>a captive portal</html>")

        app = aiohttp.web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with HttpKube(KubeConfig(f"http://127.0.0.1:{port}")) as kube:
            with pytest.raises(Unavailable, match="not JSON"):
                await kube.list(CONFIG_MAPS)
        await runner.cleanup()

    asyncio.run(main())


def test_writers_that_collide_lose_no_update(embedded, tmp_path):
    async def body(server, _session):
        await server.kube(OPERATOR).create(CONFIG_MAPS, CONFIG_MAP | {"data": {"n": "0"}}, "default")

        async def count_up(kube, times):
            done = 0
            while done < times:
                obj = await kube.get(CONFIG_MAPS, "cm", "default")
                obj["data"]["n"] = str(int(obj["data"]["n"]) + 1)
                try:
                    await kube.update(CONFIG_MAPS, obj)
                except Conflict:
                    continue
                done += 1

        clients = [embedded.http_client(server) for _ in range(4)]
        await asyncio.gather(*(count_up(kube, 10) for kube in clients))
        for kube in clients:
            await kube.close()
        assert (await server.kube(OPERATOR).get(CONFIG_MAPS, "cm", "default"))["data"]["n"] == "40"

    serve(embedded, tmp_path, body)
