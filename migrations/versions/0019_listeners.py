"""Listeners, and the addresses of their accounts in the provider's events

Revision: 0019, after 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def moment(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True))


def upgrade() -> None:
    op.add_column("integration", moment("listeners_due_at"))
    op.create_table(
        "listener",
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("listens", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("holder", sa.UUID()),
        moment("holder_until"),
        moment("connected_at"),
        moment("down_at"),
        sa.Column("error", sa.Text()),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("domain", "key", name="listener_pkey"),
    )
    op.create_table(
        "listener_account",
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_integration_id", name="listener_account_pkey"),
        sa.ForeignKeyConstraint(
            ["user_integration_id"],
            ["user_integration.id"],
            name="listener_account_user_integration_id_fkey",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "listener_account_accounts",
        "listener_account",
        ["domain", "key", "user_integration_id"],
    )
    op.create_index(
        "listener_account_address",
        "listener_account",
        ["domain", "address", "user_integration_id"],
    )


def downgrade() -> None:
    op.drop_table("listener_account")
    op.drop_table("listener")
    op.drop_column("integration", "listeners_due_at")
