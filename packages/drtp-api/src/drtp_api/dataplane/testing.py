"""What tests and benchmarks of the data plane need: certificates made on the spot, and pairs of carriers.

Rules:

- Nothing in production imports this module.
- Everything made here lives on loopback and for a day at most.

What must not live here: assertions and fixtures; those belong to the tests.
"""

import datetime as dt
import ipaddress
import socket
import ssl
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


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
