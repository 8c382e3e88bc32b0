"""Encryption of stored credentials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, SecretStr

from core.accounts.vault import Vault, new_key
from core.errors import SettingsError, VaultError
from core.known_secrets import secrets_of


class Tokens(BaseModel):
    access: SecretStr
    refresh: SecretStr | None = None
    raw: SecretBytes = SecretBytes(b"")
    scopes: list[str] = []


class Renamed(BaseModel):
    bearer: SecretStr


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEY = new_key()


@given(access=TEXT, refresh=st.none() | TEXT, raw=TEXT.map(str.encode), scopes=st.lists(TEXT))
def test_sealed_credentials_are_opened_unchanged(
    access: str, refresh: str | None, raw: bytes, scopes: list[str]
) -> None:
    given = Tokens(access=access, refresh=refresh, raw=raw, scopes=scopes)
    assert Vault([KEY]).open(Vault([KEY]).seal(given), Tokens) == given


def test_the_ciphertext_shows_nothing_and_differs_each_time() -> None:
    vault = Vault([KEY])
    first, second = (vault.seal(Tokens(access="correct-horse")) for _ in range(2))
    assert first != second
    assert "correct" not in first


def test_the_first_key_seals_and_every_key_opens() -> None:
    old, new = new_key(), new_key()
    sealed = Vault([old]).seal(Tokens(access="a"))
    assert Vault([new, old]).open(sealed, Tokens).access.get_secret_value() == "a"
    assert (
        Vault([new])
        .open(Vault([new, old]).seal(Tokens(access="b")), Tokens)
        .access.get_secret_value()
        == "b"
    )


def test_after_rotation_the_old_key_is_not_needed() -> None:
    old, new = new_key(), new_key()
    sealed = Vault([old]).seal(Tokens(access="a"))
    rotated = Vault([new, old]).rotate(sealed)
    assert Vault([new]).open(rotated, Tokens).access.get_secret_value() == "a"
    with pytest.raises(VaultError):
        Vault([old]).open(rotated, Tokens)


def test_without_the_key_opening_fails_and_reveals_nothing() -> None:
    sealed = Vault([new_key()]).seal(Tokens(access="correct-horse"))
    for attempt in (
        lambda: Vault([new_key()]).open(sealed, Tokens),
        lambda: Vault([new_key()]).rotate(sealed),
    ):
        with pytest.raises(VaultError) as caught:
            attempt()
        assert "correct-horse" not in str(caught.value)
        assert sealed not in str(caught.value)


def test_outdated_credentials_need_a_reconnect_and_show_no_secret() -> None:
    vault = Vault([KEY])
    with pytest.raises(VaultError) as caught:
        vault.open(vault.seal(Tokens(access="correct-horse")), Renamed)
    assert caught.value.code == "credentials-outdated"
    assert "Reconnect" in caught.value.next_step("cli")
    assert "correct-horse" not in str(caught.value) + repr(caught.value.__cause__)


def test_missing_credentials_need_a_reconnect() -> None:
    """A disconnected account has no credentials; its task must wait and not fail."""
    with pytest.raises(VaultError):
        Vault([KEY]).open(None, Tokens)


@pytest.mark.parametrize("key", ["", "short", "x" * 44])
def test_an_invalid_key_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Vault([key])
    assert "polling keys new" in caught.value.next_step("cli")
    assert not key or key not in str(caught.value)


def test_secrets_of_returns_every_secret_in_plain_text() -> None:
    assert sorted(secrets_of(Tokens(access="a", refresh="b", raw=b"c"))) == ["a", "b", "c"]
