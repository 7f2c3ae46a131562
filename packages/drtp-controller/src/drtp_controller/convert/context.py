"""What the documents of one input know of each other, and the warnings collected on the way.

Rules:
- A warning names kind, object and field, says what was wrong and what became of it: one for each fix.
- Reading a part of the wrong shape is a `DrtpError` that names the field.
"""

from __future__ import annotations

from typing import Any

import attrs

from drtp_api.errors import DrtpError
from drtp_api.kube import Obj

ROLES = ("Primary", "Secondary", "Tertiary")


@attrs.frozen(kw_only=True)
class Options:
    """What the user says besides the text.

    Attributes:
        service: the DRTPService that the connection and the routes belong to; None: one is named after the port.
        route_version: the version of TCPRoute and UDPRoute that the cluster serves.
    """

    service: str | None = None
    route_version: str = "v1"


@attrs.frozen
class Listener:
    """A listener of a Gateway in the input."""

    name: str
    protocol: str


@attrs.define(kw_only=True)
class Context:
    """What is known of the whole input."""

    options: Options
    servers: list[str] = attrs.field(factory=list)
    """Names of the DRTPServers, as converted, in order."""
    connection: str = "drtp-connection"
    service: str = "drtp-service"
    addresses: dict[str, str] = attrs.field(factory=dict)
    """Pod address by role, from the connection's status."""
    slices: list[str] = attrs.field(factory=list)
    """Names of the EndpointSlices, as converted, in order."""
    listeners: dict[str, list[Listener]] = attrs.field(factory=dict)
    """Listeners by the name of their Gateway."""
    warnings: list[str] = attrs.field(factory=list)

    def server_of(self, role: str) -> str:
        """Return the server that a role without a reference gets: the input's, else a name to be replaced."""
        index = ROLES.index(role)
        return self.servers[index] if index < len(self.servers) else f"drtpserver-{role.lower()}"


@attrs.frozen
class Document:
    """One document being mended; `body` is changed in place."""

    body: Obj
    context: Context
    number: int

    @property
    def kind(self) -> str:
        """Its kind, as written."""
        return str(self.body.get("kind", ""))

    @property
    def title(self) -> str:
        """How messages call it."""
        metadata = self.body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return f"{self.kind} {name}" if isinstance(name, str) and name else f"{self.kind} (document {self.number})"

    def warn(self, text: str) -> None:
        """Note a fix."""
        self.context.warnings.append(f"{self.title}: {text}")

    def fail(self, text: str) -> DrtpError:
        """Return the error of a document that cannot be mended."""
        return DrtpError("DRTP-1011", f"{self.title}: {text}")

    def mapping(self, name: str) -> Obj:
        """Return a top-level object, made if it is absent. Raises `DrtpError`."""
        value = self.body.get(name)
        if value is None:
            value = self.body[name] = {}
        if not isinstance(value, dict):
            raise self.fail(f"{name} must be an object")
        return value

    def mappings(self, owner: Obj, field: str) -> list[Obj]:
        """Return the objects in a list; an absent list is empty. Raises `DrtpError`."""
        value = owner.get(field.rpartition(".")[2])
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.fail(f"{field} must be a list of objects")
        return value


def text_of(value: Any) -> str | None:
    """Return a text that says something, else None."""
    return value.strip() or None if isinstance(value, str) else None
