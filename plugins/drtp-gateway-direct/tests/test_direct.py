"""What is particular to the gateway: it believes the edges, and owns the choice of the HTTP port."""

from __future__ import annotations

import asyncio
import socket

import pytest

from drtp_api.errors import DrtpError
from drtp_api.gateways import Exposure, GatewayContext
from drtp_api.plugins import load_plugins
from drtp_api.resources import Protocol
from drtp_gateway_direct.gateway import DirectGateway


def start(tmp_path, port=0, host="127.0.0.1"):
    return asyncio.run(DirectGateway().start(GatewayContext(state_dir=tmp_path, listen_host=host, http_port=port)))


def test_a_service_is_pending_until_an_edge_listens_for_it():
    waiting = Exposure(service="default/db", protocol=Protocol.TCP, port=20000)
    listening = Exposure(service="default/web", protocol=Protocol.HTTP, port=None, public_address="127.0.0.1:8880")
    statuses = asyncio.run(DirectGateway().apply([waiting, listening]))
    assert {name: (s.programmed, s.reason, s.code) for name, s in statuses.items()} == {
        "default/db": (False, "Pending", None),
        "default/web": (True, "Programmed", None),
    }


def test_the_port_asked_for_is_the_port_given(tmp_path):
    chosen = start(tmp_path).http_port
    assert start(tmp_path, chosen).http_port == chosen


def test_a_wildcard_is_dialled_on_loopback(tmp_path):
    assert start(tmp_path, host="0.0.0.0").host == "127.0.0.1"


def test_a_taken_port_is_an_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as squatter, pytest.raises(DrtpError, match="DRTP-5003"):
        start(tmp_path, squatter.getsockname()[1])


def test_the_loader_finds_it():
    plugins = load_plugins(only={"direct"})
    assert plugins.failures == ()
    assert plugins.gateways.create("direct").name == "direct"
