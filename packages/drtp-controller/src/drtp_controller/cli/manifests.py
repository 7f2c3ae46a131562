"""``drtp manifests``: prints what ``kubectl kustomize deploy/...`` prints, with an operator's own values."""

from __future__ import annotations

import json

import click

__all__ = ["manifests"]


@click.command()
@click.option(
    "--overlay",
    type=click.Choice(["base", "dev", "pop", "ha"]),
    default="base",
    show_default=True,
    help="The values to start from.",
)
@click.option("--image-prefix", metavar="PREFIX", help="What stands before the images' names: registry/path/")
@click.option("--version", metavar="TAG", help="The images' tag; this version by default.")
@click.option("--coordinates", metavar="LAT,LON", help="Where the edges of this cluster stand.")
@click.option("--city", metavar="CODE", help="Code of their city, such as FRA.")
@click.option("--advertise", metavar="HOST", help="The host that agents dial; each node's own address by default.")
@click.option("--public-host", metavar="HOST", help="The address that visitors are told.")
@click.option("--base-domain", metavar="NAME", help="The domain of vended host names.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="The format.")
def manifests(overlay: str, output: str, **values: str | None) -> None:
    """Print the manifests of an installation, for `kubectl apply --server-side -f -`."""
    from drtp_controller.manifests import OVERLAYS, Install, documents
    from drtp_controller.manifests.tree import text

    found = documents(OVERLAYS.get(overlay, Install()).asking(values))
    if output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": found}, indent=1))
        return
    click.echo(text(found), nl=False)
