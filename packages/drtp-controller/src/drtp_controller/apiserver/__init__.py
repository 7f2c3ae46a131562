"""The embedded Kubernetes API server: the control plane of one machine, for our controllers and for kubectl.

What lives here: a store on SQLite, the API's rules as pure modules, one core (`Api`), and two thin ways in:
`EmbeddedApiServer` over HTTPS and `LocalKube` in-process. Rules: it behaves like kube-apiserver wherever both
can be asked; it is single-node on purpose. What must not enter: the meaning of our own kinds (planners know it).
"""

from __future__ import annotations

from drtp_controller.apiserver.core import Api
from drtp_controller.apiserver.local import LocalKube
from drtp_controller.apiserver.rbac import Role, User
from drtp_controller.apiserver.server import EmbeddedApiServer
from drtp_controller.apiserver.store import Store

__all__ = ["Api", "EmbeddedApiServer", "LocalKube", "Role", "Store", "User"]
