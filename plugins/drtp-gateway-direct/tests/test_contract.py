"""The gateway keeps the contract of gateways."""

import attrs

from drtp_api.gateways import Exposure, Gateway
from drtp_gateway_direct.gateway import DirectGateway
from drtp_testkit.contracts import GatewayContract


class TestDirect(GatewayContract):
    listens = False

    def make_gateway(self) -> Gateway:
        return DirectGateway()

    def public(self, exposure: Exposure) -> Exposure:
        return attrs.evolve(exposure, public_address="127.0.0.1:20000")
