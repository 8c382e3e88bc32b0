"""Skipped items

Revision: 0010, after 0009

Adds the numbers of skipped items, by reason, to tasks and runs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("sync_task", sa.Column("skipped", JSONB))
    op.add_column("sync_run", sa.Column("skipped", JSONB))


def downgrade() -> None:
    op.drop_column("sync_run", "skipped")
    op.drop_column("sync_task", "skipped")
