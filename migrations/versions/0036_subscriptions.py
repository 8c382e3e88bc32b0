"""Subscriptions deliver content and conditions to receivers

Revision: 0036, after 0035

The previous version ignores the new tables.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0036"
down_revision = "0035"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "subscription",
        sa.Column("id", sa.UUID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("user_integration_id", sa.UUID),
        sa.Column("integration_domain", sa.Text),
        sa.Column("only_kind", sa.Text),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="active"),
        sa.Column("reason", sa.Text),
        sa.Column("state_since", MOMENT, nullable=False, server_default=now),
        sa.Column("created_at", MOMENT, nullable=False, server_default=now),
        sa.Column("cursor_source", sa.Text),
        sa.Column("cursor_xid", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("cursor_kind", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("cursor_id", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("cursor_began", sa.BigInteger, nullable=False, server_default="-1"),
        sa.Column("has_more", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failing_since", MOMENT),
        sa.Column("delivered_at", MOMENT),
        sa.Column("due_at", MOMENT, nullable=False, server_default=now),
        sa.Column("lease_token", sa.BigInteger),
        sa.Column("lease_until", MOMENT),
        sa.CheckConstraint("kind IN ('content', 'operations')", name="kind"),
        sa.CheckConstraint("channel IN ('webhook', 'slack', 'email')", name="channel"),
        sa.CheckConstraint("state IN ('active', 'failing', 'paused')", name="state"),
        sa.Index("subscription_listing", "created_at", "id"),
        sa.Index("subscription_user", "user_id"),
        sa.Index("subscription_due", "due_at", "id"),
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "message_id", sa.UUID, nullable=False, server_default=sa.text("gen_random_uuid()")
        ),
        sa.Column(
            "subscription_id",
            sa.UUID,
            sa.ForeignKey("subscription.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", JSONB, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("created_at", MOMENT, nullable=False, server_default=now),
        sa.Column("due_at", MOMENT, nullable=False, server_default=now),
        sa.Column("failed_at", MOMENT),
        sa.CheckConstraint("state IN ('waiting', 'failed')", name="state"),
        sa.Index("delivery_of_subscription", "subscription_id", "state", "id"),
        sa.Index(
            "delivery_age", "created_at", postgresql_where=sa.text("state = 'waiting'")
        ),
        sa.Index(
            "delivery_failed", "failed_at", postgresql_where=sa.text("state = 'failed'")
        ),
    )


def downgrade() -> None:
    op.drop_table("delivery")
    op.drop_table("subscription")
