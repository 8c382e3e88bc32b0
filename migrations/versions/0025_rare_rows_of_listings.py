"""Listings find rare items and old tasks without reading others

Revision: 0025, after 0024

The index on parent, account and external ID replaces the one on account and parent, which the
previous version uses for the same conditions.
"""

from __future__ import annotations

from alembic import op

from core.db.migrate import build_index

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    build_index(
        "user_integration_content_children",
        "user_integration_content",
        ["parent", "user_integration_id", "external_id"],
    )
    build_index(
        "user_integration_content_kind",
        "user_integration_content",
        ["kind", "user_integration_id", "external_id"],
    )
    build_index("sync_task_of_run", "sync_task", ["run_id", "id"])
    with op.get_context().autocommit_block():
        op.drop_index(
            "user_integration_content_parent",
            "user_integration_content",
            postgresql_concurrently=True,
            if_exists=True,
        )


def downgrade() -> None:
    op.create_index(
        "user_integration_content_parent",
        "user_integration_content",
        ["user_integration_id", "parent"],
    )
    op.drop_index("sync_task_of_run", "sync_task")
    op.drop_index("user_integration_content_kind", "user_integration_content")
    op.drop_index("user_integration_content_children", "user_integration_content")
