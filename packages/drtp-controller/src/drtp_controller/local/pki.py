"""The local cloud's certificate authority and certificates: made once, renewed before they end.

Rules:
- Keys are files that only this user can read; the authority's key never leaves the state directory.
- A certificate is made anew when it is near its end, was signed by another authority, or lacks a name it needs.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drtp_api.statedir import ensure_directory, write_private

__all__ = ["Authority", "Files", "ensure_authority"]

AUTHORITY_DAYS = 3650
LEAF_DAYS = 365
RENEW_BEFORE_DAYS = 30
"""A cloud that runs for a month without a restart still has valid certificates at its end."""
SKEW = dt.timedelta(minutes=5)


@attrs.frozen
class Files:
    """Where a certificate and its key are."""

    certificate: Path
    key: Path


@attrs.frozen
class Authority:
    """Signs the certificates of one cloud."""

    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def files(self) -> Files:
        """The authority's own files."""
        return Files(self.directory / "ca.pem", self.directory / "ca.key")

    @property
    def pem(self) -> str:
        """The certificate that clients trust."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def ensure_leaf(self, name: str, names: Sequence[str], *, now: dt.datetime) -> Files:
        """Return a server certificate for host names and addresses, made anew where it must be.

        Raises:
            DrtpError: DRTP-1006; the files cannot be written.
        """
        files = Files(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        if not self._usable(files, names, now):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self._sign(key, name, names, now)
            write_private(files.key, _key_pem(key))
            write_private(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return files

    def _sign(
        self, key: ec.EllipticCurvePrivateKey, name: str, names: Sequence[str], now: dt.datetime
    ) -> x509.Certificate:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + dt.timedelta(days=LEAF_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
            .add_extension(usage, critical=False)
            .add_extension(_authority_key_identifier(self.key), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())

    def _usable(self, files: Files, names: Sequence[str], now: dt.datetime) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
            key = serialization.load_pem_private_key(files.key.read_bytes(), None)
            certificate.verify_directly_issued_by(self.certificate)
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        ends = certificate.not_valid_after_utc - dt.timedelta(days=RENEW_BEFORE_DAYS)
        return (
            isinstance(key, ec.EllipticCurvePrivateKey)
            and key.public_key() == certificate.public_key()
            and ends > now >= certificate.not_valid_before_utc
            and {_general_name(n) for n in names} <= set(found)
        )


def ensure_authority(directory: Path, *, now: dt.datetime) -> Authority:
    """Return the authority of a directory, made on first use or when its certificate is near its end.

    Raises:
        DrtpError: DRTP-1006; the directory cannot be written.
    """
    ensure_directory(directory)
    found = _load_authority(directory, now)
    if found is not None:
        return found
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_subject("DRTP local authority"))
        .issuer_name(_subject("DRTP local authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + dt.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(directory, certificate, key)
    write_private(authority.files.key, _key_pem(key))
    write_private(authority.files.certificate, authority.pem.encode())
    return authority


def _load_authority(directory: Path, now: dt.datetime) -> Authority | None:
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    ends = certificate.not_valid_after_utc - dt.timedelta(days=LEAF_DAYS)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key() or ends <= now:
        return None
    return Authority(directory, certificate, key)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _authority_key_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
