"""Tasks report their progress

Revision: 0016, after 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

PROGRESS = ("progress_done", "progress_total")


def upgrade() -> None:
    for name in PROGRESS:
        op.add_column("sync_task", sa.Column(name, sa.BigInteger()))


def downgrade() -> None:
    for name in PROGRESS:
        op.drop_column("sync_task", name)
