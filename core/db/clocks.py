"""The rules of all points in time in the database, which may come from a wrong clock.

The clock of PostgreSQL may step a day ahead and back. `RULES` has the rule of every column with a
point in time; statements take their conditions from it. There are these kinds:

* `Deadline`: something lasts until then. A deadline that is further ahead than its longest span was
  set by a clock that has been set back since, so it counts as expired. Some spans are so long that
  a step of the clock stays within them. Such a row also has the time at which the deadline was set.
  A deadline that was set in the future counts as expired too.
* `Renewed`: a process renews it while it lives. A moment in the future is not recent.
* `Age`: what is older is deleted, or given up. The span must also have passed on the monotonic
  clocks of the leaders (`core.ledger.monotonic`).
* `Chosen`: a person or a provider chose it, so it has no longest span.
* `Record`: people read it, or it compares with moments of the same clock. It expires nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.results.decisions import MAX_BACKOFF_SECONDS, MAX_SNOOZE_SECONDS
from core.results.result import MAX_DELAY_SECONDS

TODAY = "(clock_timestamp() AT TIME ZONE 'UTC')::date"
TOMORROW = f"(({TODAY} + 1)::timestamp AT TIME ZONE 'UTC')"
"""The current day (UTC), and the time at which the next one begins, in SQL."""

EXTRACTION_SECONDS = 120.0
"""Seconds after which another process may extract the text of a claimed file."""

LEAD_SECONDS = 10.0
"""The number of seconds for which a process leads, unless it renews its leadership."""

REFRESH_SECONDS = 60.0
"""Seconds that a refresh of credentials may take before another task tries."""

MAX_LEASE_SECONDS = 3_600.0
"""A lease further ahead counts as expired, unless `POLLING_LEASE_SECONDS` is longer."""

HEARTBEAT_SECONDS = 5.0
"""Seconds between two heartbeats of a process."""

LIMITS_SETTLE_SECONDS = HEARTBEAT_SECONDS + 2.0
"""Seconds after which all workers have read a change of a limit. The leader waits for it.

An earlier leader would send tasks that workers with the old figures refuse.
"""

ALIVE_SECONDS = 15.0
"""The maximum age of the latest heartbeat of a live process."""

CAN_SEND_SECONDS = 5.0
"""The maximum age of a candidate's latest write to Redis, for a leader that hands over to it."""

LISTEN_SECONDS = 15.0
"""The number of seconds for which a process holds a listener, unless it renews the lease."""

DELIVERY_LEASE_SECONDS = 20.0
"""Seconds after which another process may deliver to a subscription, unless this one has finished.

It is twice the deadline of an attempt.
"""

MIN_HINT_SECONDS = 2.0
"""Seconds between the beginnings of two runs that hints made for an account."""

MAX_NONCE_AGE_SECONDS = 15.0
"""Seconds for which a term's nonce counts as this fleet's after its last renewal.

A nonce that is in Redis was renewed there within `core.transport.queues.NONCE_SECONDS`, and in the
database at most one renewal earlier.
"""

SLEW_SECONDS = 5.0
"""A time that is less far in the future is not a sign that the clock was set back."""

HOUR, DAY = 3_600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """Something lasts until then.

    Args:
      span: The longest time that it lasts: an interval in SQL, on the same row.
      since: The column of the same row with the time at which it was set. Default: none.
    """

    span: str
    since: str | None = None


@dataclass(frozen=True, slots=True)
class Renewed:
    """A process renews it; `seconds` after the latest renewal it is stale."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Age:
    """The age in seconds at which the engine deletes rows, or gives work up.

    None: a setting, or another column, has the age.
    """

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A person or a provider chose it."""


@dataclass(frozen=True, slots=True)
class Record:
    """It expires nothing."""


Rule = Deadline | Renewed | Age | Chosen | Record


def _seconds(seconds: float) -> str:
    return f"interval '{seconds:.0f} seconds'"


