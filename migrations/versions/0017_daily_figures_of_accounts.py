"""Polls that found nothing are counted for each account and day

Revision: 0017, after 0016

Their runs and tasks are deleted when they end, unless a person joined the run.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0017"
down_revision = "0016"

FIGURES = ("runs", "empty_runs", "failed_runs")
OUTPUTS = ("outputs_saved", "outputs_deleted")


def upgrade() -> None:
    op.add_column(
        "sync_run", sa.Column("joined", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("user_integration", sa.Column("listing_began_at", sa.DateTime(timezone=True)))
    op.add_column("user_integration", sa.Column("empty_day", sa.Date()))
    op.add_column(
        "user_integration",
        sa.Column("empty_runs", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_table(
        "account_day",
        sa.Column(
            "user_integration_id",
            sa.UUID(),
            sa.ForeignKey(
                "user_integration.id",
                ondelete="CASCADE",
                name="account_day_user_integration_id_fkey",
            ),
            nullable=False,
        ),
        sa.Column("day", sa.Date(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False, server_default="0")
            for name in FIGURES
        ),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
            for name in OUTPUTS
        ),
        sa.PrimaryKeyConstraint("user_integration_id", "day", name="account_day_pkey"),
    )
    op.create_index("account_day_day", "account_day", ["day"])
    build_index(
        "sync_run_pruned", "sync_run", ["finished_at", "id"], postgresql_where=sa.text("pruned")
    )


def downgrade() -> None:
    op.drop_index("sync_run_pruned", "sync_run")
    op.drop_table("account_day")
    for name in ("empty_runs", "empty_day", "listing_began_at"):
        op.drop_column("user_integration", name)
    op.drop_column("sync_run", "joined")
