"""The commands that make secrets and end them: ``create``, ``rotate``, ``revoke``.

Rules:
- A secret is printed by the command that made it, on stdout, once; never in a command line to copy.
- With a secret comes everything that its holder needs on another machine: the service's name and detail, where to get
  the program, and the exact command.
What must not live here: serving.
"""

from __future__ import annotations

import os
import shlex
from typing import Any, Final

from datumctl_serve.options import make_location, make_output
from datumctl_serve.output import Output
from datumctl_serve.services import ask
from drtp_agent.discovery import Location
from drtp_agent.names import check_name
from drtp_agent.sdk import definition_of
from drtp_agent.target import Target, parse_detail, parse_target
from drtp_api.errors import DrtpError
from drtp_api.registration import CreateServiceRequest, RotateRequest, ServiceDefinition, ServiceName
from drtp_api.resources import Application, Exposure, Protocol, ServiceServers

__all__ = ["create", "revoke", "rotate"]

DATUMCTL: Final = "https://github.com/datum-cloud/datumctl/releases"
"""Where datumctl comes from."""
INSTALL: Final = "pip install datumctl-serve"
"""How to get the command ``serve``: datumctl finds it as a plugin, and it runs alone too."""


def create(values: dict[str, Any]) -> int:
    """Create a service and print its secret, once."""
    out = make_output(values)
    name = check_name(values["name"])
    definition, target = _definition(values)
    location = make_location(values)
    service = ServiceName(name=name, namespace=location.namespace)
    request = CreateServiceRequest(service=service, definition=definition)
    answer = ask(location, lambda control: control.create_service(request))
    known = definition.application if target is not None else None
    _hand_out(out, location, {"type": "service_created", "name": name, "secret": answer.secret}, known)
    return 0


def rotate(values: dict[str, Any]) -> int:
    """Issue a new secret and print it, once."""
    out = make_output(values)
    name = check_name(values["name"])
    request = RotateRequest(overlap_seconds=values["overlap"])
    location = make_location(values)
    answer = ask(location, lambda control: control.rotate(location.namespace, name, request))
    data = {
        "type": "secret_rotated",
        "name": name,
        "secret": answer.secret,
        "previousValidSeconds": answer.previous_valid_seconds,
    }
    application = answer.application
    known = application.port is not None and bool(application.hostname or application.ip)
    _hand_out(out, location, data, application if known else None)
    if answer.previous_valid_seconds:
        out.note(f"the secret before stays valid for {answer.previous_valid_seconds} s")
    return 0


def revoke(values: dict[str, Any]) -> int:
    """Revoke every secret of a service."""
    out = make_output(values)
    name = check_name(values["name"])
    location = make_location(values)
    answer = ask(location, lambda control: control.revoke_secret(location.namespace, name))
    ended = len(answer.connections)
    agents = f"{ended} agent{'' if ended == 1 else 's'} cut"
    text = f"the secrets of {name} are revoked; {agents}\nissue a new one with `datumctl-serve rotate {name}`"
    out.result({"type": "secret_revoked", "name": name, "connections": list(answer.connections)}, text)
    return 0


def _hand_out(out: Output, location: Location, data: dict[str, Any], application: Application | None) -> None:
    """Print a secret with what its holder needs; ``application`` is the local service, where it is known."""
    name = data["name"]
    words = ["datumctl", "serve"] if os.environ.get("DATUM_API_HOST") else ["datumctl-serve"]
    command = shlex.join([
        *words,
        *([] if application is not None else ["TARGET"]),
        "--service", name,
        "--secret-file", "-",
        *(["--api-url", location.url] if len(words) == 1 else []),
    ])  # fmt: skip
    detail = _detail(name, application) if application is not None else None
    data |= {"detail": detail, "command": command, "download": DATUMCTL, "install": INSTALL}
    shown = f"detail   {detail}\n" if detail is not None else ""
    out.result(
        data,
        f"service  {name}\n{shown}secret   {data['secret']}\n\n"
        f"The secret is shown this once. On the machine that can reach the local service:\n"
        f"  1. get datumctl from {DATUMCTL}\n     and its command serve: {INSTALL} (it runs without datumctl too)\n"
        f"  2. run\n     {command}\n     and enter the secret, or set DATUM_SERVE_SECRET instead of --secret-file",
    )


def _detail(name: str, application: Application) -> str:
    """Return the seed's ``$SERVICE_DETAIL``, as ``--detail`` reads it."""
    kind = application.protocol.value
    host = application.hostname or application.ip or "localhost"
    return "/".join([(application.name or name).replace("/", "-"), kind, host, str(application.port)])


def _definition(values: dict[str, Any]) -> tuple[ServiceDefinition, Target | None]:
    protocol = Protocol(values["protocol"].upper()) if values["protocol"] else None
    options = {key: values[key] for key in ("public", "port", "hostname", "allow", "servers")}
    if values["detail"]:
        if values["target"]:
            raise DrtpError("DRTP-1004", "both TARGET and --detail name the local service")
        detail = parse_detail(values["detail"])
        return definition_of(detail.target, application_name=detail.name, **options), detail.target
    if values["target"]:
        target = parse_target(values["target"], protocol)
        return definition_of(target, **options), target if target.path is None else None
    if protocol is Protocol.UDP:
        parse_target("udp://localhost:1")
    # No local service is named: the agent's TARGET will say it.
    standin = Target(protocol=protocol or Protocol.HTTP, host="localhost", port=1)
    checked = definition_of(standin, **options)
    exposure: Exposure = checked.exposure
    servers: ServiceServers = checked.servers
    application = Application(protocol=standin.protocol)
    return ServiceDefinition(
        application=application, exposure=exposure, edge_allowlist_cidrs=checked.edge_allowlist_cidrs, servers=servers
    ), None
