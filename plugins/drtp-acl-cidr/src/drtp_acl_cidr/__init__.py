"""DRTP access control by client network (CIDR).

Rules:
- ``networks`` finds, ``backend`` decides; neither does any I/O.
"""

from __future__ import annotations

from drtp_acl_cidr.backend import CidrFactory
from drtp_api.acl import AclBackendFactory
from drtp_api.hooks import hookimpl
from drtp_api.registry import Registry

__all__ = ["drtp_register_acl_backends"]


@hookimpl
def drtp_register_acl_backends(registry: Registry[AclBackendFactory]) -> None:
    """Register the ACL backend ``cidr``."""
    registry.register("cidr", CidrFactory())
