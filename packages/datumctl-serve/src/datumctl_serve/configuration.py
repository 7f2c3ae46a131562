"""The configuration file, and where each value comes from.

Rules: flag before environment before file before default; unknown keys of the file are errors, so a typing mistake
cannot pass as a setting. A secret is shown as set or unset, never as itself.
What must not live here: the options themselves.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import click

from drtp_api.errors import DrtpError

__all__ = ["config_file", "file_defaults", "show"]

_FORBIDDEN = frozenset({"secret", "target"})
"""What may not stand in the file: a secret belongs in a file of its own, a target on the command line."""


def config_file() -> Path:
    """Return the configuration file's path; it need not exist."""
    if explicit := os.environ.get("DATUM_SERVE_CONFIG"):
        return Path(explicit)
    import platformdirs

    return Path(platformdirs.user_config_dir("drtp", appauthor=False)) / "serve.toml"


def file_defaults() -> dict[str, Any]:
    """Return the values of the configuration file by option name.

    Raises:
        DrtpError: DRTP-1007; it cannot be read, or holds what is no option.
    """
    from datumctl_serve.cli import serve_command

    path = config_file()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DrtpError("DRTP-1007", f"cannot read {path}: {error}") from error
    known = {p.name for p in serve_command.params} - _FORBIDDEN
    values = {key.replace("-", "_"): value for key, value in data.items()}
    values = {("organization" if key == "org" else key): value for key, value in values.items()}
    for key in values:
        if key not in known:
            raise DrtpError("DRTP-1007", f"{path}: {key!r} is not an option that may stand there")
    return values


def show(arguments: list[str], values: dict[str, Any], *, origin: bool) -> int:
    """Print every option's value, and where it comes from."""
    from datumctl_serve.cli import SETTINGS, serve_command
    from datumctl_serve.options import make_output
    from drtp_api.statedir import state_directory

    out = make_output(values)
    path = config_file()
    context = serve_command.make_context("datumctl-serve", list(arguments), default_map=file_defaults(), **SETTINGS)
    names = {
        click.core.ParameterSource.COMMANDLINE: "flag",
        click.core.ParameterSource.ENVIRONMENT: "environment",
        click.core.ParameterSource.DEFAULT_MAP: str(path),
    }
    entries: list[dict[str, Any]] = []
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        shown = ("set" if value else None) if name == "secret" else value
        shown = list(shown) if isinstance(shown, tuple) else shown
        entries.append({"name": name.replace("_", "-"), "value": shown,
                        "origin": names.get(source, "default") if source is not None else "default"})  # fmt: skip
    from_env = "environment" if os.environ.get("DRTP_STATE_DIR") else "default"
    entries.append({"name": "state-dir", "value": str(state_directory()), "origin": from_env})
    entries += [
        {"name": variable, "value": os.environ[variable], "origin": "environment"}
        for variable in ("DATUM_API_HOST", "DATUM_SESSION", "DATUM_CREDENTIALS_HELPER")
        if os.environ.get(variable)
    ]
    if not origin:
        entries = [{"name": e["name"], "value": e["value"]} for e in entries]
    header = ["OPTION", "VALUE", *(["ORIGIN"] if origin else [])]
    rows = [[e["name"], _words(e["value"]), *([e["origin"]] if origin else [])] for e in entries]
    out.rows(header, rows, entries)
    return 0


def _words(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
