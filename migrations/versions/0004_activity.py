"""What the fleet did in each minute, for the dashboard's plots

Revision: 0004, after 0003

Workers of the version before go on without telling.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "activity",
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tasks", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("rows", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("minute", name=op.f("activity_pkey")),
    )


def downgrade() -> None:
    op.drop_table("activity")
