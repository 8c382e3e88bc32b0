"""Tokens, sessions, sign-ins, and the audit trail."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from core import scopes
from core.db.schema.columns import changed_xid, flag, metadata, moment, text_column

api_token = Table(
    "api_token",
    metadata,
    Column("id", UUID, primary_key=True),
    text_column("name"),
    # NULL for an operator's token, which can access all users.
    text_column("user_id", nullable=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False, server_default=scopes.array(scopes.DEFAULT)),
    moment("created_at", default=True),
    moment("expires_at"),
    moment("last_used_at"),
    moment("revoked_at"),
    Index("api_token_user", "user_id"),
    Index("api_token_listing", "created_at", "id"),
)

session = Table(
    "session",
    metadata,
    # The SHA-256 of the session's random id.
    Column("digest", LargeBinary, primary_key=True),
    # The token that opened the session. The session ends with it. NULL for a person who signed in
    # with the identity provider.
    Column("token_id", UUID, ForeignKey("api_token.id", ondelete="CASCADE")),
    moment("created_at", default=True, nullable=False),
    moment("expires_at", nullable=False),
    # The person, as the identity provider named them at the sign-in. NULL with a token.
    text_column("issuer", nullable=True),
    text_column("subject", nullable=True),
    text_column("name", nullable=True),
    # A newer version may know more roles: no CHECK.
    text_column("role", nullable=True),
    CheckConstraint(
        "(token_id IS NULL) = (issuer IS NOT NULL AND subject IS NOT NULL AND name IS NOT NULL"
        " AND role IS NOT NULL)",
        name="owner",
    ),
    Index("session_token", "token_id"),
    Index("session_person", "issuer", "subject", postgresql_where=text("token_id IS NULL")),
    Index("session_age", "expires_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    changed_xid(),
    moment("at", default=True, nullable=False),
    # A newer version may record acts and objects that this one does not know: no CHECK.
    text_column("act"),
    text_column("channel"),
    text_column("actor", nullable=True),
    Column("token_id", UUID),
    text_column("actor_user_id", nullable=True),
    text_column("address", nullable=True),
    text_column("request_id", nullable=True),
    text_column("target_type"),
    text_column("target_id"),
    text_column("user_id", nullable=True),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Index("audit_changes", "changed_xid", "id"),
    Index("audit_user", "user_id", "changed_xid", "id"),
    Index("audit_age", "at"),
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("token_id", UUID, ForeignKey("api_token.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    # A keyed digest, because the body may contain a password.
    Column("request_digest", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("answer", JSONB),
    text_column("location", nullable=True),
    moment("created_at", default=True, nullable=False),
    Index("idempotency_key_age", "created_at"),
)

oauth_flow = Table(
    "oauth_flow",
    metadata,
    Column("state_digest", LargeBinary, primary_key=True),
    text_column("integration_domain"),
    text_column("user_id"),
    Column("user_integration_id", UUID),
    text_column("name", nullable=True),
    Column("poll_interval_minutes", Integer),
    text_column("deletions", nullable=True),
    Column("config", JSONB, nullable=False),
    # Encrypted, like credentials.
    text_column("verifier"),
    text_column("redirect_to", nullable=True),
    flag("public_hosts_only"),
    # The dashboard session that started the flow. Only its browser may finish it.
    Column("session_digest", LargeBinary),
    # Encrypted: what the provider returned, while the flow waits for the user's confirmation. The
    # key of the row is then the digest of a one-time code instead of the state.
    text_column("answer", nullable=True),
    moment("expires_at", nullable=False),
    Index("oauth_flow_age", "expires_at"),
)
