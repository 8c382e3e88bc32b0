"""Searches for rare rows read no other rows: runs that carry tasks, and deleted items

Revision: 0024, after 0023

With bad statistics, the planner took an index of all open runs instead of `sync_run_carrying`. No
other index can serve the new statement. The previous version reads an index of all open runs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    build_index(
        "sync_run_carries",
        "sync_run",
        ["user_integration_id", "lane"],
        postgresql_where=sa.text("carry_until IS NOT NULL AND finished_at IS NULL"),
    )
    build_index(
        "user_integration_content_deleted",
        "user_integration_content",
        ["user_integration_id", "external_id"],
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    with op.get_context().autocommit_block():
        op.drop_index("sync_run_carrying", "sync_run", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    op.create_index(
        "sync_run_carrying",
        "sync_run",
        ["user_integration_id", "lane"],
        postgresql_where=sa.text("state = 'running' AND carry_until IS NOT NULL"),
    )
    op.drop_index("user_integration_content_deleted", "user_integration_content")
    op.drop_index("sync_run_carries", "sync_run")
