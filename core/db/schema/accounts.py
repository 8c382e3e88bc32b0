"""Accounts, organizations, and the use and quotas of users."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Float,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from core.db.indexed import NEXT_SYNC_LESS_INTERVAL
from core.db.schema.columns import (
    account_key,
    changed_xid,
    check_in,
    count_column,
    flag,
    metadata,
    moment,
    text_column,
)
from core.states import AccountState, Deletions, Quota

user_integration = Table(
    "user_integration",
    metadata,
    Column("id", UUID, primary_key=True),
    text_column("user_id"),
    text_column("integration_domain"),
    text_column("name"),
    text_column("identity"),
    text_column("limit_group", nullable=True),
    Column("config", JSONB, nullable=False),
    text_column("credentials", nullable=True),
    Column("credentials_version", Integer, nullable=False, server_default="1"),
    # Incremented by every change that workers must see: config, credentials, limits.
    Column("version", Integer, nullable=False, server_default="1"),
    # A trigger increments it when the config or the identity changes. A listing that began under
    # another version deletes nothing.
    Column("config_version", Integer, nullable=False, server_default="1"),
    Column("limits", JSONB, nullable=False, server_default=text("'[]'")),
    text_column("sync_status", default=AccountState.ACTIVE),
    text_column("deletions", default=Deletions.MARK),
    text_column("status_reason", nullable=True),
    text_column("status_detail", nullable=True),
    # The latest time at which the engine stopped the account, and the task that caused it.
    moment("stopped_at"),
    Column("stopped_by", BigInteger),
    Column("poll_interval_minutes", Integer, nullable=False, server_default="15"),
    moment("next_sync_at"),
    moment("last_sync_at"),
    count_column("consecutive_failures"),
    # The start of the latest live run that listed something; the run itself may be deleted.
    moment("listing_began_at"),
    # The polls that found nothing on this day (UTC). The first one of a later day moves the number
    # to `account_day`.
    Column("empty_day", Date),
    count_column("empty_runs"),
    flag("resync_due"),
    # The next run drops all cursors: a person requested a resync, or changed the selection of
    # content.
    flag("drop_state"),
    # The version of the reader that has read the kept content, or reads it now. 0: a reread is due
    # if the integration has a reader.
    Column("reader_version", Integer, nullable=False, server_default="0"),
    Column("refresh_holder", UUID),
    moment("refresh_until"),
    # True if a user's token set the hosts of this account: it never connects to loopback or a
    # private network (ADR 0042).
    flag("public_hosts_only"),
    moment("created_at", default=True),
    moment("updated_at", default=True),
    # The organization that has the rest of the credentials, and the member's id in it.
    Column("organization_id", UUID),
    text_column("member", nullable=True),
    # The engine has paused the account, because the member has left.
    moment("left_at"),
    # A fact that the plugin told when the account was connected, such as the end of the sign-in.
    text_column("notice", nullable=True),
    # The time at which a person asked to erase the account; NULL in other states than `erasing`.
    moment("erasing_since"),
    # The erasure deletes the account, too, and not only its content.
    flag("erases_account"),
    # It deletes the user, too, if no other account of the user is left.
    flag("erases_user"),
    # The engine deletes the content, so the account cannot be restored.
    flag("erasure_begun"),
    # After a restore, all items get new places in the change feed. This is the external id of the
    # last one that has its new place; NULL if all have.
    text_column("restored_after", nullable=True),
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
    text_column("user_id"),
    text_column("integration_domain"),
    text_column("name"),
    Column("config", JSONB, nullable=False),
    # NULL once the organization ends.
    text_column("credentials", nullable=True),
    # The members that a person has named. NULL: the plugin lists them.
    Column("listed", JSONB),
    # Members without an account: named by a person, and erased.
    Column("excluded", JSONB, nullable=False, server_default=text("'[]'")),
    Column("erased", JSONB, nullable=False, server_default=text("'[]'")),
    Column("poll_interval_minutes", Integer, nullable=False, server_default="15"),
    # The number of active members in the latest listing.
    Column("members", Integer),
    text_column("problem", nullable=True),
    moment("members_due_at", default=True),
    moment("listed_at"),
    moment("created_at", default=True),
    moment("updated_at", default=True),
    # The time at which a person disconnected it. The leader ends its accounts, and deletes the row.
    moment("ending_since"),
    # The leader also hides the content of the accounts, and deletes it later, or the accounts, too.
    flag("hides_content"),
    flag("erases_accounts"),
    UniqueConstraint("integration_domain", "name"),
    Index("organization_listing", "created_at", "id"),
    Index(
        "organization_ending",
        "ending_since",
        "id",
        postgresql_where=text("ending_since IS NOT NULL"),
    ),
)

account_day = Table(
    "account_day",
    metadata,
    # The figures of an account's runs that ended on a day (UTC).
    account_key(primary_key=True),
    Column("day", Date, primary_key=True),
    count_column("runs"),
    # The runs that found nothing, and were deleted at their end.
    count_column("empty_runs"),
    count_column("failed_runs"),
    count_column("outputs_saved", BigInteger),
    count_column("outputs_deleted", BigInteger),
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
    count_column("polls", BigInteger),
    count_column("tasks", BigInteger),
    Column("thread_seconds", Float, nullable=False, server_default="0"),
    count_column("bytes_in", BigInteger),
    count_column("bytes_kept", BigInteger),
    # The runs that have begun, if the user has a quota of runs.
    count_column("runs", BigInteger),
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
    count_column("bytes", BigInteger),
    # True if it has reached the quota of bytes: tasks of the user wait.
    flag("is_full"),
)

kept_change = Table(
    "kept_change",
    metadata,
    # Triggers insert a row for each statement that changes the size of content. The leader adds
    # these rows to `user_kept`, and deletes them.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    text_column("user_id"),
    Column("bytes", BigInteger, nullable=False),
)

control_change = Table(
    "control_change",
    metadata,
    # Triggers insert a row when the state or the version of an account changes, when it is
    # deleted, and when an integration is paused or resumed. Workers read it before they start a
    # task.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("user_integration_id", UUID),
    text_column("integration_domain", nullable=True),
    changed_xid(),
    moment("changed_at", default=True),
    Index("control_change_changes", "changed_xid", "id"),
)
