"""The key file of a service account, and its public key."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY_ID = "1"


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def private_key() -> str:
    """Return the private key, as in a key file."""
    kind = serialization.PrivateFormat.PKCS8
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return _key().private_bytes(pem, kind, plain).decode()


def public_key() -> bytes:
    """Return the public key, as Google keeps it."""
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return _key().public_key().public_bytes(serialization.Encoding.PEM, kind)


def service_account(**changes: str) -> dict[str, str]:
    """Return the JSON key file of a service account."""
    return {
        "type": "service_account",
        "client_email": "service@project.iam.gserviceaccount.com",
        "private_key": private_key(),
        "private_key_id": KEY_ID,
    } | changes
