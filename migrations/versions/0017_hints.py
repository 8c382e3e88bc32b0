"""Hints open runs; a run records the next poll that its account had at the beginning

Revision: 0017, after 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0014"


def moment(name: str, default: bool = False) -> sa.Column:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.text("now()") if default else None,
        nullable=not default,
    )


def parts(name: str) -> sa.Column:
    return sa.Column(
        name, postgresql.ARRAY(sa.Text()), nullable=False, server_default=sa.text("'{}'")
    )


def upgrade() -> None:
    op.add_column("sync_run", moment("next_sync_at"))
    due = sa.Column("poll_due", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    op.add_column("sync_run", due)
    op.create_table(
        "hint",
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        parts("parts"),
        moment("due_at"),
        sa.Column("run_id", sa.UUID()),
        parts("taken"),
        moment("began_at"),
        sa.Column("looks", sa.SmallInteger(), nullable=False, server_default="0"),
        moment("hinted_at", default=True),
        sa.PrimaryKeyConstraint("user_integration_id", name="hint_pkey"),
        sa.ForeignKeyConstraint(
            ["user_integration_id"],
            ["user_integration.id"],
            name="hint_user_integration_id_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "hint_due", "hint", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index(
        "hint_held",
        "hint",
        ["user_integration_id"],
        postgresql_where=sa.text("due_at IS NULL AND parts <> '{}'::text[]"),
    )
    op.create_index("hint_user", "hint", ["user_id", "began_at"])


def downgrade() -> None:
    op.drop_table("hint")
    op.drop_column("sync_run", "poll_due")
    op.drop_column("sync_run", "next_sync_at")
