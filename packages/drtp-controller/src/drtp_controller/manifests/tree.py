"""The documents as kustomize wants them: a base, and overlays of computed patches.

Rules:
- An overlay changes objects of the base and adds or removes none; a patch is a JSON Patch per object.
- Lists of equal length are compared by place, others are replaced whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from drtp_api.kube import Obj
from drtp_controller.manifests.documents import by_file, documents
from drtp_controller.manifests.settings import OVERLAYS, Install

__all__ = ["difference", "files", "kustomization", "text"]

_HEAD = "# Written by tools/gen_deploy.py: change drtp_controller/manifests, or make an overlay of your own.\n"


def files() -> dict[str, str]:
    """Return the contents of ``deploy/`` that is generated, by path."""
    base = by_file(Install())
    found = {f"base/{name}": _HEAD + text(content) for name, content in base.items()}
    found["base/kustomization.yaml"] = _HEAD + text([kustomization(resources=list(base))])
    for name, install in OVERLAYS.items():
        patches = list(_patches(documents(Install()), documents(install)))
        found[f"overlays/{name}/kustomization.yaml"] = _HEAD + text(
            [kustomization(resources=["../../base"], patches=patches)]
        )
    return found


def kustomization(**fields: Any) -> Obj:
    """Return a Kustomization."""
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **fields}


def text(found: list[Obj]) -> str:
    """Return documents as YAML."""
    return yaml.dump_all(found, Dumper=_Dumper, sort_keys=False, width=120)


def difference(old: Any, new: Any, path: str = "") -> Iterator[Obj]:
    """Yield the operations of a JSON Patch (RFC 6902) that make ``new`` of ``old``."""
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() - new.keys():
            yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
        for key, value in new.items():
            where = f"{path}/{_escaped(key)}"
            if key in old:
                yield from difference(old[key], value, where)
            else:
                yield {"op": "add", "path": where, "value": value}
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from difference(before, after, f"{path}/{index}")
    else:
        yield {"op": "replace", "path": path, "value": new}


def _patches(base: list[Obj], wanted: list[Obj]) -> Iterator[Obj]:
    for old, new in zip(base, wanted, strict=True):
        assert _identity(old) == _identity(new), "an overlay adds or removes an object"
        operations = list(difference(old, new))
        if operations:
            kind, name, namespace = _identity(old)
            target = {"kind": kind, "name": name} | ({"namespace": namespace} if namespace else {})
            yield {"target": target, "patch": _Block(text_of(operations))}


def text_of(operations: list[Obj]) -> str:
    """Return the operations of a patch as YAML."""
    return yaml.dump(operations, Dumper=_Dumper, sort_keys=False, width=120)


def _identity(obj: Obj) -> tuple[str, str, str]:
    metadata = obj["metadata"]
    return obj["kind"], metadata["name"], metadata.get("namespace", "")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


class _Block(str):
    """Text that is written as a block."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Blocks for patches, and no anchors: two equal values are still two."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _block(dumper: yaml.SafeDumper, value: _Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|")


_Dumper.add_representer(_Block, _block)
