"""Kept items, as `BaseIntegration.reread` gets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import CursorExpired
from core.integration.context import BlobWriter
from core.integration.results import Blob

M = TypeVar("M", bound=BaseModel)


def state_value(partition: str, value: Any, model: type[M]) -> M | None:
    """Return a kept value of a state partition as its model; None if there is none.

    Raises:
      CursorExpired: The kept value does not fit the model.
    """
    if value is None:
        return None
    try:
        return model.model_validate(value)
    except ValidationError:
        raise CursorExpired(partition) from None


class StoredContent(Protocol):
    """The content of stored items. The engine implements it."""

    def chunks(self, item: StoredItem, /) -> Iterator[bytes]:
        """Yield the content of an item."""
        ...

    def handle(self, item: StoredItem, /) -> Blob | None:
        """Return the content of an item, for `TaskOutput.content`."""
        ...

    def writer(self) -> BlobWriter:
        """Return a writer for large content."""
        ...

    def state(self, partition: str, model: type[M], /) -> M | None:
        """Return the value of a state partition, or None if it is empty."""
        ...


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A kept item, with the items below it.

    The fields have the meaning that they have in `TaskOutput`.

    Attributes:
      size: The size of the content in bytes; 0 without content.
      children: The kept items below it that are not read themselves, at any depth, by id.
    """

    id: str
    kind: str
    parent: str | None
    name: str | None
    timestamp: datetime | None
    content_type: str | None
    metadata: Mapping[str, Any]
    fingerprint: str | None
    size: int
    children: Sequence[StoredItem] = ()
    _content: StoredContent = field(kw_only=True, repr=False, compare=False)

    def child(self, id: str) -> StoredItem | None:
        """Return the item below this one that has this id, or None."""
        return next((child for child in self.children if child.id == id), None)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces, which are never all in memory. Text is UTF-8."""
        return self._content.chunks(self)

    def read(self) -> bytes:
        """Return the complete content; empty bytes if the item has none. Text is UTF-8."""
        return b"".join(self.chunks())

    @property
    def content(self) -> Blob | None:
        """The content as it is kept, for `TaskOutput.content`; None if the item has none."""
        return self._content.handle(self)

    def state(self, partition: str, model: type[M]) -> M | None:
        """Return the value of a state partition of the account, such as the names of people.

        Args:
          partition: The name of the partition.
          model: The pydantic model of its value.

        Returns:
          The value; None if the partition is empty.

        Raises:
          CursorExpired: The kept value does not fit the model.
        """
        return self._content.state(partition, model)

    def blob(self) -> BlobWriter:
        """Return a writer for large content that the item contains, such as an attachment."""
        return self._content.writer()
