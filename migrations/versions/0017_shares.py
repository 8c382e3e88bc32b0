"""The dispatcher finds available tasks by time, and records the domains that wait for threads

Revision: 0017, after 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_index(
        "sync_task_available",
        "sync_task",
        ["integration_domain", "available_at"],
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.add_column(
        "engine_state",
        sa.Column("stuck", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    )


def downgrade() -> None:
    op.drop_column("engine_state", "stuck")
    op.drop_index("sync_task_available", "sync_task")
