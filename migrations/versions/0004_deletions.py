"""Deletions

Revision: 0004, after 0003

Lets accounts keep what disappears at the source, and lets a person decide on held deletions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column(
        "user_integration",
        sa.Column("deletions", sa.Text(), server_default="mark", nullable=False),
    )
    op.create_check_constraint(
        op.f("user_integration_deletions"), "user_integration", "deletions IN ('mark', 'keep')"
    )
    op.add_column(
        "user_integration_content", sa.Column("gone_at_source", sa.DateTime(timezone=True))
    )
    op.add_column(
        "held_deletion", sa.Column("state", sa.Text(), server_default="held", nullable=False)
    )
    op.add_column("held_deletion", sa.Column("decided_at", sa.DateTime(timezone=True)))
    op.create_check_constraint(
        op.f("held_deletion_state"), "held_deletion", "state IN ('held', 'accepted', 'refused')"
    )
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
    op.add_column(
        "sync_run",
        sa.Column("complete", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "sync_run",
        sa.Column("deletions_held", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column("oauth_flow", sa.Column("deletions", sa.Text()))
    build_index(
        "user_integration_content_gone",
        "user_integration_content",
        ["user_integration_id", "external_id"],
        postgresql_where=sa.text("gone_at_source IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_column("oauth_flow", "deletions")
    op.drop_column("sync_run", "deletions_held")
    op.drop_column("sync_run", "complete")
    op.drop_table("held_deletion_item")
    op.drop_constraint(op.f("held_deletion_state"), "held_deletion")
    op.drop_column("held_deletion", "decided_at")
    op.drop_column("held_deletion", "state")
    op.drop_index("user_integration_content_gone", table_name="user_integration_content")
    op.drop_column("user_integration_content", "gone_at_source")
    op.drop_constraint(op.f("user_integration_deletions"), "user_integration")
    op.drop_column("user_integration", "deletions")
