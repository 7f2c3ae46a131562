"""What users get wrong, and what they are told: a condition or a coded error, with what to do next."""

from __future__ import annotations

import asyncio
import time

from drtp_api.errors import CATALOGUE
from drtp_api.kube import DRTP_ACCESS_CONTROL_LISTS, DRTP_CONNECTIONS, DRTP_SERVICES, NAMESPACES
from drtp_api.resources import LocalReference, Protocol
from drtp_api.wire import object_to_wire
from drtp_controller.apiserver import Role, User
from drtp_controller.planners.conditions import condition, fault_of
from drtp_controller.testing import control_plane, make_connection, make_service

from .conftest import Agent, api, run, tcp


def wire(thing):
    obj = object_to_wire(thing)
    for name in ("uid", "generation"):
        obj["metadata"].pop(name, None)
    return obj


async def told(plane, resource, name, kind):
    """The condition of an object; what it says of a fault has a code and that code's next step."""
    obj = await plane.kube.get(resource, name, "default")
    found = next(c for c in obj["status"]["conditions"] if c["type"] == kind)
    code = found["message"].split()[0]
    assert found["message"].endswith(CATALOGUE[code].hint), found
    return found["status"], found["reason"], code


def test_a_fault_in_a_condition_says_what_to_do_and_is_read_back_without_it():
    said = condition("Accepted", False, "PortTaken", "DRTP-2011 TCP port 1 is taken")
    assert said.message == f"DRTP-2011 TCP port 1 is taken. {CATALOGUE['DRTP-2011'].hint}"
    fault = fault_of([said])
    assert (fault.code, fault.message) == ("DRTP-2011", "TCP port 1 is taken")
    assert condition("Accepted", False, "PortTaken", said.message) == said
    assert condition("Ready", False, "AgentOffline", "no tunnel is up").message == "no tunnel is up"


