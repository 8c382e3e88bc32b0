"""How often a process began to read the text of a file

Revision: 0039, after 0035

The previous version does not count its attempts.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0035"


def upgrade() -> None:
    op.add_column(
        "extracted_text", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    op.drop_column("extracted_text", "attempts")
