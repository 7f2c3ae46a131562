"""What the edge's certificate says: the name that agents check.

What must not live here: TLS contexts; transports make them.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from drtp_api.errors import DrtpError

__all__ = ["certificate_name", "read_pem"]


def read_pem(path: Path, option: str) -> str:
    """Return the text of a PEM file.

    Raises:
        DrtpError: DRTP-3002; it cannot be read or is none.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise DrtpError("DRTP-3002", f"{option} {path} cannot be read: {error}") from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise DrtpError("DRTP-3002", f"{option} {path} holds no PEM certificate")
    return text


def certificate_name(path: Path) -> str:
    """Return the first DNS name of the leaf certificate, its common name if it has none.

    Raises:
        DrtpError: DRTP-3002; it cannot be read or names nobody.
    """
    text = read_pem(path, "--tls-cert")
    try:
        leaf = x509.load_pem_x509_certificates(text.encode())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [str(name) for name in names.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        found = []
    except ValueError as error:
        raise DrtpError("DRTP-3002", f"--tls-cert {path} cannot be read: {error}") from error
    found += [str(attribute.value) for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not found:
        raise DrtpError("DRTP-3002", f"--tls-cert {path} names nobody; give --server-name")
    return found[0]
