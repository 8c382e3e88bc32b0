"""The search index knows the account and the time of each item

Revision: 0033, after 0032

The indexer of this version fills both columns, by writing all documents again. The previous version
leaves them empty, and finds no documents that are outdated for it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0033"
down_revision = "0032"

INDEXES = ("content_search_earlier_form", "content_search_by_time", "content_search_of_account")


def upgrade() -> None:
    op.add_column("content_search", sa.Column("user_integration_id", sa.Uuid))
    op.add_column("content_search", sa.Column("moment", sa.DateTime(timezone=True)))
    build_index(
        "content_search_earlier_form",
        "content_search",
        ["content_id"],
        postgresql_where=sa.text("form < 2"),
    )
    build_index("content_search_by_time", "content_search", ["moment", "content_id"])
    build_index(
        "content_search_of_account",
        "content_search",
        ["user_integration_id", "moment", "content_id"],
    )


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, table_name="content_search")
    op.drop_column("content_search", "moment")
    op.drop_column("content_search", "user_integration_id")
    op.execute("UPDATE content_search SET form = 1 WHERE form = 2")
