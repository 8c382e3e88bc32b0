"""An organization ends in portions

Revision: 0034, after 0033

The leader of this version ends the accounts. The previous version has no key for them, so it runs
none of their tasks. Its `keys rotate` fails while an organization ends.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.add_column("organization", sa.Column("ending_since", sa.DateTime(timezone=True)))
    for flag in ("hides_content", "erases_accounts"):
        op.add_column(
            "organization",
            sa.Column(flag, sa.Boolean, nullable=False, server_default=sa.text("false")),
        )
    op.alter_column("organization", "credentials", nullable=True)
    # The table is small.
    op.create_index(
        "organization_ending",
        "organization",
        ["ending_since", "id"],
        postgresql_where=sa.text("ending_since IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("organization_ending", table_name="organization")
    for column in ("erases_accounts", "hides_content", "ending_since"):
        op.drop_column("organization", column)
    # The previous version disconnects such an organization when a person asks again.
    op.execute("UPDATE organization SET credentials = '' WHERE credentials IS NULL")
    op.alter_column("organization", "credentials", nullable=False)
