"""Rereads

Revision: 0009, after 0008

Records the version of the reader with which each account's content was read, and which changes come
from a reread. Builds the search index again, in the background: it now has participants and
threads.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column(
        "user_integration",
        sa.Column("reader_version", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_index(
        "user_integration_reader",
        "user_integration",
        ["integration_domain", "reader_version", "id"],
        postgresql_where=sa.text("sync_status = 'active'"),
    )
    op.add_column(
        "integration", sa.Column("reader_version", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("process", sa.Column("readers", JSONB()))
    op.add_column("user_integration_content", sa.Column("reread_at", sa.DateTime(timezone=True)))
    op.add_column("user_integration_content", sa.Column("synced_xid", sa.BigInteger()))
    op.create_index(
        "user_integration_content_synced",
        "user_integration_content",
        ["synced_xid", "id"],
        postgresql_where=sa.text("synced_xid IS NOT NULL"),
    )
    op.execute("UPDATE search_progress SET changed_xid = 0, content_id = 0")


def downgrade() -> None:
    op.drop_index("user_integration_content_synced", "user_integration_content")
    op.drop_column("user_integration_content", "synced_xid")
    op.drop_column("user_integration_content", "reread_at")
    op.drop_column("process", "readers")
    op.drop_column("integration", "reader_version")
    op.drop_index("user_integration_reader", "user_integration")
    op.drop_column("user_integration", "reader_version")
