"""The ``tcp`` transport: DRTP over TCP with TLS 1.3.

Rules:

- TLS 1.3 or nothing, with ALPN ``drtp/1``; the edge is verified against the name and the authority the agent was told,
  whatever address it dials.
- The channel binding is ``tls-server-end-point``: SHA-256 of the server's leaf certificate.
- Plaintext exists for benchmarks, and only where the transport's own option allows it.

What must not live here: DRTP frames, and the decision where to dial.
"""

from drtp_api.hooks import hookimpl
from drtp_api.registry import Registry
from drtp_api.transports import TransportFactory
from drtp_transport_tcp.transport import TcpConfig, TcpTransport

__all__ = ["TcpConfig", "TcpTransport", "drtp_register_transports"]


@hookimpl
def drtp_register_transports(registry: Registry[TransportFactory]) -> None:
    """Register ``tcp``."""
    registry.register("tcp", TcpTransport)
