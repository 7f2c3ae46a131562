"""The manifests as the real kubectl renders them."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from drtp_controller.manifests import OVERLAYS

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"base": "base", **{name: f"overlays/{name}" for name in OVERLAYS}}
FACTS = {"NODE_NAME": "node-7", "POD_IP": "10.1.2.3", "HOST_IP": "192.0.2.7"}


@functools.cache
def _rendered(target: str) -> str:
    kubectl = shutil.which("kubectl", path=str(ROOT / ".venv/bin")) or shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl")
    command = [kubectl, "kustomize", str(ROOT / "deploy" / TARGETS[target])]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


class Rendered:
    """The documents of one target."""

    def __init__(self, target):
        self.target = target
        self.documents = list(yaml.safe_load_all(_rendered(target)))

    def named(self, kind, name, namespace="drtp-system"):
        found = [
            d
            for d in self.documents
            if (d["kind"], d["metadata"]["name"]) == (kind, name)
            and d["metadata"].get("namespace") in {namespace, None}
        ]
        assert len(found) == 1, (kind, name, namespace, len(found))
        return found[0]

    def of(self, *kinds):
        return [d for d in self.documents if d["kind"] in kinds]

    def pods(self):
        return {d["metadata"]["name"]: d["spec"]["template"] for d in self.of("DaemonSet", "Deployment")}

    def container(self, component):
        (container,) = self.pods()[component]["spec"]["containers"]
        return container

    def command(self, component):
        """Return arguments and environment as the kubelet would make them."""
        container = self.container(component)
        facts = {"spec.nodeName": "NODE_NAME", "status.podIP": "POD_IP", "status.hostIP": "HOST_IP"}
        environment = {
            v["name"]: v["value"] if "value" in v else FACTS[facts[v["valueFrom"]["fieldRef"]["fieldPath"]]]
            for v in container["env"]
        }
        expand = functools.partial(re.sub, r"\$\((\w+)\)", lambda match: environment[match[1]])
        return [expand(a) for a in container["args"]], environment


@pytest.fixture(params=TARGETS)
def rendered(request) -> Rendered:
    return Rendered(request.param)


@pytest.fixture
def base() -> Rendered:
    return Rendered("base")
