"""The dispatcher finds available tasks by time, and records the domains that wait for threads

Revision: 0020, after 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from core.db.migrate import build_index

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column(
        "engine_state",
        sa.Column("stuck", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    )
    build_index(
        "sync_task_available",
        "sync_task",
        ["integration_domain", "available_at"],
        postgresql_where=sa.text("state = 'ready'"),
    )


def downgrade() -> None:
    op.drop_index("sync_task_available", "sync_task")
    op.drop_column("engine_state", "stuck")
