"""Small commands: the CRDs, the plugins, the version."""

from __future__ import annotations

import importlib.metadata
import json

import click

from drtp_api.errors import ExitCode

__all__ = ["crds", "plugins", "version"]


@click.command()
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="The format.")
def crds(output: str) -> None:
    """Print the custom resource definitions, for `kubectl apply -f -`."""
    from drtp_api.crds import crd_documents

    documents = crd_documents()
    if output == "json":
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}, indent=1))
        return
    import yaml

    click.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)


@click.group()
def plugins() -> None:
    """Show what plugins are installed."""


@plugins.command("list")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The format.")
def list_plugins(output: str) -> None:
    """List plugins with their hooks and what they register."""
    from drtp_api.plugins import load_plugins

    loaded = load_plugins()
    registries = {
        "transport": loaded.transports,
        "acl": loaded.acl_backends,
        "picker": loaded.pickers,
        "gateway": loaded.gateways,
    }
    rows = [
        {"kind": kind, "name": entry.name, "from": entry.origin}
        for kind, registry in registries.items()
        for entry in registry  # type: ignore[attr-defined]
    ]
    rows += [{"kind": "observer", "name": name, "from": name} for name, _ in loaded.observers]
    if output == "json":
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['kind']:<10} {row['name']:<16} {row['from']}")
    for failure in loaded.failures:
        click.echo(f"failed     {failure.name:<16} {failure.distribution} {failure.version}", err=True)


@plugins.command()
def doctor() -> int:
    """Check that every installed plugin can be loaded; exit 1 if one cannot."""
    from drtp_api.hooks import GROUP
    from drtp_api.plugins import load_plugins

    loaded = load_plugins()
    click.echo(f"plugin API: {GROUP}")
    for info in loaded.loaded:
        click.echo(f"ok      {info.name} ({info.distribution} {info.version}): {', '.join(info.hooks) or 'no hooks'}")
        if not info.hooks:
            click.echo("        it implements no hook: it has no effect", err=True)
    for failure in loaded.failures:
        click.echo(f"failed  {failure.name} ({failure.distribution} {failure.version}): {failure.cause}")
    return ExitCode.UNEXPECTED if loaded.failures else ExitCode.OK


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(importlib.metadata.version("drtp-controller"))
