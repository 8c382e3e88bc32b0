"""Leases of processes, and carried tasks in portions

Revision: 0012, after 0011

Adds the length of a process's leases. Adds to runs the place up to which they have taken over the
tasks of earlier runs, with the indexes that find these tasks and runs. Adds to blobs the time at
which no row referenced them any more.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("process", sa.Column("lease_seconds", sa.Float))
    op.add_column("sync_run", sa.Column("carry_until", sa.DateTime(timezone=True)))
    op.add_column("sync_run", sa.Column("carried_at", sa.DateTime(timezone=True)))
    op.add_column("sync_run", sa.Column("carried_id", sa.BigInteger))
    op.add_column("blob", sa.Column("unreferenced_at", sa.DateTime(timezone=True)))
    op.create_index(
        "blob_unreferenced",
        "blob",
        ["unreferenced_at"],
        postgresql_where=sa.text("unreferenced_at IS NOT NULL"),
    )
    op.create_index(
        "sync_run_carrying",
        "sync_run",
        ["user_integration_id", "lane"],
        postgresql_where=sa.text("state = 'running' AND carry_until IS NOT NULL"),
    )
    op.create_index(
        "sync_task_carried",
        "sync_task",
        ["user_integration_id", "lane", "available_at", "id"],
        postgresql_where=sa.text("state IN ('deferred', 'cancelled') AND retried_as IS NULL"),
    )
    op.create_index(
        "sync_task_deferred_root",
        "sync_task",
        ["user_integration_id", "lane"],
        postgresql_where=sa.text("state = 'deferred' AND type = 'start' AND retried_as IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("sync_task_deferred_root", "sync_task")
    op.drop_index("sync_task_carried", "sync_task")
    op.drop_index("sync_run_carrying", "sync_run")
    op.drop_index("blob_unreferenced", "blob")
    op.drop_column("blob", "unreferenced_at")
    op.drop_column("sync_run", "carried_id")
    op.drop_column("sync_run", "carried_at")
    op.drop_column("sync_run", "carry_until")
    op.drop_column("process", "lease_seconds")
