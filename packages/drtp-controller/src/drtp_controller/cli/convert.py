"""``drtp convert``: a file in, manifests on stdout, warnings on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from drtp_api.errors import DrtpError

__all__ = ["convert"]


def _read(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode()
    except OSError as error:
        raise DrtpError("DRTP-1011", f"{source} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DrtpError("DRTP-1011", f"{source} is not UTF-8 text") from error


@click.command()
@click.argument("source", metavar="FILE|-")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="The format.")
@click.option("--service", default=None, metavar="NAME", help="The DRTPService that connection and routes belong to.")
@click.option(
    "--route-version",
    type=click.Choice(["v1", "v1alpha2"]),
    default="v1",
    show_default=True,
    help="The version of TCPRoute and UDPRoute that the cluster serves.",
)
def convert(source: str, output: str, service: str | None, route_version: str) -> None:
    """Turn manifests of DRTP's first draft into valid ones, for `kubectl apply -f -`."""
    text = _read(source)
    from drtp_controller.convert import Options
    from drtp_controller.convert import convert as run

    conversion = run(text, Options(service=service, route_version=route_version))
    for warning in conversion.warnings:
        click.echo(f"warning: {warning}", err=True)
    if output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": conversion.documents}, indent=1))
        return
    import yaml

    dumped = yaml.safe_dump_all(conversion.documents, sort_keys=False, allow_unicode=True, explicit_start=True)
    click.echo(dumped, nl=False)
