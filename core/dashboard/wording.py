"""Errors as sentences of a page."""

from __future__ import annotations

from core.errors import PollingError


def sentences(error: PollingError) -> str:
    """The problem and the next step."""
    return f"{sentence(error.message)} {sentence(error.next_step('dashboard'))}"


def sentence(text: str) -> str:
    """A text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
