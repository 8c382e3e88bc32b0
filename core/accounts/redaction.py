"""Striking an account's secrets out of text that people and logs will see."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from core.accounts.vault import secrets_of
from core.environment import Environment
from core.errors import SettingsError
from core.integration.operator import operator_settings
from core.plugins import Registry

SHORTEST = 4
"""Characters; a shorter secret would strike out half of every text."""

SHORTEST_IN_BASE64 = 6
"""Characters."""

LONGEST_TEXT = 2_000
"""Characters of an error that are kept."""


def redactor(credentials: BaseModel) -> Callable[[str], str]:
    """A function that replaces each secret of these credentials, plain or encoded as URLs and headers do, by `***`."""
    return _striking(secrets_of(credentials))


def operator_redactor(environment: Environment, registry: Registry) -> Callable[[str], str]:
    """The same for what is the operator's: keys, passwords of servers, and secrets of integrations."""
    urls = (environment.database_url, environment.redis_url)
    passwords = [unquote(password) for url in urls if (password := urlsplit(url).password)]
    return _striking([*environment.secret_keys, *passwords, *_settings_secrets(registry)])


def _settings_secrets(registry: Registry) -> Iterator[str]:
    for integration in registry.integrations.values():
        with suppress(SettingsError):  # who needs it says so
            for one in operator_settings(integration.manifest.settings):
                if isinstance(one.value, SecretStr):
                    yield one.value.get_secret_value()


def _striking(secrets: Iterable[str]) -> Callable[[str], str]:
    shapes = {shape for secret in secrets if len(secret) >= SHORTEST for shape in _shapes(secret)}
    ordered = sorted(shapes, key=len, reverse=True)

    def strike(text: str) -> str:
        for shape in ordered:
            text = text.replace(shape, "***")
        return text

    return strike


def _shapes(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    written = {quote(raw), quote(raw, safe=""), quote_plus(raw), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    return {secret, *written, *_in_base64(raw)}


def _in_base64(raw: bytes) -> set[str]:
    """The secret alone, and what of it does not depend on its neighbours where it stands behind others, as in `user:secret`."""
    shapes = set()
    for before in range(3):
        padded = b"\0" * before + raw + b"\0" * (-(before + len(raw)) % 3)
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            middle = encode(padded).decode()[first:last]
            shapes |= {middle} if len(middle) >= SHORTEST_IN_BASE64 else set()
    whole = {encode(raw).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    return shapes | whole


def error_text(error: BaseException, strike: Callable[[str], str]) -> str:
    """One bounded, harmless line about an exception: its class and message, without secrets or control characters."""
    message = strike(str(error))
    clean = "".join(char if char.isprintable() else " " for char in message[: LONGEST_TEXT * 2])
    name = type(error).__name__
    return f"{name}: {' '.join(clean.split())}"[:LONGEST_TEXT] if clean.strip() else name
