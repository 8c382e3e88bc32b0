"""Deferred tasks

Revision: 0002, after 0001

Adds the time of a task's first failure and the number of its deferrals, and the indexes on tasks
that an account owes. `sync_task.auto_retries` and the index `sync_task_stopped` stay for the
workers of 0001; a later revision drops them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "sync_task",
        sa.Column("deferrals", sa.SmallInteger(), server_default="0", nullable=False),
    )
    op.add_column("sync_task", sa.Column("first_failed_at", sa.DateTime(timezone=True)))
    op.add_column(
        "sync_run", sa.Column("tasks_deferred", sa.Integer(), server_default="0", nullable=False)
    )
    build_index(
        "sync_task_owed",
        "sync_task",
        ["user_integration_id", "lane", "id"],
        postgresql_where=sa.text(
            "state IN ('deferred', 'parked', 'cancelled') AND retried_as IS NULL"
        ),
    )
    build_index(
        "sync_task_deferred",
        "sync_task",
        ["available_at"],
        postgresql_where=sa.text("state = 'deferred' AND retried_as IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("sync_task_deferred", table_name="sync_task")
    op.drop_index("sync_task_owed", table_name="sync_task")
    op.drop_column("sync_run", "tasks_deferred")
    op.drop_column("sync_task", "first_failed_at")
    op.drop_column("sync_task", "deferrals")
