"""Options that commands share, and their meaning as one value each.

Rules: an option's environment variable is ``DATUM_SERVE_`` and its name; a flag wins over it, it wins over the file.
What must not live here: what a command does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from datumctl_serve.output import Output
    from drtp_agent.discovery import Location

F = TypeVar("F", bound=Callable[..., Any])

PREFIX = "DATUM_SERVE"


def output_options(function: F) -> F:
    """Add ``-o``, ``--log-format``, ``-v`` and ``--debug``."""
    for option in reversed((
        click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table",
                     help="Form of the result on stdout."),
        click.option("--log-format", type=click.Choice(["term", "logfmt", "json"]), default="term",
                     help="Form of the progress on stderr."),
        click.option("-v", "--verbose", is_flag=True, help="Log what happens inside, on stderr."),
        click.option("--debug", is_flag=True, help="Show where in the program an error came from."),
    )):  # fmt: skip
        function = option(function)
    return function


def location_options(function: F) -> F:
    """Add what finds the control plane."""
    for option in reversed((
        click.option("--api-url", metavar="URL", help="The registration API; default: datumctl's, or a local cloud's."),
        click.option("--token-file", metavar="FILE", help="A file with a bearer token for it."),
        click.option("--project", metavar="P", envvar=["DATUM_SERVE_PROJECT", "DATUM_PROJECT"], help="The project."),
        click.option("--org", "--organization", "organization", metavar="O",
                     envvar=["DATUM_SERVE_ORG", "DATUM_ORG"], help="The organization."),
    )):  # fmt: skip
        function = option(function)
    return function


def make_output(values: dict[str, Any]) -> Output:
    """Return the output that the options describe, and take them out of ``values``."""
    from datumctl_serve.output import Output

    verbose = values.pop("verbose", False)
    values.pop("debug", None)
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    return Output(form=values.pop("output"), log_format=values.pop("log_format"))


def make_location(values: dict[str, Any]) -> Location:
    """Return the control plane that the options describe, and take them out of ``values``."""
    from drtp_agent.discovery import locate

    return locate(**{name: values.pop(name) for name in ("api_url", "token_file", "project", "organization")})
