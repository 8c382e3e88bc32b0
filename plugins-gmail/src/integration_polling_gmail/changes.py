"""A page of the history as what has happened to each message.

https://developers.google.com/workspace/gmail/api/reference/rest/v1/users.history. Only the typed
arrays are read: `messages` repeats them. In what they say of a message, nothing but its id is
certain to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integration_polling_gmail.api import dicts, strings


@dataclass(slots=True)
class Change:
    """Of one message, over a page.

    Attributes:
      last: The id of the last record that names it.
      is_added, is_deleted: As it stands after the page.
      labels: All that it has, where a record says so; None where it does not.
      steps: Labels added (True) and removed (False), in order.
    """

    last: str = ""
    is_added: bool = False
    is_deleted: bool = False
    labels: set[str] | None = None
    steps: list[tuple[bool, str]] = field(default_factory=list)

    def applied(self, labels: set[str]) -> set[str]:
        """What these labels have become."""
        after = set(labels)
        for is_added, label in self.steps:
            (after.add if is_added else after.discard)(label)
        return after

    @property
    def final(self) -> set[str] | None:
        """All labels that it has now, where that is known."""
        return None if self.labels is None else self.applied(self.labels)


def read_changes(history: Any) -> dict[str, Change]:
    """By message id, in the order of their first mention.

    Parameters:
      history: The records of a page; a page without any has no such key at all.
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


def labels_named(changes: Mapping[str, Change]) -> set[str]:
    """Every label that a page mentions."""
    named = {label for change in changes.values() for _, label in change.steps}
    return named.union(*(change.labels for change in changes.values() if change.labels))
