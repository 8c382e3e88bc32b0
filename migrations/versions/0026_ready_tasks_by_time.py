"""The index of ready tasks by time serves no other search

Revision: 0026, after 0025

The previous version searches the other index of ready tasks for the first available one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    build_index(
        "sync_task_by_time",
        "sync_task",
        ["integration_domain", "available_at"],
        postgresql_where=sa.text("state = 'ready' AND dispatch_no >= 0"),
    )
    with op.get_context().autocommit_block():
        op.drop_index(
            "sync_task_available", "sync_task", postgresql_concurrently=True, if_exists=True
        )


def downgrade() -> None:
    op.create_index(
        "sync_task_available",
        "sync_task",
        ["integration_domain", "available_at"],
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.drop_index("sync_task_by_time", "sync_task")
