"""Deletions that a person can trust

Revision: 0004, after 0003

Adds what accounts do with items that disappear, held deletions with their items, the counts of
deletions, and the index by which a listing is compared in portions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0004"
down_revision = "0003"

COUNT_CONFIG_VERSION = """
CREATE FUNCTION count_config_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    new.config_version := old.config_version + 1;
    RETURN new;
END $$
"""


def upgrade() -> None:
    op.add_column(
        "user_integration",
        sa.Column("deletions", sa.Text(), server_default="mark", nullable=False),
    )
    op.create_check_constraint("deletions", "user_integration", "deletions IN ('mark', 'keep')")
    op.add_column(
        "user_integration",
        sa.Column("config_version", sa.Integer(), server_default="1", nullable=False),
    )
    op.execute(COUNT_CONFIG_VERSION)
    op.execute(
        "CREATE TRIGGER config_version BEFORE UPDATE OF config, identity ON user_integration"
        " FOR EACH ROW WHEN (old.config IS DISTINCT FROM new.config"
        " OR old.identity IS DISTINCT FROM new.identity)"
        " EXECUTE FUNCTION count_config_version()"
    )
    op.add_column("sync_run", sa.Column("config_version", sa.Integer()))
    op.add_column(
        "sync_run",
        sa.Column("complete", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("oauth_flow", sa.Column("deletions", sa.Text()))
    op.add_column(
        "sync_run",
        sa.Column("deletions_held", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column(
        "sync_task", sa.Column("outputs_gone", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column("user_integration_content", sa.Column("gone_at_source", sa.DateTime(True)))
    op.add_column(
        "held_deletion", sa.Column("state", sa.Text(), server_default="held", nullable=False)
    )
    op.create_check_constraint(
        "state", "held_deletion", "state IN ('counting', 'held', 'accepted', 'refused')"
    )
    op.add_column(
        "held_deletion", sa.Column("source", sa.Text(), server_default="listing", nullable=False)
    )
    op.create_check_constraint("source", "held_deletion", "source IN ('listing', 'gone')")
    op.add_column("held_deletion", sa.Column("decided_at", sa.DateTime(True)))
    op.create_table(
        "held_deletion_item",
        sa.Column("held_deletion_id", sa.BigInteger(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["held_deletion_id"],
            ["held_deletion.id"],
            name=op.f("held_deletion_item_held_deletion_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "held_deletion_id", "external_id", name=op.f("held_deletion_item_pkey")
        ),
    )
    build_index(
        "user_integration_content_gone",
        "user_integration_content",
        ["user_integration_id", "external_id"],
        postgresql_where=sa.text("gone_at_source IS NOT NULL"),
    )
    build_index("held_deletion_run_id", "held_deletion", ["run_id"])
    build_index(
        "sync_task_gone", "sync_task", ["run_id"], postgresql_where=sa.text("outputs_gone > 0")
    )
    build_index(
        "user_integration_content_listing",
        "user_integration_content",
        ["user_integration_id", "parent", "external_id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("user_integration_content_listing", table_name="user_integration_content")
    op.drop_index("sync_task_gone", table_name="sync_task")
    op.drop_index("user_integration_content_gone", table_name="user_integration_content")
    op.drop_index("held_deletion_run_id", table_name="held_deletion")
    op.drop_table("held_deletion_item")
    op.drop_column("held_deletion", "decided_at")
    op.drop_column("held_deletion", "source")
    op.drop_column("held_deletion", "state")
    op.drop_column("user_integration_content", "gone_at_source")
    op.drop_column("sync_task", "outputs_gone")
    op.drop_column("sync_run", "deletions_held")
    op.drop_column("oauth_flow", "deletions")
    op.drop_column("sync_run", "complete")
    op.drop_column("sync_run", "config_version")
    op.execute("DROP TRIGGER config_version ON user_integration")
    op.execute("DROP FUNCTION count_config_version()")
    op.drop_column("user_integration", "config_version")
    op.drop_column("user_integration", "deletions")
