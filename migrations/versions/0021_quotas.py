"""Quotas of users, and the bytes of content that each user keeps

Revision: 0021, after 0020

Triggers note each change of the size of content, so that writers of the previous version are
counted too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

# The user is found for each account alone: a join may read all accounts.
_NOTE = """
        INSERT INTO kept_change (user_id, bytes)
        SELECT user_id, sum(bytes) FROM (
            SELECT (SELECT user_id FROM user_integration WHERE id = account) AS user_id, bytes
            FROM (SELECT account, sum(bytes) AS bytes FROM ({changes}) changes GROUP BY account
                OFFSET 0) accounts
            WHERE bytes <> 0) users
        WHERE user_id IS NOT NULL GROUP BY user_id HAVING sum(bytes) <> 0;"""
_ADDED = "SELECT user_integration_id AS account, size AS bytes FROM after_change"
_GONE = "SELECT user_integration_id AS account, -size AS bytes FROM before_change"

NOTE_KEPT_BYTES = f"""
CREATE OR REPLACE FUNCTION note_kept_bytes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN{_NOTE.format(changes=_ADDED)}
    ELSIF TG_OP = 'DELETE' THEN{_NOTE.format(changes=_GONE)}
    ELSE{_NOTE.format(changes=f"{_ADDED} UNION ALL {_GONE}")}
    END IF;
    RETURN NULL;
END $$
"""
TRIGGERS = {
    "INSERT": "NEW TABLE AS after_change",
    "UPDATE": "NEW TABLE AS after_change OLD TABLE AS before_change",
    "DELETE": "OLD TABLE AS before_change",
}
# One statement has one snapshot: a change that it counts is one that it deletes.
COUNT_KEPT_BYTES = """
WITH counted AS (DELETE FROM kept_change)
INSERT INTO user_kept (user_id, bytes)
SELECT a.user_id, sum(c.bytes) FROM (
    SELECT user_integration_id, sum(size) AS bytes FROM user_integration_content GROUP BY 1) c
JOIN user_integration a ON a.id = c.user_integration_id
GROUP BY 1 HAVING sum(c.bytes) <> 0
ON CONFLICT (user_id) DO UPDATE SET bytes = excluded.bytes
"""


def upgrade() -> None:
    op.execute("ALTER TABLE user_day ADD COLUMN IF NOT EXISTS runs bigint NOT NULL DEFAULT 0")
    op.create_table(
        "user_quota",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("name IN ('accounts', 'bytes', 'runs')", name="user_quota_name"),
        sa.PrimaryKeyConstraint("user_id", "name", name="user_quota_pkey"),
        if_not_exists=True,
    )
    op.create_table(
        "user_kept",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("is_full", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("user_id", name="user_kept_pkey"),
        if_not_exists=True,
    )
    op.create_table(
        "kept_change",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="kept_change_pkey"),
        if_not_exists=True,
    )
    op.execute(NOTE_KEPT_BYTES)
    for operation, tables in TRIGGERS.items():
        op.execute(
            f"CREATE OR REPLACE TRIGGER kept_bytes_{operation.lower()} AFTER {operation}"
            f" ON user_integration_content REFERENCING {tables}"
            " FOR EACH STATEMENT EXECUTE FUNCTION note_kept_bytes()"
        )
    # Writers continue while the kept content is counted.
    with op.get_context().autocommit_block():
        op.execute(COUNT_KEPT_BYTES)


def downgrade() -> None:
    for operation in TRIGGERS:
        op.execute(f"DROP TRIGGER kept_bytes_{operation.lower()} ON user_integration_content")
    op.execute("DROP FUNCTION note_kept_bytes()")
    op.drop_table("kept_change")
    op.drop_table("user_kept")
    op.drop_table("user_quota")
    op.drop_column("user_day", "runs")
