"""Writing service definitions: what agents and commands bring becomes a DRTPService.

Rules:
- What the user asked for is refused at once when it cannot be had: a port, a host name.
- ``--public`` speaks for one run of an agent, ``publish`` for the service: a published service stays published when
  its agent comes back without ``--public``, until it is unpublished.
- Fields that a definition does not carry (maxAgents, aclRef) stay as they are.
"""

from __future__ import annotations

import attrs

from drtp_api.errors import DrtpError
from drtp_api.kube import DRTP_SERVICES, AlreadyExists, Conflict, NotFound, Obj
from drtp_api.registration import (
    CreateServiceRequest,
    CreateServiceResponse,
    PublishRequest,
    ServiceDefinition,
    ServiceName,
    ServiceView,
)
from drtp_api.resources import API_VERSION, Protocol, Service, ServiceSpec, service_key
from drtp_api.wire import from_wire, to_wire
from drtp_controller.planners.conditions import is_true
from drtp_controller.reconcile.controller import Controller
from drtp_controller.registration import enrolment

__all__ = ["create", "list_services", "publish", "read", "view", "write_definition"]

PUBLISHED = "drtp.datumapis.com/published"
_TRIES = 5


async def read(controller: Controller, name: ServiceName) -> Service:
    """Return the service as it is stored.

    Raises:
        DrtpError: DRTP-2006; there is none.
    """
    return from_wire(await _get(controller, name), Service)


async def write_definition(controller: Controller, name: ServiceName, definition: ServiceDefinition) -> Service:
    """Create or update the service to match the definition.

    Raises:
        DrtpError: DRTP-2009, DRTP-2011, DRTP-2012, DRTP-2013.
    """
    for _ in range(_TRIES):
        try:
            raw = await controller.kube.get(DRTP_SERVICES, name.name, name.namespace)
        except NotFound:
            raw = None
        before = from_wire(raw, Service) if raw is not None else None
        spec = _merged(definition, before)
        if before is not None and before.metadata.deletion_timestamp is not None:
            raise DrtpError("DRTP-2017", f"the service {name.name} is being deleted")
        _claim(controller, name, spec, before)
        if before is not None and before.spec == spec:
            return before
        try:
            return from_wire(await _store(controller, name, spec, raw), Service)
        except (AlreadyExists, Conflict):
            continue
    raise DrtpError("DRTP-2015", f"the service {name.name} keeps changing")


async def create(controller: Controller, request: CreateServiceRequest) -> CreateServiceResponse:
    """Create a service with a one-time secret.

    Raises:
        DrtpError: DRTP-2032 it exists; DRTP-2009, DRTP-2011, DRTP-2012, DRTP-2013.
    """
    name, spec = request.service, _merged(request.definition, None)
    try:
        await controller.kube.get(DRTP_SERVICES, name.name, name.namespace)
    except NotFound:
        pass
    else:
        raise DrtpError("DRTP-2032", f"the service {name.namespace}/{name.name} exists already")
    _claim(controller, name, spec, None)
    service = from_wire(await _store(controller, name, spec, None), Service)
    issued = await enrolment.issue(controller, service, overlap=0)
    return CreateServiceResponse(service=name, secret=issued.secret)


async def publish(
    controller: Controller, name: ServiceName, *, public: bool, change: PublishRequest | None = None
) -> ServiceView:
    """Open or close a service to the world, durably, with what is to change on the way.

    Raises:
        DrtpError: DRTP-2006, DRTP-2009, DRTP-2011, DRTP-2012, DRTP-2013.
    """
    wanted = change or PublishRequest()
    for _ in range(_TRIES):
        raw = await _get(controller, name)
        before = from_wire(raw, Service)
        spec = _changed(before.spec, wanted, public=public)
        _claim(controller, name, spec, before)
        metadata = raw["metadata"]
        annotations = {**(metadata.get("annotations") or {}), PUBLISHED: "true"}
        if not public:
            del annotations[PUBLISHED]
        body = {**raw, "metadata": {**metadata, "annotations": annotations}, "spec": to_wire(spec)}
        try:
            return view(from_wire(await controller.kube.update(DRTP_SERVICES, body), Service))
        except Conflict:
            continue
    raise DrtpError("DRTP-2015", f"the service {name.name} keeps changing")


