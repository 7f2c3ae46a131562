"""Conformance of the rules of our own kinds; see test_conformance.py."""

from __future__ import annotations

import pytest

from drtp_api.kube import DRTP_ACCESS_CONTROL_LISTS, DRTP_CONNECTIONS, DRTP_SERVERS, DRTP_SERVICES, Invalid


def service(application=None, **spec):
    return {
        "metadata": {"name": "svc"},
        "spec": {"application": {"protocol": "TCP", "port": 5432} | (application or {}), **spec},
    }


def server(name, **spec):
    return {
        "metadata": {"name": name},
        "spec": {
            "instance": {"host": "worker-1", "id": "a"},
            "coordinates": {"latitude": "40.7128", "longitude": "-74.006"},
            **spec,
        },
    }


def connection(**spec):
    return {
        "metadata": {"name": "conn"},
        "spec": {
            "serviceRef": {"name": "svc"},
            "client": {"instanceID": "0" * 32, "publicKey": "k" * 43},
            "servers": [{"role": "Primary", "name": "a"}, {"role": "Secondary", "name": "b"}],
            **spec,
        },
    }


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (service({"protocol": "HTTP"}, exposure={"port": 5000}),
         "spec.exposure.port is for TCP and UDP services"),
        (service(exposure={"hostnames": ["db.example.com"]}), "spec.exposure.hostnames is for HTTP services"),
        (service({"protocol": "UDP"}, exposure={"hostnames": ["db.example.com"]}), "use spec.exposure.port to ask"),
        (service({"hostname": "tcp://db:5432"}), "spec.application.hostname must be a host name without scheme"),
        (service({"hostname": "db:5432"}), "put the port into spec.application.port"),
        (service({"ip": "db.example.com"}), "spec.application.ip must be an IPv4 or IPv6 address"),
        (service({"ip": "300.1.2.3"}), "spec.application.ip"),
        (service(servers={"replicas": 1, "standby": True}), "set spec.servers.replicas to 2 or 3"),
        (service(edgeAllowlistCIDRs=["203.0.113.7"]), r"spec.edgeAllowlistCIDRs\[0\]"),
        (service(edgeAllowlistCIDRs=["203.0.113.0/33"]), "must be of type cidr"),
        (service(edgeAllowlistCIDRs=["10.0.0.0/8", "10.0.0.0/8"]), r"spec.edgeAllowlistCIDRs\[1\]: Duplicate value"),
    ],
)  # fmt: skip
def test_a_faulty_service_is_refused_with_the_field_and_what_to_do(conform, obj, says):
    async def body(scene):
        with pytest.raises(Invalid, match=says):
            await scene.kube.create(DRTP_SERVICES, obj, scene.namespace)

    conform(body)


@pytest.mark.parametrize(
    "obj",
    [
        service({"hostname": "sqlserver.corp.com", "ip": "192.0.2.7"}, exposure={"port": 54321}),
        service({"hostname": "2001:db8::7"}),
        service({"hostname": "my_db"}),
        service({"ip": "2001:db8::7"}),
        service({"protocol": "HTTP", "port": 8080}, exposure={"enabled": True, "hostnames": ["a.example.com"]}),
        service(edgeAllowlistCIDRs=["203.0.113.0/24", "2001:db8::/32", "10.1.2.3/8"]),
        service(servers={"replicas": 3, "standby": True}),
    ],
)
def test_a_sound_service_is_taken(conform, obj):
    async def body(scene):
        made = await scene.kube.create(DRTP_SERVICES, obj, scene.namespace)
        assert made["metadata"]["generation"] == 1

    conform(body)


def test_the_protocol_of_a_service_is_fixed_and_everything_else_is_not(conform):
    async def body(scene):
        await scene.kube.create(DRTP_SERVICES, service(), scene.namespace)
        change = {"spec": {"application": {"protocol": "UDP"}}}
        with pytest.raises(Invalid, match=r"spec\.application\.protocol cannot be changed") as caught:
            await scene.kube.merge_patch(DRTP_SERVICES, "svc", change, scene.namespace)
        (cause,) = caught.value.details["causes"]
        assert cause["field"] == "spec.application.protocol"
        change = {"spec": {"application": {"port": 5433, "name": "PostgreSQL"}, "exposure": {"enabled": True}}}
        changed = await scene.kube.merge_patch(DRTP_SERVICES, "svc", change, scene.namespace)
        assert changed["spec"]["application"] == {"protocol": "TCP", "port": 5433, "name": "PostgreSQL"}

    conform(body)


def test_a_connection_keeps_its_service_and_its_agent(conform):
    async def body(scene):
        await scene.kube.create(DRTP_CONNECTIONS, connection(), scene.namespace)
        for change, says in (
            ({"serviceRef": {"name": "other"}}, "spec.serviceRef cannot be changed"),
            ({"client": {"instanceID": "1" * 32}}, "spec.client.instanceID cannot be changed"),
        ):
            with pytest.raises(Invalid, match=says):
                await scene.kube.merge_patch(DRTP_CONNECTIONS, "conn", {"spec": change}, scene.namespace)
        change = {
            "spec": {"client": {"publicKey": "n" * 43, "epoch": 7}, "servers": [{"role": "Primary", "name": "c"}]}
        }
        changed = await scene.kube.merge_patch(DRTP_CONNECTIONS, "conn", change, scene.namespace)
        assert changed["spec"]["servers"] == [{"role": "Primary", "name": "c"}]

    conform(body)


def test_a_connection_has_each_role_and_each_server_once(conform):
    async def body(scene):
        twice = [{"role": "Primary", "name": "a"}, {"role": "Primary", "name": "b"}]
        with pytest.raises(Invalid, match=r"spec.servers\[1\]: Duplicate value"):
            await scene.kube.create(DRTP_CONNECTIONS, connection(servers=twice), scene.namespace)
        same = [{"role": "Primary", "name": "a"}, {"role": "Secondary", "name": "a"}]
        with pytest.raises(Invalid, match=r"spec\.servers names one DRTPServer twice; name another one"):
            await scene.kube.create(DRTP_CONNECTIONS, connection(servers=same), scene.namespace)

    conform(body)


def test_an_access_list_targets_services_only(conform):
    async def body(scene):
        def access_list(**target):
            return {"metadata": {"name": "acl"}, "spec": {"targetRefs": [{"name": "svc", **target}]}}

        for target in ({"kind": "Gateway"}, {"kind": "DRTPService", "group": "example.com"}):
            with pytest.raises(Invalid, match=r"spec\.targetRefs can only name objects of group drtp.datumapis.com"):
                await scene.kube.create(DRTP_ACCESS_CONTROL_LISTS, access_list(**target), scene.namespace)
        await scene.kube.create(DRTP_ACCESS_CONTROL_LISTS, access_list(kind="DRTPService"), scene.namespace)

    conform(body)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"endpoints": [{"address": "https://a.example", "port": 443}]}, "spec.endpoints.* without scheme and port"),
        ({"endpoints": [{"address": "a.example:443", "port": 443}]}, "must be an IP address or a host name"),
        ({"identity": {"serverName": "a.example", "caBundle": "secret"}}, "spec.identity.caBundle must contain"),
        ({"coordinates": {"latitude": "91", "longitude": "0"}}, "spec.coordinates.latitude"),
    ],
)
def test_a_faulty_server_is_refused_with_the_field(conform, spec, says):
    async def body(scene):
        with pytest.raises(Invalid, match=says):
            await scene.kube.create(DRTP_SERVERS, server(f"s-{scene.namespace}", **spec))

    conform(body)
