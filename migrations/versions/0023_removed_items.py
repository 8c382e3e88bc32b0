"""Deleted items are removed after their retention time

Revision: 0023, after 0022

The previous version removes nothing, and its samples have no `horizon`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.add_column("monotonic_sample", sa.Column("horizon", sa.BigInteger()))
    op.add_column("engine_state", sa.Column("removed_source", sa.Text()))
    op.add_column("engine_state", sa.Column("removed_xid", sa.BigInteger()))
    op.add_column("engine_state", sa.Column("removed_id", sa.BigInteger()))
    build_index(
        "user_integration_content_tombstones",
        "user_integration_content",
        ["changed_xid", "id"],
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("user_integration_content_tombstones", "user_integration_content")
    for column in ("removed_id", "removed_xid", "removed_source"):
        op.drop_column("engine_state", column)
    op.drop_column("monotonic_sample", "horizon")
