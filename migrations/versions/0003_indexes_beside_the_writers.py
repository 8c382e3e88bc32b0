"""Indexes that are built beside the writers: the change feed's, and the dispatcher's by the domain
of open runs

Revision: 0003, after 0002

Workers of the version before do not use them; those of this one work without the second as well,
only slower. An attempt that was ended leaves an invalid index behind, which is dropped by the next
one.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _build("user_integration_content_changes", "user_integration_content", ["changed_xid", "id"])
    _build(
        "sync_run_by_domain",
        "sync_run",
        ["integration_domain", "user_integration_id"],
        postgresql_where=sa.text("state = 'running'"),
    )


def _build(name: str, table: str, columns: list[str], **more: Any) -> None:
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **more)


def downgrade() -> None:
    op.drop_index("sync_run_by_domain", table_name="sync_run")
    op.drop_index("user_integration_content_changes", table_name="user_integration_content")
