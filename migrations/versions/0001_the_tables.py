"""Create the tables.

Revision: 0001, the first

Nothing was released before it. A later change of the schema takes two revisions: the first expands
the schema, and the second contracts it one release later. The previous version of the engine must
be able to run with the new schema.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("dispatch_seq")))
    op.create_table(
        "api_token",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("api_token_pkey")),
        sa.UniqueConstraint("digest", name=op.f("api_token_digest_key")),
    )
    op.create_index("api_token_user", "api_token", ["user_id"], unique=False)
    op.create_table(
        "blob",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column(
            "touched_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("blob_pkey")),
    )
    op.create_table(
        "engine_state",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("budgets_started", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("leader", sa.UUID(), nullable=True),
        sa.Column("leader_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_tick_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("singleton", name=op.f("engine_state_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("engine_state_pkey")),
    )
    op.create_table(
        "erased_account",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column(
            "changed_xid",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column(
            "erased_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("erased_account_pkey")),
        sa.UniqueConstraint(
            "user_integration_id", name=op.f("erased_account_user_integration_id_key")
        ),
    )
    op.create_index("erased_account_changes", "erased_account", ["changed_xid", "id"], unique=False)
    op.create_table(
        "integration",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("tasks", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("max_tasks", sa.BigInteger(), nullable=False),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("domain", name=op.f("integration_pkey")),
    )
    op.create_table(
        "limit_block",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("limit_block_pkey")),
    )
    op.create_table(
        "oauth_flow",
        sa.Column("state_digest", sa.LargeBinary(), nullable=False),
        sa.Column("integration_domain", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("poll_interval_minutes", sa.Integer(), nullable=True),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("redirect_to", sa.Text(), nullable=True),
        sa.Column(
            "public_hosts_only", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("state_digest", name=op.f("oauth_flow_pkey")),
    )
    op.create_index("oauth_flow_age", "oauth_flow", ["expires_at"], unique=False)
    op.create_table(
        "process",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("threads", sa.Integer(), server_default="0", nullable=False),
        sa.Column("draining", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("clock", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "counters",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("process_pkey")),
    )
    op.create_table(
        "search_progress",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("changed_xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("content_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("singleton", name=op.f("search_progress_singleton")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("search_progress_pkey")),
    )
    op.create_table(
        "sync_seen",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "external_id", name=op.f("sync_seen_pkey")),
    )
    op.create_table(
        "sync_state",
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("dispatch_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("user_integration_id", "partition", name=op.f("sync_state_pkey")),
    )
    op.create_table(
        "sync_task",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("integration_domain", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("retry_of", sa.BigInteger(), nullable=True),
        sa.Column("retried_as", sa.BigInteger(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("dedup_key", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), server_default="ready", nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "available_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dispatch_no", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dispatch_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("crashes", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("snoozes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("snoozed_seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("auto_retries", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("carried", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("suspect", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("errors", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("outputs_saved", sa.Integer(), server_default="0", nullable=False),
        sa.Column("outputs_unchanged", sa.Integer(), server_default="0", nullable=False),
        sa.Column("outputs_deleted", sa.Integer(), server_default="0", nullable=False),
        sa.Column("followups", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('ready', 'queued', 'done', 'deferred', 'parked', 'cancelled')",
            name=op.f("sync_task_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("sync_task_pkey")),
        sa.UniqueConstraint("run_id", "dedup_key", name=op.f("sync_task_run_id_dedup_key_key")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0.02",
            "autovacuum_analyze_scale_factor": "0.05",
        },
    )
    op.create_index(
        "sync_task_queued",
        "sync_task",
        ["integration_domain", "user_integration_id", "lane"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "sync_task_ready",
        "sync_task",
        [
            "integration_domain",
            "user_integration_id",
            "lane",
            sa.literal_column("priority DESC"),
            "id",
        ],
        unique=False,
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_index(
        "sync_task_stopped",
        "sync_task",
        ["user_integration_id", "id"],
        unique=False,
        postgresql_where=sa.text("state IN ('parked', 'cancelled') AND retried_as IS NULL"),
    )
    op.create_table(
        "throughput",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tasks", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("minute", name=op.f("throughput_pkey")),
    )
    op.create_table(
        "user_integration",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("integration_domain", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("limit_group", sa.Text(), nullable=True),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("credentials", sa.Text(), nullable=True),
        sa.Column("credentials_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column(
            "limits",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("sync_status", sa.Text(), server_default="active", nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("status_detail", sa.Text(), nullable=True),
        sa.Column("poll_interval_minutes", sa.Integer(), server_default="15", nullable=False),
        sa.Column("next_sync_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_sync_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("resync_due", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("drop_state", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("refresh_holder", sa.UUID(), nullable=True),
        sa.Column("refresh_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "public_hosts_only", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "sync_status IN ('active', 'paused', 'error', 'erasing', 'disconnected')",
            name=op.f("user_integration_sync_status"),
        ),
        sa.CheckConstraint(
            "poll_interval_minutes > 0", name=op.f("user_integration_poll_interval")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("user_integration_pkey")),
        sa.UniqueConstraint(
            "user_id",
            "integration_domain",
            "identity",
            name=op.f("user_integration_user_id_integration_domain_identity_key"),
        ),
    )
    op.create_index(
        "user_integration_due",
        "user_integration",
        ["next_sync_at"],
        unique=False,
        postgresql_where=sa.text("sync_status = 'active'"),
    )
    op.create_index(
        "user_integration_listing", "user_integration", ["created_at", "id"], unique=False
    )
    op.create_index("user_integration_name", "user_integration", ["name"], unique=False)
    op.create_table(
        "user_integration_content",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("integration_domain", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("external_timestamp", sa.DateTime(timezone=True), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("content_text", sa.Text(), nullable=True),
        sa.Column("content_bytes", sa.LargeBinary(), nullable=True),
        sa.Column("blob_key", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("hash", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("content_seq", sa.BigInteger(), nullable=False),
        sa.Column("metadata_seq", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "changed_xid",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("user_integration_content_pkey")),
        sa.UniqueConstraint(
            "user_integration_id",
            "external_id",
            name=op.f("user_integration_content_user_integration_id_external_id_key"),
        ),
    )
    op.create_index(
        "user_integration_content_blob",
        "user_integration_content",
        ["blob_key"],
        unique=False,
        postgresql_where=sa.text("blob_key IS NOT NULL"),
    )
    op.create_index(
        "user_integration_content_changes",
        "user_integration_content",
        ["changed_xid", "id"],
        unique=False,
    )
    op.create_index(
        "user_integration_content_parent",
        "user_integration_content",
        ["user_integration_id", "parent"],
        unique=False,
    )
    op.create_table(
        "content_search",
        sa.Column("content_id", sa.BigInteger(), nullable=False),
        sa.Column("document", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["user_integration_content.id"],
            name=op.f("content_search_content_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("content_id", name=op.f("content_search_pkey")),
    )
    op.create_index(
        "content_search_document",
        "content_search",
        ["document"],
        unique=False,
        postgresql_using="gin",
    )
    op.create_table(
        "held_deletion",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("vanished", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["user_integration_id"],
            ["user_integration.id"],
            name=op.f("held_deletion_user_integration_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("held_deletion_pkey")),
    )
    op.create_index(
        op.f("held_deletion_user_integration_id"),
        "held_deletion",
        ["user_integration_id"],
        unique=False,
    )
    op.create_table(
        "idempotency_key",
        sa.Column("token_id", sa.UUID(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("answer", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["api_token.id"],
            name=op.f("idempotency_key_token_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_id", "key", name=op.f("idempotency_key_pkey")),
    )
    op.create_index("idempotency_key_age", "idempotency_key", ["created_at"], unique=False)
    op.create_table(
        "sync_run",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("integration_domain", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("start_seq", sa.BigInteger(), nullable=False),
        sa.Column("allow_deletions", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("over_limit", sa.Text(), nullable=True),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tasks_done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tasks_parked", sa.Integer(), server_default="0", nullable=False),
        sa.Column("outputs_saved", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("outputs_unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("outputs_deleted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("pruned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("lane IN ('live', 'backfill')", name=op.f("sync_run_lane")),
        sa.CheckConstraint(
            "state IN ('running', 'succeeded', 'partial', 'failed', 'cancelled')",
            name=op.f("sync_run_state"),
        ),
        sa.CheckConstraint(
            "trigger IN ('schedule', 'manual', 'resync', 'retry', 'hint', 'reread')",
            name=op.f("sync_run_trigger"),
        ),
        sa.ForeignKeyConstraint(
            ["user_integration_id"],
            ["user_integration.id"],
            name=op.f("sync_run_user_integration_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("sync_run_pkey")),
    )
    op.create_index(
        "sync_run_by_domain",
        "sync_run",
        ["integration_domain", "user_integration_id"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "sync_run_history",
        "sync_run",
        ["user_integration_id", sa.literal_column("started_at DESC")],
        unique=False,
    )
    op.create_index(
        "sync_run_latest", "sync_run", [sa.literal_column("started_at DESC")], unique=False
    )
    op.create_index(
        "sync_run_open",
        "sync_run",
        ["user_integration_id", "lane"],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "sync_run_to_prune",
        "sync_run",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("NOT pruned"),
    )
    # Insert the rows of the tables with one row. Each database starts with an epoch of its own.
    op.execute(f"INSERT INTO engine_state (epoch) VALUES ({secrets.randbits(62)})")
    op.execute("INSERT INTO search_progress DEFAULT VALUES")


def downgrade() -> None:
    op.drop_index(
        "sync_run_to_prune", table_name="sync_run", postgresql_where=sa.text("NOT pruned")
    )
    op.drop_index(
        "sync_run_open", table_name="sync_run", postgresql_where=sa.text("state = 'running'")
    )
    op.drop_index("sync_run_latest", table_name="sync_run")
    op.drop_index("sync_run_history", table_name="sync_run")
    op.drop_index(
        "sync_run_by_domain", table_name="sync_run", postgresql_where=sa.text("state = 'running'")
    )
    op.drop_table("sync_run")
    op.drop_index("idempotency_key_age", table_name="idempotency_key")
    op.drop_table("idempotency_key")
    op.drop_index(op.f("held_deletion_user_integration_id"), table_name="held_deletion")
    op.drop_table("held_deletion")
    op.drop_index("content_search_document", table_name="content_search", postgresql_using="gin")
    op.drop_table("content_search")
    op.drop_index("user_integration_content_parent", table_name="user_integration_content")
    op.drop_index("user_integration_content_changes", table_name="user_integration_content")
    op.drop_index(
        "user_integration_content_blob",
        table_name="user_integration_content",
        postgresql_where=sa.text("blob_key IS NOT NULL"),
    )
    op.drop_table("user_integration_content")
    op.drop_index("user_integration_name", table_name="user_integration")
    op.drop_index("user_integration_listing", table_name="user_integration")
    op.drop_index(
        "user_integration_due",
        table_name="user_integration",
        postgresql_where=sa.text("sync_status = 'active'"),
    )
    op.drop_table("user_integration")
    op.drop_table("throughput")
    op.drop_index(
        "sync_task_stopped",
        table_name="sync_task",
        postgresql_where=sa.text("state IN ('parked', 'cancelled') AND retried_as IS NULL"),
    )
    op.drop_index(
        "sync_task_ready", table_name="sync_task", postgresql_where=sa.text("state = 'ready'")
    )
    op.drop_index(
        "sync_task_queued", table_name="sync_task", postgresql_where=sa.text("state = 'queued'")
    )
    op.drop_table("sync_task")
    op.drop_table("sync_state")
    op.drop_table("sync_seen")
    op.drop_table("search_progress")
    op.drop_table("process")
    op.drop_index("oauth_flow_age", table_name="oauth_flow")
    op.drop_table("oauth_flow")
    op.drop_table("limit_block")
    op.drop_table("integration")
    op.drop_index("erased_account_changes", table_name="erased_account")
    op.drop_table("erased_account")
    op.drop_table("engine_state")
    op.drop_table("blob")
    op.drop_index("api_token_user", table_name="api_token")
    op.drop_table("api_token")
    op.execute(sa.schema.DropSequence(sa.Sequence("dispatch_seq")))
