"""The settings of ``drtp local`` and where each came from: flag, environment, file, default - in this order.

Rules:
- One table names every setting; flags, environment names and the file's keys follow from it.
- A value that cannot be read is DRTP-1007 and names the setting and its origin.
What must not enter: what the settings are used for.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from drtp_api.errors import DrtpError
from drtp_api.statedir import state_directory

__all__ = ["SETTINGS", "LocalSettings", "Resolved", "Setting", "parse_options", "parse_range", "resolve"]


def parse_range(text: object) -> tuple[int, int]:
    """Return the first and last port of ``FIRST-LAST``.

    Raises:
        ValueError: It is not such a range.
    """
    first, _, last = str(text).partition("-")
    low, high = _port(first), _port(last)
    if not 1 <= low <= high:
        raise ValueError(f"{text!r} is not a range such as 20000-29999")
    return low, high


def _port(text: object) -> int:
    number = int(str(text))
    if not 0 <= number <= 65535:
        raise ValueError(f"{number} is not a port")
    return number


def _ports(text: object) -> tuple[int, ...]:
    """Return a list of ports; 0 alone means any for everybody."""
    found = tuple(_port(part) for part in str(text).split(","))
    return () if found == (0,) else found


def _servers(text: object) -> int:
    number = int(str(text))
    if not 1 <= number <= 8:
        raise ValueError("from 1 to 8 servers")
    return number


def _word(text: object) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError("expected a word")
    return text


def parse_options(text: object) -> dict[str, Any]:
    """Return a plugin's options: a table of the file, or ``key=value,key=value`` with numbers and truth values read."""
    if isinstance(text, dict):
        return dict(text)
    pairs = [part.partition("=") for part in str(text).split(",") if part]
    if any(not key or not equals for key, equals, _ in pairs):
        raise ValueError(f"{text!r} is not of the form key=value,key=value")
    return {key: _plain(value) for key, _, value in pairs}


def _plain(text: str) -> str | int | float | bool:
    if text in {"true", "false"}:
        return text == "true"
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


@attrs.frozen
class Setting:
    """One setting: its name in the class below, how it is read, its default as text, and a line of help."""

    name: str
    parse: Callable[[object], Any]
    default: str
    help: str

    @property
    def flag(self) -> str:
        """The command-line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"DRTP_{self.name.upper()}"


SETTINGS = (
    Setting("servers", _servers, "2", "Number of tunnel servers (edges), each in a city of its own."),
    Setting("gateway", _word, "envoy", "The gateway plugin: envoy or direct."),
    Setting("gateway_options", parse_options, "", "Options of the gateway plugin: key=value,key=value."),
    Setting("picker", _word, "nearest", "The picker plugin that orders servers."),
    Setting("http_port", _port, "8880", "The gateway's HTTP port; 0 for any free one."),
    Setting("api_port", _port, "0", "The Kubernetes API's port; 0 for any free one."),
    Setting("registration_port", _port, "0", "The registration API's port; 0 for any free one."),
    Setting("edge_ports", _ports, "0", "Tunnel ports of the servers, comma-separated; 0 for any free ones."),
    Setting("port_range", parse_range, "20000-29999", "Public ports that are vended."),
    Setting("base_domain", _word, "prism.localhost", "The domain of vended host names."),
)


@attrs.frozen(kw_only=True)
class LocalSettings:
    """What ``drtp local`` runs with. Ports are numbers, 0 for any free one."""

    state_dir: Path
    servers: int
    gateway: str
    gateway_options: Mapping[str, Any]
    picker: str
    http_port: int
    api_port: int
    registration_port: int
    edge_ports: tuple[int, ...]
    port_range: tuple[int, int]
    base_domain: str


@attrs.frozen
class Resolved:
    """The settings, and for each name its text and where it came from."""

    settings: LocalSettings
    origins: Mapping[str, tuple[str, str]]


def resolve(
    flags: Mapping[str, str | None],
    *,
    state_dir: Path | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Resolved:
    """Return the settings.

    Args:
        flags: by setting's name, those given on the command line.
        state_dir: the directory given on the command line.
        config: the TOML file given on the command line; ``DRTP_CONFIG`` otherwise, and none is fine too.
        environ: the environment.

    Raises:
        DrtpError: DRTP-1007; a value cannot be read, or the file.
    """
    path = config or (Path(environ["DRTP_CONFIG"]) if environ.get("DRTP_CONFIG") else None)
    table = _table(path) if path is not None else {}
    unknown = sorted(set(table) - {s.name for s in SETTINGS})
    if unknown:
        raise DrtpError("DRTP-1007", f"{path}: [local] has no setting {', '.join(unknown)}")
    values: dict[str, Any] = {}
    origins: dict[str, tuple[str, str]] = {}
    for setting in SETTINGS:
        text, origin = _pick(setting, flags, environ, table, path)
        try:
            values[setting.name] = setting.parse(text)
        except ValueError as error:
            raise DrtpError("DRTP-1007", f"{setting.name} from {origin}: {error}") from error
        origins[setting.name] = (str(text), origin)
    where = state_directory(state_dir)
    from_env = "environment DRTP_STATE_DIR" if environ.get("DRTP_STATE_DIR") else "default"
    origins["state_dir"] = (str(where), "flag --state-dir" if state_dir is not None else from_env)
    return Resolved(LocalSettings(state_dir=where, **values), origins)


def _pick(
    setting: Setting,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    table: Mapping[str, Any],
    path: Path | None,
) -> tuple[object, str]:
    given = flags.get(setting.name)
    if given is not None:
        return given, f"flag {setting.flag}"
    if environ.get(setting.variable):
        return environ[setting.variable], f"environment {setting.variable}"
    if setting.name in table:
        return table[setting.name], f"file {path}"
    return setting.default, "default"


def _table(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DrtpError("DRTP-1007", f"cannot read {path}: {error}") from error
    table = document.get("local", {})
    if not isinstance(table, dict):
        raise DrtpError("DRTP-1007", f"{path}: [local] is not a table")
    return table
