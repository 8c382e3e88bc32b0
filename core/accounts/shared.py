"""Credentials of an account that shares those of its organization.

The account's own row has only the fields that differ, such as its address and its access token. The
organization's row has the rest, such as the key of a service account. They meet in memory.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from core.accounts.store import Account
from core.accounts.vault import Vault, revealed
from core.errors import VaultError

M = TypeVar("M", bound=BaseModel)


def open_credentials(
    vault: Vault, account: Account, model: type[M], ciphertext: str | None = None
) -> M:
    """Decrypt the credentials of an account, with those of its organization.

    Args:
      vault: The vault.
      account: The account.
      model: The credentials model of the integration.
      ciphertext: Newer credentials of the account. Default: its stored ones.

    Raises:
      VaultError: No key decrypts them, or they are not valid for the model.
    """
    own = ciphertext or account.credentials
    if account.shared_credentials is None:
        return vault.open(own, model)
    values = vault.open_json(account.shared_credentials)
    values |= {} if own is None else vault.open_json(own)
    try:
        return model.model_validate(values)
    except ValidationError:
        raise VaultError("credentials-outdated") from None


def seal_credentials(vault: Vault, account: Account, credentials: BaseModel) -> str:
    """Encrypt the credentials of an account, without the fields that its organization has."""
    if account.shared_credentials is None:
        return vault.seal(credentials)
    shared = vault.open_json(account.shared_credentials)
    own = {name: value for name, value in revealed(credentials).items() if value is not None}
    return vault.seal_json(
        {name: value for name, value in own.items() if not _is_shared(value, shared.get(name))}
    )


def _is_shared(value: object, shared: object) -> bool:
    """Return True if the organization has this value.

    The model of the credentials may drop fields that it does not know, such as those of a key file.
    """
    if isinstance(value, dict) and isinstance(shared, dict):
        return all(
            inner is None or _is_shared(inner, shared.get(name)) for name, inner in value.items()
        )
    return value == shared
