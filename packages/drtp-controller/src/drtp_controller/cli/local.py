"""``drtp local`` and ``drtp config show``: both read the same table of settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from drtp_controller.local.settings import SETTINGS, resolve

__all__ = ["config", "local"]


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option per setting; the values stay text until the table reads them."""
    for setting in reversed(SETTINGS):
        text = f"{setting.help} [default: {setting.default}; env {setting.variable}]"
        function = click.option(setting.flag, setting.name, default=None, help=text)(function)
    where = click.Path(path_type=Path)
    function = click.option("--config", type=where, default=None, help="A TOML file; the table is [local].")(function)
    return click.option("--state-dir", type=where, default=None, help="Where everything is kept. [env DRTP_STATE_DIR]")(
        function
    )


@click.command()
@_options
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="How to print results.")
def local(state_dir: Path | None, config: Path | None, output: str, **flags: str | None) -> int:
    """Run a whole cloud on this machine, in the foreground, until Ctrl-C."""
    resolved = resolve(flags, state_dir=state_dir, config=config)
    from drtp_controller.local.command import run_local

    return run_local(resolved.settings, output=output)


@click.group()
def config() -> None:
    """Show settings."""


@config.command()
@_options
@click.option("--origin", is_flag=True, help="Say where each value came from.")
def show(state_dir: Path | None, config: Path | None, origin: bool, **flags: str | None) -> None:
    """Show what `drtp local` would run with."""
    resolved = resolve(flags, state_dir=state_dir, config=config)
    width = max(map(len, resolved.origins))
    for name, (text, source) in sorted(resolved.origins.items()):
        click.echo(f"{name:<{width}}  {text}" + (f"  ({source})" if origin else ""))
