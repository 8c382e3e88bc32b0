"""The part of Gmail's search that the tests use: words and operators, which must all match."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.gmail.mailbox import Stored

TERM = re.compile(r'(-?)(?:(\w+):)?("[^"]*"|[^\s()]+)')


def matches(message: Stored, q: str) -> bool:
    """Return True if a message matches the search.

    Raises:
      NotImplementedError: The fake does not support one of the operators.
    """
    return all(
        _matches(message, name, word.strip('"')) != bool(minus)
        for minus, name, word in TERM.findall(q)
    )


def _matches(message: Stored, name: str, word: str) -> bool:
    match name:
        case "":
            return word.encode().lower() in message.raw.lower()
        case "after":
            return message.internal_date > int(word) * 1000 + 999
        case "before":
            return message.internal_date < int(word) * 1000
        case "in" | "is" | "label":
            return word == "anywhere" or word.upper() in {label.upper() for label in message.labels}
        case "subject" | "from" | "to":
            return bool(
                re.search(
                    rf"^{name}:.*{re.escape(word)}".encode(),
                    message.raw,
                    re.IGNORECASE | re.MULTILINE,
                )
            )
        case "newer_than":
            return True
    raise NotImplementedError(f"{name}: in a search")
