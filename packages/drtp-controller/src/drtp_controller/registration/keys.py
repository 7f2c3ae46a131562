"""What the control plane keeps for itself in ``drtp-system``: the grant key, its public half, the installation's id.

Rules:
- Made once, then read: two controllers that start together agree, because a name is created only once.
- The private key is in a Secret; edges read the public key set from a ConfigMap.
"""

from __future__ import annotations

import base64
import json
import secrets

from drtp_api.errors import DrtpError
from drtp_api.grants import GrantIssuer, generate_key, load_key, save_key
from drtp_api.kube import CONFIG_MAPS, NAMESPACES, SECRETS, AlreadyExists, Kube, NotFound, Obj, Resource
from drtp_api.resources import SYSTEM_NAMESPACE

__all__ = ["ensure_installation", "ensure_issuer", "ensure_namespaces"]

KEY_SECRET = "drtp-grant-signing-key"  # noqa: S105 - the name of an object
KEY_SET = "drtp-grant-keys"
INSTALLATION = "drtp-installation"


async def ensure_namespaces(kube: Kube) -> None:
    """Create the namespaces that DRTP uses where they are missing."""
    for name in ("default", SYSTEM_NAMESPACE):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await _get_or_create(kube, NAMESPACES, name, None, body)


async def ensure_installation(kube: Kube) -> str:
    """Return the installation's random id, from which host names are derived."""
    body = _object("ConfigMap", INSTALLATION, {"id": secrets.token_hex(16)})
    found = await _get_or_create(kube, CONFIG_MAPS, INSTALLATION, SYSTEM_NAMESPACE, body)
    return str(found["data"]["id"])


async def ensure_issuer(kube: Kube) -> GrantIssuer:
    """Return the issuer of grants; its public key is published for the edges.

    Raises:
        DrtpError: DRTP-1011; the stored key cannot be read.
    """
    pem = save_key(generate_key())
    body = _object("Secret", KEY_SECRET, {"key.pem": base64.b64encode(pem).decode()}) | {"type": "Opaque"}
    stored = await _get_or_create(kube, SECRETS, KEY_SECRET, SYSTEM_NAMESPACE, body)
    try:
        issuer = GrantIssuer(load_key(base64.b64decode(stored["data"]["key.pem"], validate=True)))
    except (KeyError, TypeError, ValueError) as error:
        raise DrtpError("DRTP-1011", f"the Secret {SYSTEM_NAMESPACE}/{KEY_SECRET} holds no key: {error}") from error
    data = {"jwks.json": json.dumps(issuer.key_set(), sort_keys=True)}
    published = await _get_or_create(kube, CONFIG_MAPS, KEY_SET, SYSTEM_NAMESPACE, _object("ConfigMap", KEY_SET, data))
    if published.get("data") != data:
        await kube.merge_patch(CONFIG_MAPS, KEY_SET, {"data": data}, SYSTEM_NAMESPACE)
    return issuer


def _object(kind: str, name: str, data: dict[str, str]) -> Obj:
    metadata = {"name": name, "namespace": SYSTEM_NAMESPACE}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "data": data}


async def _get_or_create(kube: Kube, resource: Resource, name: str, namespace: str | None, body: Obj) -> Obj:
    try:
        return await kube.get(resource, name, namespace)
    except NotFound:
        pass
    try:
        return await kube.create(resource, body, namespace)
    except AlreadyExists:
        return await kube.get(resource, name, namespace)
