"""Running one task of a reread: the plugin reads kept items again, without network."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.accounts.redaction import error_text
from core.content import stored
from core.content.stored import StoredContents
from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    CursorExpired,
    PermanentError,
    RateLimited,
    SkipItem,
)
from core.integration.base import BaseIntegration
from core.integration.limits import Reader
from core.integration.stored import StoredItem
from core.ledger import rereads
from core.ledger.outcomes import Dispatch, Outcome
from core.results.reread import ItemChanges, KeptRow, item_changes
from core.results.result import result_rows
from core.states import TaskState
from core.worker.accounts import LoadedAccount
from core.worker.context import Services

PORTION_ROWS = 500
"""The maximum number of content rows that one task reads through."""

ROWS_AHEAD = 50
"""The number of items whose rows are loaded together.

Beside syncs, a task reads some 30 items. The rows of all items of a portion would cost more.
"""

PORTION_SECONDS = 1.0
"""Seconds after which a task returns its changes so far."""

PORTION_BYTES = 8 * 1024 * 1024
"""The size of the changes at which a task returns them."""

YIELD_FACTOR = 9
"""The pause after each item, in durations of the item, while the process also runs syncs.

A reread computes all the time, and would hold up the other threads of its process.
"""

MAX_YIELD_SECONDS = 0.1
"""The longest pause after an item, in seconds."""

WAIT_SECONDS = 2.0
"""Seconds between two looks for tasks that were dispatched before the reread began."""

NOT_IN_A_REREAD = (RateLimited, CredentialsInvalid, ConfigurationError, CursorExpired)
"""Exceptions about the provider or the account. A reread has neither."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Portion:
    """The work of one task.

    Attributes:
      after: The id behind which the next task continues; None if this task has no successor.
      failed: Items that could not be read. Each gets a task of its own.
    """

    outcome: Outcome
    after: str | None = None
    failed: list[str] = field(default_factory=list)


def run_reread(dispatch: Dispatch, loaded: LoadedAccount, services: Services) -> Outcome:
    """Read a portion of the kept items again.

    A task that failed or crashed before gives each of its items a task of its own, so that one bad
    item holds up no other.

    Raises:
      Exception: The plugin raised it for the only item of the task.
    """
    reader = loaded.integration.manifest.reader
    if reader is None:
        return Outcome(dispatch, reason="the integration has no reader any more")
    if _waits(dispatch, services):
        return Outcome(
            dispatch, state=TaskState.READY, delay=WAIT_SECONDS, snooze=1,
            reason="waits for tasks that began before the reread",
        )  # fmt: skip
    portion = _Portion(Outcome(dispatch))
    ids = dispatch.payload.get("ids")
    named = list(ids) if ids is not None else _next_items(portion, reader, services)
    if len(named) > 1 and (dispatch.crashes or dispatch.attempts):
        portion.failed = named
    else:
        _read(portion, named, reader, loaded, services)
    return _finished(portion)


def _waits(dispatch: Dispatch, services: Services) -> bool:
    before = dispatch.payload.get("before")
    if before is None:
        return False
    with services.database.connection() as conn:
        return rereads.waits_for_earlier(
            conn, dispatch.account_id, dispatch.domain, dispatch.task_id, before
        )


def _next_items(portion: _Portion, reader: Reader, services: Services) -> list[str]:
    """Return the next items of the account, and set the place after them."""
    dispatch = portion.outcome.dispatch
    after = dispatch.payload.get("after", "")
    with services.database.connection() as conn:
        rows = stored.page(conn, dispatch.account_id, reader.kinds, after=after, most=PORTION_ROWS)
    portion.after = rows[-1][0] if len(rows) == PORTION_ROWS else None
    return [id for id, is_item in rows if is_item]


def _read(
    portion: _Portion,
    named: Sequence[str],
    reader: Reader,
    loaded: LoadedAccount,
    services: Services,
) -> None:
    """Read items, until the time or the size of a portion is reached."""
    dispatch = portion.outcome.dispatch
    is_chain = dispatch.payload.get("ids") is None
    contents = StoredContents(
        services.database, services.blobs, dispatch.account_id, f"reread-{dispatch.id}"
    )
    integration = _without_credentials(loaded)
    deadline = time.monotonic() + PORTION_SECONDS
    for tree, item in _items(named, contents, reader, dispatch, services):
        began = time.monotonic()
        changes = _changes(portion, integration, tree, item, loaded, services)
        portion.outcome.unchanged += changes.unchanged
        portion.outcome.size += changes.size
        if changes.row is not None:
            portion.outcome.rereads.append(changes.row)
        ended = time.monotonic()
        is_late = ended >= deadline or portion.outcome.size >= PORTION_BYTES
        is_late = is_late or services.stopping(dispatch)
        if is_late and is_chain and item.id != named[-1]:
            portion.after = item.id
            return
        if services.syncing():
            time.sleep(min((ended - began) * YIELD_FACTOR, MAX_YIELD_SECONDS))


def _items(
    named: Sequence[str],
    contents: StoredContents,
    reader: Reader,
    dispatch: Dispatch,
    services: Services,
) -> Iterator[tuple[Sequence[KeptRow], StoredItem]]:
    """Yield the kept items with their rows. Each item is valid until the next."""
    for first in range(0, len(named), ROWS_AHEAD):
        ids = named[first : first + ROWS_AHEAD]
        with services.database.connection() as conn:
            trees = stored.trees(conn, dispatch.account_id, reader.kinds, ids)
        yield from zip(trees, contents.items(trees, reader), strict=True)


def _changes(
    portion: _Portion,
    integration: BaseIntegration[Any, Any],
    tree: Sequence[KeptRow],
    item: StoredItem,
    loaded: LoadedAccount,
    services: Services,
) -> ItemChanges:
    """Let the plugin read one item, and return the changes. Note an item that it cannot read."""
    dispatch = portion.outcome.dispatch
    try:
        with services.egress.offline():
            result = integration.reread(item)
            rows = result_rows(result, loaded.integration, services.blobs, {})
        return item_changes(tree, rows)
    except SkipItem:
        return ItemChanges(unchanged=1)
    except Exception as error:
        if dispatch.payload.get("ids") == [item.id]:
            if isinstance(error, NOT_IN_A_REREAD):
                text = error_text(error, loaded.redact)
                raise PermanentError(f"reread() raised {text}") from None
            raise
        log.info(
            "could not read item again (account %s): %s",
            dispatch.account_id,
            error_text(error, loaded.redact),
        )
        portion.failed.append(item.id)
        return ItemChanges()


def _without_credentials(loaded: LoadedAccount) -> BaseIntegration[Any, Any]:
    """Return an instance with the account's config, and without its credentials."""
    integration = loaded.integration
    return integration(loaded.config, integration.credentials_model.model_construct())


def _finished(portion: _Portion) -> Outcome:
    outcome, payload = portion.outcome, portion.outcome.dispatch.payload
    if portion.after is not None:
        outcome.tasks.append(rereads.following(payload, portion.after))
    for id in portion.failed:
        outcome.tasks.append(rereads.again(payload, [id], outcome.dispatch.id))
    return outcome
