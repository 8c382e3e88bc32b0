"""Certificates for the tests: an authority, and certificates for the address 127.0.0.1."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in PEM."""

    certificate: str
    key: str
    x509: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def fingerprint(self) -> str:
        der = self.x509.public_bytes(serialization.Encoding.DER)
        return hashlib.sha256(der).digest().hex(":").upper()

    def encrypted_key(self, passphrase: str) -> str:
        return _pem(self.private, serialization.BestAvailableEncryption(passphrase.encode()))


def authority() -> Certificate:
    """Return a new authority."""
    return _make(f"authority {x509.random_serial_number()}", None, is_authority=True)


def server(by: Certificate | None = None, *, expired: bool = False) -> Certificate:
    """Return a certificate for 127.0.0.1, signed by an authority or by itself."""
    return _make("127.0.0.1", by, expired=expired)


def client(by: Certificate) -> Certificate:
    """Return a certificate for a client."""
    return _make("client", by)


def _make(
    name: str, by: Certificate | None, *, is_authority: bool = False, expired: bool = False
) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.x509.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 30 * DAY)
        .not_valid_after(NOW - DAY if expired else NOW + 30 * DAY)
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if name == "127.0.0.1":
        address = x509.IPAddress(ipaddress.ip_address(name))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    made = builder.sign(by.private if by else key, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    return Certificate(pem, _pem(key, serialization.NoEncryption()), made, key)


def _pem(
    key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption
) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    ).decode()
