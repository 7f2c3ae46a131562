"""The command ``drtp-edge``: options, logging, and errors for people.

Rules:
- ``--help`` imports click and nothing else of weight.
- Flag > environment ``DRTP_EDGE_*`` > default.
- The one line on standard output is ``edge_ready``; everything else goes to standard error.

What must not live here: anything that a test would want to call without a command line.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from drtp_edge.config import DaemonConfig

__all__ = ["main"]


@click.command(context_settings={"auto_envvar_prefix": "DRTP_EDGE", "show_default": True})
@click.option("--name", required=True, help="Name of the DRTPServer.")
@click.option("--coordinates", default="0,0", metavar="LAT,LON", help="Where this edge stands, in degrees.")
@click.option("--city", default="", help="Code of the city, such as FRA.")
@click.option("--kubeconfig", metavar="FILE", help="The control plane; found as kubectl would without it.")
@click.option("--standalone", metavar="FILE", help="Services and keys from a JSON file instead of a control plane.")
@click.option("--tunnel-listen", default="0.0.0.0:7443", metavar="HOST:PORT", help="Where agents connect.")
@click.option("--transport", multiple=True, default=("tcp",), metavar="NAME[=HOST:PORT]", help="Transports to offer.")
@click.option("--advertise", metavar="HOST[:PORT]", help="What agents are told to dial.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its key, PEM.")
@click.option("--ca-bundle", metavar="FILE", help="What agents shall trust, PEM; else the system's authorities.")
@click.option("--server-name", metavar="NAME", help="Name in the certificate; by default its first one.")
@click.option("--data-host", default="127.0.0.1", metavar="HOST", help="The pod's address, for gateways.")
@click.option("--data-ports", default="0", metavar="A-B", help="Where to vend data ports from; 0 for any.")
@click.option("--gateway-cidr", multiple=True, metavar="CIDR", help="Only gateways from here may use data ports.")
@click.option("--admin", default="127.0.0.1:0", metavar="HOST:PORT", help="/healthz /ready /metrics /sessions")
@click.option("--direct", metavar="HOST", help="Own public ports on this address, without a gateway.")
@click.option("--direct-http-port", default=0, metavar="N", help="Public port that HTTP services share.")
@click.option("--acl", multiple=True, default=("cidr",), metavar="NAME[=JSON]", help="Access backends.")
@click.option("--observe", multiple=True, metavar="NAME", help="Plugins that tap events.")
@click.option("--drain", default=60.0, metavar="S", help="Seconds for running streams when told to stop.")
@click.option("--outage-grace", default=86_400.0, metavar="S", help="How long an outage may extend grants.")
@click.option("--capacity", default=10_000, metavar="N", help="Tunnels this edge takes.")
@click.option("--spin-us", type=int, metavar="N", help="Microseconds to poll before sleeping; 0 never.")
@click.option("--log-format", default="term", type=click.Choice(["json", "logfmt", "term"]), help="Format of the log.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="drtp-edge", prog_name="drtp-edge")
def main(**options: Any) -> None:
    """Serve as one DRTPServer: take tunnels of agents, and visitors for them.

    SIGTERM and SIGINT drain; a second one stops at once.
    """
    from drtp_api.errors import DrtpError

    try:
        config = _config(options)
        _configure_log(options["log_format"], verbose=options["verbose"])
        code = _run(config)
    except DrtpError as error:
        if options["debug"]:
            raise
        click.echo(f"error: {error.code}: {error.message}\n  {error.hint}", err=True)
        code = int(error.exit_code)
    except Exception as error:
        if options["debug"]:
            raise
        click.echo(
            f"error: DRTP-1000: {type(error).__name__}: {error}\n  Run again with --debug and report what it prints.",
            err=True,
        )
        code = 1
    sys.exit(code)


def _config(options: dict[str, Any]) -> DaemonConfig:
    import json
    from pathlib import Path

    from drtp_api.errors import DrtpError
    from drtp_edge.config import (
        DaemonConfig,
        HostPort,
        parse_coordinates,
        parse_gateways,
        parse_ports,
        parse_transports,
    )

    def path(name: str) -> Path | None:
        return Path(options[name]).expanduser() if options[name] else None

    acl: dict[str, Any] = {}
    for text in options["acl"]:
        name, equals, raw = text.partition("=")
        try:
            acl[name] = json.loads(raw) if equals else {}
        except ValueError as error:
            raise DrtpError("DRTP-1007", f"--acl {name}: the options are not JSON: {error}") from error
    advertise = options["advertise"]
    return DaemonConfig(
        name=options["name"],
        coordinates=parse_coordinates(options["coordinates"]),
        city=options["city"].upper(),
        kubeconfig=path("kubeconfig"),
        standalone=path("standalone"),
        transports=parse_transports(
            options["transport"], HostPort.parse(options["tunnel_listen"], option="--tunnel-listen")
        ),
        advertise=HostPort.parse(advertise, option="--advertise", default_port=0) if advertise else None,
        tls_cert=path("tls_cert"),
        tls_key=path("tls_key"),
        ca_bundle=path("ca_bundle"),
        server_name=options["server_name"],
        data_host=options["data_host"],
        data_ports=parse_ports(options["data_ports"]),
        gateways=parse_gateways(options["gateway_cidr"]),
        admin=HostPort.parse(options["admin"], option="--admin"),
        direct_host=options["direct"],
        direct_http_port=options["direct_http_port"],
        acl=acl,
        observers=options["observe"],
        drain=options["drain"],
        outage_grace=options["outage_grace"],
        capacity=options["capacity"],
        spin_us=options["spin_us"],
    )


def _run(config: DaemonConfig) -> int:
    import asyncio
    import contextlib
    import json
    from collections.abc import Callable, Mapping

    from drtp_edge.daemon import run

    def ready(report: Mapping[str, Any]) -> None:
        click.echo(json.dumps(report))

    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop

        factory = new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run(config, ready))


def _configure_log(kind: str, *, verbose: bool) -> None:
    import logging

    import structlog

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any
    match kind:
        case "json":
            renderer = structlog.processors.JSONRenderer()
        case "logfmt":
            renderer = structlog.processors.LogfmtRenderer()
        case _:
            renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    level = logging.DEBUG if verbose else logging.INFO
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level if verbose else logging.WARNING, handlers=[handler], force=True)