async def list_services(controller: Controller, namespace: str) -> tuple[ServiceView, ...]:
    """Return every service of a namespace, by name."""
    page = await controller.kube.list(DRTP_SERVICES, namespace)
    found = [from_wire(raw, Service) for raw in page.items]
    return tuple(view(s) for s in sorted(found, key=lambda s: s.metadata.name))


def view(service: Service) -> ServiceView:
    """Return a service as commands show it."""
    status = service.status
    http = service.spec.application.protocol is Protocol.HTTP
    canonical = (status.canonical_hostname,) if http and status.canonical_hostname else ()
    return ServiceView(
        name=service.metadata.name,
        namespace=service.metadata.namespace or "default",
        protocol=service.spec.application.protocol,
        private=not service.spec.exposure.enabled,
        programmed=is_true(status.conditions, "Programmed"),
        ready=is_true(status.conditions, "Ready"),
        url=status.url,
        hostnames=(*service.spec.exposure.hostnames, *canonical),
        addresses=status.addresses,
    )


async def _get(controller: Controller, name: ServiceName) -> Obj:
    try:
        return await controller.kube.get(DRTP_SERVICES, name.name, name.namespace)
    except NotFound as error:
        raise DrtpError("DRTP-2006", f"there is no service {name.namespace}/{name.name}") from error


def _changed(spec: ServiceSpec, wanted: PublishRequest, *, public: bool) -> ServiceSpec:
    http = spec.application.protocol is Protocol.HTTP
    if http and wanted.port:
        raise DrtpError("DRTP-2009", "body.port: an HTTP service shares the gateway's port; ask for hostnames")
    if not http and wanted.hostnames:
        raise DrtpError("DRTP-2009", "body.hostnames: only an HTTP service has host names; ask for a port")
    old = spec.exposure
    exposure = attrs.evolve(
        old,
        enabled=public,
        port=old.port if wanted.port is None else wanted.port,
        hostnames=wanted.hostnames or old.hostnames,
    )
    if wanted.allow_all and wanted.edge_allowlist_cidrs:
        raise DrtpError("DRTP-2009", "body.allowAll: contradicts body.edgeAllowlistCIDRs")
    allowed = () if wanted.allow_all else wanted.edge_allowlist_cidrs or spec.edge_allowlist_cidrs
    return attrs.evolve(spec, exposure=exposure, edge_allowlist_cidrs=allowed)


def _merged(definition: ServiceDefinition, before: Service | None) -> ServiceSpec:
    spec = ServiceSpec(
        application=definition.application,
        exposure=definition.exposure,
        edge_allowlist_cidrs=definition.edge_allowlist_cidrs,
        servers=definition.servers,
    )
    if before is None:
        return spec
    published = before.metadata.annotations.get(PUBLISHED) == "true"
    exposure = attrs.evolve(spec.exposure, enabled=spec.exposure.enabled or published)
    return attrs.evolve(spec, exposure=exposure, acl_ref=before.spec.acl_ref, max_agents=before.spec.max_agents)


def _claim(controller: Controller, name: ServiceName, spec: ServiceSpec, before: Service | None) -> None:
    """Prove that the port and the names can be had, and take them, before anything is written.

    Whoever comes second with the same wish is refused; the reconciler finds what was taken here.
    """
    owner, protocol = service_key(name.namespace, name.name), spec.application.protocol
    if protocol is Protocol.HTTP:
        for hostname in spec.exposure.hostnames:
            controller.names.check(owner, hostname)
        for hostname in spec.exposure.hostnames:
            controller.names.claim(owner, hostname)
        return
    if not spec.exposure.enabled:
        return
    if before is not None and before.status.external_port is not None:
        controller.ports.observe(owner, protocol, before.status.external_port)
    controller.ports.allocate(owner, protocol, spec.exposure.port, controller.clock())


async def _store(controller: Controller, name: ServiceName, spec: ServiceSpec, raw: Obj | None) -> Obj:
    if raw is not None:
        return await controller.kube.update(DRTP_SERVICES, {**raw, "spec": to_wire(spec)})
    body = {
        "apiVersion": API_VERSION,
        "kind": "DRTPService",
        "metadata": {"name": name.name, "namespace": name.namespace},
        "spec": to_wire(spec),
    }
    return await controller.kube.create(DRTP_SERVICES, body, name.namespace)
