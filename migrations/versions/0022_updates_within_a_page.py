"""A poll changes fewer indexes: rows of accounts stay in their page

Revision: 0022, after 0021

The index `sync_run_unpruned` replaces one that had open runs too. It serves the statements of the
previous version.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from core.db.migrate import build_index

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE user_integration"
        " SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05)"
    )
    op.execute("ALTER TABLE user_day SET (fillfactor = 70)")
    build_index(
        "sync_run_unpruned",
        "sync_run",
        ["finished_at"],
        postgresql_where=sa.text("NOT pruned AND finished_at IS NOT NULL"),
    )
    with op.get_context().autocommit_block():
        op.drop_index(
            "sync_run_to_prune", "sync_run", postgresql_concurrently=True, if_exists=True
        )


def downgrade() -> None:
    op.create_index(
        "sync_run_to_prune", "sync_run", ["finished_at"], postgresql_where=sa.text("NOT pruned")
    )
    op.drop_index("sync_run_unpruned", "sync_run")
    op.execute("ALTER TABLE user_day RESET (fillfactor)")
    op.execute("ALTER TABLE user_integration RESET (fillfactor, autovacuum_vacuum_scale_factor)")
