"""The plugin loader: finds, loads and contains plugins, and fills one registry per hook.

Rules:
- A plugin that fails to import or to register is named and left out; it never stops the host. A *configured*
  name that is then missing does stop it, with DRTP-6001 and the cause.
- pluggy runs once here; at run time only typed objects are called.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

import attrs
import pluggy

from drtp_api.acl import AclBackendFactory
from drtp_api.errors import DrtpError
from drtp_api.gateways import GatewayFactory
from drtp_api.hooks import GROUP, PROJECT, Hooks
from drtp_api.observe import ObservedEvent
from drtp_api.pickers import PickerFactory
from drtp_api.registry import Registry
from drtp_api.transports import TransportFactory

__all__ = ["PluginFailure", "PluginInfo", "Plugins", "load_plugins"]


@attrs.frozen
class PluginInfo:
    """A loaded plugin: its entry-point name, distribution and version, and the hooks it implements."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]


@attrs.frozen
class PluginFailure:
    """A plugin that was left out, and why."""

    name: str
    distribution: str
    version: str
    cause: str


@attrs.define
class Plugins:
    """Everything that plugins registered."""

    transports: Registry[TransportFactory]
    acl_backends: Registry[AclBackendFactory]
    pickers: Registry[PickerFactory]
    gateways: Registry[GatewayFactory]
    loaded: tuple[PluginInfo, ...]
    failures: tuple[PluginFailure, ...]
    observers: tuple[tuple[str, Callable[..., None]], ...] = ()
    observer_faults: dict[str, int] = attrs.field(factory=dict)

    def observe(self, event: ObservedEvent) -> None:
        """Show an event to every observer; one that raises is counted, not propagated."""
        for name, observer in self.observers:
            try:
                observer(event=event)
            except Exception:
                self.observer_faults[name] = self.observer_faults.get(name, 0) + 1


_REGISTER = {
    "drtp_register_transports": "transports",
    "drtp_register_acl_backends": "acl_backends",
    "drtp_register_pickers": "pickers",
    "drtp_register_gateways": "gateways",
}


def _disabled() -> frozenset[str]:
    return frozenset(filter(None, os.environ.get("DRTP_PLUGINS_DISABLE", "").split(",")))


def load_plugins(
    *,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    disable: Collection[str] | None = None,
    only: Collection[str] | None = None,
) -> Plugins:
    """Load the installed plugins and collect what they register.

    Args:
        entry_points: The candidates; those of group ``drtp.plugins.v1`` by default.
        disable: Entry-point names to leave out; ``DRTP_PLUGINS_DISABLE`` (comma-separated) by default.
        only: If given, load these entry points only: start-up pays for what it uses.

    Raises:
        DrtpError: DRTP-6002; two plugins register one name.
    """
    skip = _disabled() if disable is None else frozenset(disable)
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=GROUP)
    registries: dict[str, Registry[Any]] = {
        "transports": Registry("transport"),
        "acl_backends": Registry("ACL backend"),
        "pickers": Registry("picker"),
        "gateways": Registry("gateway"),
    }
    loaded: list[PluginInfo] = []
    failures: list[PluginFailure] = []
    observers: list[tuple[str, Callable[..., None]]] = []
    for entry_point in sorted(entry_points, key=lambda e: e.name):
        if entry_point.name in skip or (only is not None and entry_point.name not in only):
            continue
        dist = entry_point.dist
        origin = (dist.name, dist.version) if dist is not None else (entry_point.value, "unknown")
        before = {key: registry.snapshot() for key, registry in registries.items()}
        watchers = len(observers)
        try:
            hooks = _register(entry_point.load(), entry_point.name, " ".join(origin), registries, observers)
        except DrtpError:
            raise
        except (Exception, SystemExit) as error:  # some modules end the process where a dependency is missing
            for key, registry in registries.items():
                registry.restore(before[key])
            del observers[watchers:]
            failures.append(PluginFailure(entry_point.name, *origin, f"{type(error).__name__}: {error}"))
            continue
        loaded.append(PluginInfo(entry_point.name, *origin, hooks))
    for registry in registries.values():
        registry.left_out = tuple(f"{failure.name} ({failure.cause})" for failure in failures)
    return Plugins(
        transports=registries["transports"],
        acl_backends=registries["acl_backends"],
        pickers=registries["pickers"],
        gateways=registries["gateways"],
        loaded=tuple(loaded),
        failures=tuple(failures),
        observers=tuple(observers),
    )


def _register(
    plugin: object,
    name: str,
    origin: str,
    registries: dict[str, Registry[Any]],
    observers: list[tuple[str, Callable[..., None]]],
) -> tuple[str, ...]:
    """Let one plugin register; a manager of its own keeps a fault with the plugin that made it."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    manager.register(plugin, name=name)
    manager.check_pending()
    hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or ()))
    for hook in hooks:
        caller = getattr(manager.hook, hook)
        if (target := _REGISTER.get(hook)) is not None:
            registries[target].origin = origin
            caller(registry=registries[target])
        else:
            observers.append((name, caller))
    return hooks
