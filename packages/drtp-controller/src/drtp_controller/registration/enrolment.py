"""The life of a service's secrets: issued, rotated, revoked, and asked about.

Rules:
- Works for every DRTPService, whoever defined it: the command, or kubectl.
- Revoking ends what the secrets began: the connections of agents that enrolled with one are deleted, and their edges
  cut their tunnels. Agents of signed-in users go on.
- Callers hold the registration's lock of the service, so that no agent slips in between.
"""

from __future__ import annotations

from collections.abc import Callable

from drtp_api.errors import DrtpError
from drtp_api.kube import DRTP_CONNECTIONS, DRTP_SERVICES, SECRETS, AlreadyExists, Conflict, Kube, NotFound, Obj
from drtp_api.registration import SecretRevocation, ServiceName, ServiceSecret
from drtp_api.resources import API_VERSION, Service
from drtp_controller.planners.gateway import SERVICE_LABEL
from drtp_controller.reconcile.controller import Controller
from drtp_controller.registration.secrets import Book, Verdict, new_secret, read_book, secret_name

__all__ = ["BY_SECRET", "BY_USER", "ENROLLED_BY", "check", "issue", "revoke"]

ENROLLED_BY = "drtp.datumapis.com/enrolled-by"
"""The annotation of a connection that says how its agent proved itself last."""
BY_SECRET = "secret"  # noqa: S105 - the word in an annotation
BY_USER = "user"
_TRIES = 5


async def check(controller: Controller, service: ServiceName, secret: str) -> None:
    """Prove that the secret admits to the service now.

    Raises:
        DrtpError: DRTP-2005; what is said of a wrong secret is the same whether the service exists or not.
    """
    stored = await _stored(controller.kube, service.name, service.namespace)
    name = f"{service.namespace}/{service.name}"
    again = f"Ask its owner for a new one: `datumctl-serve rotate {service.name}`."
    match read_book(stored).judge(secret, controller.clock()):
        case Verdict.ACCEPTED:
            return
        case Verdict.EXPIRED:
            raise DrtpError("DRTP-2005", f"the secret for {name} was rotated, and its time is over", hint=again)
        case Verdict.REVOKED:
            raise DrtpError("DRTP-2005", f"the secret for {name} was revoked", hint=again)
        case Verdict.UNKNOWN:
            raise DrtpError("DRTP-2005", f"the secret is not accepted for {name}")


async def issue(controller: Controller, service: Service, *, overlap: float) -> ServiceSecret:
    """Give the service a new secret; the one before stays valid for ``overlap`` seconds.

    Raises:
        DrtpError: DRTP-2015; somebody else keeps changing it.
    """
    secret, now = new_secret(), controller.clock()
    before = await _replace(controller.kube, service, lambda book: book.rotated(secret, until=now + overlap))
    name, namespace = service.metadata.name, service.metadata.namespace or "default"
    reference = {"status": {"enrollmentSecretRef": {"name": secret_name(name)}}}
    await controller.kube.merge_patch(DRTP_SERVICES, name, reference, namespace, subresource="status")
    return ServiceSecret(
        service=ServiceName(name=name, namespace=namespace),
        secret=secret,
        previous_valid_seconds=int(overlap) if before.current else 0,
        application=service.spec.application,
    )


async def revoke(controller: Controller, service: Service) -> SecretRevocation:
    """Make every secret of the service invalid and end what they began. Idempotent.

    Raises:
        DrtpError: DRTP-2015; somebody else keeps changing it.
    """
    name, namespace = service.metadata.name, service.metadata.namespace or "default"
    await _replace(controller.kube, service, Book.emptied)
    page = await controller.kube.list(DRTP_CONNECTIONS, namespace, label_selector=f"{SERVICE_LABEL}={name}")
    ended = []
    for raw in page.items:
        metadata = raw["metadata"]
        if (metadata.get("annotations") or {}).get(ENROLLED_BY) != BY_SECRET:
            continue
        try:
            await controller.kube.delete(DRTP_CONNECTIONS, metadata["name"], namespace, uid=metadata["uid"])
        except NotFound:
            continue
        ended.append(metadata["name"])
    return SecretRevocation(service=ServiceName(name=name, namespace=namespace), connections=tuple(sorted(ended)))


async def _stored(kube: Kube, service: str, namespace: str) -> Obj | None:
    try:
        return await kube.get(SECRETS, secret_name(service), namespace)
    except NotFound:
        return None


async def _replace(kube: Kube, service: Service, change: Callable[[Book], Book]) -> Book:
    """Write the changed book and return the one before."""
    metadata = service.metadata
    namespace = metadata.namespace or "default"
    for _ in range(_TRIES):
        stored = await _stored(kube, metadata.name, namespace)
        owners = ((stored or {}).get("metadata") or {}).get("ownerReferences") or ()
        ours = any(o.get("uid") == metadata.uid for o in owners)
        # a Secret that an earlier service of this name has left behind opens nothing of this one
        before = read_book(stored) if ours else Book()
        body = _object(service, change(before))
        try:
            if stored is None:
                await kube.create(SECRETS, body, namespace)
            else:
                version = stored["metadata"].get("resourceVersion")
                await kube.update(SECRETS, body | {"metadata": body["metadata"] | {"resourceVersion": version}})
        except (AlreadyExists, Conflict, NotFound):
            continue
        return before
    raise DrtpError("DRTP-2015", f"the Secret {namespace}/{secret_name(metadata.name)} keeps changing")


def _object(service: Service, book: Book) -> Obj:
    """Return the Secret that holds the digests; it is deleted with the service."""
    metadata = service.metadata
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "drtp.datumapis.com/enrollment",
        "metadata": {
            "name": secret_name(metadata.name),
            "namespace": metadata.namespace,
            "ownerReferences": [
                {"apiVersion": API_VERSION, "kind": "DRTPService", "name": metadata.name, "uid": metadata.uid}
            ],
        },
        "data": book.to_data(),
    }
