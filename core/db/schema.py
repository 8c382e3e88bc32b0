"""The tables, which `docs/reference/tables.md` explains.

Each module has its own statements on them.

The hot tables (`sync_task`, `sync_state`, `sync_seen`, `user_integration_content`) have no foreign
keys. With them, every insert would lock its run or account row `FOR KEY SHARE`, and many writers of
one run would wait for that row (ADR 0003).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    desc,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR, UUID

from core import scopes
from core.db.indexed import IS_CARRIED, IS_DEFERRED, IS_STOPPED, NEXT_SYNC_LESS_INTERVAL
from core.states import (
    AccountState,
    Deletions,
    HeldState,
    HoldSource,
    Lane,
    Quota,
    RunState,
    TaskState,
    Trigger,
    Word,
    literals,
)

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

dispatch_seq = Sequence("dispatch_seq", metadata=metadata)
"""A sequence that each dispatch increments. It orders writers of the same content or state."""


def _moment(name: str, *, default: bool = False, nullable: bool | None = None) -> Column[Any]:
    """Return a column with a point in time. Without a default, it may be NULL."""
    server_default = text("now()") if default else None
    return Column(
        name,
        DateTime(timezone=True),
        server_default=server_default,
        nullable=not default if nullable is None else nullable,
    )


def _count(name: str, kind: Any = Integer) -> Column[Any]:
    """Return a column with a number that begins with 0."""
    return Column(name, kind, nullable=False, server_default="0")


def _flag(name: str) -> Column[Any]:
    """Return a column that is false unless it is set."""
    return Column(name, Boolean, nullable=False, server_default=text("false"))


def _text(name: str, *, default: str | None = None, nullable: bool = False) -> Column[Any]:
    """Return a column with a text, which is not NULL unless `nullable` says so."""
    return Column(name, Text, nullable=nullable, server_default=default)


def check_in(column: str, words: type[Word]) -> str:
    """Return the CHECK condition that a column holds one of these words."""
    return f"{column} IN ({literals(words)})"


CURRENT_TRANSACTION = "pg_current_xact_id()::text::bigint"
"""The number of the writing transaction, as bigint because clients cannot sort xid8."""


def _changed_xid() -> Column[Any]:
    """Return the column with the last writing transaction. It orders the change feed (ADR 0040)."""
    return Column(
        "changed_xid", BigInteger, nullable=False, server_default=text(CURRENT_TRANSACTION)
    )


def _account(**kwargs: Any) -> Column[Any]:
    """Return a column with the id of an account, without a foreign key, for hot tables."""
    return Column("user_integration_id", UUID, nullable=False, **kwargs)


def _account_key(**kwargs: Any) -> Column[Any]:
    """Return a column that references an account, for tables that are not hot."""
    return Column(
        "user_integration_id",
        UUID,
        ForeignKey("user_integration.id", ondelete="CASCADE"),
        nullable=False,
        **kwargs,
    )


def _content_key() -> Column[Any]:
    """Return a primary key that references an item."""
    item = ForeignKey("user_integration_content.id", ondelete="CASCADE")
    return Column("content_id", BigInteger, item, primary_key=True)


user_integration = Table(
    "user_integration",
    metadata,
    Column("id", UUID, primary_key=True),
    _text("user_id"),
    _text("integration_domain"),
    _text("name"),
    _text("identity"),
    _text("limit_group", nullable=True),
    Column("config", JSONB, nullable=False),
    _text("credentials", nullable=True),
    Column("credentials_version", Integer, nullable=False, server_default="1"),
    # Incremented by every change that workers must see: config, credentials, limits.
    Column("version", Integer, nullable=False, server_default="1"),
    # A trigger increments it when the config or the identity changes. A listing that began under
    # another version deletes nothing.
    Column("config_version", Integer, nullable=False, server_default="1"),
    Column("limits", JSONB, nullable=False, server_default=text("'[]'")),
    _text("sync_status", default=AccountState.ACTIVE),
    _text("deletions", default=Deletions.MARK),
    _text("status_reason", nullable=True),
    _text("status_detail", nullable=True),
    # The latest time at which the engine stopped the account, and the task that caused it.
    _moment("stopped_at"),
    Column("stopped_by", BigInteger),
    Column("poll_interval_minutes", Integer, nullable=False, server_default="15"),
    _moment("next_sync_at"),
    _moment("last_sync_at"),
    _count("consecutive_failures"),
    # The start of the latest live run that listed something; the run itself may be deleted.
    _moment("listing_began_at"),
    # The polls that found nothing on this day (UTC). The first one of a later day moves the number
    # to `account_day`.
    Column("empty_day", Date),
    _count("empty_runs"),
    _flag("resync_due"),
    # The next run drops all cursors: a person requested a resync, or changed the selection of
    # content.
    _flag("drop_state"),
    # The version of the reader that has read the kept content, or reads it now. 0: a reread is due
    # if the integration has a reader.
    Column("reader_version", Integer, nullable=False, server_default="0"),
    Column("refresh_holder", UUID),
    _moment("refresh_until"),
    # True if a user's token set the hosts of this account: it never connects to loopback or a
    # private network (ADR 0042).
    _flag("public_hosts_only"),
    _moment("created_at", default=True),
    _moment("updated_at", default=True),
    # The organization that has the rest of the credentials, and the member's id in it.
    Column("organization_id", UUID),
    _text("member", nullable=True),
    # The engine has paused the account, because the member has left.
    _moment("left_at"),
    # A fact that the plugin told when the account was connected, such as the end of the sign-in.
    _text("notice", nullable=True),
    # The time at which a person asked to erase the account; NULL in other states than `erasing`.
    _moment("erasing_since"),
    # The erasure deletes the account, too, and not only its content.
    _flag("erases_account"),
    # It deletes the user, too, if no other account of the user is left.
    _flag("erases_user"),
    # The engine deletes the content, so the account cannot be restored.
    _flag("erasure_begun"),
    # After a restore, all items get new places in the change feed. This is the external id of the
    # last one that has its new place; NULL if all have.
    _text("restored_after", nullable=True),
    CheckConstraint(check_in("sync_status", AccountState), name="sync_status"),
    CheckConstraint(check_in("deletions", Deletions), name="deletions"),
    CheckConstraint("poll_interval_minutes > 0", name="poll_interval"),
    UniqueConstraint("user_id", "integration_domain", "identity"),
    # The leader looks for polls that are too far ahead.
    Index(
        "user_integration_far_ahead",
        text(f"({NEXT_SYNC_LESS_INTERVAL})"),
        postgresql_where=text(f"sync_status = '{AccountState.ACTIVE}'"),
    ),
    Index(
        "user_integration_due",
        "next_sync_at",
        postgresql_where=text(f"sync_status = '{AccountState.ACTIVE}'"),
    ),
    # The leader looks for accounts whose content an older reader has read.
    Index(
        "user_integration_reader",
        "integration_domain",
        "reader_version",
        "id",
        postgresql_where=text(f"sync_status = '{AccountState.ACTIVE}'"),
    ),
    Index("user_integration_name", "name"),
    # Readers exclude these accounts, and the leader erases them.
    Index(
        "user_integration_erasing",
        "id",
        postgresql_where=text(f"sync_status = '{AccountState.ERASING}'"),
    ),
    Index("user_integration_restored", "id", postgresql_where=text("restored_after IS NOT NULL")),
    Index(
        "user_integration_organization",
        "organization_id",
        postgresql_where=text("organization_id IS NOT NULL"),
    ),
    Index("user_integration_listing", "created_at", "id"),
    # Each poll updates the row twice. The new versions stay in the page of the old ones.
    postgresql_with={"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.05"},
)

organization = Table(
    "organization",
    metadata,
    Column("id", UUID, primary_key=True),
    _text("user_id"),
    _text("integration_domain"),
    _text("name"),
    Column("config", JSONB, nullable=False),
    # NULL once the organization ends.
    _text("credentials", nullable=True),
    # The members that a person has named. NULL: the plugin lists them.
    Column("listed", JSONB),
    # Members without an account: named by a person, and erased.
    Column("excluded", JSONB, nullable=False, server_default=text("'[]'")),
    Column("erased", JSONB, nullable=False, server_default=text("'[]'")),
    Column("poll_interval_minutes", Integer, nullable=False, server_default="15"),
    # The number of active members in the latest listing.
    Column("members", Integer),
    _text("problem", nullable=True),
    _moment("members_due_at", default=True),
    _moment("listed_at"),
    _moment("created_at", default=True),
    _moment("updated_at", default=True),
    # The time at which a person disconnected it. The leader ends its accounts, and deletes the row.
    _moment("ending_since"),
    # The leader also hides the content of the accounts, and deletes it later, or the accounts, too.
    _flag("hides_content"),
    _flag("erases_accounts"),
    UniqueConstraint("integration_domain", "name"),
    Index("organization_listing", "created_at", "id"),
    Index(
        "organization_ending",
        "ending_since",
        "id",
        postgresql_where=text("ending_since IS NOT NULL"),
    ),
)

sync_run = Table(
    "sync_run",
    metadata,
    Column("id", UUID, primary_key=True),
    _account_key(),
    _text("integration_domain"),
    _text("lane"),
    _text("trigger"),
    _text("state", default=RunState.RUNNING),
    # Content with a higher dispatch_seq was written after this run began.
    Column("start_seq", BigInteger, nullable=False),
    # The account's when the run began; NULL for a run that an older version opened.
    Column("config_version", Integer),
    # Written by version 0003 alone; a later migration drops it.
    _flag("allow_deletions"),
    # True if the run must list everything: a resync, or a run that confirms held deletions.
    _flag("complete"),
    # The account's when the run began. A next poll that was set since stays. NULL for a run that an
    # older version opened.
    _moment("next_sync_at"),
    # True if a poll became due during the run that has to follow it.
    _flag("poll_due"),
    _text("over_limit", nullable=True),
    _moment("started_at", default=True),
    _moment("finished_at"),
    _count("tasks_done"),
    _count("tasks_parked"),
    _count("tasks_deferred"),
    _count("outputs_saved", BigInteger),
    _count("outputs_unchanged", BigInteger),
    _count("outputs_deleted", BigInteger),
    # The numbers of skipped items, by reason.
    Column("skipped", JSONB),
    _count("deletions_held", BigInteger),
    _text("error", nullable=True),
    _flag("pruned"),
    # True if a person requested a run while this one was open: it stays until the retention.
    _flag("joined"),
    # The run takes over the tasks of earlier runs in portions: those that are due until
    # `carry_until`; NULL if none is left. The last one so far was due at `carried_at`.
    _moment("carry_until"),
    _moment("carried_at"),
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

account_day = Table(
    "account_day",
    metadata,
    # The figures of an account's runs that ended on a day (UTC).
    _account_key(primary_key=True),
    Column("day", Date, primary_key=True),
    _count("runs"),
    # The runs that found nothing, and were deleted at their end.
    _count("empty_runs"),
    _count("failed_runs"),
    _count("outputs_saved", BigInteger),
    _count("outputs_deleted", BigInteger),
    Index("account_day_day", "day"),
)

# Written with each heartbeat of a worker, by user: no task writes it. A run of a user with a quota
# of runs writes it, too.
user_day = Table(
    "user_day",
    metadata,
    # What the tasks of a user took of the fleet on a day (UTC).
    Column("user_id", Text, primary_key=True),
    Column("day", Date, primary_key=True),
    _count("polls", BigInteger),
    _count("tasks", BigInteger),
    Column("thread_seconds", Float, nullable=False, server_default="0"),
    _count("bytes_in", BigInteger),
    _count("bytes_kept", BigInteger),
    # The runs that have begun, if the user has a quota of runs.
    _count("runs", BigInteger),
    Index("user_day_day", "day", "user_id"),
    # Each active user's row changes with each heartbeat, and no index of it.
    postgresql_with={"fillfactor": "70"},
)

user_quota = Table(
    "user_quota",
    metadata,
    # The empty user has the quotas of users without a row of their own.
    Column("user_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    # NULL: no bound.
    Column("most", BigInteger),
    CheckConstraint(check_in("name", Quota), name="name"),
)

user_kept = Table(
    "user_kept",
    metadata,
    # The size of the content of a user, deleted items included.
    Column("user_id", Text, primary_key=True),
    _count("bytes", BigInteger),
    # True if it has reached the quota of bytes: tasks of the user wait.
    _flag("is_full"),
)

kept_change = Table(
    "kept_change",
    metadata,
    # Triggers insert a row for each statement that changes the size of content. The leader adds
    # these rows to `user_kept`, and deletes them.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _text("user_id"),
    Column("bytes", BigInteger, nullable=False),
)

hint = Table(
    "hint",
    metadata,
    _account_key(primary_key=True),
    _text("user_id"),
    # The parts of the account that wait for a run. An empty text stands for the complete account.
    Column("parts", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # The time at which their run may begin; NULL if none waits, or until the open run ends.
    _moment("due_at"),
    # The run that was made by hints, if it is open, and the parts that it looks at.
    Column("run_id", UUID),
    Column("taken", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _moment("began_at"),
    # The number of runs since the latest hint that looked again, because one found nothing.
    _count("looks", SmallInteger),
    _moment("hinted_at", default=True),
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
    _flag("listens"),
    Column("holder", UUID),
    _moment("holder_until"),
    # The time since which its holder receives events; NULL while it does not.
    _moment("connected_at"),
    # The time since which it is down; NULL if it is connected or never was.
    _moment("down_at"),
    _text("error", nullable=True),
    _count("failures"),
)

listener_account = Table(
    "listener_account",
    metadata,
    _account_key(primary_key=True),
    _text("domain"),
    _text("key"),
    # The account in the provider's events.
    _text("address"),
    Index("listener_account_accounts", "domain", "key", "user_integration_id"),
    Index("listener_account_address", "domain", "address", "user_integration_id"),
)

sync_task = Table(
    "sync_task",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("run_id", UUID, nullable=False),
    _account(),
    _text("integration_domain"),
    _text("lane"),
    Column("parent_id", BigInteger),
    Column("retry_of", BigInteger),
    Column("retried_as", BigInteger),
    _text("type"),
    Column("payload", JSONB, nullable=False),
    Column("dedup_key", LargeBinary, nullable=False),
    _text("state", default=TaskState.READY),
    _count("priority"),
    _moment("available_at", default=True),
    _moment("lease_until"),
    _count("dispatch_no"),
    # 64 random bits of the latest dispatch; NULL before the first one.
    Column("token", BigInteger),
    _count("dispatch_seq", BigInteger),
    _count("attempts", SmallInteger),
    _count("crashes", SmallInteger),
    _count("snoozes"),
    Column("snoozed_seconds", Float, nullable=False, server_default="0"),
    # Written by version 0001 alone; a later migration drops it.
    _count("auto_retries", SmallInteger),
    _count("deferrals", SmallInteger),
    _moment("first_failed_at"),
    # True for a copy of a task of an earlier run, and for its descendants. This run does not know
    # which items the earlier run has seen, so the task never sweeps.
    _flag("carried"),
    _flag("suspect"),
    _moment("started_at"),
    _text("reason", nullable=True),
    Column("errors", JSONB),
    _count("outputs_saved"),
    _count("outputs_unchanged"),
    _count("outputs_deleted"),
    # The part of `outputs_deleted` that the plugin named one by one (code 410).
    _count("outputs_gone"),
    Column("skipped", JSONB),
    # The latest report of the running task: units of its work that are done, and of all its work.
    Column("progress_done", BigInteger),
    Column("progress_total", BigInteger),
    _count("followups"),
    _moment("created_at", default=True),
    _moment("finished_at"),
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
    _account(primary_key=True),
    Column("partition", Text, primary_key=True),
    # NULL if dropped. The row stays, so that an older writer cannot restore the value.
    Column("value", JSONB),
    Column("version", BigInteger, nullable=False),
    Column("dispatch_seq", BigInteger, nullable=False),
    _moment("updated_at", default=True),
)

sync_seen = Table(
    "sync_seen",
    metadata,
    Column("run_id", UUID, primary_key=True),
    Column("external_id", Text, primary_key=True),
)

user_integration_content = Table(
    "user_integration_content",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _account(),
    _text("integration_domain"),
    _text("external_id"),
    _text("kind"),
    _text("parent", nullable=True),
    _text("name", nullable=True),
    _moment("external_timestamp"),
    _text("content_type", nullable=True),
    _text("content_text", nullable=True),
    Column("content_bytes", LargeBinary),
    _text("blob_key", nullable=True),
    _count("size", BigInteger),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    _text("hash", nullable=True),
    Column("digest", LargeBinary, nullable=False),
    _text("fingerprint", nullable=True),
    Column("content_seq", BigInteger, nullable=False),
    Column("metadata_seq", BigInteger, nullable=False),
    _moment("created_at", default=True),
    _moment("updated_at", default=True),
    _moment("deleted_at"),
    # The time since when the item is gone at the source, where the account keeps such items.
    _moment("gone_at_source"),
    # The time of the latest change by a reread. `updated_at` has the latest other change.
    _moment("reread_at"),
    _changed_xid(),
    # Set while the latest change is that of a reread: the transaction of the latest other change.
    Column("synced_xid", BigInteger),
    UniqueConstraint("user_integration_id", "external_id"),
    Index("user_integration_content_changes", "changed_xid", "id"),
    # A reader of the feed that leaves out rereads finds these rows at their earlier position.
    Index(
        "user_integration_content_synced",
        "synced_xid",
        "id",
        postgresql_where=text("synced_xid IS NOT NULL"),
    ),
    # Listings of a parent or of a kind, for one account and for all accounts.
    Index("user_integration_content_children", "parent", "user_integration_id", "external_id"),
    Index("user_integration_content_kind", "kind", "user_integration_id", "external_id"),
    Index(
        "user_integration_content_gone",
        "user_integration_id",
        "external_id",
        postgresql_where=text("gone_at_source IS NOT NULL"),
    ),
    # A listing of deleted items reads no others.
    Index(
        "user_integration_content_deleted",
        "user_integration_id",
        "external_id",
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    # A sweep reads a listing in portions.
    Index(
        "user_integration_content_listing",
        "user_integration_id",
        "parent",
        "external_id",
        postgresql_where=text("deleted_at IS NULL"),
    ),
    # The leader removes items that were deleted long ago.
    Index(
        "user_integration_content_tombstones",
        "changed_xid",
        "id",
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    Index(
        "user_integration_content_blob", "blob_key", postgresql_where=text("blob_key IS NOT NULL")
    ),
)

content_search = Table(
    "content_search",
    metadata,
    _content_key(),
    Column("document", TSVECTOR, nullable=False),
    # The version of the form. The indexer writes documents of an earlier form again; those before 2
    # have neither account nor moment.
    Column("form", SmallInteger, nullable=False, server_default=text("0")),
    Column("user_integration_id", UUID),
    # The item's own time, or the time at which it was stored. NULL for items that are never found.
    _moment("moment"),
    Index("content_search_document", "document", postgresql_using="gin"),
    # The version before uses it.
    Index("content_search_outdated", "content_id", postgresql_where=text("form = 0")),
    Index("content_search_earlier_form", "content_id", postgresql_where=text("form < 2")),
    Index("content_search_by_time", "moment", "content_id"),
    Index("content_search_of_account", "user_integration_id", "moment", "content_id"),
)

# The text of files, such as PDF, for the search.
extracted_text = Table(
    "extracted_text",
    metadata,
    _content_key(),
    _text("hash"),
    _text("text", nullable=True),
    # NULL if the file was read.
    _text("reason", nullable=True),
    _moment("claimed_until"),
    _moment("extracted_at"),
    # Empty if a version that did not store it requested the text.
    _text("user_id", default=""),
    # The previous version needs it. Remove it with the next version.
    Index("extracted_text_waiting", "content_id", postgresql_where=text("extracted_at IS NULL")),
    Index(
        "extracted_text_turns",
        "user_id",
        "content_id",
        postgresql_where=text("extracted_at IS NULL"),
    ),
)

search_progress = Table(
    "search_progress",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    _count("changed_xid", BigInteger),
    _count("content_id", BigInteger),
    CheckConstraint("singleton", name="singleton"),
)

erased_account = Table(
    "erased_account",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("user_integration_id", UUID, nullable=False, unique=True),
    _changed_xid(),
    _moment("erased_at", default=True),
    # The owner, whose tokens see the entry; NULL once all data of the owner are erased.
    _text("user_id", nullable=True),
    Index("erased_account_changes", "changed_xid", "id"),
    Index("erased_account_user", "user_id", postgresql_where=text("user_id IS NOT NULL")),
)

held_deletion = Table(
    "held_deletion",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _account_key(index=True),
    Column("run_id", UUID, nullable=False, index=True),
    _text("source", default=HoldSource.LISTING),
    _text("state", default=HeldState.HELD),
    _text("parent", nullable=True),
    _moment("since"),
    _moment("until"),
    Column("vanished", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    _moment("created_at", default=True),
    _moment("decided_at"),
    CheckConstraint(check_in("source", HoldSource), name="source"),
    CheckConstraint(check_in("state", HeldState), name="state"),
)

held_deletion_item = Table(
    "held_deletion_item",
    metadata,
    Column(
        "held_deletion_id",
        BigInteger,
        ForeignKey("held_deletion.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("external_id", Text, primary_key=True),
)

limit_block = Table(
    "limit_block",
    metadata,
    Column("key", Text, primary_key=True),
    _moment("until", nullable=False),
    _text("reason", nullable=True),
    _moment("blocked_at", default=True),
)

breaker = Table(
    "breaker",
    metadata,
    _account_key(primary_key=True),
    # Empty for the breaker of the complete account.
    Column("limit_name", Text, primary_key=True),
    _text("integration_domain"),
    # The task types that use the limit. NULL: all tasks of the account.
    Column("types", ARRAY(Text)),
    # Consecutive failures that may pass, and their tasks, one entry for each failure.
    _count("failures"),
    Column("failed_tasks", ARRAY(BigInteger), nullable=False),
    _text("reason", nullable=True),
    _moment("first_failed_at", nullable=False),
    # NULL while the breaker is closed.
    _moment("opened_at"),
    _moment("probe_at", nullable=False),
    Column("probe_task", BigInteger),
    _count("failed_probes"),
    # The start of the pause that lasts until `probe_at`.
    _moment("paused_at", default=True),
    Index(
        "breaker_open",
        "integration_domain",
        "probe_at",
        postgresql_where=text("opened_at IS NOT NULL"),
    ),
)

control_change = Table(
    "control_change",
    metadata,
    # Triggers insert a row when the state or the version of an account changes, when it is
    # deleted, and when an integration is paused or resumed. Workers read it before they start a
    # task.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("user_integration_id", UUID),
    _text("integration_domain", nullable=True),
    _changed_xid(),
    _moment("changed_at", default=True),
    Index("control_change_changes", "changed_xid", "id"),
)

blob = Table(
    "blob",
    metadata,
    Column("key", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    _moment("touched_at", default=True),
    # The time at which the leader found that no content row references it.
    _moment("unreferenced_at"),
    Index(
        "blob_unreferenced",
        "unreferenced_at",
        postgresql_where=text("unreferenced_at IS NOT NULL"),
    ),
)

integration = Table(
    "integration",
    metadata,
    Column("domain", Text, primary_key=True),
    _text("name"),
    _text("version", nullable=True),
    Column("tasks", JSONB, nullable=False),
    Column("max_tasks", BigInteger, nullable=False),
    # The version of the reader of stored sources; 0: none.
    Column("reader_version", Integer, nullable=False, server_default="0"),
    _moment("seen_at", default=True),
    # Set while an operator has paused the integration; `paused_until` NULL: until it is resumed.
    _moment("paused_at"),
    _moment("paused_until"),
    # The time at which a process asks the plugin for its listeners again.
    _moment("listeners_due_at"),
)

process = Table(
    "process",
    metadata,
    Column("id", UUID, primary_key=True),
    _text("kind"),
    _text("host"),
    Column("pid", Integer, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    _count("threads"),
    _flag("draining"),
    # The clock of the process at its last heartbeat, for `polling doctor`.
    _moment("clock"),
    # Its counters since it started, for `/metrics`.
    Column("counters", JSONB, nullable=False, server_default=text("'{}'")),
    _moment("started_at", default=True),
    _moment("seen_at", default=True),
    # The time up to which it has applied `control_change`; NULL while it holds no tasks.
    _moment("looked_at"),
    # The fingerprints of its secret keys: of the first one, and of all. NULL: it has none.
    _text("encrypts_with", nullable=True),
    Column("decrypts_with", ARRAY(Text)),
    # The time at which this dispatcher last wrote to Redis; NULL if its last attempt failed.
    _moment("can_send_at"),
    # After Redis has lost messages: the time of the leader's question which tasks it holds, their
    # message ids, and the time at which the leader stopped waiting for them.
    _moment("asked_at"),
    Column("held", ARRAY(Text)),
    _moment("settled_at"),
    # The versions of its readers, by domain; NULL for a process that runs no tasks or is older.
    Column("readers", JSONB),
    # The length of the leases that it grants or renews; NULL for a process that is older.
    Column("lease_seconds", Float),
    # True: it hides accounts that are being erased. NULL for a process that is older.
    Column("hides_erasing", Boolean),
)

throughput = Table(
    "throughput",
    metadata,
    # The counts below cover all workers in this minute.
    Column("minute", DateTime(timezone=True), primary_key=True),
    _count("tasks", BigInteger),
    _count("rows", BigInteger),
)

monotonic_sample = Table(
    "monotonic_sample",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # The seconds for which the monotonic clocks of all leaders have run, and the database's time.
    Column("watched", Float, nullable=False),
    _moment("at", default=True),
    # The transaction before which the change feed ended. NULL if an older version wrote the row.
    Column("horizon", BigInteger),
    Index("monotonic_sample_watched", "watched"),
)

engine_state = Table(
    "engine_state",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    # Changes when a restore of the database is detected, so that messages and results from before
    # it match no task.
    Column("epoch", BigInteger, nullable=False),
    _flag("budgets_started"),
    Column("leader", UUID),
    _moment("leader_until"),
    _moment("last_tick_at"),
    # Random numbers of the leader's term and of the one before, and the times at which they were
    # last renewed. Redis has the same number, unless another fleet uses it.
    Column("nonce", BigInteger),
    _moment("nonce_at"),
    Column("previous_nonce", BigInteger),
    _moment("previous_nonce_at"),
    # The domains in which tasks have waited for a thread for more than a minute.
    Column("stuck", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # The last place in the change feed at which a deleted item was removed, and the cluster whose
    # transactions it counts. Readers with an older cursor start again.
    _text("removed_source", nullable=True),
    Column("removed_xid", BigInteger),
    Column("removed_id", BigInteger),
    CheckConstraint("singleton", name="singleton"),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", UUID, primary_key=True),
    _text("name"),
    # NULL for an operator's token, which can access all users.
    _text("user_id", nullable=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False, server_default=scopes.array(scopes.DEFAULT)),
    _moment("created_at", default=True),
    _moment("expires_at"),
    _moment("last_used_at"),
    _moment("revoked_at"),
    Index("api_token_user", "user_id"),
    Index("api_token_listing", "created_at", "id"),
)

session = Table(
    "session",
    metadata,
    # The SHA-256 of the session's random id.
    Column("digest", LargeBinary, primary_key=True),
    # The token that opened the session. The session ends with it. NULL for a person who signed in
    # with the identity provider.
    Column("token_id", UUID, ForeignKey("api_token.id", ondelete="CASCADE")),
    _moment("created_at", default=True, nullable=False),
    _moment("expires_at", nullable=False),
    # The person, as the identity provider named them at the sign-in. NULL with a token.
    _text("issuer", nullable=True),
    _text("subject", nullable=True),
    _text("name", nullable=True),
    # A newer version may know more roles: no CHECK.
    _text("role", nullable=True),
    CheckConstraint(
        "(token_id IS NULL) = (issuer IS NOT NULL AND subject IS NOT NULL AND name IS NOT NULL"
        " AND role IS NOT NULL)",
        name="owner",
    ),
    Index("session_token", "token_id"),
    Index("session_person", "issuer", "subject", postgresql_where=text("token_id IS NULL")),
    Index("session_age", "expires_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _changed_xid(),
    _moment("at", default=True, nullable=False),
    # A newer version may record acts and objects that this one does not know: no CHECK.
    _text("act"),
    _text("channel"),
    _text("actor", nullable=True),
    Column("token_id", UUID),
    _text("actor_user_id", nullable=True),
    _text("address", nullable=True),
    _text("request_id", nullable=True),
    _text("target_type"),
    _text("target_id"),
    _text("user_id", nullable=True),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Index("audit_changes", "changed_xid", "id"),
    Index("audit_user", "user_id", "changed_xid", "id"),
    Index("audit_age", "at"),
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("token_id", UUID, ForeignKey("api_token.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    # A keyed digest, because the body may contain a password.
    Column("request_digest", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("answer", JSONB),
    _text("location", nullable=True),
    _moment("created_at", default=True, nullable=False),
    Index("idempotency_key_age", "created_at"),
)

oauth_flow = Table(
    "oauth_flow",
    metadata,
    Column("state_digest", LargeBinary, primary_key=True),
    _text("integration_domain"),
    _text("user_id"),
    Column("user_integration_id", UUID),
    _text("name", nullable=True),
    Column("poll_interval_minutes", Integer),
    _text("deletions", nullable=True),
    Column("config", JSONB, nullable=False),
    # Encrypted, like credentials.
    _text("verifier"),
    _text("redirect_to", nullable=True),
    _flag("public_hosts_only"),
    # The dashboard session that started the flow. Only its browser may finish it.
    Column("session_digest", LargeBinary),
    # Encrypted: what the provider returned, while the flow waits for the user's confirmation. The
    # key of the row is then the digest of a one-time code instead of the state.
    _text("answer", nullable=True),
    _moment("expires_at", nullable=False),
    Index("oauth_flow_age", "expires_at"),
)
