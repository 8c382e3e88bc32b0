"""Organizations share their credentials with the accounts of their members

Revision: 0027, after 0026

An account also keeps the notice of its plugin, such as the end of the sign-in.

The previous version ignores the new columns. It must not run accounts of an organization, because
it does not add the shared credentials.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from core.db.migrate import build_index

revision = "0027"
down_revision = "0026"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "organization",
        sa.Column("id", sa.UUID, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("integration_domain", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("config", JSONB, nullable=False),
        sa.Column("credentials", sa.Text, nullable=False),
        sa.Column("listed", JSONB),
        sa.Column("excluded", JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("erased", JSONB, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("poll_interval_minutes", sa.Integer, nullable=False, server_default="15"),
        sa.Column("members", sa.Integer),
        sa.Column("problem", sa.Text),
        sa.Column("members_due_at", MOMENT, nullable=False, server_default=now),
        sa.Column("listed_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False, server_default=now),
        sa.Column("updated_at", MOMENT, nullable=False, server_default=now),
        sa.UniqueConstraint("integration_domain", "name"),
        sa.Index("organization_listing", "created_at", "id"),
        if_not_exists=True,
    )
    for column in ("organization_id uuid", "member text", "left_at timestamptz", "notice text"):
        op.execute(f"ALTER TABLE user_integration ADD COLUMN IF NOT EXISTS {column}")
    build_index(
        "user_integration_organization",
        "user_integration",
        ["organization_id"],
        postgresql_where=sa.text("organization_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("user_integration_organization", "user_integration")
    for column in ("notice", "left_at", "member", "organization_id"):
        op.drop_column("user_integration", column)
    op.drop_table("organization")
