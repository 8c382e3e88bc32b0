"""Reading a kept message again from its stored source."""

from __future__ import annotations

from core import Listing, StoredItem, TaskResult
from core.mail import READER_VERSION
from integration_polling_gmail.account import Config
from integration_polling_gmail.fingerprint import Fingerprint
from integration_polling_gmail.message import SOURCE, Envelope, MessageReader

__all__ = ["READER_VERSION", "reread"]


def reread(item: StoredItem, config: Config) -> TaskResult:
    """Return the message and its attachments, as the current reader and config see them.

    Args:
      item: The kept message.
      config: The account's config.
    """
    source, fingerprint = item.child(f"{item.id}/{SOURCE}"), Fingerprint.read(item.fingerprint)
    if source is None or fingerprint is None:
        return TaskResult()
    with (reader := MessageReader(item, config, item.id)):
        for chunk in source.chunks():
            reader.write(chunk)
        reader.finish()
    message = reader.message(Envelope.of_row(item.metadata, item.timestamp))
    rows = list(message.outputs(fingerprint))
    kept = [row for row in rows if config.attachments != "none" or row.kind != "attachment"]
    return TaskResult(kept, seen=[source.id], listed=[Listing(item.id)])
