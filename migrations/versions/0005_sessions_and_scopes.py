"""Sessions and scopes

Revision: 0005, after 0004

Adds the sessions of the dashboard and the scopes of tokens, and binds a pending sign-in at a
provider to one browser. Existing tokens keep their permissions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

BEFORE_SCOPES = "{content:read,accounts:connect,fleet:operate,metrics:read}"
"""The permissions of every token before this revision. Version 0004 writes no scopes."""


REVOKE_NARROWER = f"""
UPDATE api_token SET revoked_at = now()
WHERE revoked_at IS NULL AND NOT scopes @> '{BEFORE_SCOPES}'::text[]
"""


def upgrade() -> None:
    op.add_column(
        "api_token",
        sa.Column(
            "scopes", postgresql.ARRAY(sa.Text()), server_default=BEFORE_SCOPES, nullable=False
        ),
    )
    op.create_table(
        "session",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("token_id", sa.UUID(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(True), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["api_token.id"],
            name=op.f("session_token_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("session_pkey")),
    )
    op.create_index("session_token", "session", ["token_id"])
    op.create_index("session_age", "session", ["expires_at"])
    op.add_column("oauth_flow", sa.Column("session_digest", sa.LargeBinary()))
    op.add_column("oauth_flow", sa.Column("answer", sa.Text()))
    op.create_index("api_token_listing", "api_token", ["created_at", "id"])


def downgrade() -> None:
    op.drop_index("api_token_listing", table_name="api_token")
    op.drop_column("oauth_flow", "answer")
    op.drop_column("oauth_flow", "session_digest")
    op.drop_table("session")
    # Without scopes, version 0004 would let these tokens do everything.
    op.execute(REVOKE_NARROWER)
    op.drop_column("api_token", "scopes")
