"""What the controller counts, in Prometheus' text form."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from drtp_controller.planners.servers import is_online
from drtp_controller.reconcile.controller import Controller

__all__ = ["REFUSALS", "REGISTRATIONS", "render"]

REGISTRY = CollectorRegistry()
REGISTRATIONS = Counter("drtp_registrations_total", "Registrations that were admitted.", registry=REGISTRY)
REFUSALS = Counter("drtp_refusals_total", "Requests that were refused, by error code.", ["code"], registry=REGISTRY)
_RECONCILES = Gauge("drtp_reconciles", "Reconciles since the start.", registry=REGISTRY)
_WRITES = Gauge("drtp_api_writes", "Writes to the Kubernetes API since the start.", registry=REGISTRY)
_APPLIES = Gauge("drtp_gateway_applies", "Times the gateway was given a new state.", registry=REGISTRY)
_QUEUE = Gauge("drtp_queue_length", "Keys that wait for a reconcile.", registry=REGISTRY)
_SERVERS = Gauge("drtp_servers", "Tunnel servers, by whether their heartbeats arrive.", ["online"], registry=REGISTRY)
_OBJECTS = Gauge("drtp_objects", "Objects in the caches, by kind.", ["kind"], registry=REGISTRY)


def render(controller: Controller) -> tuple[bytes, str]:
    """Return the page and its content type."""
    caches = controller.caches
    online = sum(is_online(s) for s in caches.servers)
    _RECONCILES.set(controller.queue.runs)
    _WRITES.set(controller.applier.writes)
    _APPLIES.set(controller.runtime.applies)
    _QUEUE.set(len(controller.queue.state))
    _SERVERS.labels(online="true").set(online)
    _SERVERS.labels(online="false").set(len(caches.servers.objects) - online)
    for kind, cache in (("service", caches.services), ("connection", caches.connections)):
        _OBJECTS.labels(kind=kind).set(len(cache.objects))
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
