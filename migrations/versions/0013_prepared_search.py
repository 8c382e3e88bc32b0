"""Search documents that the engine prepares, and texts of documents

Revision: 0013, after 0012

`form` marks the documents that the version before wrote; they are written again. `extracted_text`
has the text of files, such as PDF.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column(
        "content_search",
        sa.Column("form", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    )
    op.create_index(
        "content_search_outdated",
        "content_search",
        ["content_id"],
        postgresql_where=sa.text("form = 0"),
    )
    op.create_table(
        "extracted_text",
        sa.Column("content_id", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column("extracted_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["user_integration_content.id"],
            name=op.f("extracted_text_content_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("content_id", name=op.f("extracted_text_pkey")),
    )
    op.create_index(
        "extracted_text_waiting",
        "extracted_text",
        ["content_id"],
        postgresql_where=sa.text("extracted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("extracted_text")
    op.drop_index("content_search_outdated", table_name="content_search")
    op.drop_column("content_search", "form")
    op.execute("UPDATE search_progress SET changed_xid = 0, content_id = 0")
