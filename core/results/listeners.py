"""The rules for the listeners of a plugin, and for its answers to webhooks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice

from core.integration.listening import MAX_KEY_CHARS, Hint, Listener, WebhookResponse
from core.results.text import is_storable

MAX_LISTENERS = 10_000
"""The number of listeners of one integration."""

MAX_HINTS = 100
"""The number of hints in the answer to one request."""

MAX_ANSWER_CHARS = 10_000

CONTENT_TYPES = ("text/plain", "application/json")


def named_listeners(listeners: object, known: Collection[str]) -> dict[str, Listener]:
    """Check the result of `listeners`.

    Args:
      listeners: The result of the plugin.
      known: The ids of the accounts that the plugin has read so far. It may read more while its
        result is read.

    Returns:
      The listeners, by their keys.

    Raises:
      TypeError: A value has another type.
      ValueError: A key is not unique or not valid, an account is unknown, or belongs to two
        listeners, or there are too many listeners.
    """
    if not isinstance(listeners, Iterable):
        raise TypeError("listeners() did not return a sequence of Listener")
    named: dict[str, Listener] = {}
    taken = set[str]()
    for listener in islice(listeners, MAX_LISTENERS + 1):
        if not isinstance(listener, Listener):
            raise TypeError("listeners() returned something else than a Listener")
        key = _short(listener.key, "the key of a listener")
        if key in named:
            raise ValueError(f"two listeners have the key {key!r}")
        for id, address in listener.accounts.items():
            _short(address, "the address of an account")
            if id not in known:
                raise ValueError("a listener names an account that is not one of the given ones")
            if id in taken:
                raise ValueError("an account belongs to two listeners")
            taken.add(id)
        named[key] = listener
    if len(named) > MAX_LISTENERS:
        raise ValueError(f"more than {MAX_LISTENERS:,} listeners")
    return named


def checked_response(response: object) -> WebhookResponse:
    """Check the result of `webhook`.

    Raises:
      TypeError: It has another type.
      ValueError: It has too many hints, or an invalid status, body, type or id.
    """
    if not isinstance(response, WebhookResponse):
        raise TypeError("webhook() did not return a WebhookResponse")
    _check_hints(response.hints)
    if not isinstance(response.body, str) or len(response.body) > MAX_ANSWER_CHARS:
        raise ValueError(f"the body is a text of at most {MAX_ANSWER_CHARS:,} characters")
    if type(response.status) is not int or not 200 <= response.status < 600:
        raise ValueError("the status is a number from 200 to 599")
    if response.status in (204, 205, 304) and response.body:
        raise ValueError(f"a response with status {response.status} has no body")
    if not isinstance(response.id, str) or len(response.id) > MAX_KEY_CHARS:
        raise ValueError(f"the id of an event is a text of at most {MAX_KEY_CHARS} characters")
    if response.content_type not in CONTENT_TYPES:
        raise ValueError(f"the content type is one of {', '.join(CONTENT_TYPES)}")
    return response


def _check_hints(hints: Sequence[object]) -> None:
    if len(hints) > MAX_HINTS:
        raise ValueError(f"webhook() returned more than {MAX_HINTS} hints")
    for hint in hints:
        if not isinstance(hint, Hint) or not isinstance(hint.account, str):
            raise TypeError("a hint of webhook() is a Hint with the address of an account")
        if hint.part is not None and not isinstance(hint.part, str):
            raise TypeError("the part of a hint is a text")


def _short(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} is a text")
    if not 0 < len(text) <= MAX_KEY_CHARS or not is_storable(text):
        raise ValueError(f"{what} has 1 to {MAX_KEY_CHARS} characters, without NUL")
    return text
