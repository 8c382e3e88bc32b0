"""How often a process began to read the text of a file, and a new form of search documents

Revision: 0039, after 0038

The indexer of this version writes all documents again. The previous version does not count its
attempts, and finds no documents that are outdated for it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0039"
down_revision = "0038"

INDEX, TABLE = "content_search_earlier_form", "content_search"


def upgrade() -> None:
    build_index(INDEX, TABLE, ["content_id"], postgresql_where=sa.text("form < 3"))
    op.add_column(
        "extracted_text", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    op.drop_column("extracted_text", "attempts")
    op.execute("UPDATE content_search SET form = 2 WHERE form = 3")
    build_index(INDEX, TABLE, ["content_id"], postgresql_where=sa.text("form < 2"))
