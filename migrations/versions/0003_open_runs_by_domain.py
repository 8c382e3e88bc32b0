"""The dispatcher finds work among the open runs, by their domain

Revision: 0003, after 0002

Workers of the version before do not use the index; those of this one work without it as well, only slower.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "sync_run_by_domain",
            "sync_run",
            ["integration_domain", "user_integration_id"],
            postgresql_where=sa.text("state = 'running'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_index("sync_run_by_domain", table_name="sync_run")
