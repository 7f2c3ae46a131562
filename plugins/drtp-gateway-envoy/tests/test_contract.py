"""The gateway keeps the contract of gateways, with a real Envoy."""

import pytest

from drtp_api.gateways import Gateway
from drtp_gateway_envoy.gateway import EnvoyGateway
from drtp_gateway_envoy.options import EnvoyOptions
from drtp_testkit.contracts import GatewayContract


@pytest.mark.real
class TestEnvoy(GatewayContract):
    def make_gateway(self) -> Gateway:
        return EnvoyGateway(EnvoyOptions())
