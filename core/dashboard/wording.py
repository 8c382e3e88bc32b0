"""Error messages as complete sentences."""

from __future__ import annotations

from core.errors import PollingError


def sentences(error: PollingError) -> str:
    """Return the message and the next step of an error as two sentences."""
    return f"{sentence(error.message)} {sentence(error.next_step('dashboard'))}"


def sentence(text: str) -> str:
    """Return a text with an initial capital and a full stop."""
    return f"{capital(text)}{'' if text.endswith(('.', '!', '?')) else '.'}"


def capital(text: str) -> str:
    """Return a text with an initial capital."""
    return f"{text[:1].upper()}{text[1:]}"
