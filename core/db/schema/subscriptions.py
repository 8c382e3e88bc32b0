"""Subscriptions, and the single messages that wait for their receivers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    Table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from core.db.schema.columns import check_in, count_column, metadata, moment, text_column
from core.states import DeliveryState, SubscriptionChannel, SubscriptionKind, SubscriptionState

subscription = Table(
    "subscription",
    metadata,
    Column("id", UUID, primary_key=True),
    text_column("name"),
    text_column("kind"),
    text_column("channel"),
    # NULL for a subscription of operators, which covers all users.
    text_column("user_id", nullable=True),
    # The filters. No foreign key: the subscription outlives the account, to deliver its erasure.
    Column("user_integration_id", UUID),
    text_column("integration_domain", nullable=True),
    # The kind of items, or of conditions.
    text_column("only_kind", nullable=True),
    # The receiver as people see it, without its secrets.
    text_column("address"),
    # Encrypted: the complete URL and the signing secret, as JSON.
    text_column("sealed"),
    text_column("state", default=SubscriptionState.ACTIVE),
    text_column("reason", nullable=True),
    moment("state_since", default=True),
    moment("created_at", default=True),
    # The place in the change feed up to which content was delivered. NULL: the beginning.
    text_column("cursor_source", nullable=True),
    count_column("cursor_xid", BigInteger),
    Column("cursor_kind", SmallInteger, nullable=False, server_default="0"),
    count_column("cursor_id", BigInteger),
    # The end of the feed when the first reading began; -1 after it.
    Column("cursor_began", BigInteger, nullable=False, server_default="-1"),
    # True if the feed may have further changes up to the one that was its latest.
    Column("has_more", Boolean, nullable=False, server_default=text("true")),
    # Failed attempts in a row.
    count_column("failures"),
    moment("failing_since"),
    moment("delivered_at"),
    # The time of the next attempt.
    moment("due_at", default=True),
    # The dispatch that may deliver, until its lease expires.
    Column("lease_token", BigInteger),
    moment("lease_until"),
    CheckConstraint(check_in("kind", SubscriptionKind), name="kind"),
    CheckConstraint(check_in("channel", SubscriptionChannel), name="channel"),
    CheckConstraint(check_in("state", SubscriptionState), name="state"),
    Index("subscription_listing", "created_at", "id"),
    Index("subscription_user", "user_id"),
    Index("subscription_due", "due_at", "id"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # The `webhook-id`: the same in each attempt.
    Column("message_id", UUID, nullable=False, server_default=text("gen_random_uuid()")),
    Column(
        "subscription_id",
        UUID,
        ForeignKey("subscription.id", ondelete="CASCADE"),
        nullable=False,
    ),
    text_column("type"),
    Column("data", JSONB, nullable=False),
    text_column("state", default=DeliveryState.WAITING),
    count_column("attempts"),
    text_column("error", nullable=True),
    moment("created_at", default=True),
    # The time of the next attempt.
    moment("due_at", default=True),
    moment("failed_at"),
    CheckConstraint(check_in("state", DeliveryState), name="state"),
    Index("delivery_of_subscription", "subscription_id", "state", "id"),
    Index(
        "delivery_age",
        "created_at",
        postgresql_where=text(f"state = '{DeliveryState.WAITING}'"),
    ),
    Index(
        "delivery_failed",
        "failed_at",
        postgresql_where=text(f"state = '{DeliveryState.FAILED}'"),
    ),
)
