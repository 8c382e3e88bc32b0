"""Which messages belong to an account: by its labels, and by what its config leaves out.

A query is Gmail's own business.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from core import ConfigurationError, TaskOutput
from integration_polling_gmail.account import Config
from integration_polling_gmail.changes import Change

HIDDEN = frozenset({"SPAM", "TRASH"})
"""What a listing leaves out unless it is asked for."""

LABELS = "labels"
"""The parent of the rows of labels, and the key of a message's labels in its metadata."""


class History(BaseModel):
    """Where the account stands.

    Parameters:
      id: The history is known up to here. An unsigned 64-bit number, and a string: it may be too
        long for a float.
      generation: Of the listing that this history goes on from; no other has the same.
      labels: The ids of the labels of the config.
      is_listing: The listing has begun in a live run, and has not come to its end.
    """

    id: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    generation: str
    labels: tuple[str, ...] = ()
    is_listing: bool = False


def in_scope(config: Config, history: History, labels: set[str]) -> bool:
    """Whether a message with these labels is kept. A query decides for itself."""
    if config.query:
        return True
    if not config.include_spam_trash and labels & HIDDEN - set(history.labels):
        return False
    return not history.labels or bool(labels & set(history.labels))


def may_be_in_scope(config: Config, history: History, change: Change) -> bool:
    """Return whether a message that is not kept may be in scope now, by its history record."""
    if change.final is not None:
        return in_scope(config, history, change.final)
    return in_scope(config, history, change.applied(set()) | set(history.labels))


def resolved(config: Config, labels: list[dict[str, Any]]) -> tuple[str, ...]:
    """The config's labels as ids.

    Parameters:
      labels: Those of the mailbox.

    Raises:
      ConfigurationError: There is no such label.
    """
    by_name = {str(label.get("name", "")).casefold(): str(label.get("id")) for label in labels}
    ids = {str(label.get("id")) for label in labels}
    found = [label if label in ids else by_name.get(label.casefold()) for label in config.labels]
    if None in found:
        raise ConfigurationError(f"the mailbox has no label {config.labels[found.index(None)]!r}")
    return tuple(dict.fromkeys(filter(None, found)))


def label_row_id(label: str) -> str:
    return f"label/{label}"


def label_rows(labels: list[dict[str, Any]]) -> list[TaskOutput]:
    """The names of labels, which messages give by id."""
    return [
        TaskOutput(
            label_row_id(str(label["id"])), kind="label", parent=LABELS,
            name=str(label.get("name", "")), metadata={"type": str(label.get("type", ""))},
        )
        for label in labels
        if label.get("id")
    ]  # fmt: skip
