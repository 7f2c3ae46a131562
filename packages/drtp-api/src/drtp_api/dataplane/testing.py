"""What tests and benchmarks of the data plane need: certificates made on the spot, sockets, and ends that trust a key.

Rules:

- Nothing in production imports this module.
- Everything made here lives on loopback and for a day at most.

What must not live here: assertions and fixtures; those belong to the tests.
"""

import datetime as dt
import ipaddress
import secrets
import socket
import ssl
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drtp_api.dataplane.carrier import Carrier
from drtp_api.dataplane.engine import Engine
from drtp_api.dataplane.splice import StreamSummary
from drtp_api.dataplane.tunnel import Tunnel
from drtp_protocol import (
    AuthMethod,
    AuthReceived,
    AuthRequired,
    Binding,
    Challenge,
    Connection,
    Event,
    Hello,
    Limits,
    Role,
    Tuning,
    Welcome,
    psk_auth,
    verify_psk,
)

SERVICE = "bench/service"
_KEY = b"a key that only tests and benchmarks share"


@attrs.frozen
class TestCertificate:
    """A self-signed certificate on disk."""

    __test__ = False

    certificate_file: Path
    key_file: Path
    pem: str
    """The certificate, which is its own authority."""
    der: bytes

    def server_context(self, alpn: str | None = None) -> ssl.SSLContext:
        """Return a TLS 1.3 context for the listening side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.certificate_file, self.key_file)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        return context

    def client_context(self, alpn: str | None = None) -> ssl.SSLContext:
        """Return a TLS 1.3 context that trusts this certificate and nothing else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self.pem)
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        return context


def make_certificate(directory: Path, name: str = "edge.test") -> TestCertificate:
    """Write a key and a self-signed certificate for ``name`` and 127.0.0.1 into ``directory``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    alternatives = [x509.DNSName(name), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
    certificate_file.write_bytes(pem)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return TestCertificate(certificate_file, key_file, pem.decode("ascii"), der)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected non-blocking TCP sockets on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (client, server):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


class TrustingEnd:
    """A tunnel handler that gets the handshake over with by a fixed key; subclasses do the rest.

    The tunnel is :attr:`tunnel`, not started.
    """

    def __init__(
        self,
        engine: Engine,
        carrier: Carrier,
        role: Role,
        *,
        limits: Limits | None = None,
        tuning: Tuning | None = None,
        turn_size: int | None = None,
        pack_size: int | None = None,
    ) -> None:
        connection = Connection(
            role,
            now=engine.now(),
            nonce=secrets.token_bytes(32),
            hello=Hello(instance_id=bytes(16), epoch=1, services=(SERVICE,)) if role is Role.AGENT else None,
            challenge=Challenge(edge_id="edge", methods=(AuthMethod.PSK,)) if role is Role.EDGE else None,
            limits=limits or Limits(),
            tuning=tuning or Tuning(),
        )
        sizes = {"turn_size": turn_size, "pack_size": pack_size}
        self.tunnel = Tunnel(
            engine, carrier, connection, self, **{name: size for name, size in sizes.items() if size is not None}
        )

    def on_tunnel_event(self, tunnel: Tunnel, event: Event) -> None:
        """Answer the two events of the handshake."""
        match event:
            case AuthRequired():
                auth, proof = psk_auth(b"key", _KEY, event.transcript)
                tunnel.connection.authenticate(auth, expected_edge_proof=proof, now=tunnel.engine.now())
            case AuthReceived():
                welcome = Welcome(
                    session_id=bytes(16),
                    bindings=(Binding(SERVICE),),
                    edge_proof=verify_psk(_KEY, event.auth, event.transcript),
                )
                tunnel.connection.accept(welcome, now=tunnel.engine.now())
            case _:
                pass

    def on_connect_failed(self, tunnel: Tunnel, stream_id: int, error: OSError) -> None:
        """Leave it to the tunnel, which resets the stream with DIAL_FAILED."""

    def on_stream_closed(self, tunnel: Tunnel, stream_id: int, summary: StreamSummary) -> None:
        """Ignore it."""

    def on_tunnel_closed(self, tunnel: Tunnel, error: Exception | None) -> None:
        """Ignore it."""
