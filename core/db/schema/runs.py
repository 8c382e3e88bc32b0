"""Runs, tasks and state, and the hints, listeners, limits and breakers that steer them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    desc,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from core.db.indexed import IS_CARRIED, IS_DEFERRED, IS_STOPPED
from core.db.schema.columns import (
    account_column,
    account_key,
    check_in,
    count_column,
    flag,
    metadata,
    moment,
    text_column,
)
from core.states import Lane, RunState, TaskState, Trigger

sync_run = Table(
    "sync_run",
    metadata,
    Column("id", UUID, primary_key=True),
    account_key(),
    text_column("integration_domain"),
    text_column("lane"),
    text_column("trigger"),
    text_column("state", default=RunState.RUNNING),
    # Content with a higher dispatch_seq was written after this run began.
    Column("start_seq", BigInteger, nullable=False),
    # The account's when the run began; NULL for a run that an older version opened.
    Column("config_version", Integer),
    # Written by version 0003 alone; a later migration drops it.
    flag("allow_deletions"),
    # True if the run must list everything: a resync, or a run that confirms held deletions.
    flag("complete"),
    # The account's when the run began. A next poll that was set since stays. NULL for a run that an
    # older version opened.
    moment("next_sync_at"),
    # True if a poll became due during the run that has to follow it.
    flag("poll_due"),
    text_column("over_limit", nullable=True),
    moment("started_at", default=True),
    moment("finished_at"),
    count_column("tasks_done"),
    count_column("tasks_parked"),
    count_column("tasks_deferred"),
    count_column("outputs_saved", BigInteger),
    count_column("outputs_unchanged", BigInteger),
    count_column("outputs_deleted", BigInteger),
    # The numbers of skipped items, by reason.
    Column("skipped", JSONB),
    count_column("deletions_held", BigInteger),
    text_column("error", nullable=True),
    flag("pruned"),
    # True if a person requested a run while this one was open: it stays until the retention.
    flag("joined"),
    # The run takes over the tasks of earlier runs in portions: those that are due until
    # `carry_until`; NULL if none is left. The last one so far was due at `carried_at`.
    moment("carry_until"),
    moment("carried_at"),
    Column("carried_id", BigInteger),
    CheckConstraint(check_in("lane", Lane), name="lane"),
    CheckConstraint(check_in("trigger", Trigger), name="trigger"),
    CheckConstraint(check_in("state", RunState), name="state"),
    Index(
        "sync_run_open",
        "user_integration_id",
        "lane",
        unique=True,
        postgresql_where=text(f"state = '{RunState.RUNNING}'"),
    ),
    # The dispatcher searches open runs for work.
    Index(
        "sync_run_by_domain",
        "integration_domain",
        "user_integration_id",
        postgresql_where=text(f"state = '{RunState.RUNNING}'"),
    ),
    # The leader looks for runs that have not taken over all tasks of earlier runs. The condition
    # does not name the state, so that no index of all open runs can serve the statement.
    Index(
        "sync_run_carries",
        "user_integration_id",
        "lane",
        postgresql_where=text("carry_until IS NOT NULL AND finished_at IS NULL"),
    ),
    Index("sync_run_history", "user_integration_id", desc("started_at")),
    Index("sync_run_latest", desc("started_at")),
    Index(
        "sync_run_unpruned",
        "finished_at",
        postgresql_where=text("NOT pruned AND finished_at IS NOT NULL"),
    ),
    # The leader deletes old runs whose tasks are deleted.
    Index("sync_run_pruned", "finished_at", "id", postgresql_where=text("pruned")),
)

hint = Table(
    "hint",
    metadata,
    account_key(primary_key=True),
    text_column("user_id"),
    # The parts of the account that wait for a run. An empty text stands for the complete account.
    Column("parts", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # The time at which their run may begin; NULL if none waits, or until the open run ends.
    moment("due_at"),
    # The run that was made by hints, if it is open, and the parts that it looks at.
    Column("run_id", UUID),
    Column("taken", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    moment("began_at"),
    # The number of runs since the latest hint that looked again, because one found nothing.
    count_column("looks", SmallInteger),
    moment("hinted_at", default=True),
    Index("hint_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index(
        "hint_held",
        "user_integration_id",
        postgresql_where=text("due_at IS NULL AND parts <> '{}'::text[]"),
    ),
    Index("hint_user", "user_id", "began_at"),
)

listener = Table(
    "listener",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    # False if its events arrive at the webhook only.
    flag("listens"),
    Column("holder", UUID),
    moment("holder_until"),
    # The time since which its holder receives events; NULL while it does not.
    moment("connected_at"),
    # The time since which it is down; NULL if it is connected or never was.
    moment("down_at"),
    text_column("error", nullable=True),
    count_column("failures"),
)

listener_account = Table(
    "listener_account",
    metadata,
    account_key(primary_key=True),
    text_column("domain"),
    text_column("key"),
    # The account in the provider's events.
    text_column("address"),
    Index("listener_account_accounts", "domain", "key", "user_integration_id"),
    Index("listener_account_address", "domain", "address", "user_integration_id"),
)

sync_task = Table(
    "sync_task",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", UUID, nullable=False),
    account_column(),
    text_column("integration_domain"),
    text_column("lane"),
    Column("parent_id", BigInteger),
    Column("retry_of", BigInteger),
    Column("retried_as", BigInteger),
    text_column("type"),
    Column("payload", JSONB, nullable=False),
    Column("dedup_key", LargeBinary, nullable=False),
    text_column("state", default=TaskState.READY),
    count_column("priority"),
    moment("available_at", default=True),
    moment("lease_until"),
    count_column("dispatch_no"),
    # 64 random bits of the latest dispatch; NULL before the first one.
    Column("token", BigInteger),
    count_column("dispatch_seq", BigInteger),
    count_column("attempts", SmallInteger),
    count_column("crashes", SmallInteger),
    count_column("snoozes"),
    Column("snoozed_seconds", Float, nullable=False, server_default="0"),
    # Written by version 0001 alone; a later migration drops it.
    count_column("auto_retries", SmallInteger),
    count_column("deferrals", SmallInteger),
    moment("first_failed_at"),
    # True for a copy of a task of an earlier run, and for its descendants. This run does not know
    # which items the earlier run has seen, so the task never sweeps.
    flag("carried"),
    flag("suspect"),
    moment("started_at"),
    text_column("reason", nullable=True),
    Column("errors", JSONB),
    count_column("outputs_saved"),
    count_column("outputs_unchanged"),
    count_column("outputs_deleted"),
    # The part of `outputs_deleted` that the plugin named one by one (code 410).
    count_column("outputs_gone"),
    Column("skipped", JSONB),
    # The latest report of the running task: units of its work that are done, and of all its work.
    Column("progress_done", BigInteger),
    Column("progress_total", BigInteger),
    count_column("followups"),
    moment("created_at", default=True),
    moment("finished_at"),
    CheckConstraint(check_in("state", TaskState), name="state"),
    UniqueConstraint("run_id", "dedup_key"),
    # Listings of the tasks of a run.
    Index("sync_task_of_run", "run_id", "id"),
    # The dispatcher reads it by domain and account. The completion check searches it for the open
    # tasks of a lane.
    Index(
        "sync_task_ready",
        "integration_domain",
        "user_integration_id",
        "lane",
        desc("priority"),
        "id",
        postgresql_where=text(f"state = '{TaskState.READY}'"),
    ),
    # The dispatcher asks whether any task of a domain is available, and which became so last. The
    # second condition, which is always true, keeps other searches away (ADR 0095).
    Index(
        "sync_task_by_time",
        "integration_domain",
        "available_at",
        postgresql_where=text(f"state = '{TaskState.READY}' AND dispatch_no >= 0"),
    ),
    Index(
        "sync_task_queued",
        "integration_domain",
        "user_integration_id",
        "lane",
        postgresql_where=text(f"state = '{TaskState.QUEUED}'"),
    ),
    # Read by version 0001 alone; a later migration drops it.
    Index(
        "sync_task_stopped",
        "user_integration_id",
        "id",
        postgresql_where=text(
            f"state IN ('{TaskState.PARKED}', '{TaskState.CANCELLED}') AND retried_as IS NULL"
        ),
    ),
    # The tasks that an account owes.
    Index(
        "sync_task_owed",
        "user_integration_id",
        "lane",
        "id",
        postgresql_where=text(IS_STOPPED),
    ),
    # A run takes over the tasks of earlier runs. Parked tasks, which may be many, are not in it.
    Index(
        "sync_task_carried",
        "user_integration_id",
        "lane",
        "available_at",
        "id",
        postgresql_where=text(IS_CARRIED),
    ),
    # A run's root replaces the deferred roots of earlier runs.
    Index(
        "sync_task_deferred_root",
        "user_integration_id",
        "lane",
        postgresql_where=text(
            f"state = '{TaskState.DEFERRED}' AND type = 'start' AND retried_as IS NULL"
        ),
    ),
    # The delete guard counts the single deletions of a run.
    Index("sync_task_gone", "run_id", postgresql_where=text("outputs_gone > 0")),
    # The leader looks for deferred tasks that are due.
    Index(
        "sync_task_deferred",
        "available_at",
        postgresql_where=text(IS_DEFERRED),
    ),
    postgresql_with={
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_analyze_scale_factor": "0.05",
    },
)

sync_state = Table(
    "sync_state",
    metadata,
    account_column(primary_key=True),
    Column("partition", Text, primary_key=True),
    # NULL if dropped. The row stays, so that an older writer cannot restore the value.
    Column("value", JSONB),
    Column("version", BigInteger, nullable=False),
    Column("dispatch_seq", BigInteger, nullable=False),
    moment("updated_at", default=True),
)

sync_seen = Table(
    "sync_seen",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("external_id", Text, primary_key=True),
)

limit_override = Table(
    "limit_override",
    metadata,
    Column("domain", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    # The figures that an operator has changed. They replace the figures of the settings.
    Column("figures", JSONB, nullable=False),
    moment("changed_at", nullable=False, default=True),
)

limit_block = Table(
    "limit_block",
    metadata,
    Column("key", Text, primary_key=True),
    moment("until", nullable=False),
    text_column("reason", nullable=True),
    moment("blocked_at", default=True),
)

breaker = Table(
    "breaker",
    metadata,
    account_key(primary_key=True),
    # Empty for the breaker of the complete account.
    Column("limit_name", Text, primary_key=True),
    text_column("integration_domain"),
    # The task types that use the limit. NULL: all tasks of the account.
    Column("types", ARRAY(Text)),
    # Consecutive failures that may pass, and their tasks, one entry for each failure.
    count_column("failures"),
    Column("failed_tasks", ARRAY(BigInteger), nullable=False),
    text_column("reason", nullable=True),
    moment("first_failed_at", nullable=False),
    # NULL while the breaker is closed.
    moment("opened_at"),
    moment("probe_at", nullable=False),
    Column("probe_task", BigInteger),
    count_column("failed_probes"),
    # The start of the pause that lasts until `probe_at`.
    moment("paused_at", default=True),
    Index(
        "breaker_open",
        "integration_domain",
        "probe_at",
        postgresql_where=text("opened_at IS NOT NULL"),
    ),
)
