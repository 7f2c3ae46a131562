"""The commands about services and about the agents of this machine.

Rules: one call to the control plane each, its answer printed.
What must not live here: serving, and secrets (``secrets.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from datumctl_serve.options import make_location, make_output
from drtp_agent.control import ControlPlane
from drtp_agent.discovery import Location
from drtp_agent.names import check_name
from drtp_agent.sdk import agent_directory, network_prefix
from drtp_agent.state import running_pid
from drtp_api.errors import DrtpError
from drtp_api.registration import PublishRequest, ServiceView
from drtp_api.wire import to_wire

__all__ = ["ask", "list_services", "publish", "status", "stop"]

T = TypeVar("T")

STOP_TIMEOUT: Final = 40.0
"""Seconds that ``stop`` waits: the agent's drain and a little."""


def publish(values: dict[str, Any], *, public: bool) -> int:
    """Open or close a service."""
    out = make_output(values)
    name = check_name(values["name"])
    location = make_location(values)
    change = _change(values) if public else None
    view = ask(location, lambda control: control.publish(location.namespace, name, public=public, change=change))
    where = view.url or ", ".join(f"{a.host}:{a.port}" for a in view.addresses)
    text = f"{name} is {'public' if public else 'private'}" + (f": {where}" if public and where else "")
    out.result({"type": "service", **_service(view)}, text)
    return 0


def list_services(values: dict[str, Any]) -> int:
    """Print the services of the project."""
    out = make_output(values)
    location = make_location(values)
    views = ask(location, lambda control: control.services(location.namespace))
    out.rows(
        ["NAME", "PROTOCOL", "ACCESS", "STATE", "ADDRESS"],
        [[v.name, v.protocol.value, "private" if v.private else "public", _state(v), _address(v)] for v in views],
        [{"type": "service", **_service(v)} for v in views],
    )
    return 0


def status(values: dict[str, Any]) -> int:
    """Print what this machine serves; with a name, that service only."""
    out = make_output(values)
    root = agent_directory()
    agents = {path.name: running_pid(path) for path in _names(root)}
    views: dict[str, ServiceView] = {}
    fault: DrtpError | None = None
    try:
        location = make_location(values)
        views = {v.name: v for v in ask(location, lambda control: control.services(location.namespace))}
    except DrtpError as error:
        fault = error
    wanted = [values["name"]] if values["name"] else sorted(n for n, pid in agents.items() if pid is not None)
    if values["name"] and values["name"] not in agents and values["name"] not in views:
        raise fault or DrtpError("DRTP-2006", f"there is no service {values['name']} here or at the control plane")
    rows, data = [], []
    for name in wanted:
        pid, view = agents.get(name), views.get(name)
        state = _state(view) if view is not None else "unknown"
        rows.append([name, str(pid or "-"), state, _address(view) if view is not None else "-"])
        service = _service(view) if view is not None else {"name": name}
        data.append({"type": "status", "pid": pid, "serving": pid is not None, "state": state, **service})
    out.rows(["NAME", "PROCESS", "STATE", "ADDRESS"], rows, data)
    if fault is not None:
        out.warn(f"{fault.code} {fault.message}")
    return 0


def stop(values: dict[str, Any]) -> int:
    """Stop an agent of this machine and wait for its end."""
    out = make_output(values)
    root = agent_directory()
    running = {path.name: pid for path in _names(root) if (pid := running_pid(path)) is not None}
    name = values["name"]
    if name is None:
        if len(running) != 1:
            names = ", ".join(sorted(running)) or "none"
            raise DrtpError("DRTP-1004", f"name the agent to stop; running: {names}")
        (name,) = running
    pid = running.get(name)
    if pid is None:
        raise DrtpError("DRTP-2006", f"nothing serves under the name {name} on this machine",
                        hint="See `datumctl-serve status`.")  # fmt: skip
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT
    while running_pid(root / name) == pid:
        if time.monotonic() > deadline:
            raise DrtpError("DRTP-1000", f"process {pid} still runs after {STOP_TIMEOUT:.0f} s")
        time.sleep(0.05)
    out.result({"type": "stopped", "name": name, "pid": pid}, f"stopped {name}")
    return 0


def ask(location: Location, call: Callable[[ControlPlane], Coroutine[Any, Any, T]]) -> T:
    """Make one call to the control plane."""

    async def ask() -> T:
        async with location.connect() as control:
            return await call(control)

    return asyncio.run(ask())


def _change(values: dict[str, Any]) -> PublishRequest:
    if values["allow"] and values["allow_all"]:
        raise DrtpError("DRTP-1004", "--allow names who may visit, and --allow-all says everyone")
    port = values["port"]
    if port is not None and not 0 <= port <= 65535:
        raise DrtpError("DRTP-1010", f"{port} is not a port")
    return PublishRequest(
        port=port,
        hostnames=tuple(h.lower() for h in values["hostname"]),
        edge_allowlist_cidrs=tuple(network_prefix(text) for text in values["allow"]),
        allow_all=values["allow_all"],
    )


def _names(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return []


def _service(view: ServiceView) -> dict[str, Any]:
    return {
        "private": view.private,
        "programmed": view.programmed,
        "ready": view.ready,
        "addresses": [],
        **to_wire(view),
    }


def _state(view: ServiceView) -> str:
    return "ready" if view.ready else "programmed" if view.programmed else "waiting"


def _address(view: ServiceView) -> str:
    return view.url or ", ".join(f"{a.host}:{a.port}" for a in view.addresses) or "-"
