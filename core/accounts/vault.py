"""Encryption of credentials at rest with Fernet. The first key encrypts, and every key decrypts."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from core.errors import SettingsError, VaultError
from core.known_secrets import SECRET_TYPES

M = TypeVar("M", bound=BaseModel)


class Vault:
    """The encryption of credentials.

    Attributes:
      fingerprints: The fingerprints of the keys, in their order: the first one encrypts.

    Args:
      keys: Fernet keys, the newest first.

    Raises:
      SettingsError: A key is not a valid Fernet key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]
        try:
            self._fernets = [Fernet(key) for key in keys]
            self._fernet = MultiFernet(self._fernets)
        except (ValueError, TypeError):
            raise SettingsError("secret-keys-invalid") from None
        self.fingerprints = tuple(map(fingerprint, keys))

    def key_of(self, sealed: str) -> str | None:
        """Return the fingerprint of the key that decrypts a ciphertext; None if none does."""
        for name, fernet in zip(self.fingerprints, self._fernets, strict=True):
            with suppress(InvalidToken):
                fernet.extract_timestamp(sealed)
                return name
        return None

    def seal(self, credentials: BaseModel) -> str:
        """Encrypt credentials."""
        return self._fernet.encrypt(json.dumps(revealed(credentials)).encode()).decode()

    def open(self, sealed: str | None, model: type[M]) -> M:
        """Decrypt credentials. None yields a model with its defaults.

        Raises:
          VaultError: No key decrypts them, or they are not valid for the plugin's model.
        """
        try:
            if sealed is None:
                return model()
            return model.model_validate_json(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise VaultError("credentials-not-decrypted") from None
        except ValidationError:
            raise VaultError("credentials-outdated") from None

    def seal_json(self, values: Mapping[str, Any]) -> str:
        """Encrypt credentials that are not of a model, because they are a part."""
        return self._fernet.encrypt(json.dumps(values).encode()).decode()

    def open_json(self, sealed: str) -> dict[str, Any]:
        """Decrypt a part of credentials.

        Raises:
          VaultError: No key decrypts it.
        """
        try:
            return dict(json.loads(self._fernet.decrypt(sealed)))
        except InvalidToken:
            raise VaultError("credentials-not-decrypted") from None

    def seal_text(self, text: str) -> str:
        """Encrypt a text."""
        return self._fernet.encrypt(text.encode()).decode()

    def open_text(self, sealed: str) -> str:
        """Decrypt a text.

        Raises:
          VaultError: No key decrypts it.
        """
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise VaultError("sign-in-not-decrypted") from None

    def digest(self, data: bytes) -> bytes:
        """Return a keyed hash (HMAC-SHA-256) for comparing data that may contain secrets.

        Without the keys, the hash reveals nothing about the data.
        """
        return hmac.digest(self._keys[0], data, hashlib.sha256)

    def is_digest(self, digest: bytes, data: bytes) -> bool:
        """Return True if this is the digest of the data with any of the keys."""
        return any(
            hmac.compare_digest(hmac.digest(key, data, hashlib.sha256), digest)
            for key in self._keys
        )

    def rotate(self, sealed: str) -> str:
        """Encrypt again with the newest key.

        Raises:
          VaultError: No key decrypts the ciphertext.
        """
        try:
            return self._fernet.rotate(sealed).decode()
        except InvalidToken:
            raise VaultError("credentials-not-decrypted") from None


def fingerprint(key: str) -> str:
    """Return a short name of a key, which reveals nothing about the key."""
    return hashlib.sha256(b"integration-polling key " + key.encode()).hexdigest()[:12]


def new_key() -> str:
    """Generate a Fernet key."""
    return Fernet.generate_key().decode()


def revealed(model: BaseModel) -> Any:
    """Return a model as JSON with its secrets in clear. Only the vault may use it."""
    return to_jsonable_python(_reveal(model.model_dump()))


def _reveal(value: Any) -> Any:
    if isinstance(value, SECRET_TYPES):
        inner = value.get_secret_value()
        return inner.decode() if isinstance(inner, bytes) else inner
    if isinstance(value, dict):
        return {key: _reveal(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_reveal(item) for item in value]
    return value


def size_of(model: BaseModel) -> int:
    """Return the size in bytes of a model as JSON in ASCII, with its secrets."""
    return len(json.dumps(revealed(model)))
