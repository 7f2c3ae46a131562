"""TLS contexts of the transport, and the channel binding that goes with them.

Rules: TLS 1.3 only; ALPN is always offered; a faulty certificate or key is an error for people.
What must not live here: sockets.
"""

import functools
import hashlib
import ssl
from pathlib import Path

from drtp_api.errors import DrtpError

ALPN = "drtp/1"
"""The application protocol both ends insist on, so that a TLS port shared with others cannot be confused."""

BINDING_TYPE = "tls-server-end-point"


def binding_of(leaf: bytes) -> bytes:
    """Return the ``tls-server-end-point`` channel binding (RFC 5929) of a leaf certificate in DER.

    Always with SHA-256: RFC 5929 would follow the certificate's signature hash, and both ends here are ours.
    """
    return hashlib.sha256(leaf).digest()


@functools.lru_cache(maxsize=32)
def client_context(ca_pem: str | None) -> ssl.SSLContext:
    """Return the dialling side's context, trusting ``ca_pem`` or, without it, the system's authorities.

    Raises:
        DrtpError: DRTP-4003; the bundle holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    if ca_pem is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise DrtpError("DRTP-4003", f"the CA bundle for the tunnel server cannot be read: {error}") from error
    return context


def server_context(certificate_file: str | None, key_file: str | None) -> tuple[ssl.SSLContext, bytes]:
    """Return the listening side's context and its channel binding.

    Raises:
        DrtpError: DRTP-3002; no certificate, or it and its key cannot be used.
    """
    if certificate_file is None:
        raise DrtpError("DRTP-3002", "the tcp transport needs a certificate file to listen")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    # Tunnels live for hours and authenticate inside: a session ticket would be bytes without a use.
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate_file, key_file)
        leaf = first_certificate(Path(certificate_file).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise DrtpError("DRTP-3002", f"the certificate {certificate_file} cannot be used: {error}") from error
    return context, binding_of(leaf)


def first_certificate(pem: str) -> bytes:
    """Return the first certificate of a PEM file in DER, which is the leaf.

    Raises:
        ValueError: there is none.
    """
    start, end = pem.find(ssl.PEM_HEADER), pem.find(ssl.PEM_FOOTER)
    if start < 0 or end < start:
        raise ValueError("it holds no PEM certificate")
    return ssl.PEM_cert_to_DER_cert(pem[start : end + len(ssl.PEM_FOOTER)] + "\n")
