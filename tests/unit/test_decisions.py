"""The effect of each exception: one test for each row of the table in the design."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from redis import ConnectionError, ReadOnlyError

from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    CursorExpired,
    NotFound,
    PermanentError,
    RateLimited,
    ResultInvalid,
    ServerUnavailable,
    SkipItem,
    TransientError,
    Unavailable,
    VaultError,
)
from core.ledger.outcomes import Dispatch, Outcome, Stop
from core.limits.keys import account_key
from core.middleware.retries import Retries, outcome_of
from core.plugins import Registry
from core.results.decisions import INACTIVE_ACCOUNT_SECONDS, KEY_SECONDS, MIN_DEFERRALS, RetryPolicy
from core.results.signals import AccountStopped, LeftToOthers, TimeLimitExceeded
from core.results.text import is_storable
from core.worker.accounts import LoadedAccount
from core.worker.inflight import InflightTasks

Decide = Callable[..., Outcome]


@pytest.fixture
def come_to(dispatch: Callable[..., Dispatch], loaded: LoadedAccount) -> Decide:
    """Return `come_to(exception, attempts=2)`, which makes the outcome of a task that raises it."""

    def outcome(exception: BaseException, **given: object) -> Outcome:
        return outcome_of(
            dispatch(**given), exception, RetryPolicy(), loaded, loaded.redact, lambda _: 0
        )

    return outcome


def test_skip_item_is_done_with_the_reason_kept(come_to: Decide) -> None:
    outcome = come_to(SkipItem("a draft"))
    assert (outcome.state, outcome.reason, outcome.attempt, outcome.error) == (
        "done",
        "a draft",
        0,
        None,
    )


@pytest.mark.parametrize(
    "error", [TransientError("down"), ValueError("down"), OSError("down"), RuntimeError("down")]
)
def test_a_temporary_error_counts_an_attempt_and_waits(come_to: Decide, error: Exception) -> None:
    outcome = come_to(error)
    assert (outcome.state, outcome.attempt, outcome.snooze, outcome.crash) == ("ready", 1, 0, 0)
    assert 0 <= outcome.delay <= 4.0
    assert outcome.error == f"{type(error).__name__}: down"


def test_the_last_attempt_parks_a_failure_that_is_not_known_to_pass(come_to: Decide) -> None:
    assert come_to(ValueError("broken"), attempts=1).state == "ready"
    outcome = come_to(ValueError("broken"), attempts=2)
    assert (outcome.state, outcome.attempt, outcome.reason) == (
        "parked",
        1,
        "after 3 attempts: broken",
    )


def test_a_failure_that_may_pass_is_deferred_with_pauses_that_grow_to_six_hours(
    come_to: Decide,
) -> None:
    assert come_to(TransientError("down"), attempts=1).state == "ready"
    pauses = []
    for deferrals in range(12):
        outcome = come_to(TransientError("down"), attempts=2, deferrals=deferrals)
        assert (outcome.state, outcome.attempt, outcome.reason) == ("deferred", 1, "deferred: down")
        assert outcome.error == "TransientError: down"
        pauses.append(outcome.delay)
    assert 30 <= pauses[0] <= 60
    assert 3 * 3_600 <= pauses[-1] <= 6 * 3_600


def test_a_provider_that_asks_for_a_long_pause_defers_the_task_for_that_long(
    come_to: Decide,
) -> None:
    outcome = come_to(Unavailable("maintenance", retry_after=7_200))
    assert (outcome.state, outcome.delay) == ("deferred", 7_200)
    outcome = come_to(Unavailable("busy", retry_after=20))
    assert (outcome.state, outcome.delay) == ("ready", 20)
    assert come_to(Unavailable("busy", retry_after=float("nan"))).delay <= 4


def test_a_failure_that_may_pass_parks_a_week_after_the_first(come_to: Decide) -> None:
    week, often = 7 * 86_400.0, {"attempts": 2, "deferrals": MIN_DEFERRALS}
    early = come_to(TransientError("x"), **often, failing_seconds=week - 1)
    assert early.state == "deferred"
    outcome = come_to(TransientError("x"), **often, failing_seconds=week)
    assert (outcome.state, outcome.reason) == ("parked", "failing for 7 days: x")


def test_a_task_that_was_seldom_tried_does_not_park_after_a_week(come_to: Decide) -> None:
    outcome = come_to(
        TransientError("x"), attempts=2, deferrals=MIN_DEFERRALS - 1, failing_seconds=30 * 86_400.0
    )
    assert outcome.state == "deferred"


@pytest.mark.parametrize(
    "error",
    [PermanentError("no"), ResultInvalid("no"), NotFound("content-not-found", content="7")],
    ids=repr,
)
def test_a_permanent_error_parks_immediately(come_to: Decide, error: Exception) -> None:
    reason = "content 7 not found" if isinstance(error, NotFound) else "no"
    assert (come_to(error).state, come_to(error).reason) == ("parked", reason)


def test_rate_limited_blocks_the_account_and_counts_no_attempt(
    come_to: Decide, loaded: LoadedAccount
) -> None:
    outcome = come_to(RateLimited("slow down", retry_after=30), attempts=2)
    assert (outcome.state, outcome.attempt, outcome.snooze) == ("ready", 0, 1)
    assert outcome.block is not None
    assert (outcome.block.key, outcome.block.seconds) == (account_key(str(loaded.account.id)), 30)
    assert 30 <= outcome.delay <= 31.5


def test_rate_limited_with_a_limit_blocks_all_that_share_the_limit(come_to: Decide) -> None:
    outcome = come_to(RateLimited(retry_after=1, limit="quota"))
    assert outcome.block is not None
    assert outcome.block.key == "group/shop/acme/quota"


def test_an_undeclared_limit_does_not_block_the_complete_account(
    come_to: Decide, loaded: LoadedAccount
) -> None:
    outcome = come_to(RateLimited(retry_after=1, limit="unheard-of"))
    assert outcome.block is not None
    assert outcome.block.key not in {account_key(str(loaded.account.id)), "group/shop/acme/quota"}


def test_bad_credentials_stop_the_account_and_keep_the_task(come_to: Decide) -> None:
    outcome = come_to(CredentialsInvalid("expired"))
    assert (outcome.state, outcome.attempt) == ("ready", 0)
    assert outcome.stop == Stop("credentials", "expired", 3)


def test_a_task_without_a_key_waits_and_stops_no_account(
    come_to: Decide,
) -> None:
    outcome = come_to(VaultError("credentials-not-decrypted"), attempts=2, suspect=True)
    assert (outcome.state, outcome.attempt, outcome.crash, outcome.snooze) == ("ready", 0, 0, 1)
    assert (outcome.delay, outcome.stop, outcome.block, outcome.suspect) == (
        KEY_SECONDS,
        None,
        None,
        True,
    )
    assert outcome.reason == "no configured key decrypts these credentials"
    assert KEY_SECONDS == 60


@pytest.mark.parametrize(
    "error",
    [
        ServerUnavailable("postgres-unavailable", detail="away"),
        ConnectionError("away"),
        ReadOnlyError("away"),
    ],
    ids=repr,
)
def test_an_outage_of_our_servers_counts_no_attempt(come_to: Decide, error: Exception) -> None:
    outcome = come_to(error, attempts=2, suspect=True)
    assert (outcome.state, outcome.attempt, outcome.crash, outcome.snooze) == ("ready", 0, 0, 0)
    assert (outcome.stop, outcome.block, outcome.error, outcome.suspect) == (None, None, None, True)
    assert 0 < outcome.delay <= 5


def test_a_bad_configuration_stops_the_account_and_keeps_the_task(come_to: Decide) -> None:
    outcome = come_to(ConfigurationError("no such folder"))
    assert (outcome.state, outcome.attempt) == ("ready", 0)
    assert outcome.stop == Stop("configuration", "no such folder", 3)


@pytest.mark.parametrize("snoozes", [0, 5, 39])
def test_a_task_for_another_plugin_version_waits(come_to: Decide, snoozes: int) -> None:
    outcome = come_to(LeftToOthers("waits"), snoozes=snoozes)
    assert (outcome.state, outcome.snooze, outcome.attempt, outcome.reason) == (
        "ready",
        1,
        0,
        "waits",
    )
    assert 1.0 <= outcome.delay <= KEY_SECONDS


def test_an_expired_cursor_ends_the_task_and_drops_the_partition(come_to: Decide) -> None:
    outcome = come_to(CursorExpired("history"))
    assert (outcome.state, outcome.expired, outcome.outputs) == ("done", "history", [])


def test_an_expired_cursor_in_a_resync_parks_the_task(come_to: Decide) -> None:
    outcome = come_to(CursorExpired("history"), trigger="resync")
    assert (outcome.state, outcome.expired) == ("parked", None)


def test_exceeding_the_time_limit_counts_a_crash_and_the_third_parks(come_to: Decide) -> None:
    outcome = come_to(TimeLimitExceeded("over"))
    assert (outcome.state, outcome.crash, outcome.attempt, outcome.suspect) == ("ready", 1, 0, True)
    assert come_to(TimeLimitExceeded("over"), crashes=1).state == "ready"
    assert come_to(TimeLimitExceeded("over"), crashes=2).state == "parked"


def test_a_task_of_a_stopped_account_only_waits(come_to: Decide) -> None:
    outcome = come_to(AccountStopped())
    assert (outcome.state, outcome.attempt, outcome.snooze, outcome.delay) == (
        "ready",
        0,
        0,
        INACTIVE_ACCOUNT_SECONDS,
    )
    assert outcome.error is None


@pytest.mark.parametrize(
    "error",
    [
        SkipItem, TransientError, PermanentError, RateLimited, CredentialsInvalid,
        ConfigurationError, ValueError, TimeLimitExceeded, CursorExpired,
    ],
)  # fmt: skip
def test_an_outcome_contains_no_secret_and_only_storable_text(
    come_to: Decide, error: type[BaseException]
) -> None:
    outcome = come_to(error("GET /?p=hunter-2-hunter gave \x00\ud800"))
    texts = [outcome.reason or "", outcome.error or "", str(outcome.block), str(outcome.stop)]
    assert "hunter-2" not in "".join(texts)
    assert all(map(is_storable, texts))


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_exception_without_a_readable_text_is_transient(
    dispatch: Callable[..., Dispatch], loaded: LoadedAccount
) -> None:
    """Without an outcome, its process would keep the task and renew its lease forever."""
    handed: list[Outcome] = []
    accounts: Any = SimpleNamespace(
        redactor=lambda _: loaded.redact, credentials_version=lambda _: 0
    )
    runner: Any = SimpleNamespace(used=lambda _: loaded)
    retries = Retries(InflightTasks(), runner, accounts, handed.append, Registry(), RetryPolicy())
    retries.after(dispatch(), None, Unreadable())  # type: ignore[arg-type]
    assert [(outcome.state, outcome.attempt) for outcome in handed] == [("ready", 1)]
