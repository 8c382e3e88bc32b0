"""Striking an account's secrets out of text that people and logs will see."""

from __future__ import annotations

import base64
from collections.abc import Callable
from urllib.parse import quote, quote_plus

from pydantic import BaseModel

from core.accounts.vault import secrets_of

SHORTEST = 4
"""Characters; a shorter secret would strike out half of every text."""

LONGEST_TEXT = 2_000
"""Characters of an error that are kept."""


def redactor(credentials: BaseModel) -> Callable[[str], str]:
    """A function that replaces each secret of these credentials, plain or encoded as URLs and headers do, by `***`."""
    shapes = {shape for secret in secrets_of(credentials) if len(secret) >= SHORTEST for shape in _shapes(secret)}
    ordered = sorted(shapes, key=len, reverse=True)

    def strike(text: str) -> str:
        for shape in ordered:
            text = text.replace(shape, "***")
        return text

    return strike


def _shapes(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    encoded = {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    return {secret, quote(raw, safe=""), quote_plus(raw), repr(secret)[1:-1], *encoded}


def error_text(error: BaseException, strike: Callable[[str], str]) -> str:
    """One bounded, harmless line about an exception: its class and message, without secrets or control characters."""
    message = strike(str(error))
    clean = "".join(char if char.isprintable() else " " for char in message[: LONGEST_TEXT * 2])
    name = type(error).__name__
    return f"{name}: {' '.join(clean.split())}"[:LONGEST_TEXT] if clean.strip() else name
