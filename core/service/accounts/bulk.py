"""Act on many accounts, in portions that one request may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from uuid import UUID

from core.errors import PollingError, QuotaReached, ServerUnavailable, TooManyRequests
from core.service.accounts import queries as account_queries
from core.service.backend import Backend
from core.service.runs.parked import BulkResult

MAX_BULK_ACCOUNTS = 500
"""Accounts that one request processes; then it stops, with a cursor in its result."""

MAX_BULK_SECONDS = 10.0
"""Seconds after which one request stops, with a cursor in its result."""

REFUSALS = frozenset({404, 409, 422, 502})
"""Statuses of errors that concern one account: its state, its values or its provider."""

Act = Callable[[UUID], object]


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """Conditions on accounts. None: any value."""

    user_id: str | None = None
    integration_domain: str | None = None
    sync_status: str | None = None


def apply_to_all(
    backend: Backend, act: Act, account_filter: AccountFilter, after: str | None = None
) -> BulkResult:
    """Act on the accounts that match, the oldest first.

    An account whose state, quota or provider does not allow the action does not prevent it on the
    others.

    Args:
      backend: The backend.
      act: The action on one account.
      account_filter: The conditions on the accounts.
      after: The cursor of an earlier result, to continue its command. Default: a new command.

    Raises:
      InvalidInput: The cursor is invalid.
      TooManyRequests: The user has requested too many runs or checks in this hour, before the first
        account.
      ServerUnavailable: All slots for calls of providers are in use, before the first account.
    """
    with backend.database.connection() as conn:
        page = account_queries.accounts.page(
            conn, limit=MAX_BULK_ACCOUNTS, after=after, **asdict(account_filter)
        )
    result = BulkResult()
    stopped_at = _apply(act, [row["id"] for row in page.rows], result)
    if stopped_at is None:
        result.cursor = page.cursor
    elif stopped_at == 0:
        result.cursor = after
    else:
        result.cursor = account_queries.accounts.key.encode(page.rows[stopped_at - 1])
    return result


def apply_to_ids(act: Act, ids: Iterable[UUID]) -> BulkResult:
    """Act on the accounts with these ids. The cursor is the id of the first one that is left.

    Raises:
      TooManyRequests, ServerUnavailable: As for `apply_to_all`.
    """
    wanted, result = list(dict.fromkeys(ids)), BulkResult()
    stopped_at = _apply(act, wanted, result)
    result.cursor = None if stopped_at is None else str(wanted[stopped_at])
    return result


def _apply(act: Act, ids: list[UUID], result: BulkResult) -> int | None:
    """Act on accounts, and count. Returns the number of the account before which it stopped."""
    deadline = time.monotonic() + MAX_BULK_SECONDS
    for number, id in enumerate(ids):
        if time.monotonic() >= deadline:
            return number
        try:
            act(id)
            result.done += 1
        except QuotaReached:
            result.refused += 1
        except (ServerUnavailable, TooManyRequests):
            if not number:
                raise
            return number
        except PollingError as error:
            if error.status not in REFUSALS:
                raise
            result.refused += 1
    return None
