"""The whole daemon against a real API server (the embedded one), with real grants, tunnels and visitors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import attrs
import httpx
import yaml

from drtp_api.dataplane.testing import make_certificate
from drtp_api.grants import Grant, GrantIssuer, generate_key, public_key_bytes, thumbprint
from drtp_api.kube import (
    CONFIG_MAPS,
    DRTP_ACCESS_CONTROL_LISTS,
    DRTP_CONNECTIONS,
    DRTP_SERVERS,
    DRTP_SERVICES,
    LEASES,
    NAMESPACES,
    AlreadyExists,
    HttpKube,
    KubeConfig,
)
from drtp_api.transports import DialTarget
from drtp_controller.apiserver import EmbeddedApiServer, Role, User
from drtp_edge.config import DaemonConfig, HostPort
from drtp_edge.daemon import Daemon
from drtp_edge.testing import LabAgent
from drtp_protocol import ErrorCode
from drtp_transport_tcp import TcpTransport

INSTANCE = bytes(range(16))
SERVICE, CONNECTION = "default/web", "default/web-0001020304"
TOKENS = {"admin": User("admin", Role.ADMIN), "edge": User("edge-1", Role.EDGE)}


@attrs.define
class World:
    """A control plane, one daemon, one agent's identity."""

    server: EmbeddedApiServer
    kube: HttpKube
    daemon: Daemon
    certificate: object
    lab: object
    directory: object
    report: dict = attrs.field(factory=dict)
    issuer: GrantIssuer = attrs.field(factory=lambda: GrantIssuer(generate_key()))
    key: object = attrs.field(factory=generate_key)
    agents: list = attrs.field(factory=list)
    engine: object = None
    task: asyncio.Task | None = None

    async def prepare(self):
        with contextlib.suppress(AlreadyExists):
            await self.kube.create(NAMESPACES, {"metadata": {"name": "drtp-system"}})
        await self.kube.create(
            CONFIG_MAPS,
            {"metadata": {"name": "drtp-grant-keys"}, "data": {"jwks.json": json.dumps(self.issuer.key_set())}},
            "drtp-system",
        )
        await self.create_service()
        await self.create_connection()

    async def create_service(self, **spec):
        await self.kube.create(
            DRTP_SERVICES,
            {
                "apiVersion": "drtp.datumapis.com/v1alpha1",
                "kind": "DRTPService",
                "metadata": {"name": "web"},
                "spec": {"application": {"protocol": "TCP"}, **spec},
            },
            "default",
        )

    async def create_connection(self):
        await self.kube.create(
            DRTP_CONNECTIONS,
            {
                "apiVersion": "drtp.datumapis.com/v1alpha1",
                "kind": "DRTPConnection",
                "metadata": {"name": "web-0001020304"},
                "spec": {
                    "serviceRef": {"name": "web"},
                    "client": {"instanceID": INSTANCE.hex(), "publicKey": "x"},
                    "servers": [{"role": "Primary", "name": "edge-1"}, {"role": "Secondary", "name": "edge-2"}],
                },
            },
            "default",
        )

    def grant(self, *, issued=0.0, lifetime=3600.0):
        now = int(time.time() + issued)
        return self.issuer.issue(
            Grant(
                connection=CONNECTION,
                server="edge-1",
                service=SERVICE,
                protocol="tcp",
                instance_id=INSTANCE.hex(),
                key_thumbprint=thumbprint(public_key_bytes(self.key)),
                issued_at=now,
                expires_at=int(now + lifetime),
                token_id=str(time.monotonic_ns()),
            )
        )

    async def run(self):
        ready = asyncio.Event()

        def on_ready(report):
            self.report = dict(report)
            ready.set()

        self.task = asyncio.ensure_future(self.daemon.run(on_ready))
        await asyncio.wait([self.task, asyncio.ensure_future(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()
        self.engine = self.daemon.edge.engine

    async def agent(self, *, epoch=1, grant=None, wait=True):
        where = HostPort.parse(self.report["tunnel"], option="")
        target = DialTarget(address=where.host, port=where.port, server_name="edge.test", ca_pem=self.certificate.pem)
        carrier = await TcpTransport().dial(self.engine, target, timeout=5)
        agent = LabAgent(
            self.engine, carrier, self.target, grant=(self.key, grant or self.grant()), instance=INSTANCE, epoch=epoch
        )
        self.agents.append(agent)
        if wait:
            await asyncio.wait_for(agent.established.wait(), 5)
        return agent

    @property
    def target(self):
        return ("127.0.0.1", self.echo.sockets[0].getsockname()[1])

    echo: object = None

    async def entry(self):
        found = await self.kube.get(DRTP_CONNECTIONS, "web-0001020304", "default")
        servers = found.get("status", {}).get("servers", [])
        return next((s for s in servers if s["name"] == "edge-1"), {})

    async def visit(self, data=b"x"):
        reader, writer = await asyncio.open_connection("127.0.0.1", (await self.entry())["podPort"])
        writer.write(self.lab.HEADER + data)
        assert await reader.readexactly(len(data)) == data
        return reader, writer

    async def until(self, check, seconds=5.0):
        async with asyncio.timeout(seconds):
            while not await check():
                await asyncio.sleep(0.02)

    async def page(self, path):
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://{self.report['admin']}{path}")


def world(scenario, lab, tmp_path, *, prepared=True, **options):
    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

    async def main():
        certificate = make_certificate(tmp_path)
        server = EmbeddedApiServer(tmp_path / "api", tokens=TOKENS, allow_loopback_endpoints=True)
        await server.start()
        kube = HttpKube(KubeConfig(server=server.url, token="admin"))
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(server.kubeconfig("edge")))
        config = DaemonConfig(
            name="edge-1",
            coordinates=("52.52", "13.405"),
            city="BER",
            transports={"tcp": HostPort("127.0.0.1", 0)},
            admin=HostPort("127.0.0.1", 0),
            kubeconfig=kubeconfig,
            tls_cert=certificate.certificate_file,
            tls_key=certificate.key_file,
            ca_bundle=certificate.certificate_file,
            spin_us=0,
            **options,
        )
        here = World(server, kube, Daemon(config, log=lab.Recorder()), certificate, lab, tmp_path)
        here.echo = await asyncio.start_server(echo, "127.0.0.1", 0)
        try:
            async with asyncio.timeout(40):
                if prepared:
                    await here.prepare()
                    await here.run()
                await scenario(here)
        finally:
            for agent in here.agents:
                agent.tunnel.abort()
            if here.task is not None:
                here.daemon.stop.set()
                here.daemon.stop_now.set()
                await asyncio.wait([here.task], timeout=10)
            here.echo.close()
            await kube.close()
            await server.stop()

    asyncio.run(main())


def test_an_edge_registers_itself_with_identity_heartbeat_and_status(lab, tmp_path):
    async def scenario(here):
        server = await here.kube.get(DRTP_SERVERS, "edge-1")
        assert server["spec"]["coordinates"] == {"latitude": "52.52", "longitude": "13.405"}
        assert server["metadata"]["labels"]["topology.datum.net/city-code"] == "BER"
        (endpoint,) = server["spec"]["endpoints"]
        assert f"{endpoint['address']}:{endpoint['port']}" == here.report["tunnel"]
        assert server["spec"]["identity"] == {"serverName": "edge.test", "caBundle": here.certificate.pem}
        assert server["status"]["podIP"] == "127.0.0.1"
        assert server["status"]["health"] == 100
        (ready,) = [c for c in server["status"]["conditions"] if c["type"] == "Ready"]
        assert (ready["status"], ready["reason"]) == ("True", "ServerReady")

        async def beats():
            with contextlib.suppress(Exception):
                lease = await here.kube.get(LEASES, "edge-1", "drtp-system")
                return lease["spec"]["leaseDurationSeconds"] == 30 and lease["spec"]["renewTime"]
            return False

        await here.until(beats)
        assert (await here.page("/ready")).status_code == 200
        assert (await here.page("/healthz")).text == "ok\n"
        assert "drtp_edge_tunnels 0.0" in (await here.page("/metrics")).text
        assert (await here.page("/nothing")).status_code == 404

    world(scenario, lab, tmp_path)


def test_the_tunnel_of_an_agent_is_written_into_its_connection_and_visitors_reach_it(lab, tmp_path):
    async def scenario(here):
        assert (await here.entry()).get("clientStatus", "Waiting") == "Waiting"
        agent = await here.agent()

        async def connected():
            entry = await here.entry()
            return entry.get("clientStatus") == "Connected" and entry.get("podPort") and "rttMilliseconds" in entry

        await here.until(connected)
        entry = await here.entry()
        assert (entry["role"], entry["podIP"], entry["transport"]) == ("Primary", "127.0.0.1", "tcp")
        _, writer = await here.visit()
        sessions = (await here.page("/sessions")).json()
        assert sessions["tunnels"][0]["connection"] == CONNECTION
        assert len(sessions["tunnels"][0]["streams"]) == 1
        writer.close()
        agent.tunnel.close()

        async def disconnected():
            entry = await here.entry()
            return entry.get("clientStatus") == "Disconnected" and "rttMilliseconds" not in entry

        await here.until(disconnected)
        assert (await here.entry())["podPort"] == entry["podPort"]

    world(scenario, lab, tmp_path)


def test_deleting_the_connection_revokes_the_tunnel_and_its_grant(lab, tmp_path):
    async def scenario(here):
        token = here.grant()
        agent = await here.agent(grant=token)
        await here.kube.delete(DRTP_CONNECTIONS, "web-0001020304", "default")
        await asyncio.wait_for(agent.closed.wait(), 5)
        assert agent.ended is ErrorCode.REVOKED
        again = await here.agent(grant=token, wait=False)
        await asyncio.wait_for(again.closed.wait(), 5)
        assert again.ended is ErrorCode.AUTH_FAILED
        assert "revoked" in here.daemon.log.named("agent_refused")[0]["reason"]

    world(scenario, lab, tmp_path)


def test_a_grant_is_renewed_within_the_tunnel_and_streams_go_on(lab, tmp_path, monkeypatch):
    from drtp_edge import policy

    monkeypatch.setattr(policy, "_SHORTEST_LEASE", 1.5)

    async def scenario(here):
        # A lease that is nearly over is asked for again after two thirds of what is left.
        agent = await here.agent(grant=here.grant(issued=-3599.0))
        await here.until(lambda: _has_port(here))
        reader, writer = await here.visit()
        agent.grant = (here.key, here.grant())
        async with asyncio.timeout(15):
            while not agent.renewals:
                await asyncio.sleep(0.05)
        writer.write(b"after")
        assert await reader.readexactly(5) == b"after"
        entry = next(iter(here.daemon.edge.roster.entries()))
        assert entry.admission.lease > 3000
        writer.close()

    world(scenario, lab, tmp_path)


async def _has_port(here):
    return bool((await here.entry()).get("podPort"))


def test_access_rules_from_the_control_plane_hold_at_once(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        await here.until(lambda: _has_port(here))
        _, writer = await here.visit()
        writer.close()
        await here.kube.create(
            DRTP_ACCESS_CONTROL_LISTS,
            {
                "apiVersion": "drtp.datumapis.com/v1alpha1",
                "kind": "DRTPAccessControlList",
                "metadata": {"name": "office"},
                "spec": {
                    "targetRefs": [{"kind": "DRTPService", "name": "web"}],
                    "rules": [{"name": "office", "action": "Allow", "clientCIDRs": ["198.51.100.0/24"]}],
                },
            },
            "default",
        )
        known = here.daemon.catalog.service
        async with asyncio.timeout(5):
            while not known(SERVICE).lists:
                await asyncio.sleep(0.01)
        port = (await here.entry())["podPort"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(lab.HEADER + b"x")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        record = here.daemon.log.named("access")[-1]
        assert record["outcome"] == "denied"
        assert "office" in record["rule"]

    world(scenario, lab, tmp_path)


def test_a_stop_drains_tells_the_control_plane_and_ends_with_zero(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        await here.until(lambda: _has_port(here))
        _, writer = await here.visit()
        here.daemon.stop.set()
        await asyncio.wait_for(agent.went_away.wait(), 5)
        assert agent.goaways[0].code is ErrorCode.DRAINING
        assert agent.goaways[0].alternates == ("edge-2",)

        async def marked():
            server = await here.kube.get(DRTP_SERVERS, "edge-1")
            (ready,) = [c for c in server["status"]["conditions"] if c["type"] == "Ready"]
            return server["spec"].get("unschedulable") is True and ready["reason"] == "Draining"

        await here.until(marked)
        assert (await here.page("/ready")).status_code == 503
        assert not here.task.done()
        writer.close()
        assert await asyncio.wait_for(here.task, 10) == 0
        assert (await here.entry())["clientStatus"] == "Disconnected"

    world(scenario, lab, tmp_path)


def test_a_restart_lifts_its_own_drain_and_keeps_an_operators(lab, tmp_path):
    from drtp_edge.objects import server_object

    async def scenario(here):
        facts = here.daemon.server_facts()
        drained = server_object(attrs.evolve(facts, draining=True), None)
        assert server_object(facts, drained)["spec"]["unschedulable"] is False
        cordoned = server_object(facts, None)
        cordoned["spec"]["unschedulable"] = True
        drained = server_object(attrs.evolve(facts, draining=True), cordoned)
        assert server_object(facts, drained)["spec"]["unschedulable"] is True

    world(scenario, lab, tmp_path)


def test_a_second_stop_does_not_wait_for_streams(lab, tmp_path):
    async def scenario(here):
        await here.agent()
        await here.until(lambda: _has_port(here))
        reader, writer = await here.visit()
        here.daemon.stop.set()
        await asyncio.sleep(0.2)
        here.daemon.stop_now.set()
        assert await asyncio.wait_for(here.task, 5) == 130
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    world(scenario, lab, tmp_path)


def test_without_the_api_everything_runs_on_and_what_happened_is_written_when_it_returns(lab, tmp_path):
    async def scenario(here):
        agent = await here.agent()
        await here.until(lambda: _has_port(here))
        port = (await here.entry())["podPort"]
        where = here.server.port
        await here.kube.close()
        await here.server.stop()

        async def visit():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(lab.HEADER + b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()

        await visit()
        # A restarted agent comes back with the grant it has.
        agent.tunnel.abort()
        second = await here.agent(epoch=2)
        async with asyncio.timeout(5):
            while here.daemon.edge.ports.port(SERVICE) != port:
                await asyncio.sleep(0.01)
        await visit()
        second.tunnel.close()
        await asyncio.wait_for(second.closed.wait(), 5)
        here.server = EmbeddedApiServer(tmp_path / "api", port=where, tokens=TOKENS)
        await here.server.start()
        here.kube = HttpKube(KubeConfig(server=here.server.url, token="admin"))

        async def caught_up():
            return (await here.entry()).get("clientStatus") == "Disconnected"

        await here.until(caught_up, 25)
        await here.kube.close()
        await here.server.stop()

    world(scenario, lab, tmp_path)


def test_no_agent_is_let_in_before_the_key_set_is_known(lab, tmp_path):
    async def scenario(here):
        ready = []
        here.task = asyncio.ensure_future(here.daemon.run(ready.append))
        await asyncio.sleep(0.3)
        assert not ready
        assert here.daemon.endpoints == []
        assert "drtp-grant-keys" in here.daemon.registration.trouble
        await here.prepare()
        async with asyncio.timeout(5):
            while not ready:
                await asyncio.sleep(0.02)
        here.report, here.engine = ready[0], here.daemon.edge.engine
        await here.agent()

    world(scenario, lab, tmp_path, prepared=False)
