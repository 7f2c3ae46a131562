"""The real programs against an API server that knows exactly the rights of the rendered manifests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import aiohttp
import attrs
import pytest
import yaml

from drtp_api.dataplane.testing import make_certificate
from drtp_api.grants import b64url, generate_key, public_key_bytes
from drtp_api.kube import (
    CONFIG_MAPS,
    DRTP_SERVERS,
    ENDPOINT_SLICES,
    LEASES,
    NAMESPACES,
    SERVICES,
    AlreadyExists,
    Forbidden,
    NotFound,
)
from drtp_controller.apiserver import EmbeddedApiServer, Role, User, rbac

BIN = Path(sys.executable).parent
TOKENS = {
    "controller": User("system:serviceaccount:drtp-system:drtp-controller", Role.CONTROLLER),
    "edge": User("system:serviceaccount:drtp-system:drtp-edge", Role.EDGE),
    "user": User("alice", Role.USER),
}
PATIENCE = 60


def rules(rendered, account):
    """Return the embedded server's rules for what the rendered roles grant, and for nothing else."""
    found = []
    for binding in rendered.of("ClusterRoleBinding", "RoleBinding"):
        if binding["subjects"][0]["name"] != account:
            continue
        namespace = binding["metadata"].get("namespace")
        role = rendered.named(binding["roleRef"]["kind"], binding["roleRef"]["name"], namespace)
        for rule in role["rules"]:
            (group,) = rule["apiGroups"]
            places = frozenset({namespace}) if namespace else None
            names = frozenset(rule.get("resourceNames") or ()) or None
            found.append(rbac.Rule(frozenset(rule["verbs"]), group, frozenset(rule["resources"]), places, names))
    return tuple(found)


@attrs.define
class Cluster:
    """An API server and the programs that run against it."""

    server: EmbeddedApiServer
    directory: Path
    refused: list
    children: list = attrs.field(factory=list)

    @property
    def kube(self):
        return self.server.kube(User("operator", Role.ADMIN))

    def kubeconfig(self, account):
        path = self.directory / f"{account}.yaml"
        path.write_text(yaml.safe_dump(self.server.kubeconfig(account)))
        return str(path)

    async def start(self, program, *arguments):
        log = (self.directory / f"{len(self.children)}.log").open("wb")
        with log:
            child = await asyncio.create_subprocess_exec(BIN / program, *arguments, stdout=log, stderr=log)
        self.children.append(child)
        return child

    async def controller(self, address):
        port = free_port()
        child = await self.start(
            "drtp", "controller", "--kubeconfig", self.kubeconfig("controller"), "--gateway", "direct",
            "--listen", f"127.0.0.1:{port}", "--http-port", "0", "--state-dir", str(self.directory / str(port)),
            "--pod-ip", address, "--node-name", "node-7", "--leader-service", "drtp-registration",
        )  # fmt: skip
        return child, f"http://127.0.0.1:{port}"

    async def leader(self):
        found = await self.kube.get(ENDPOINT_SLICES, "drtp-registration-leader", "drtp-system")
        return found["endpoints"][0]["addresses"][0]

    async def until(self, ask):
        """Ask until the answer is true."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(NotFound, aiohttp.ClientError):
                    if await ask():
                        return
                assert all(c.returncode is None for c in self.children if not getattr(c, "told", False)), self.logs()
                await asyncio.sleep(0.05)

    def logs(self):
        return "\n".join(p.read_text() for p in sorted(self.directory.glob("*.log")))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@pytest.fixture
def run(base, tmp_path, monkeypatch):
    """Run a test's body with a cluster whose rights are the rendered ones."""
    strict = {Role.CONTROLLER: rules(base, "drtp-controller"), Role.EDGE: rules(base, "drtp-edge")}
    monkeypatch.setattr(rbac, "ROLE_RULES", rbac.ROLE_RULES | strict)
    refused, real = [], rbac.require

    def require(user, verb, group, resource, **where):
        try:
            real(user, verb, group, resource, **where)
        except Forbidden as error:
            refused.append(error.message)
            raise

    monkeypatch.setattr(rbac, "require", require)

    def start(body):
        async def main():
            async with EmbeddedApiServer(tmp_path / "api", tokens=TOKENS) as server:
                cluster = Cluster(server, tmp_path, refused)
                for name in ("default", "drtp-system"):
                    with contextlib.suppress(AlreadyExists):
                        await cluster.kube.create(NAMESPACES, {"metadata": {"name": name}})
                await cluster.kube.create(SERVICES, base.named("Service", "drtp-registration"))
                try:
                    await body(cluster)
                finally:
                    for child in cluster.children:
                        if child.returncode is None:
                            child.kill()
                        await child.wait()

        asyncio.run(main())

    return start


