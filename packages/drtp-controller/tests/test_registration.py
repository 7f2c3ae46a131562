"""The registration API over real HTTP: who is let in, what an answer holds, and how refusals look."""

from __future__ import annotations

import io
import json
import time

from drtp_api.grants import GrantVerifier, public_key_bytes
from drtp_api.kube import CONFIG_MAPS, DRTP_CONNECTIONS, DRTP_SERVERS, DRTP_SERVICES, SECRETS
from drtp_api.registration import ConnectionView, RegisterResponse
from drtp_api.wire import from_wire
from drtp_controller.planners.ports import PortState

from .conftest import TOKEN, Agent, api, run, tcp


def test_the_first_answer_holds_everything_an_agent_needs_to_dial(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            agent = Agent()
            answer = from_wire(await client.register(agent), RegisterResponse, strict=True)
            assert [(s.name, s.role.value, s.city) for s in answer.servers] == [
                ("edge-a", "Primary", "NYC"),
                ("edge-b", "Secondary", "AMS"),
            ]
            assert answer.connection.url == f"http://{answer.connection.hostnames[0]}:8880/"
            assert answer.application is not None
            published = await client.plane.kube.get(CONFIG_MAPS, "drtp-grant-keys", "drtp-system")
            for server in answer.servers:
                verifier = GrantVerifier(server.name)
                verifier.load_keys(json.loads(published["data"]["jwks.json"]))
                grant = verifier.verify(server.grant.encode(), public_key=public_key_bytes(agent.key), now=time.time())
                assert (grant.service, grant.instance_id, grant.protocol) == ("default/web", agent.instance, "http")
                assert grant.connection == f"default/{answer.connection.name}"
            stored = await client.plane.kube.get(DRTP_CONNECTIONS, answer.connection.name, "default")
            assert stored["spec"]["client"]["wanIP"] == "127.0.0.1"
            assert stored["metadata"]["ownerReferences"][0]["kind"] == "DRTPService"

    run(scenario())


def test_the_promised_address_is_the_one_that_is_given(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            body = await client.register(Agent(service="pg"), definition=tcp())
            promised = body["connection"]["addresses"]
            await client.plane.settle()
            service = await client.plane.kube.get(DRTP_SERVICES, "pg", "default")
            assert service["status"]["addresses"] == promised

    run(scenario())


def test_the_same_instance_restarts_with_a_newer_epoch_and_keeps_its_connection(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            agent = Agent()
            first = await client.register(agent)
            await client.plane.tunnel(first["connection"]["name"], "edge-a")
            again = await client.register(agent, epoch=6)
            assert again["connection"]["name"] == first["connection"]["name"]
            assert again["connection"]["hostnames"] == first["connection"]["hostnames"]
            stored = await client.plane.kube.get(DRTP_CONNECTIONS, first["connection"]["name"], "default")
            assert stored["spec"]["client"]["epoch"] == 6
            late = await client.register(agent, epoch=5, expect=409)
            assert late["code"] == "DRTP-4006"

    run(scenario())


def test_another_instance_is_refused_while_one_is_live_and_replaces_it_when_it_is_gone(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            name = (await client.register(Agent("a")))["connection"]["name"]
            # just registered counts as live: two that start together are not both admitted
            assert (await client.register(Agent("b"), expect=409))["code"] == "DRTP-2007"
            await client.plane.tunnel(name, "edge-a")
            await client.plane.settle()
            assert (await client.register(Agent("b"), expect=409))["code"] == "DRTP-2007"
            await client.plane.tunnel(name, "edge-a", up=False)
            await client.plane.settle()
            other = await client.register(Agent("b"))
            left = [o["metadata"]["name"] for o in (await client.plane.kube.list(DRTP_CONNECTIONS, "default")).items]
            assert left == [other["connection"]["name"]]

    run(scenario())


def test_two_agents_are_admitted_where_the_service_allows_two(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            await client.register(Agent("a"))
            await client.plane.kube.merge_patch(DRTP_SERVICES, "web", {"spec": {"maxAgents": 2}}, "default")
            await client.plane.settle()
            await client.register(Agent("b"))
            assert (await client.register(Agent("c"), expect=409))["code"] == "DRTP-2007"

    run(scenario())


def test_a_secret_enrols_an_agent_and_is_stored_as_a_digest_only(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            body = {"service": {"name": "db"}, "definition": tcp()}
            status, created = await client.call("POST", "/v1alpha1/services", body)
            assert status == 201
            agent = Agent(service="db")
            answer = await client.register(agent, token=None, secret=created["secret"], definition=None)
            assert answer["application"] == {"protocol": "TCP", "port": 5432}
            stored = json.dumps((await client.plane.kube.list(SECRETS, "default")).items)
            assert created["secret"] not in stored
            await client.plane.settle()
            service = await client.plane.kube.get(DRTP_SERVICES, "db", "default")
            assert service["status"]["enrollmentSecretRef"] == {"name": "drtp-enrollment-db"}
            status, again = await client.call("POST", "/v1alpha1/services", body)
            assert (status, again["code"]) == (409, "DRTP-2032")

    run(scenario())


def test_a_wrong_secret_and_an_unknown_service_get_the_same_answer(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            await client.call("POST", "/v1alpha1/services", {"service": {"name": "web"}, "definition": tcp()})
            wrong = await client.register(Agent(), token=None, secret="no", definition=None, expect=401)
            absent = await client.register(Agent(service="nix"), token=None, secret="no", definition=None, expect=401)
            assert wrong["code"] == absent["code"] == "DRTP-2005"
            assert wrong["message"].replace("web", "nix") == absent["message"]

    run(scenario())


def test_a_secret_may_not_bring_a_definition_and_nobody_may_come_without_either(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            body = {"service": {"name": "web"}, "definition": tcp()}
            secret = (await client.call("POST", "/v1alpha1/services", body))[1]["secret"]
            assert (await client.register(Agent(), token=None, secret=secret, expect=403))["code"] == "DRTP-2008"
            assert (await client.register(Agent(), token=None, expect=401))["code"] == "DRTP-2003"
            assert (await client.register(Agent(), token="wrong", expect=401))["code"] == "DRTP-2003"

    run(scenario())


def test_ports_and_names_that_cannot_be_had_are_refused_at_once(tmp_path):
    def is_free(protocol, port):
        return {81: PortState.FORBIDDEN, 5555: PortState.TAKEN}.get(port, PortState.FREE)

    async def scenario():
        async with api(tmp_path, is_free=is_free) as client:
            for port, code, status in ((5555, "DRTP-2011", 409), (81, "DRTP-2012", 403)):
                body = await client.register(Agent(service="pg"), definition=tcp(port), expect=status)
                assert body["code"] == code
            await client.register(Agent(service="first"), definition=tcp(6000))
            body = await client.register(Agent(service="second"), definition=tcp(6000), expect=409)
            assert body["code"] == "DRTP-2011"
            assert "default/first" in body["message"]
            named = {"application": {"protocol": "HTTP"}, "exposure": {"enabled": True, "hostnames": ["shop.test"]}}
            await client.register(Agent(service="shop"), definition=named)
            body = await client.register(Agent(service="thief"), definition=named, expect=409)
            assert body["code"] == "DRTP-2013"
            present = [o["metadata"]["name"] for o in (await client.plane.kube.list(DRTP_SERVICES, "default")).items]
            assert present == ["first", "shop"]

    run(scenario())


def test_without_a_server_an_agent_is_told_to_come_back(tmp_path):
    async def scenario():
        async with api(tmp_path, edges=()) as client:
            body = await client.register(Agent(), expect=503)
            assert (body["code"], body["retryable"]) == ("DRTP-2014", True)

    run(scenario())


def test_grants_are_renewed_by_the_connections_key_only(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            agent, now = Agent(), int(time.time())
            name = (await client.register(agent))["connection"]["name"]
            path = f"/v1alpha1/connections/{name}/grants"
            status, body = await client.call("POST", path, agent.renewal(name, now), token=None)
            assert status == 200
            assert len(body["servers"]) == 2
            for request, code in (
                (Agent().renewal(name, now), "DRTP-2016"),
                (agent.renewal(name, now - 3600), "DRTP-2004"),
                ({"issuedAt": now, "proof": "!!"}, "DRTP-2009"),
            ):
                assert (await client.call("POST", path, request, token=None))[1]["code"] == code
            absent = await client.call("POST", "/v1alpha1/connections/nix/grants", agent.renewal("nix", now))
            assert (absent[0], absent[1]["code"]) == (404, "DRTP-2010")

    run(scenario())


def test_an_agent_may_look_at_its_own_connection_with_its_grant_and_at_no_other(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            mine = await client.register(Agent())
            other = await client.register(Agent("b", service="other"))
            grant = mine["servers"][0]["grant"]
            own = await client.call("GET", f"/v1alpha1/connections/{mine['connection']['name']}", token=grant)
            assert own[0] == 200
            foreign = await client.call("GET", f"/v1alpha1/connections/{other['connection']['name']}", token=grant)
            assert foreign[0] == 401

    run(scenario())


async def read_event(content):
    name = data = None
    async for raw in content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = json.loads(line[6:])
        elif not line and name:
            return name, data
    return None


def test_events_tell_each_change_and_end_with_the_revocation(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            name = (await client.register(Agent()))["connection"]["name"]
            await client.plane.settle()
            headers = {"Authorization": f"Bearer {TOKEN}"}
            url = f"{client.url}/v1alpha1/connections/{name}/events"
            async with client.session.get(url, headers=headers) as stream:
                kind, data = await read_event(stream.content)
                view = from_wire(data, ConnectionView, strict=True)
                assert (kind, view.programmed) == ("connection", False)
                await client.plane.tunnel(name, "edge-a", port=50001)
                while not view.programmed:
                    kind, data = await read_event(stream.content)
                    view = from_wire(data, ConnectionView, strict=True)
                assert [(s.name, s.connected) for s in view.servers] == [("edge-a", True), ("edge-b", False)]
                status, _ = await client.call("DELETE", f"/v1alpha1/connections/{name}")
                assert status == 204
                while kind == "connection":
                    kind, data = await read_event(stream.content)
                assert (kind, data["code"]) == ("error", "DRTP-2010")
                assert await read_event(stream.content) is None

    run(scenario())


def test_a_published_service_stays_public_when_its_agent_comes_back_without_public(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            private = {"application": {"protocol": "HTTP"}}
            agent = Agent()
            assert (await client.register(agent, definition=private))["connection"]["private"]
            status, body = await client.call("POST", "/v1alpha1/services/web/publish")
            assert (status, body["private"]) == (200, False)
            again = await client.register(agent, definition=private, epoch=6)
            assert not again["connection"]["private"]
            await client.call("POST", "/v1alpha1/services/web/unpublish")
            assert (await client.register(agent, definition=private, epoch=7))["connection"]["private"]
            status, body = await client.call("GET", "/v1alpha1/services")
            assert [(s["name"], s["private"]) for s in body["services"]] == [("web", True)]
            status, body = await client.call("POST", "/v1alpha1/services/nix/publish")
            assert (status, body["code"]) == (404, "DRTP-2006")

    run(scenario())


def test_faulty_requests_name_their_fields(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            cases = (
                ({"extra": 1}, "unknown field 'extra'"),
                ({"epoch": "5"}, "body.epoch: expected a whole number"),
                ({"epoch": True}, "body.epoch: expected a whole number"),
                ({"epoch": -1}, "body.epoch: -1 is less than 0"),
                ({"instanceID": "A" * 32}, "body.instanceID: does not match"),
                ({"instanceID": "a" * 32 + "\n"}, "body.instanceID: does not match"),
                ({"service": {"name": "UPPER"}}, "body.service.name: does not match"),
                ({"service": None}, "body.service: is required"),
                ({"publicKey": "*" * 43}, "body.publicKey"),
                ({"roundTrips": {"edge-a": "fast"}}, "body.roundTrips.edge-a: expected a number"),
                ({"definition": {"application": {"protocol": "SMTP"}}}, "body.definition.application.protocol"),
                (
                    {"definition": {"application": {"protocol": "TCP"}, "exposure": {"port": 70000}}},
                    "body.definition.exposure.port: 70000 is more than 65535",
                ),
            )
            for change, message in cases:
                body = await client.register(Agent(), expect=400, **change)
                assert body["code"] == "DRTP-2009"
                assert message in body["message"], body
            for raw in (b"", b"{", b"[]", b"\xff", b"[" * 5000):
                status, body = await client.call("POST", "/v1alpha1/connections", raw=raw)
                assert (status, body["code"]) == (400, "DRTP-2009"), raw
            status, body = await client.call("GET", "/v1alpha1/nothing")
            assert (status, body["code"]) == (404, "DRTP-2009")
            status, _ = await client.call("POST", "/v1alpha1/connections", raw=io.BytesIO(b"x" * (3 * 1024 * 1024)))
            assert status == 413

    run(scenario())


def test_candidates_are_the_servers_that_take_agents(tmp_path):
    async def scenario():
        async with api(tmp_path, edges=("edge-a", "edge-b", "edge-c")) as client:
            await client.plane.kube.merge_patch(DRTP_SERVERS, "edge-b", {"spec": {"unschedulable": True}})
            await client.plane.settle()
            status, body = await client.call("GET", "/v1alpha1/servers", token=None)
            assert status == 200
            assert [s["name"] for s in body["servers"]] == ["edge-a", "edge-c"]
            assert body["servers"][0]["probe"] == {"address": "127.0.0.1", "port": 7000, "transport": "tcp"}

    run(scenario())


def test_the_schema_describes_what_is_enforced_and_the_pages_of_operations_answer(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            status, document = await client.call("GET", "/schema/openapi.json", token=None)
            assert status == 200
            request = document["components"]["schemas"]["RegisterRequest"]
            assert request["properties"]["instanceID"]["pattern"] == "^[0-9a-f]{32}$"
            assert request["additionalProperties"] is False
            assert set(request["required"]) == {"service", "publicKey", "instanceID", "epoch"}
            references = set(json.dumps(document).split('"#/components/schemas/')[1:])
            assert {r.split('"')[0] for r in references} <= set(document["components"]["schemas"])
            for path in ("/healthz", "/readyz"):
                assert (await client.call("GET", path, token=None))[0] == 200
            async with client.session.get(client.url + "/metrics") as answer:
                assert 'drtp_servers{online="true"} 2.0' in await answer.text()

    run(scenario())
