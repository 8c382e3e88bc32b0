"""Sessions of people who sign in with an identity provider, and have no token

Revision: 0035, after 0034

The previous version joins the token of each session, so it does not find these sessions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"

COLUMNS = ("issuer", "subject", "name", "role")


def upgrade() -> None:
    op.alter_column("session", "token_id", nullable=True)
    for name in COLUMNS:
        op.add_column("session", sa.Column(name, sa.Text()))
    op.create_check_constraint(
        "owner",
        "session",
        "(token_id IS NULL) = (issuer IS NOT NULL AND subject IS NOT NULL"
        " AND name IS NOT NULL AND role IS NOT NULL)",
    )
    op.create_index(
        "session_person",
        "session",
        ["issuer", "subject"],
        postgresql_where=sa.text("token_id IS NULL"),
    )


def downgrade() -> None:
    op.execute("DELETE FROM session WHERE token_id IS NULL")
    op.drop_index("session_person", "session")
    op.drop_constraint("owner", "session", type_="check")
    for name in COLUMNS:
        op.drop_column("session", name)
    op.alter_column("session", "token_id", nullable=False)
