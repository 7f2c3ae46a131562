"""Leads Services to the replica that acts: visitors and agents must not meet one that waits.

Rules:
- The Service has no selector; the replica that acts writes the one EndpointSlice, the next one writes over it.
- Ports are those of the Service, so they are said in one place.
What must not enter: the Services of users' DRTPServices (``planners.gateway``).
"""

from __future__ import annotations

import ipaddress
import logging

import attrs

from drtp_api.errors import DrtpError
from drtp_api.kube import ENDPOINT_SLICES, SERVICES, AlreadyExists, Kube, NotFound, Obj
from drtp_api.resources import SYSTEM_NAMESPACE
from drtp_controller.planners.gateway import MANAGED_BY

__all__ = ["Replica", "lead_services", "leader_slice"]

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Replica:
    """Where this process can be reached, and the Services in ``drtp-system`` that shall lead to it.

    ``node`` is needed where a Service keeps the visitors' addresses (``externalTrafficPolicy: Local``).
    """

    address: str = ""
    node: str = ""
    services: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Refuse Services that could not be led anywhere.

        Raises:
            DrtpError: DRTP-1007; the address is missing or is none.
        """
        if not self.services:
            return
        try:
            ipaddress.ip_address(self.address)
        except ValueError as error:
            raise DrtpError("DRTP-1007", f"--leader-service needs --pod-ip with an address: {error}") from error


def leader_slice(service: Obj, replica: Replica) -> Obj:
    """Return the EndpointSlice that leads a Service to this replica."""
    metadata = service["metadata"]
    name = metadata["name"]
    endpoint: Obj = {"addresses": [replica.address], "conditions": {"ready": True, "serving": True}}
    if replica.node:
        endpoint["nodeName"] = replica.node
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {
            "name": f"{name}-leader",
            "namespace": metadata["namespace"],
            "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": MANAGED_BY},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": metadata["uid"]}],
        },
        "addressType": f"IPv{ipaddress.ip_address(replica.address).version}",
        "ports": [
            {"name": port.get("name", ""), "port": port["targetPort"], "protocol": port.get("protocol", "TCP")}
            for port in service["spec"]["ports"]
        ],
        "endpoints": [endpoint],
    }


async def lead_services(kube: Kube, replica: Replica) -> None:
    """Write the EndpointSlices of all Services; one that does not exist is logged and left out."""
    for name in replica.services:
        try:
            service = await kube.get(SERVICES, name, SYSTEM_NAMESPACE)
        except NotFound:
            _log.warning("there is no Service %s/%s to lead here", SYSTEM_NAMESPACE, name)
            continue
        wanted = leader_slice(service, replica)
        slice_name = wanted["metadata"]["name"]
        try:
            await kube.merge_patch(ENDPOINT_SLICES, slice_name, wanted, SYSTEM_NAMESPACE)
        except NotFound:
            try:
                await kube.create(ENDPOINT_SLICES, wanted)
            except AlreadyExists:
                await kube.merge_patch(ENDPOINT_SLICES, slice_name, wanted, SYSTEM_NAMESPACE)
