"""Failures that hit one side only

Revision: 0008, after 0007

Adds the token of a dispatch, what a process reports about Redis and its tasks, and the nonces of
the leader's terms.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("sync_task", sa.Column("token", sa.BigInteger()))
    for name in ("can_send_at", "asked_at", "settled_at"):
        op.add_column("process", sa.Column(name, sa.DateTime(True)))
    op.add_column("process", sa.Column("held", postgresql.ARRAY(sa.Text())))
    for name in ("nonce", "previous_nonce"):
        op.add_column("engine_state", sa.Column(name, sa.BigInteger()))
        op.add_column("engine_state", sa.Column(f"{name}_at", sa.DateTime(True)))


def downgrade() -> None:
    for name in ("nonce", "previous_nonce"):
        op.drop_column("engine_state", f"{name}_at")
        op.drop_column("engine_state", name)
    for name in ("held", "can_send_at", "asked_at", "settled_at"):
        op.drop_column("process", name)
    op.drop_column("sync_task", "token")
