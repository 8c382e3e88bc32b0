"""The messages in scope of an account, by their labels and its config.

Gmail itself applies a query.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, Field

from core import ConfigurationError, TaskOutput
from integration_polling_gmail.account import Config
from integration_polling_gmail.changes import Change

HIDDEN = frozenset({"SPAM", "TRASH"})
"""Labels that a listing leaves out by default."""

HISTORY = "history"
"""The state partition with the position in the history."""

LABELS = "labels"
"""The parent of the label rows, and the key of a message's labels in its metadata."""


class History(BaseModel):
    """The account's state: its position in the history.

    Attributes:
      id: The history id up to which changes are applied. It is a number of any length, stored
        as text because it may not fit into a float.
      generation: The unique id of the listing that this history continues.
      labels: The ids of the config's labels.
      is_listing: True while a listing of a live run is unfinished.
      since: The config's `since` of the latest listing; empty without one. None if it is unknown.
      expired: The time at which the history expired last. None if it never did.
      listed: The time of the latest listing of all ids.
      labels_listed: The time of the latest listing of labels.
    """

    id: Annotated[str, Field(pattern=r"^[0-9]{1,1000}$")]
    generation: str
    labels: tuple[str, ...] = ()
    is_listing: bool = False
    since: str | None = None
    expired: AwareDatetime | None = None
    listed: AwareDatetime | None = None
    labels_listed: AwareDatetime | None = None


def in_scope(config: Config, history: History, labels: set[str]) -> bool:
    """Return True if a message with these labels is kept; with a query, always."""
    if config.query:
        return True
    if not config.include_spam_trash and labels & HIDDEN - set(history.labels):
        return False
    return not history.labels or bool(labels & set(history.labels))


def may_be_in_scope(config: Config, history: History, change: Change) -> bool:
    """Return True if an unknown message may now be in scope, according to its history records."""
    if change.final is not None:
        return in_scope(config, history, change.final)
    return in_scope(config, history, change.applied(set()) | set(history.labels))


def resolved(config: Config, labels: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the ids of the config's labels.

    Args:
      config: The account's config.
      labels: The labels of the mailbox.

    Raises:
      ConfigurationError: The mailbox does not have one of the labels.
    """
    by_name = {str(label.get("name", "")).casefold(): str(label.get("id")) for label in labels}
    ids = {str(label.get("id")) for label in labels}
    found = [label if label in ids else by_name.get(label.casefold()) for label in config.labels]
    if None in found:
        raise ConfigurationError(
            f"the mailbox has no label {config.labels[found.index(None)]!r}", field="labels"
        )
    return tuple(dict.fromkeys(filter(None, found)))


def label_row_id(label: str) -> str:
    """Return the id of a label's row."""
    return f"label/{label}"


def label_rows(labels: list[dict[str, Any]]) -> list[TaskOutput]:
    """Return rows with the names of labels; messages refer to labels by id."""
    return [
        TaskOutput(
            label_row_id(str(label["id"])), kind="label", parent=LABELS,
            name=str(label.get("name", "")), metadata={"type": str(label.get("type", ""))},
        )
        for label in labels
        if label.get("id")
    ]  # fmt: skip
