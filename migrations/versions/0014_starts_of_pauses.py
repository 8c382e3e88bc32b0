"""Blocked limits and breakers have the time at which their pause began

Revision: 0014, after 0013

A pause that began in the future was set by a clock that has been set back since.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

COLUMNS = (("limit_block", "blocked_at"), ("breaker", "paused_at"))


def upgrade() -> None:
    for table, name in COLUMNS:
        op.add_column(
            table,
            sa.Column(
                name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")
            ),
        )


def downgrade() -> None:
    for table, name in COLUMNS:
        op.drop_column(table, name)
