"""Where a repeated request points to, and whose account was erased

Revision: 0028, after 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    op.add_column("idempotency_key", sa.Column("location", sa.Text()))
    op.add_column("erased_account", sa.Column("user_id", sa.Text()))
    op.create_index(
        "erased_account_user",
        "erased_account",
        ["user_id"],
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("erased_account_user", "erased_account")
    op.drop_column("erased_account", "user_id")
    op.drop_column("idempotency_key", "location")
