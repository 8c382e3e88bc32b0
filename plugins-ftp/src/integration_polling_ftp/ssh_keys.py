"""Private keys to log in with. The work to decrypt one is bounded."""

from __future__ import annotations

import binascii
from typing import Any

import asyncssh
from asyncssh.asn1 import ASN1DecodeError, der_decode

from core import CredentialsInvalid

MAX_ROUNDS = 256
MAX_ITERATIONS = 10_000_000
"""Bounds on the work to decrypt a key, in rounds of bcrypt and iterations of PBKDF2.

Each is some seconds. `ssh-keygen` uses 24 rounds, and nothing can interrupt the work.
"""

_OPENSSH = b"openssh-key-v1\0"


def import_key(private: str, passphrase: str, certificate: str) -> Any:
    """Return a key with its certificate, in the form that asyncssh takes.

    Args:
      private: The key, in the form of OpenSSH or in PEM.
      passphrase: Its passphrase. Empty: it has none.
      certificate: The certificate of the key, as OpenSSH writes it. Empty: none.

    Raises:
      CredentialsInvalid: The key or its certificate cannot be read.
    """
    try:
        if _effort(private) > 1:
            raise CredentialsInvalid(
                "the private key takes too many rounds to decrypt", field="private_key"
            )
        key = asyncssh.import_private_key(private, passphrase or None)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, ValueError) as error:
        raise CredentialsInvalid(
            f"cannot read the private key: {error}", field=_field_of(error)
        ) from None
    if not certificate:
        return [key]
    try:
        return [(key, asyncssh.import_certificate(certificate))]
    except (asyncssh.KeyImportError, ValueError) as error:
        raise CredentialsInvalid(
            f"cannot read the certificate: {error}", field="certificate"
        ) from None


def _field_of(error: ValueError) -> str:
    """Return the field that an error of asyncssh is about."""
    text = str(error).lower()
    is_locked = "passphrase" in text or "unable to decrypt" in text
    return "passphrase" if is_locked else "private_key"


def _effort(private: str) -> float:
    """Return the work to decrypt a key, as a part of the most that is allowed."""
    lines = [line.strip() for line in private.strip().splitlines()]
    try:
        data = binascii.a2b_base64("".join(line for line in lines[1:-1] if ":" not in line))
    except binascii.Error:
        return 0  # it is not encrypted, or not a key
    if data.startswith(_OPENSSH):
        return _rounds(data[len(_OPENSSH) :]) / MAX_ROUNDS
    if "BEGIN ENCRYPTED" in lines[0]:
        try:
            return _largest(der_decode(data)) / MAX_ITERATIONS
        except ASN1DecodeError:
            return 0
    return 0  # older forms have no rounds


def _rounds(data: bytes) -> int:
    """Return the rounds in a key of OpenSSH (PROTOCOL.key): the end of its third string."""
    options = b""
    for _ in range(3):
        length = int.from_bytes(data[:4], "big")
        options, data = data[4 : 4 + length], data[4 + length :]
    return int.from_bytes(options[-4:], "big")


def _largest(value: object) -> int:
    """Return the largest number in a structure of ASN.1 (RFC 8018)."""
    if isinstance(value, tuple):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0
