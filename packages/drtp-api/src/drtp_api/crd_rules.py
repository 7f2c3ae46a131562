"""What the types of our kinds cannot say: rules between fields and over time, in Kubernetes' CEL.

Rules:
- A rule stands beside nothing but its place: ``Class.wireField``, ``Class.wireField[]`` for each item of a list, or
  ``Class`` for the object as a whole.
- A message names the field by its whole path and says what to do; people read nothing else.
- Every string and list that a rule looks at is bounded, or a real API server refuses the definition for its cost.
- No extension functions: Kubernetes 1.28, the first that knows ``fieldPath``, must take these.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import attrs

__all__ = ["RULES", "Rule"]


@attrs.frozen(kw_only=True)
class Rule:
    """One entry of ``x-kubernetes-validations``.

    Attributes:
        rule: the CEL expression that holds for valid objects.
        message: what to say when it does not.
        field: the path of the field at fault below the rule's place, such as ``.port``.
    """

    rule: str
    message: str
    field: str = ""

    def to_schema(self) -> dict[str, Any]:
        """Return the entry as the CRD has it."""
        return {"rule": self.rule, "message": self.message} | ({"fieldPath": self.field} if self.field else {})


_HOST_OR_IP: Final = "^([0-9A-Za-z_]([-0-9A-Za-z_.]*[0-9A-Za-z_])?[.]?|[0-9A-Fa-f]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)$"

_IP: Final = "^([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)$"
"""What looks like an address; the schema's format has the last word."""

RULES: Final = MappingProxyType({
    "Endpoint.address": (Rule(
        rule=f"self.matches('{_HOST_OR_IP}')",
        message="spec.endpoints[].address must be an IP address or a host name, without scheme and port; put the "
                "port into spec.endpoints[].port",
    ),),
    "ServerIdentity.caBundle": (Rule(
        rule="self.contains('-----BEGIN CERTIFICATE-----')",
        message="spec.identity.caBundle must contain certificates in PEM; leave it out if the server's certificate "
                "is from a public authority",
    ),),
    "Application.protocol": (Rule(
        rule="self == oldSelf",
        message="spec.application.protocol cannot be changed, because the public address depends on it; create "
                "another DRTPService",
    ),),
    "Application.hostname": (Rule(
        rule=f"self.matches('{_HOST_OR_IP}')",
        message="spec.application.hostname must be a host name without scheme, port and path, such as "
                "db.corp.example; put the port into spec.application.port",
    ),),
    "Application.ip": (Rule(
        rule=f"self.matches('{_IP}')",
        message="spec.application.ip must be an IPv4 or IPv6 address, such as 192.0.2.7; a name belongs into "
                "spec.application.hostname",
    ),),
    "ServiceServers": (Rule(
        rule="!self.standby || self.replicas > 1", field=".standby",
        message="spec.servers.standby needs a second server to stand by; set spec.servers.replicas to 2 or 3, or "
                "standby to false",
    ),),
    "ServiceSpec": (
        Rule(
            rule="self.application.protocol != 'HTTP' || self.exposure.port == 0", field=".exposure.port",
            message="spec.exposure.port is for TCP and UDP services, HTTP services share the gateway's port and are "
                    "told apart by host name; remove it",
        ),
        Rule(
            rule="self.application.protocol == 'HTTP' || !has(self.exposure.hostnames) || "
                 "self.exposure.hostnames.size() == 0",
            field=".exposure.hostnames",
            message="spec.exposure.hostnames is for HTTP services, TCP and UDP services are told apart by port; "
                    "remove it, and use spec.exposure.port to ask for a port",
        ),
    ),
    "ConnectionSpec.serviceRef": (Rule(
        rule="self == oldSelf",
        message="spec.serviceRef cannot be changed; delete this DRTPConnection, its agent registers again",
    ),),
    "ClientInfo.instanceID": (Rule(
        rule="self == oldSelf",
        message="spec.client.instanceID cannot be changed; another agent gets another DRTPConnection",
    ),),
    "ConnectionSpec.servers": (Rule(
        rule="self.all(a, self.exists_one(b, b.name == a.name))",
        message="spec.servers names one DRTPServer twice; name another one, because two tunnels to one server end "
                "together",
    ),),
    "AccessControlListSpec.targetRefs[]": (Rule(
        rule="self.group == 'drtp.datumapis.com' && self.kind == 'DRTPService'",
        message="spec.targetRefs can only name objects of group drtp.datumapis.com and kind DRTPService; name the "
                "service whose visitors the list is for",
    ),),
})  # fmt: skip
"""The rules, by their place."""
