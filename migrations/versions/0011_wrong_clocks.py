"""Wrong clocks

Revision: 0011, after 0010

Adds the samples of the leaders' monotonic clocks, and the index by which the leader finds polls that
are too far ahead.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "monotonic_sample",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("watched", sa.Float(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("monotonic_sample_pkey")),
    )
    op.create_index("monotonic_sample_watched", "monotonic_sample", ["watched"])
    build_index(
        "user_integration_far_ahead",
        "user_integration",
        [
            sa.text(
                "(next_sync_at - '2000-01-01 00:00:00+00'::timestamp with time zone"
                " - poll_interval_minutes::double precision * '00:01:03'::interval)"
            )
        ],
        postgresql_where=sa.text("sync_status = 'active'"),
    )


def downgrade() -> None:
    op.drop_index("user_integration_far_ahead", table_name="user_integration")
    op.drop_table("monotonic_sample")
