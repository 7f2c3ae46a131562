"""``drtp controller``: flags in, settings out."""

from __future__ import annotations

from pathlib import Path

import click

from drtp_api.errors import DrtpError
from drtp_api.statedir import state_directory
from drtp_controller.local.settings import parse_options, parse_range

__all__ = ["controller"]


def _listen(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise DrtpError("DRTP-1010", f"--listen {text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


@click.command()
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    default=None,
    help="A kubeconfig; by default the pod's service account, else kubectl's file.",
)
@click.option("--state-dir", type=click.Path(path_type=Path), default=None, help="Where the gateway keeps files.")
@click.option("--gateway", default="envoy", show_default=True, envvar="DRTP_GATEWAY", help="The gateway plugin.")
@click.option(
    "--gateway-options",
    default="",
    envvar="DRTP_GATEWAY_OPTIONS",
    metavar="KEY=VALUE,...",
    help="Options of the gateway plugin.",
)
@click.option("--picker", default="nearest", show_default=True, envvar="DRTP_PICKER", help="The picker plugin.")
@click.option(
    "--gateway-host",
    default="127.0.0.1",
    show_default=True,
    envvar="DRTP_GATEWAY_HOST",
    help="The address public ports are opened on.",
)
@click.option(
    "--public-host",
    default=None,
    envvar="DRTP_PUBLIC_HOST",
    help="The address that visitors are told; the gateway's own by default.",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=80,
    show_default=True,
    envvar="DRTP_HTTP_PORT",
    help="The gateway's HTTP port.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8090",
    show_default=True,
    envvar="DRTP_LISTEN",
    help="Where the registration API answers.",
)
@click.option(
    "--base-domain",
    default="prism.global.datum-dns.net",
    show_default=True,
    envvar="DRTP_BASE_DOMAIN",
    help="The domain of vended host names.",
)
@click.option(
    "--port-range",
    default="20000-29999",
    show_default=True,
    envvar="DRTP_PORT_RANGE",
    help="Public ports that are vended.",
)
@click.option("--pod-ip", default="", envvar="DRTP_POD_IP", help="The address that Services shall lead to.")
@click.option("--node-name", default="", envvar="DRTP_NODE_NAME", help="The node of this pod, for local traffic.")
@click.option(
    "--leader-service",
    multiple=True,
    envvar="DRTP_LEADER_SERVICES",
    metavar="NAME",
    help="A Service in drtp-system that shall lead to the replica that acts.",
)
def controller(
    *,
    kubeconfig: Path | None,
    state_dir: Path | None,
    gateway: str,
    gateway_options: str,
    picker: str,
    gateway_host: str,
    public_host: str | None,
    http_port: int,
    listen: str,
    base_domain: str,
    port_range: str,
    pod_ip: str,
    node_name: str,
    leader_service: tuple[str, ...],
) -> int:
    """Run the controller and the registration API against a Kubernetes API, leader-elected."""
    try:
        ports = parse_range(port_range)
    except ValueError as error:
        raise DrtpError("DRTP-1007", f"--port-range: {error}") from error
    try:
        options = parse_options(gateway_options)
    except ValueError as error:
        raise DrtpError("DRTP-1007", f"--gateway-options: {error}") from error
    address = _listen(listen)
    from drtp_controller.daemon import DaemonSettings, run_daemon
    from drtp_controller.reconcile.leaderslice import Replica

    return run_daemon(
        DaemonSettings(
            kubeconfig=kubeconfig,
            state_dir=state_directory(state_dir) / "controller",
            gateway=gateway,
            gateway_options=options,
            picker=picker,
            gateway_host=gateway_host,
            public_host=public_host,
            http_port=http_port,
            listen=address,
            base_domain=base_domain,
            ports=ports,
            replica=Replica(address=pod_ip, node=node_name, services=leader_service),
        )
    )