async def status_of(session, url):
    async with session.get(url) as answer:
        return answer.status


@pytest.mark.e2e
def test_the_rights_of_the_manifests_are_enough_and_the_acting_replica_is_where_services_lead(run, tmp_path):
    certificate = make_certificate(tmp_path)

    async def body(cluster):
        edge = await cluster.start(
            "drtp-edge", "--name", "node-7", "--kubeconfig", cluster.kubeconfig("edge"), "--drain", "1",
            "--tunnel-listen", "127.0.0.1:0", "--advertise", "192.0.2.7:30743",
            "--tls-cert", str(certificate.certificate_file), "--tls-key", str(certificate.key_file),
        )  # fmt: skip
        first, first_url = await cluster.controller("10.1.2.3")

        async def led_by_first():
            return await cluster.leader() == "10.1.2.3"

        await cluster.until(led_by_first)
        _, second_url = await cluster.controller("10.1.2.4")

        async with aiohttp.ClientSession() as session:

            async def standing_by():
                return await status_of(session, f"{second_url}/healthz") == 200

            await cluster.until(standing_by)
            assert await status_of(session, f"{second_url}/readyz") == 503
            assert await status_of(session, f"{first_url}/readyz") == 200
            found = await cluster.kube.get(ENDPOINT_SLICES, "drtp-registration-leader", "drtp-system")
            assert found["endpoints"][0]["nodeName"] == "node-7"
            assert found["ports"] == [{"name": "http", "port": 8090, "protocol": "TCP"}]

            async def server_ready():
                server = await cluster.kube.get(DRTP_SERVERS, "node-7")
                conditions = server.get("status", {}).get("conditions", [])
                return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

            await cluster.until(server_ready)
            await register(session, first_url)

            first.told = True
            first.terminate()
            assert await asyncio.wait_for(first.wait(), PATIENCE) == 0, cluster.logs()

            async def led_by_second():
                return await cluster.leader() == "10.1.2.4"

            await cluster.until(led_by_second)
            assert await status_of(session, f"{second_url}/readyz") == 200
        edge.told = True
        edge.terminate()
        assert await asyncio.wait_for(edge.wait(), PATIENCE) == 0, cluster.logs()
        assert cluster.refused == []
        await cluster.kube.get(LEASES, "node-7", "drtp-system")
        await cluster.kube.get(CONFIG_MAPS, "drtp-grant-keys", "drtp-system")

    run(body)


async def register(session, url):
    """Create a public service with a secret, and register an agent with that."""
    definition = {"application": {"protocol": "TCP", "port": 5432}, "exposure": {"enabled": True}}
    body = {"service": {"name": "pg"}, "definition": definition}
    bearer = {"Authorization": "Bearer user"}
    async with session.post(f"{url}/v1alpha1/services", json=body, headers=bearer) as answer:
        assert answer.status == 201, await answer.text()
        secret = (await answer.json())["secret"]
    agent = {
        "service": {"name": "pg"},
        "publicKey": b64url(public_key_bytes(generate_key())),
        "instanceID": "ab" * 16,
        "epoch": 1,
        "secret": secret,
    }
    async with session.post(f"{url}/v1alpha1/connections", json=agent) as answer:
        assert answer.status == 201, await answer.text()


@pytest.mark.e2e
def test_a_controller_without_a_right_says_which(run, monkeypatch):
    lacking = tuple(r for r in rbac.ROLE_RULES[Role.CONTROLLER] if "leases" not in r.resources)
    monkeypatch.setattr(rbac, "ROLE_RULES", rbac.ROLE_RULES | {Role.CONTROLLER: lacking})

    async def body(cluster):
        await cluster.controller("10.1.2.3")

        async def said():
            return "cannot get resource" in cluster.logs() and "leases" in cluster.logs()

        await cluster.until(said)

    run(body)
