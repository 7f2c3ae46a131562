"""The loader: faulty plugins are named and left out whole, configured ones that are missing stop us."""

from __future__ import annotations

import importlib.metadata
import sys
import types

import attrs
import pytest

from drtp_api.errors import DrtpError
from drtp_api.hooks import hookimpl
from drtp_api.observe import VisitorDenied
from drtp_api.plugins import load_plugins
from drtp_api.registry import Registry


@attrs.frozen(kw_only=True)
class Options:
    speed: int = 1


class Factory:
    config_type = Options

    def __call__(self, config):
        if config.speed < 0:
            raise RuntimeError("backwards")
        return ("made", config.speed)


@pytest.fixture
def install(monkeypatch):
    """Make entry points of modules made on the spot."""

    def make(name, hooks=None, *, broken=None):
        module = types.ModuleType(f"plugin_{name}")
        for hook, implementation in (hooks or {}).items():
            implementation.__name__ = hook
            setattr(module, hook, hookimpl(implementation))
        if broken is not None:
            module.__getattr__ = lambda _: (_ for _ in ()).throw(broken)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        value = module.__name__ if broken is None else f"{module.__name__}:anything"
        return importlib.metadata.EntryPoint(name, value, "drtp.plugins.v1")

    return make


def registers(name, factory=None):
    def hook(registry):
        registry.register(name, factory or Factory())

    return hook


def test_a_plugin_registers_and_makes(install):
    plugins = load_plugins(entry_points=[install("a", {"drtp_register_pickers": registers("near")})])
    assert [(info.name, info.hooks) for info in plugins.loaded] == [("a", ("drtp_register_pickers",))]
    assert plugins.pickers.create("near", {"speed": 7}) == ("made", 7)
    assert [entry.name for entry in plugins.pickers] == ["near"]


@pytest.mark.parametrize("broken", [ImportError("no module"), RuntimeError("x"), SystemExit("no dependency")])
def test_a_plugin_that_does_not_import_is_left_out_and_named_to_who_misses_it(install, broken):
    plugins = load_plugins(
        entry_points=[install("bad", broken=broken), install("good", {"drtp_register_pickers": registers("near")})]
    )
    assert [info.name for info in plugins.loaded] == ["good"]
    (failure,) = plugins.failures
    assert (failure.name, failure.cause) == ("bad", f"{type(broken).__name__}: {broken}")
    with pytest.raises(DrtpError, match=r"DRTP-6001 there is no gateway plugin 'bad'; installed: none; left out: bad"):
        plugins.gateways.create("bad")


def test_a_plugin_that_fails_half_way_is_left_out_whole(install):
    def fails(registry):
        registry.register("second", Factory())
        raise RuntimeError("half-way")

    plugins = load_plugins(
        entry_points=[
            install("bad", {"drtp_register_acl_backends": registers("first"), "drtp_register_pickers": fails})
        ]
    )
    assert [f.cause for f in plugins.failures] == ["RuntimeError: half-way"]
    assert list(plugins.acl_backends) == list(plugins.pickers) == []


@pytest.mark.parametrize("junk", [None, "name", Options, lambda config: config])
def test_junk_in_place_of_a_factory_is_refused(install, junk):
    def hook(registry):
        registry.register("x", junk)

    plugins = load_plugins(entry_points=[install("bad", {"drtp_register_pickers": hook})])
    assert "a factory is callable" in plugins.failures[0].cause


def test_a_hook_that_does_not_exist_is_a_failure(install):
    plugins = load_plugins(entry_points=[install("bad", {"drtp_register_clouds": lambda registry: None})])
    assert "drtp_register_clouds" in plugins.failures[0].cause


def test_two_plugins_of_one_name_stop_the_start(install):
    both = [install(name, {"drtp_register_pickers": registers("near")}) for name in "ab"]
    with pytest.raises(DrtpError, match="DRTP-6002"):
        load_plugins(entry_points=both)
    assert [info.name for info in load_plugins(entry_points=both, disable=["b"]).loaded] == ["a"]
    assert [info.name for info in load_plugins(entry_points=both, only=["b"]).loaded] == ["b"]


def test_plugins_are_disabled_by_the_environment(install, monkeypatch):
    monkeypatch.setenv("DRTP_PLUGINS_DISABLE", "a,,c")
    entry_points = [install(name, {"drtp_register_pickers": registers(name)}) for name in "abc"]
    assert [info.name for info in load_plugins(entry_points=entry_points).loaded] == ["b"]


def test_faulty_options_and_failing_factories_are_coded():
    registry = Registry("picker", "drtp-x 1.0")
    registry.register("near", Factory())
    with pytest.raises(DrtpError, match=r"DRTP-6004 picker 'near' \(drtp-x 1.0\): extra fields found \(colour\)"):
        registry.create("near", {"colour": "red"})
    with pytest.raises(DrtpError, match=r"DRTP-6004 .*expected int, got str"):
        registry.create("near", {"speed": "7"})
    with pytest.raises(DrtpError, match=r"DRTP-6003 .*RuntimeError: backwards"):
        registry.create("near", {"speed": -1})


def test_an_observer_that_raises_is_counted_and_the_others_see_the_event(install):
    seen = []

    def raises(event):
        raise RuntimeError(event)

    def sees(event):
        seen.append(event)

    plugins = load_plugins(
        entry_points=[install("bad", {"drtp_observe": raises}), install("good", {"drtp_observe": sees})]
    )
    event = VisitorDenied(service="default/web", source="192.0.2.1", rule="list/default")
    plugins.observe(event)
    plugins.observe(event)
    assert seen == [event, event]
    assert plugins.observer_faults == {"bad": 2}


def test_every_shipped_plugin_loads():
    plugins = load_plugins(disable=())
    assert plugins.failures == ()
    assert {entry.name for entry in plugins.gateways} >= {"envoy", "direct"}
    assert {entry.name for entry in plugins.acl_backends} >= {"cidr"}
    assert {entry.name for entry in plugins.pickers} >= {"nearest"}
    assert {entry.name for entry in plugins.transports} >= {"tcp"}
