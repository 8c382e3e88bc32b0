"""A mailbox: messages, labels, and their history.

Tests may call every method while a sync runs.
"""

from __future__ import annotations

import bisect
import random
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from support.gmail.mails import OWNER, plain

FIRST_HISTORY_ID = 17_000_000_000_000_000_000
"""The first history id: twenty digits, more than a signed 64-bit number or a float can hold."""

FIRST_DATE = 1_767_225_600_000
SYSTEM = (
    "INBOX",
    "SPAM",
    "TRASH",
    "UNREAD",
    "STARRED",
    "SENT",
    "DRAFT",
    "IMPORTANT",
    "CATEGORY_PERSONAL",
)


@dataclass
class Stored:
    """A message; its source may be created at the first access."""

    id: str
    thread: str
    labels: set[str]
    internal_date: int
    history_id: int
    make: Callable[[], bytes] = field(repr=False)

    @cached_property
    def raw(self) -> bytes:
        return self.make()


@dataclass(frozen=True)
class Record:
    """A record of the history."""

    id: int
    type: str
    message: Stored
    labels: tuple[str, ...]
    labels_then: tuple[str, ...]

    def resource(self, *, bare: bool) -> dict[str, Any]:
        """Return the record as the API shows it.

        Args:
          bare: Return only the fields that the reference promises, without the message's labels.
        """
        message: dict[str, Any] = {"id": self.message.id, "threadId": self.message.thread}
        full = message if bare else message | {"labelIds": [*self.labels_then]}
        entry: dict[str, Any] = {"message": full}
        if self.type.startswith("labels"):
            entry["labelIds"] = [*self.labels]
        return {"id": str(self.id), "messages": [message], self.type: [entry]}


class Mailbox:
    """A mailbox that tests fill and the server reads.

    Args:
      address: The address of its owner.
      seed: The seed of the random gaps between history ids.
    """

    def __init__(self, address: str = OWNER, seed: int = 0) -> None:
        self.address = address
        self.lock = threading.RLock()
        self.messages: dict[str, Stored] = {}
        self.records: list[Record] = []
        self.history_id = FIRST_HISTORY_ID
        self.oldest_history_id = FIRST_HISTORY_ID
        self.user_labels: dict[str, str] = {}
        self.changed: Callable[[int], None] = lambda history_id: None
        self._random = random.Random(seed)
        self._count = 0
        self._order: list[tuple[int, str]] | None = None

    # Changes

    def add(
        self,
        raw: bytes | Callable[[], bytes],
        labels: Collection[str] = ("INBOX", "UNREAD"),
        date: int | None = None,
    ) -> str:
        """Add a message, and return its id."""
        with self.lock:
            self._count += 1
            id = f"{0x19B0000000000000 + self._count * 0x1000:016x}"
            make = raw if callable(raw) else lambda: raw
            when = FIRST_DATE + self._count * 1000 if date is None else date
            self.messages[id] = Stored(id, id, set(labels), when, 0, make)
            self._order = None
            self._record("messagesAdded", self.messages[id])
            return id

    def fill(self, count: int) -> list[str]:
        """Add small messages, and return their ids."""
        return [self.add(lambda number=number: plain(number)) for number in range(count)]

    def delete(self, *ids: str) -> None:
        """Delete messages permanently."""
        with self.lock:
            for id in ids:
                self._record("messagesDeleted", self.messages.pop(id))
                self._order = None

    def label(self, id: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        with self.lock:
            message = self.messages[id]
            if added := tuple(set(add) - message.labels):
                message.labels |= set(added)
                self._record("labelsAdded", message, added)
            if removed := tuple(set(remove) & message.labels):
                message.labels -= set(removed)
                self._record("labelsRemoved", message, removed)

    def trash(self, id: str) -> None:
        self.label(id, add=["TRASH"], remove=["INBOX"])

    def create_label(self, name: str) -> str:
        """Create a label, which the history does not record; return its id."""
        with self.lock:
            id = f"Label_{len(self.user_labels) + 1}"
            while id in self.user_labels:
                id += "0"
            self.user_labels[id] = name
            return id

    def rename_label(self, id: str, name: str) -> None:
        """Rename a label, which the history does not record."""
        with self.lock:
            self.user_labels[id] = name
            self._advance()

    def delete_label(self, id: str) -> None:
        """Delete a label, and remove it from all messages."""
        with self.lock:
            del self.user_labels[id]
            for message in list(self.messages):
                self.label(message, remove=[id])
            self._advance()

    def forget_history(self) -> None:
        """Expire the history so far."""
        with self.lock:
            self._advance()
            self.oldest_history_id = self.history_id
            self.records.clear()

    def _advance(self) -> int:
        self.history_id += self._random.randint(1, 400)
        return self.history_id

    def _record(self, type: str, message: Stored, labels: tuple[str, ...] = ()) -> None:
        message.history_id = self._advance()
        self.records.append(
            Record(self.history_id, type, message, labels, tuple(sorted(message.labels)))
        )
        self.changed(self.history_id)

    # Queries

    def listed(self) -> list[tuple[int, str]]:
        """Return the place and the id of every message, roughly newest first.

        Neighbours may be in the wrong order, as in Gmail.
        """
        with self.lock:
            if self._order is None:
                self._order = sorted((_place(each), each.id) for each in self.messages.values())
            return self._order

    def since(self, history_id: int) -> Iterator[Record]:
        """Return the records after this id, oldest first."""
        with self.lock:
            first = bisect.bisect_right(self.records, history_id, key=lambda record: record.id)
            return iter(self.records[first:])

    def labels(self) -> list[dict[str, str]]:
        system = [{"id": id, "name": id, "type": "system"} for id in SYSTEM]
        return [
            *system,
            *({"id": id, "name": name, "type": "user"} for id, name in self.user_labels.items()),
        ]


def _place(message: Stored) -> int:
    """Return a message's sort key: newest first, with up to two seconds of constant disorder."""
    return -message.internal_date - int(message.id, 16) // 0x1000 * 7919 % 2000
