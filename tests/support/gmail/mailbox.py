"""One mailbox: messages, labels, and the history of what has happened to them.

Every method may be called while a sync runs.
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
"""Twenty digits: more than a signed 64-bit number, and far more than a float, can hold."""

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
    """A message; its source may be made when it is first asked for."""

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
    """One entry of the history."""

    id: int
    type: str
    message: Stored
    labels: tuple[str, ...]
    labels_then: tuple[str, ...]

    def resource(self, *, bare: bool) -> dict[str, Any]:
        """As the API shows it; `bare` as the reference promises it, without the labels that
        mostly come along.
        """
        message: dict[str, Any] = {"id": self.message.id, "threadId": self.message.thread}
        full = message if bare else message | {"labelIds": [*self.labels_then]}
        entry: dict[str, Any] = {"message": full}
        if self.type.startswith("labels"):
            entry["labelIds"] = [*self.labels]
        return {"id": str(self.id), "messages": [message], self.type: [entry]}


class Mailbox:
    """Filled by the tests, read by the server.

    Parameters:
      address: Whose it is.
      seed: Of the gaps between history ids.
    """

    def __init__(self, address: str = OWNER, seed: int = 0) -> None:
        self.address = address
        self.lock = threading.RLock()
        self.messages: dict[str, Stored] = {}
        self.records: list[Record] = []
        self.history_id = FIRST_HISTORY_ID
        self.oldest_history_id = FIRST_HISTORY_ID
        self.user_labels: dict[str, str] = {}
        self._random = random.Random(seed)
        self._count = 0
        self._order: list[tuple[int, str]] | None = None

    # What happens in it

    def add(
        self,
        raw: bytes | Callable[[], bytes],
        labels: Collection[str] = ("INBOX", "UNREAD"),
        date: int | None = None,
    ) -> str:
        """A message arrives. Returns its id."""
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
        """Many small messages arrive."""
        return [self.add(lambda number=number: plain(number)) for number in range(count)]

    def delete(self, *ids: str) -> None:
        """For good."""
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
        """Returns its id. The history says nothing of it."""
        with self.lock:
            id = f"Label_{len(self.user_labels) + 1}"
            self.user_labels[id] = name
            return id

    def forget_history(self) -> None:
        """What has happened so far can no longer be asked for."""
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

    # What is asked of it

    def listed(self) -> list[tuple[int, str]]:
        """The place and the id of every message, nearly newest first: neighbours may stand the
        other way round, as at Gmail.
        """
        with self.lock:
            if self._order is None:
                self._order = sorted((_place(each), each.id) for each in self.messages.values())
            return self._order

    def since(self, history_id: int) -> Iterator[Record]:
        """The records after this id, oldest first."""
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
    """Before those that are older, with up to two seconds of disorder that stays the same."""
    return -message.internal_date - int(message.id, 16) // 0x1000 * 7919 % 2000
