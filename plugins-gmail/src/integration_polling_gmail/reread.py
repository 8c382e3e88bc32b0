"""Reading a kept message again from its stored source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core import Listing, StoredItem, TaskOutput, TaskResult
from integration_polling_gmail.account import Config
from integration_polling_gmail.fingerprint import Fingerprint
from integration_polling_gmail.message import SOURCE, MessageReader

READER_VERSION = 1
"""The version of the reader. Increase it when it may read a stored source differently."""

FROM_GMAIL = ("labels", "thread_id", "snippet", "size")
"""Keys of a message's metadata that Gmail gave, and that its source does not have."""


def reread(item: StoredItem, config: Config) -> TaskResult:
    """Return the message and its attachments, as the current reader and config see them.

    Args:
      item: The kept message.
      config: The account's config.
    """
    source, fingerprint = item.child(f"{item.id}/{SOURCE}"), Fingerprint.read(item.fingerprint)
    if source is None or fingerprint is None:
        return TaskResult()
    reader = MessageReader(item, config, item.id)
    with reader:
        for chunk in source.chunks():
            reader.write(chunk)
        reader.finish()
    message = reader.message(_resource(item))
    rows = [_with_gmails_own(row, item) for row in message.outputs(fingerprint)]
    kept = [row for row in rows if config.attachments != "none" or row.kind != "attachment"]
    return TaskResult(kept, seen=[source.id], listed=[Listing(item.id)])


def _resource(item: StoredItem) -> dict[str, Any]:
    """Return Gmail's description of the message, as far as it is kept."""
    when = item.timestamp
    found: dict[str, Any] = {"labelIds": item.metadata.get("labels")}
    return found | ({"internalDate": str(round(when.timestamp() * 1000))} if when else {})


def _with_gmails_own(row: TaskOutput, item: StoredItem) -> TaskOutput:
    if row.id != item.id:
        return row
    own = {name: item.metadata[name] for name in FROM_GMAIL if name in item.metadata}
    return replace(row, metadata={**row.metadata, **own})
