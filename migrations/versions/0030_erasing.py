"""Accounts whose content is hidden, and deleted later

Revision: 0030, after 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"

FLAGS = ("erases_account", "erases_user", "erasure_begun")


def upgrade() -> None:
    # The earlier version leaves out these columns. It neither polls nor changes such an account.
    op.add_column("user_integration", sa.Column("erasing_since", sa.DateTime(timezone=True)))
    for name in FLAGS:
        op.add_column(
            "user_integration",
            sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False),
        )
    op.add_column("user_integration", sa.Column("restored_after", sa.Text()))
    op.create_index(
        "user_integration_erasing",
        "user_integration",
        ["id"],
        postgresql_where=sa.text("sync_status = 'erasing'"),
    )
    op.create_index(
        "user_integration_restored",
        "user_integration",
        ["id"],
        postgresql_where=sa.text("restored_after IS NOT NULL"),
    )
    # While an API of the earlier version runs, an erasure does not wait: that API would show the
    # content.
    op.add_column("process", sa.Column("hides_erasing", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("process", "hides_erasing")
    op.drop_index("user_integration_restored", "user_integration")
    op.drop_index("user_integration_erasing", "user_integration")
    op.drop_column("user_integration", "restored_after")
    for name in FLAGS:
        op.drop_column("user_integration", name)
    op.drop_column("user_integration", "erasing_since")
