"""The commands and their options; what they do is imported when they run, so that help is quick.

Rules:
- A first word that is a command's name is that command; anything else belongs to ``TARGET``.
- What follows ``--`` is a command to run while serving, never an option of ours.
- Every refusal ends as a coded error; a traceback appears with ``--debug`` only.

What must not live here: logic.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from datumctl_serve.manifest import VERSION
from datumctl_serve.options import PREFIX, location_options, output_options

EPILOG = """\b
Examples:
  datumctl-serve localhost:8080 --public
  datumctl-serve tcp://localhost:5432 --public --port 54321 --name my-database
  datumctl-serve 3000 --public -- npm run dev
  datumctl-serve --service my-database --secret-file secret.txt

\b
Commands (datumctl-serve COMMAND --help):
  create, publish, unpublish   services      list, status   what there is
  rotate, revoke               secrets       stop           agents here
  config, completion, version

\b
Exit codes: 0 clean stop, 2 usage, 65 bad data, 69 control plane or target not
reachable, 75 still provisioning, 77 denied, 78 configuration, 130 interrupted.
"""

SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "auto_envvar_prefix": PREFIX,
    "max_content_width": 100,
}


@click.command("datumctl-serve", epilog=EPILOG, context_settings=SETTINGS)
@click.argument("target", required=False)
@click.option("--name", metavar="NAME", help="Stable identity: same name, same address after a restart.")
@click.option("--public", is_flag=True, help="Reachable at once; without it the service is private until `publish`.")
@click.option("--port", type=int, default=0, metavar="N", help="Requested public port (TCP); 0 vends one.")
@click.option("--hostname", metavar="H", help="Requested public host name (HTTP).")
@click.option("--allow", multiple=True, metavar="CIDR", help="Network that may visit; repeatable. Default: all.")
@click.option("--protocol", type=click.Choice(["tcp", "http", "udp"]), help="What the service speaks. Default: http.")
@click.option("--service", metavar="NAME", help="Serve an existing service, with its secret or your sign-in.")
@click.option("--secret-file", metavar="F", help="File with the service's secret; - reads standard input.")
@click.option("--secret", metavar="VALUE", help="The secret itself; other users of this machine can see it.")
@click.option("--detail", metavar="NAME/TYPE/HOST[/IP]/PORT", help="The service's detail, instead of TARGET.")
@click.option(
    "--proxy-protocol", type=click.Choice(["v1", "v2"]), help="Tell the service its visitors by PROXY header."
)
@click.option("--transport", default="auto", metavar="T", help="auto, tcp, or another installed transport.")
@click.option(
    "--servers", type=click.IntRange(1, 3), default=2, metavar="N", help="How many tunnel servers. Default: 2."
)
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=60.0, metavar="S", help="Seconds until ready. Default: 60."
)
@click.option("--no-target-check", is_flag=True, help="Start although nothing listens on TARGET yet.")
@location_options
@output_options
@click.pass_context
def serve_command(context: click.Context, /, **values: Any) -> int:
    """Make a local service reachable from outside, without opening a port.

    TARGET: 8080, :8080, HOST:PORT, http://H:P, tcp://H:P or unix:/path.
    """
    from datumctl_serve.serving import serve

    if values["target"] is None and values["service"] is None and values["detail"] is None:
        click.echo(context.get_help())
        return 2
    secret_shown = context.get_parameter_source("secret") is click.core.ParameterSource.COMMANDLINE
    return serve(values, command=context.obj or [], secret_shown=secret_shown)


@click.command("create", context_settings=SETTINGS)
@click.argument("name")
@click.argument("target", required=False)
@click.option("--protocol", type=click.Choice(["tcp", "http", "udp"]), help="What the service speaks. Default: http.")
@click.option("--detail", metavar="NAME/TYPE/HOST[/IP]/PORT", help="The local service, instead of TARGET.")
@click.option("--public", is_flag=True, help="Reachable as soon as an agent serves it.")
@click.option("--port", type=int, default=0, metavar="N", help="Requested public port (TCP); 0 vends one.")
@click.option("--hostname", metavar="H", help="Requested public host name (HTTP).")
@click.option("--allow", multiple=True, metavar="CIDR", help="Network that may visit; repeatable. Default: all.")
@click.option(
    "--servers", type=click.IntRange(1, 3), default=2, metavar="N", help="How many tunnel servers. Default: 2."
)
@location_options
@output_options
def create_command(**values: Any) -> int:
    """Create the service NAME and print its one-time secret and the command that serves it."""
    from datumctl_serve.secrets import create

    return create(values)


@click.command("publish", context_settings=SETTINGS)
@click.argument("name")
@click.option("--port", type=int, metavar="N", help="Public port (TCP); 0 vends one. Default: as it is.")
@click.option("--hostname", multiple=True, metavar="H", help="Public host name (HTTP); repeatable. Default: as it is.")
@click.option("--allow", multiple=True, metavar="CIDR", help="Network that may visit; repeatable. Default: as it is.")
@click.option("--allow-all", is_flag=True, help="Let everyone visit: empties the allow-list.")
@location_options
@output_options
def publish_command(**values: Any) -> int:
    """Open the service NAME to the world, until it is unpublished."""
    from datumctl_serve.services import publish

    return publish(values, public=True)


@click.command("unpublish", context_settings=SETTINGS)
@click.argument("name")
@location_options
@output_options
def unpublish_command(**values: Any) -> int:
    """Close the service NAME to the world."""
    from datumctl_serve.services import publish

    return publish(values, public=False)


@click.command("rotate", context_settings=SETTINGS)
@click.argument("name")
@click.option("--overlap", type=click.IntRange(0, 604_800), default=3600, metavar="S",
              help="Seconds that the secret before stays valid. Default: 3600.")  # fmt: skip
@location_options
@output_options
def rotate_command(**values: Any) -> int:
    """Give the service NAME a new secret and print it, once; also its first one."""
    from datumctl_serve.secrets import rotate

    return rotate(values)


@click.command("revoke", context_settings=SETTINGS)
@click.argument("name")
@location_options
@output_options
def revoke_command(**values: Any) -> int:
    """Revoke the secrets of the service NAME and cut the agents that enrolled with one."""
    from datumctl_serve.secrets import revoke

    return revoke(values)


@click.command("list", context_settings=SETTINGS)
@location_options
@output_options
def list_command(**values: Any) -> int:
    """List the services of the project."""
    from datumctl_serve.services import list_services

    return list_services(values)


@click.command("status", context_settings=SETTINGS)
@click.argument("name", required=False)
@location_options
@output_options
def status_command(**values: Any) -> int:
    """Show what this machine serves, and how far it is reachable."""
    from datumctl_serve.services import status

    return status(values)


@click.command("stop", context_settings=SETTINGS)
@click.argument("name", required=False)
@output_options
def stop_command(**values: Any) -> int:
    """Stop the agent that serves NAME on this machine; visitors get 30 s to finish."""
    from datumctl_serve.services import stop

    return stop(values)


@click.group("config", context_settings=SETTINGS)
def config_command() -> None:
    """Look at the configuration."""


@config_command.command("show", context_settings={**SETTINGS, "ignore_unknown_options": True})
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@output_options
def config_show_command(origin: bool, arguments: tuple[str, ...], **values: Any) -> int:
    """Show what the options would be if ARGUMENTS were given."""
    from datumctl_serve.configuration import show

    return show(list(arguments), values, origin=origin)


@click.command("completion", context_settings=SETTINGS)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> int:
    """Print a completion script for SHELL."""
    from datumctl_serve.shells import script

    click.echo(script(shell))
    return 0


@click.command("version", context_settings=SETTINGS)
@output_options
def version_command(**values: Any) -> int:
    """Print the version."""
    from datumctl_serve.options import make_output

    make_output(values).result({"name": "datumctl-serve", "version": f"v{VERSION}"}, f"datumctl-serve v{VERSION}")
    return 0


COMMANDS: dict[str, click.Command] = {
    "create": create_command,
    "publish": publish_command,
    "unpublish": unpublish_command,
    "rotate": rotate_command,
    "revoke": revoke_command,
    "list": list_command,
    "status": status_command,
    "stop": stop_command,
    "config": config_command,
    "completion": completion_command,
    "version": version_command,
}


def run(arguments: list[str]) -> int:
    """Run the command that the arguments name and return its exit code."""
    ours, command = _split(arguments)
    ours = [_undashed(word) for word in ours]
    chosen: click.Command = serve_command
    if ours and (named := COMMANDS.get(ours[0])) is not None:
        chosen, ours = named, ours[1:]
    name = "datumctl-serve" if chosen is serve_command else f"datumctl-serve {chosen.name}"
    helping = not ours or not {"-h", "--help"}.isdisjoint(ours)
    try:
        defaults = None if helping else _defaults()
        code = chosen.main(ours, prog_name=name, standalone_mode=False, obj=command, default_map=defaults)
    except click.exceptions.Exit as exit_:
        return int(exit_.exit_code)
    except click.UsageError as error:
        return _usage(error, ours)
    except click.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _failed(error, ours)
    return int(code or 0)


def _undashed(word: str) -> str:
    """Return an option whose hyphens a text program made into a dash, as it was typed; any other word unchanged."""
    name = word.lstrip("\u2013\u2014")
    if name == word or not name[:1].isalpha():
        return word
    option = f"--{name}" if len(name.partition("=")[0]) > 1 else f"-{name}"
    # The value stays out of the message: it may be a secret.
    click.echo(f"warning: read a pasted dash as {option.partition('=')[0]}", err=True)
    return option


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _defaults() -> dict[str, Any]:
    from datumctl_serve.configuration import file_defaults

    return file_defaults()


def _form(arguments: list[str]) -> str:
    """Return the output form of arguments that could not be parsed."""
    for at, word in enumerate(arguments):
        for flag in ("--output=", "-o="):
            if word.startswith(flag):
                return word.removeprefix(flag)
        if word in {"-o", "--output"} and at + 1 < len(arguments):
            return arguments[at + 1]
        if word in {"-ojson", "-oyaml"}:
            return word[2:]
    return os.environ.get(f"{PREFIX}_OUTPUT", "table")


def _usage(error: click.UsageError, arguments: list[str]) -> int:
    from drtp_api.errors import DrtpError

    return _failed(DrtpError("DRTP-1004", error.format_message().rstrip("."), hint="See --help."), arguments)


def _failed(error: Exception, arguments: list[str]) -> int:
    from datumctl_serve.output import FORMATS, Output
    from drtp_api.errors import DrtpError

    if "--debug" in arguments:
        import traceback

        traceback.print_exception(error)
    if not isinstance(error, DrtpError):
        error = DrtpError("DRTP-1000", f"{type(error).__name__}: {error}")
    form = _form(arguments)
    Output(form=form if form in FORMATS else "table").error(error)
    sys.stdout.flush()
    return int(error.exit_code)
