"""Outages and controls

Revision: 0003, after 0002

Adds breakers, paused integrations, and the changes of accounts that workers read before they start
a task.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

RECORD_ACCOUNT_CHANGE = """
CREATE FUNCTION record_account_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO control_change (user_integration_id)
    VALUES (CASE WHEN TG_OP = 'DELETE' THEN old.id ELSE new.id END);
    RETURN NULL;
END $$
"""
RECORD_INTEGRATION_CHANGE = """
CREATE FUNCTION record_integration_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO control_change (integration_domain) VALUES (new.domain);
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "breaker",
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("limit_name", sa.Text(), nullable=False),
        sa.Column("integration_domain", sa.Text(), nullable=False),
        sa.Column("types", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed_tasks", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("first_failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("probe_task", sa.BigInteger(), nullable=True),
        sa.Column("failed_probes", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["user_integration_id"],
            ["user_integration.id"],
            name=op.f("breaker_user_integration_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_integration_id", "limit_name", name=op.f("breaker_pkey")),
    )
    op.create_index(
        "breaker_open",
        "breaker",
        ["integration_domain", "probe_at"],
        postgresql_where=sa.text("opened_at IS NOT NULL"),
    )
    op.create_table(
        "control_change",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=True),
        sa.Column("integration_domain", sa.Text(), nullable=True),
        sa.Column(
            "changed_xid",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("control_change_pkey")),
    )
    op.create_index("control_change_changes", "control_change", ["changed_xid", "id"])
    op.add_column("integration", sa.Column("paused_at", sa.DateTime(timezone=True)))
    op.add_column("integration", sa.Column("paused_until", sa.DateTime(timezone=True)))
    op.add_column("process", sa.Column("looked_at", sa.DateTime(timezone=True)))
    op.execute(RECORD_ACCOUNT_CHANGE)
    op.execute(
        "CREATE TRIGGER account_change AFTER UPDATE OF sync_status, version OR DELETE"
        " ON user_integration FOR EACH ROW EXECUTE FUNCTION record_account_change()"
    )
    op.execute(RECORD_INTEGRATION_CHANGE)
    op.execute(
        "CREATE TRIGGER integration_change AFTER UPDATE OF paused_at, paused_until"
        " ON integration FOR EACH ROW EXECUTE FUNCTION record_integration_change()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER integration_change ON integration")
    op.execute("DROP TRIGGER account_change ON user_integration")
    op.execute("DROP FUNCTION record_integration_change()")
    op.execute("DROP FUNCTION record_account_change()")
    op.drop_column("process", "looked_at")
    op.drop_column("integration", "paused_until")
    op.drop_column("integration", "paused_at")
    op.drop_table("control_change")
    op.drop_table("breaker")
