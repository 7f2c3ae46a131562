"""The command tree of ``drtp`` and how errors leave it.

Rules:
- A subcommand's module is imported when it is invoked, or when its own help is asked for.
- Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

import click

from drtp_api.errors import DrtpError, ExitCode

__all__ = ["cli", "main"]

_COMMANDS = {
    "local": ("drtp_controller.cli.local", "local", "Run a whole cloud on this machine, in the foreground."),
    "controller": ("drtp_controller.cli.controller", "controller", "Run the controller and the registration API."),
    "crds": ("drtp_controller.cli.tools", "crds", "Print the custom resource definitions."),
    "convert": ("drtp_controller.cli.convert", "convert", "Turn manifests of the first draft into valid ones."),
    "manifests": ("drtp_controller.cli.manifests", "manifests", "Print the manifests of an installation."),
    "plugins": ("drtp_controller.cli.tools", "plugins", "Show what plugins are installed."),
    "config": ("drtp_controller.cli.local", "config", "Show settings and where they come from."),
    "version": ("drtp_controller.cli.tools", "version", "Print the version."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(entry[0]), entry[1])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, _, help_) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Operate DRTP: a local cloud, the controller, and what belongs to them."""
    ctx.obj = {"debug": debug}


def main(argv: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    debug = "--debug" in arguments
    # accepted anywhere: nobody remembers where a global flag goes when something has just failed
    arguments = [a for a in arguments if a != "--debug"]
    try:
        result: Any = cli(args=[*(["--debug"] if debug else []), *arguments], prog_name="drtp", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except DrtpError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"error: {error.code} {error.message}\nhint: {error.hint}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        unknown = DrtpError("DRTP-1000", f"{type(error).__name__}: {error}")
        click.echo(f"error: {unknown.code} {unknown.message}\nhint: {unknown.hint}", err=True)
        return unknown.exit_code
    return result if isinstance(result, int) else ExitCode.OK
