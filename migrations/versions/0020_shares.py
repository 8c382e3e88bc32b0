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
    op.create_table(
        "user_day",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
            for name in ("polls", "tasks")
        ),
        sa.Column("thread_seconds", sa.Float(), nullable=False, server_default="0"),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
            for name in ("bytes_in", "bytes_kept")
        ),
        sa.PrimaryKeyConstraint("user_id", "day", name="user_day_pkey"),
    )
    op.create_index("user_day_day", "user_day", ["day", "user_id"])
    build_index(
        "sync_task_available",
        "sync_task",
        ["integration_domain", "available_at"],
        postgresql_where=sa.text("state = 'ready'"),
    )


def downgrade() -> None:
    op.drop_index("sync_task_available", "sync_task")
    op.drop_table("user_day")
    op.drop_column("engine_state", "stuck")