def test_a_connection_to_a_service_that_does_not_exist_says_so_until_it_does(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            await plane.edge("edge-a", "NYC")
            connection = make_connection("absent")
            await plane.kube.create(DRTP_CONNECTIONS, wire(connection), "default")
            await plane.settle()
            name = connection.metadata.name
            expected = ("False", "ServiceNotFound", "DRTP-2006")
            assert await told(plane, DRTP_CONNECTIONS, name, "Accepted") == expected
            await plane.kube.create(DRTP_SERVICES, wire(make_service("absent")), "default")
            await plane.settle()
            obj = await plane.kube.get(DRTP_CONNECTIONS, name, "default")
            assert next(c for c in obj["status"]["conditions"] if c["type"] == "Accepted")["status"] == "True"

    asyncio.run(scenario())


def test_of_two_services_that_ask_for_one_port_or_host_the_second_is_told_and_heals_when_the_first_lets_go(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            pairs = [
                ("PortTaken", "DRTP-2011", {"protocol": Protocol.TCP, "port": 6000}),
                ("HostnameTaken", "DRTP-2013", {"hostnames": ("shop.test",)}),
            ]
            for reason, code, wish in pairs:
                first, second = f"first-{code[-4:]}", f"second-{code[-4:]}"
                for name in (first, second):
                    await plane.kube.create(DRTP_SERVICES, wire(make_service(name, **wish)), "default")
                    await plane.settle()
                assert await told(plane, DRTP_SERVICES, second, "Accepted") == ("False", reason, code)
                obj = await plane.kube.get(DRTP_SERVICES, second, "default")
                assert f"default/{first}" in obj["status"]["conditions"][0]["message"]
                obj = await plane.kube.get(DRTP_SERVICES, first, "default")
                assert obj["status"]["conditions"][0]["status"] == "True"

    asyncio.run(scenario())


def test_a_service_that_names_a_list_that_does_not_exist_is_told_who_is_let_in_until_it_does(tmp_path):
    async def scenario():
        async with control_plane(tmp_path) as plane:
            service = make_service(acl_ref=LocalReference(name="staff"))
            await plane.kube.create(DRTP_SERVICES, wire(service), "default")
            await plane.settle()
            expected = ("False", "AccessControlListNotFound", "DRTP-2031")
            assert await told(plane, DRTP_SERVICES, "web", "Accepted") == expected
            obj = await plane.kube.get(DRTP_SERVICES, "web", "default")
            assert "staff" in obj["status"]["conditions"][0]["message"]
            body = {
                "apiVersion": "drtp.datumapis.com/v1alpha1",
                "kind": "DRTPAccessControlList",
                "metadata": {"name": "staff"},
                "spec": {"rules": [{"name": "all", "action": "Allow", "clientCIDRs": ["10.0.0.0/8"]}]},
            }
            await plane.server.kube(User("admin", Role.ADMIN)).create(DRTP_ACCESS_CONTROL_LISTS, body, "default")
            await plane.settle()
            obj = await plane.kube.get(DRTP_SERVICES, "web", "default")
            assert obj["status"]["conditions"][0]["status"] == "True"

    asyncio.run(scenario())


async def db(client, namespace="default"):
    body = {"service": {"name": "db", "namespace": namespace}, "definition": tcp()}
    status, created = await client.call("POST", "/v1alpha1/services", body)
    assert status == 201, created
    return created["secret"]


async def refusal(client, secret, namespace="default"):
    service = {"name": "db", "namespace": namespace}
    body = await client.register(
        Agent(service="db"), token=None, secret=secret, definition=None, expect=401, service=service
    )
    assert body["hint"]
    return body["code"], body["message"]


def test_two_secrets_are_valid_while_one_replaces_the_other_and_then_one(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            now = time.time()
            client.plane.controller.clock = lambda: now
            first = await db(client)
            status, answer = await client.call("POST", "/v1alpha1/services/db/secret", {"overlapSeconds": 100})
            assert (status, answer["previousValidSeconds"]) == (201, 100)
            for epoch, secret in enumerate((first, answer["secret"])):
                agent = Agent(service="db", epoch=epoch)
                await client.register(agent, token=None, secret=secret, definition=None)
            now += 101
            code, message = await refusal(client, first)
            assert (code, "was rotated" in message) == ("DRTP-2005", True)
            await client.register(Agent(service="db", epoch=9), token=None, secret=answer["secret"], definition=None)
            # of three, the newest two
            for _ in range(2):
                status, answer = await client.call("POST", "/v1alpha1/services/db/secret")
                assert (status, answer["previousValidSeconds"]) == (201, 3600)
            assert (await refusal(client, first))[0] == "DRTP-2005"

    run(scenario())


def test_revoking_ends_what_the_secret_began_and_leaves_what_a_user_began(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            secret = await db(client)
            await client.plane.kube.merge_patch(DRTP_SERVICES, "db", {"spec": {"maxAgents": 3}}, "default")
            await client.plane.settle()
            mine = await client.register(Agent("b", service="db"), definition=None)
            theirs = await client.register(Agent("c", service="db"), token=None, secret=secret, definition=None)
            status, answer = await client.call("DELETE", "/v1alpha1/services/db/secret")
            assert (status, answer["connections"]) == (200, [theirs["connection"]["name"]])
            left = (await client.plane.kube.list(DRTP_CONNECTIONS, "default")).items
            assert [o["metadata"]["name"] for o in left] == [mine["connection"]["name"]]
            code, message = await refusal(client, secret)
            assert (code, "was revoked" in message) == ("DRTP-2005", True)
            again = await client.call("DELETE", "/v1alpha1/services/db/secret")
            assert again == (200, {"service": {"name": "db", "namespace": "default"}})
            for method in ("POST", "DELETE"):
                status, body = await client.call(method, "/v1alpha1/services/nix/secret")
                assert (status, body["code"]) == (404, "DRTP-2006")
                status, body = await client.call(method, "/v1alpha1/services/db/secret", token=None)
                assert (status, body["code"]) == (401, "DRTP-2003")

    run(scenario())


def test_a_secret_of_one_namespace_opens_nothing_in_another(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
            await client.plane.kube.create(NAMESPACES, body)
            here, there = await db(client), await db(client, "other")
            assert (await refusal(client, there))[0] == "DRTP-2005"
            assert (await refusal(client, here, "other"))[0] == "DRTP-2005"
            agent = Agent(service="db")
            answer = await client.register(agent, token=None, secret=here, definition=None)
            name, grant = answer["connection"]["name"], answer["servers"][0]["grant"]
            path = f"/v1alpha1/connections/{name}"
            assert (await client.call("GET", path, token=grant))[0] == 200
            status, body = await client.call("GET", f"{path}?namespace=other", token=grant)
            assert (status, body["code"]) == (401, "DRTP-2003")
            # the agent's key signs the namespace, too: a renewal cannot be carried over to a connection of that name
            service = {"name": "db", "namespace": "other"}
            await client.register(agent, token=None, secret=there, definition=None, service=service)
            renewal = agent.renewal(name, int(time.time()))
            status, body = await client.call("POST", f"{path}/grants?namespace=other", renewal, token=None)
            assert (status, body["code"]) == (401, "DRTP-2016")

    run(scenario())


def test_a_machine_whose_clock_is_wrong_is_told_the_time_and_what_to_do(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            agent = Agent()
            name = (await client.register(agent))["connection"]["name"]
            for wrong in (-3600, 3600):
                request = agent.renewal(name, int(time.time()) + wrong)
                status, body = await client.call("POST", f"/v1alpha1/connections/{name}/grants", request, token=None)
                assert (status, body["code"]) == (400, "DRTP-2004")
                assert str(int(time.time()))[:7] in body["message"]
                assert "clock" in body["hint"]

    run(scenario())


def test_publishing_refuses_what_contradicts_itself_and_changes_nothing(tmp_path):
    async def scenario():
        async with api(tmp_path) as client:
            await client.register(Agent())
            await client.register(Agent("b", service="pg"), definition=tcp())
            for name, change, field in (
                ("web", {"port": 6000}, "body.port"),
                ("pg", {"hostnames": ["a.test"]}, "body.hostnames"),
                ("pg", {"allowAll": True, "edgeAllowlistCIDRs": ["10.0.0.0/8"]}, "body.allowAll"),
                ("pg", {"edgeAllowlistCIDRs": ["ten"]}, "body.edgeAllowlistCIDRs[0]"),
                ("pg", {"prot": 1}, "unknown field"),
            ):
                before = await client.plane.kube.get(DRTP_SERVICES, name, "default")
                status, body = await client.call("POST", f"/v1alpha1/services/{name}/publish", change)
                assert (status, body["code"], field in body["message"]) == (400, "DRTP-2009", True), body
                after = await client.plane.kube.get(DRTP_SERVICES, name, "default")
                assert after["spec"] == before["spec"]
            change = {"port": 6001, "edgeAllowlistCIDRs": ["10.0.0.0/8"]}
            await client.call("POST", "/v1alpha1/services/pg/publish", change)
            await client.call("POST", "/v1alpha1/services/pg/publish")
            spec = (await client.plane.kube.get(DRTP_SERVICES, "pg", "default"))["spec"]
            assert (spec["exposure"]["port"], spec["edgeAllowlistCIDRs"]) == (6001, ["10.0.0.0/8"])
            await client.call("POST", "/v1alpha1/services/pg/publish", {"allowAll": True})
            assert "edgeAllowlistCIDRs" not in (await client.plane.kube.get(DRTP_SERVICES, "pg", "default"))["spec"]

    run(scenario())