RULES: Mapping[str, Rule] = {
    "api_token.created_at": Record(),
    "api_token.expires_at": Chosen(),
    "api_token.last_used_at": Record(),
    "api_token.revoked_at": Record(),
    "audit.at": Age(None),
    "blob.touched_at": Age(DAY),
    "blob.unreferenced_at": Age(DAY),
    "breaker.first_failed_at": Record(),
    "breaker.opened_at": Record(),
    "breaker.paused_at": Record(),
    # A provider may ask for a day. The engine's own pauses are shorter.
    "breaker.probe_at": Deadline(_seconds(MAX_SNOOZE_SECONDS), since="paused_at"),
    "content_search.moment": Chosen(),
    "control_change.changed_at": Age(HOUR),
    "delivery.created_at": Age(None),
    "delivery.due_at": Deadline(_seconds(HOUR)),
    "delivery.failed_at": Age(None),
    "engine_state.last_tick_at": Record(),
    "engine_state.leader_until": Deadline(_seconds(LEAD_SECONDS)),
    "engine_state.nonce_at": Renewed(MAX_NONCE_AGE_SECONDS),
    "engine_state.previous_nonce_at": Renewed(MAX_NONCE_AGE_SECONDS),
    "erased_account.erased_at": Record(),
    "extracted_text.claimed_until": Deadline(_seconds(EXTRACTION_SECONDS)),
    "extracted_text.extracted_at": Record(),
    "held_deletion.created_at": Record(),
    # After a week, a person decides again. Nothing is deleted.
    "held_deletion.decided_at": Record(),
    "held_deletion.since": Chosen(),
    "held_deletion.until": Chosen(),
    "hint.began_at": Renewed(MIN_HINT_SECONDS),
    "hint.due_at": Deadline(_seconds(60)),
    "hint.hinted_at": Record(),
    "idempotency_key.created_at": Age(DAY),
    "integration.listeners_due_at": Deadline(_seconds(HOUR)),
    "integration.paused_at": Record(),
    "integration.paused_until": Chosen(),
    "integration.seen_at": Record(),
    "limit_block.blocked_at": Record(),
    "limit_block.until": Deadline(_seconds(MAX_SNOOZE_SECONDS), since="blocked_at"),
    "limit_override.changed_at": Renewed(LIMITS_SETTLE_SECONDS),
    "listener.connected_at": Record(),
    "listener.down_at": Record(),
    "listener.holder_until": Deadline(_seconds(LISTEN_SECONDS)),
    "monotonic_sample.at": Record(),
    "oauth_flow.expires_at": Age(HOUR),
    "organization.created_at": Record(),
    "organization.ending_since": Record(),
    "organization.listed_at": Record(),
    "organization.members_due_at": Deadline(_seconds(HOUR)),
    "organization.updated_at": Record(),
    "process.asked_at": Record(),
    "process.can_send_at": Renewed(CAN_SEND_SECONDS),
    "process.clock": Record(),
    "process.looked_at": Record(),
    "process.seen_at": Renewed(ALIVE_SECONDS),
    "process.settled_at": Record(),
    "process.started_at": Record(),
    "session.created_at": Record(),
    "session.expires_at": Age(HOUR),
    "subscription.created_at": Record(),
    "subscription.delivered_at": Record(),
    "subscription.due_at": Deadline(_seconds(HOUR)),
    "subscription.failing_since": Age(None),
    "subscription.lease_until": Deadline(_seconds(DELIVERY_LEASE_SECONDS)),
    "subscription.state_since": Record(),
    "sync_run.carried_at": Record(),
    "sync_run.carry_until": Record(),
    "sync_run.finished_at": Age(None),
    # Compared with the account's for equality only.
    "sync_run.next_sync_at": Record(),
    "sync_run.started_at": Record(),
    "sync_state.updated_at": Record(),
    # A plugin delays a new task by at most a day. A snooze takes at most as long as all snoozes of
    # the task. Other pauses are shorter than an hour, except that of a deferred task, for which a
    # provider may ask for a day.
    "sync_task.available_at": Deadline(
        f"CASE WHEN finished_at IS NOT NULL THEN {_seconds(MAX_SNOOZE_SECONDS)}"
        " WHEN dispatch_no > 0"
        f" THEN greatest(snoozed_seconds, {MAX_BACKOFF_SECONDS:.0f}) * interval '1 second'"
        f" WHEN created_at <= clock_timestamp() + {_seconds(SLEW_SECONDS)}"
        f" THEN created_at + {_seconds(MAX_DELAY_SECONDS + SLEW_SECONDS)} - clock_timestamp()"
        " ELSE interval '0' END",
        since="finished_at",
    ),
    "sync_task.created_at": Record(),
    "sync_task.finished_at": Record(),
    "sync_task.first_failed_at": Age(None),
    "sync_task.lease_until": Deadline("%(longest_lease)s * interval '1 second'"),
    "sync_task.started_at": Record(),
    "throughput.minute": Age(DAY),
    "user_integration.created_at": Record(),
    "user_integration.erasing_since": Age(None),
    "user_integration.last_sync_at": Record(),
    "user_integration.left_at": Record(),
    "user_integration.listing_began_at": Record(),
    # The next poll has a little jitter.
    "user_integration.next_sync_at": Deadline("poll_interval_minutes * interval '63 seconds'"),
    "user_integration.refresh_until": Deadline(_seconds(REFRESH_SECONDS)),
    "user_integration.stopped_at": Record(),
    "user_integration.updated_at": Record(),
    "user_integration_content.created_at": Record(),
    "user_integration_content.deleted_at": Record(),
    "user_integration_content.external_timestamp": Chosen(),
    "user_integration_content.gone_at_source": Record(),
    "user_integration_content.reread_at": Record(),
    "user_integration_content.updated_at": Record(),
}
"""The rule of each column, by `table.column`."""


def passed(column: str, name: str = "") -> str:
    """Return the condition in SQL that a deadline has passed.

    Args:
      column: The `table.column` in `RULES`.
      name: The column in the statement, such as `b.probe_at`. Default: without a table.
    """
    name = name or column.partition(".")[2]
    return f"({name} <= clock_timestamp() OR {beyond(column, name)})"


def lasts(column: str, name: str = "") -> str:
    """Return the condition in SQL that a deadline has not passed."""
    name = name or column.partition(".")[2]
    return f"({name} > clock_timestamp() AND NOT {beyond(column, name)})"


def beyond(column: str, name: str = "") -> str:
    """Return the condition in SQL that a deadline was set by a clock that has been set back."""
    rule = RULES[column]
    assert isinstance(rule, Deadline)
    name = name or column.partition(".")[2]
    too_far = f"{name} > clock_timestamp() + {rule.span}"
    if rule.since is None:
        return too_far
    table, dot, _ = name.rpartition(".")
    since = f"{table}{dot}{rule.since}"
    future = f"{since} > clock_timestamp() + {_seconds(SLEW_SECONDS)}"
    return f"({too_far} OR coalesce({future}, false))"


def recent(column: str, name: str = "") -> str:
    """Return the condition in SQL that a process has renewed this moment lately."""
    rule = RULES[column]
    assert isinstance(rule, Renewed)
    name = name or column.partition(".")[2]
    span = _seconds(rule.seconds)
    return f"({name} BETWEEN clock_timestamp() - {span} AND clock_timestamp() + {span})"


def age(column: str) -> float:
    """Return the age in seconds at which rows are deleted by this column."""
    rule = RULES[column]
    assert isinstance(rule, Age)
    assert rule.seconds is not None
    return rule.seconds
