"""The texts of files are read in turns of their users

Revision: 0018, after 0017

A process of the previous version stores no user. Its files share one turn.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column(
        "extracted_text", sa.Column("user_id", sa.Text(), nullable=False, server_default="")
    )
    build_index(
        "extracted_text_turns",
        "extracted_text",
        ["user_id", "content_id"],
        postgresql_where=sa.text("extracted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("extracted_text_turns", "extracted_text")
    op.drop_column("extracted_text", "user_id")
