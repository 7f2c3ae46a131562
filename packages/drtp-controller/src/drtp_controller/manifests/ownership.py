"""An edge writes its own DRTPServer and its own Lease: what a role cannot say, an admission policy does.

Rules:
- A pod's token names the pod's node, an edge is named like its node: nothing else is compared.
- A token that names no node, one made by hand say, writes nothing.
"""

from __future__ import annotations

from typing import Final

from drtp_api.kube import DRTP_GROUP, Obj
from drtp_controller.manifests.common import SYSTEM_NAMESPACE, make
from drtp_controller.rights import Component

__all__ = ["ownership_documents"]

_VERSION: Final = "admissionregistration.k8s.io/v1"
_NAME: Final = "drtp-edge-own-objects"
_CLAIM: Final = "authentication.kubernetes.io/node-name"
_ACCOUNT: Final = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{Component.EDGE}"


def ownership_documents() -> list[Obj]:
    """Return the policy and its binding."""
    policy = make(_VERSION, "ValidatingAdmissionPolicy", _NAME, namespace=None, spec=_policy())
    bound = {"policyName": _NAME, "validationActions": ["Deny"]}
    return [policy, make(_VERSION, "ValidatingAdmissionPolicyBinding", _NAME, namespace=None, spec=bound)]


def _policy() -> Obj:
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                _writes(DRTP_GROUP, "drtpservers", "drtpservers/status"),
                _writes("coordination.k8s.io", "leases"),
            ]
        },
        "matchConditions": [{"name": "is-an-edge", "expression": f"request.userInfo.username == '{_ACCOUNT}'"}],
        "validations": [
            {
                "expression": (
                    f"has(request.userInfo.extra) && '{_CLAIM}' in request.userInfo.extra && "
                    f"request.userInfo.extra['{_CLAIM}'] == [object.metadata.name]"
                ),
                "message": "an edge writes the DRTPServer and the Lease of its own node only",
                "reason": "Forbidden",
            }
        ],
    }


def _writes(group: str, *resources: str) -> Obj:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": list(resources),
    }
