"""What the API needs: the change feed, search, tokens, idempotency keys, OAuth, and figures of
processes

Revision: 0002, after 0001

Workers of the version before may go on meanwhile: every new column has a default. The index on a
large table, built beside its writers, is the next revision's: this one is one transaction, done or
not.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

CURRENT_TRANSACTION = sa.text("pg_current_xact_id()::text::bigint")


def moment(name: str, *, default: bool = False, nullable: bool | None = None) -> sa.Column:
    server_default = sa.text("now()") if default else None
    nullable = not default if nullable is None else nullable
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=server_default, nullable=nullable
    )


def upgrade() -> None:
    flag = sa.Column(
        "public_hosts_only", sa.Boolean(), server_default=sa.text("false"), nullable=False
    )
    op.add_column("user_integration", flag)
    op.add_column(
        "process",
        sa.Column("figures", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    _change_feed()
    _search()
    _access()


def _change_feed() -> None:
    # A constant first, which rewrites nothing: what is there already comes first in the feed.
    changed_xid = sa.Column(
        "changed_xid", sa.BigInteger(), server_default=sa.text("0"), nullable=False
    )
    op.add_column("user_integration_content", changed_xid)
    op.alter_column("user_integration_content", "changed_xid", server_default=CURRENT_TRANSACTION)
    op.create_table(
        "erased_account",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=False),
        sa.Column(
            "changed_xid", sa.BigInteger(), server_default=CURRENT_TRANSACTION, nullable=False
        ),
        moment("erased_at", default=True),
        sa.PrimaryKeyConstraint("id", name=op.f("erased_account_pkey")),
        sa.UniqueConstraint(
            "user_integration_id", name=op.f("erased_account_user_integration_id_key")
        ),
    )
    op.create_index("erased_account_changes", "erased_account", ["changed_xid", "id"])


def _search() -> None:
    op.create_table(
        "content_search",
        sa.Column("content_id", sa.BigInteger(), nullable=False),
        sa.Column("document", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["user_integration_content.id"],
            name=op.f("content_search_content_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("content_id", name=op.f("content_search_pkey")),
    )
    op.create_index(
        "content_search_document", "content_search", ["document"], postgresql_using="gin"
    )
    op.create_table(
        "search_progress",
        sa.Column("one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("changed_xid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("content_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("one", name=op.f("search_progress_one_row")),
        sa.PrimaryKeyConstraint("one", name=op.f("search_progress_pkey")),
    )
    op.execute("INSERT INTO search_progress DEFAULT VALUES")


def _access() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        moment("created_at", default=True),
        moment("expires_at"),
        moment("last_used_at"),
        moment("revoked_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("api_token_pkey")),
        sa.UniqueConstraint("digest", name=op.f("api_token_digest_key")),
    )
    op.create_index("api_token_user", "api_token", ["user_id"])
    op.create_table(
        "idempotency_key",
        sa.Column("token_id", sa.UUID(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("answer", postgresql.JSONB(), nullable=True),
        moment("created_at", default=True),
        sa.ForeignKeyConstraint(
            ["token_id"],
            ["api_token.id"],
            name=op.f("idempotency_key_token_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_id", "key", name=op.f("idempotency_key_pkey")),
    )
    op.create_index("idempotency_key_age", "idempotency_key", ["created_at"])
    op.create_table(
        "oauth_flow",
        sa.Column("state_digest", sa.LargeBinary(), nullable=False),
        sa.Column("integration_domain", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("user_integration_id", sa.UUID(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("poll_interval_minutes", sa.Integer(), nullable=True),
        sa.Column("config", postgresql.JSONB(), nullable=False),
        sa.Column("verifier", sa.Text(), nullable=False),
        sa.Column("redirect_to", sa.Text(), nullable=True),
        sa.Column(
            "public_hosts_only", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        moment("expires_at", nullable=False),
        sa.PrimaryKeyConstraint("state_digest", name=op.f("oauth_flow_pkey")),
    )
    op.create_index("oauth_flow_age", "oauth_flow", ["expires_at"])


def downgrade() -> None:
    for table in (
        "oauth_flow",
        "idempotency_key",
        "api_token",
        "search_progress",
        "content_search",
        "erased_account",
    ):
        op.drop_table(table)
    op.drop_column("user_integration_content", "changed_xid")
    op.drop_column("process", "figures")
    op.drop_column("user_integration", "public_hosts_only")
