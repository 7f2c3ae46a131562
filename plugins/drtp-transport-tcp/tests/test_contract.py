"""The transport keeps the contract of transports, on every engine."""

from drtp_api.transports import Transport
from drtp_testkit.contracts import TransportContract
from drtp_transport_tcp import TcpTransport


class TestTcp(TransportContract):
    def make_transport(self) -> Transport:
        return TcpTransport()


class TestTcpOnThePortableEngine(TestTcp):
    engine_kind = "portable"
