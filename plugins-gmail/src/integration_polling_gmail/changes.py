"""Changes: a page of the history, by message.

Source: https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.history.

The plugin reads only the typed arrays, because `messages` repeats them. The only guaranteed field
of a message in them is its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integration_polling_gmail.api import dicts, strings


@dataclass(slots=True)
class Change:
    """The changes of one message in a page.

    Attributes:
      last: The id of the last record about the message.
      is_added, is_deleted: The state after the page.
      labels: The labels before `steps`, if a record lists them; otherwise None.
      steps: Labels added (True) and removed (False), in order.
    """

    last: str = ""
    is_added: bool = False
    is_deleted: bool = False
    labels: set[str] | None = None
    steps: list[tuple[bool, str]] = field(default_factory=list)

    def applied(self, labels: set[str]) -> set[str]:
        """Return these labels after the changes."""
        after = set(labels)
        for is_added, label in self.steps:
            (after.add if is_added else after.discard)(label)
        return after

    @property
    def final(self) -> set[str] | None:
        """All current labels; None if they are unknown."""
        return None if self.labels is None else self.applied(self.labels)


def read_changes(history: Any) -> dict[str, Change]:
    """Return the changes by message id, in the order of the first mention.

    Args:
      history: The records of a page. Gmail omits the key if there are none.
    """
    changes: dict[str, Change] = {}
    for record in dicts(history):
        for entry in dicts(record.get("messagesAdded")):
            if (change := _of(changes, record, entry)) is not None:
                change.is_added, change.is_deleted = True, False
                change.labels, change.steps = _labels(entry), []
        for key, is_added in (("labelsAdded", True), ("labelsRemoved", False)):
            for entry in dicts(record.get(key)):
                if (change := _of(changes, record, entry)) is not None:
                    change.steps += [(is_added, label) for label in strings(entry.get("labelIds"))]
        for entry in dicts(record.get("messagesDeleted")):
            if (change := _of(changes, record, entry)) is not None:
                change.is_deleted = True
    return changes


def _of(
    changes: dict[str, Change], record: Mapping[str, Any], entry: Mapping[str, Any]
) -> Change | None:
    message = entry.get("message")
    id = message.get("id") if isinstance(message, dict) else None
    if not isinstance(id, str) or not id:
        return None
    change = changes.setdefault(id, Change())
    change.last = str(record.get("id", ""))
    return change


def _labels(entry: Mapping[str, Any]) -> set[str] | None:
    message = entry["message"]
    return set(strings(message["labelIds"])) if isinstance(message.get("labelIds"), list) else None
