"""Credentials at rest: encrypted with Fernet, the first key encrypts, every key decrypts."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import BaseModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic_core import to_jsonable_python

from core.errors import SettingsError, VaultError

M = TypeVar("M", bound=BaseModel)

_SECRETS = (SecretStr, SecretBytes, Secret)


class Vault:
    """Encrypts and decrypts credentials.

    Parameters:
      keys: Fernet keys, the newest first.

    Raises:
      SettingsError: A key is none.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except (ValueError, TypeError):
            raise SettingsError("secret-keys-invalid") from None

    def seal(self, credentials: BaseModel) -> str:
        """The ciphertext of these credentials."""
        return self._fernet.encrypt(json.dumps(revealed(credentials)).encode()).decode()

    def open(self, sealed: str | None, model: type[M]) -> M:
        """The credentials again.

        Raises:
          VaultError: No key opens them, or they no longer fit the plugin's model.
        """
        try:
            if sealed is None:
                return model()
            return model.model_validate_json(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise VaultError("credentials-not-decrypted") from None
        except ValidationError:
            raise VaultError("credentials-outdated") from None

    def seal_text(self, text: str) -> str:
        """The ciphertext of a text."""
        return self._fernet.encrypt(text.encode()).decode()

    def open_text(self, sealed: str) -> str:
        """The text again.

        Raises:
          VaultError: No key opens it.
        """
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise VaultError("sign-in-not-decrypted") from None

    def digest(self, data: bytes) -> bytes:
        """A tag that tells data that may hold secrets from other data, useless without the keys."""
        return hmac.digest(self._keys[0], data, hashlib.sha256)

    def is_digest(self, digest: bytes, data: bytes) -> bool:
        """Whether this is the digest of these data, by whichever of the keys."""
        return any(
            hmac.compare_digest(hmac.digest(key, data, hashlib.sha256), digest)
            for key in self._keys
        )

    def rotate(self, sealed: str) -> str:
        """Seal again with the newest key.

        Raises:
          VaultError: No key opens them.
        """
        try:
            return self._fernet.rotate(sealed).decode()
        except InvalidToken:
            raise VaultError("credentials-not-decrypted") from None


def new_key() -> str:
    """A new Fernet key."""
    return Fernet.generate_key().decode()


def revealed(model: BaseModel) -> Any:
    """A model as JSON with its secrets in clear: for the vault, and for nothing else."""
    return to_jsonable_python(_reveal(model.model_dump()))


def _reveal(value: Any) -> Any:
    if isinstance(value, _SECRETS):
        inner = value.get_secret_value()
        return inner.decode() if isinstance(inner, bytes) else inner
    if isinstance(value, dict):
        return {key: _reveal(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_reveal(item) for item in value]
    return value


def secrets_of(model: BaseModel) -> Iterator[str]:
    """Every secret in a model, in clear, for the redactor."""
    yield from _secrets(model.model_dump())


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, _SECRETS):
        yield str(_reveal(value))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _secrets(item)
