"""The processes of the engine."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from core.db.schema.columns import count_column, flag, metadata, moment, text_column

integration = Table(
    "integration",
    metadata,
    Column("domain", Text, primary_key=True),
    text_column("name"),
    text_column("version", nullable=True),
    Column("tasks", JSONB, nullable=False),
    Column("max_tasks", BigInteger, nullable=False),
    # The version of the reader of stored sources; 0: none.
    Column("reader_version", Integer, nullable=False, server_default="0"),
    moment("seen_at", default=True),
    # Set while an operator has paused the integration; `paused_until` NULL: until it is resumed.
    moment("paused_at"),
    moment("paused_until"),
    # The time at which a process asks the plugin for its listeners again.
    moment("listeners_due_at"),
)

process = Table(
    "process",
    metadata,
    Column("id", UUID, primary_key=True),
    text_column("kind"),
    text_column("host"),
    Column("pid", Integer, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    count_column("threads"),
    flag("draining"),
    # The clock of the process at its last heartbeat, for `polling doctor`.
    moment("clock"),
    # Its counters since it started, for `/metrics`.
    Column("counters", JSONB, nullable=False, server_default=text("'{}'")),
    moment("started_at", default=True),
    moment("seen_at", default=True),
    # The time up to which it has applied `control_change`; NULL while it holds no tasks.
    moment("looked_at"),
    # The fingerprints of its secret keys: of the first one, and of all. NULL: it has none.
    text_column("encrypts_with", nullable=True),
    Column("decrypts_with", ARRAY(Text)),
    # The time at which this dispatcher last wrote to Redis; NULL if its last attempt failed.
    moment("can_send_at"),
    # After Redis has lost messages: the time of the leader's question which tasks it holds, their
    # message ids, and the time at which the leader stopped waiting for them.
    moment("asked_at"),
    Column("held", ARRAY(Text)),
    moment("settled_at"),
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
    count_column("tasks", BigInteger),
    count_column("rows", BigInteger),
)

monotonic_sample = Table(
    "monotonic_sample",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # The seconds for which the monotonic clocks of all leaders have run, and the database's time.
    Column("watched", Float, nullable=False),
    moment("at", default=True),
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
    flag("budgets_started"),
    Column("leader", UUID),
    moment("leader_until"),
    moment("last_tick_at"),
    # Random numbers of the leader's term and of the one before, and the times at which they were
    # last renewed. Redis has the same number, unless another fleet uses it.
    Column("nonce", BigInteger),
    moment("nonce_at"),
    Column("previous_nonce", BigInteger),
    moment("previous_nonce_at"),
    # The domains in which tasks have waited for a thread for more than a minute.
    Column("stuck", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # The last place in the change feed at which a deleted item was removed, and the cluster whose
    # transactions it counts. Readers with an older cursor start again.
    text_column("removed_source", nullable=True),
    Column("removed_xid", BigInteger),
    Column("removed_id", BigInteger),
    CheckConstraint("singleton", name="singleton"),
)
