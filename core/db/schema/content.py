"""Content, its search, and held deletions."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR, UUID

from core.db.schema.columns import (
    account_column,
    account_key,
    changed_xid,
    check_in,
    content_key,
    count_column,
    metadata,
    moment,
    text_column,
)
from core.states import HeldState, HoldSource

user_integration_content = Table(
    "user_integration_content",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    account_column(),
    text_column("integration_domain"),
    text_column("external_id"),
    text_column("kind"),
    text_column("parent", nullable=True),
    text_column("name", nullable=True),
    moment("external_timestamp"),
    text_column("content_type", nullable=True),
    text_column("content_text", nullable=True),
    Column("content_bytes", LargeBinary),
    text_column("blob_key", nullable=True),
    count_column("size", BigInteger),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    text_column("hash", nullable=True),
    Column("digest", LargeBinary, nullable=False),
    text_column("fingerprint", nullable=True),
    Column("content_seq", BigInteger, nullable=False),
    Column("metadata_seq", BigInteger, nullable=False),
    moment("created_at", default=True),
    moment("updated_at", default=True),
    moment("deleted_at"),
    # The time since when the item is gone at the source, where the account keeps such items.
    moment("gone_at_source"),
    # The time of the latest change by a reread. `updated_at` has the latest other change.
    moment("reread_at"),
    changed_xid(),
    # Set while the latest change is that of a reread: the transaction of the latest other change.
    Column("synced_xid", BigInteger),
    UniqueConstraint("user_integration_id", "external_id"),
    Index("user_integration_content_changes", "changed_xid", "id"),
    # A reader of the feed that leaves out rereads finds these rows at their earlier position.
    Index(
        "user_integration_content_synced",
        "synced_xid",
        "id",
        postgresql_where=text("synced_xid IS NOT NULL"),
    ),
    # Listings of a parent or of a kind, for one account and for all accounts.
    Index("user_integration_content_children", "parent", "user_integration_id", "external_id"),
    Index("user_integration_content_kind", "kind", "user_integration_id", "external_id"),
    Index(
        "user_integration_content_gone",
        "user_integration_id",
        "external_id",
        postgresql_where=text("gone_at_source IS NOT NULL"),
    ),
    # A listing of deleted items reads no others.
    Index(
        "user_integration_content_deleted",
        "user_integration_id",
        "external_id",
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    # A sweep reads a listing in portions.
    Index(
        "user_integration_content_listing",
        "user_integration_id",
        "parent",
        "external_id",
        postgresql_where=text("deleted_at IS NULL"),
    ),
    # The leader removes items that were deleted long ago.
    Index(
        "user_integration_content_tombstones",
        "changed_xid",
        "id",
        postgresql_where=text("deleted_at IS NOT NULL"),
    ),
    Index(
        "user_integration_content_blob", "blob_key", postgresql_where=text("blob_key IS NOT NULL")
    ),
)

content_search = Table(
    "content_search",
    metadata,
    content_key(),
    Column("document", TSVECTOR, nullable=False),
    # The version of the form. The indexer writes documents of an earlier form again; those before 2
    # have neither account nor moment.
    Column("form", SmallInteger, nullable=False, server_default=text("0")),
    Column("user_integration_id", UUID),
    # The item's own time, or the time at which it was stored. NULL for items that are never found.
    moment("moment"),
    Index("content_search_document", "document", postgresql_using="gin"),
    # The version before uses it.
    Index("content_search_outdated", "content_id", postgresql_where=text("form = 0")),
    Index("content_search_earlier_form", "content_id", postgresql_where=text("form < 3")),
    Index("content_search_by_time", "moment", "content_id"),
    Index("content_search_of_account", "user_integration_id", "moment", "content_id"),
)

# The text of files, such as PDF, for the search.
extracted_text = Table(
    "extracted_text",
    metadata,
    content_key(),
    text_column("hash"),
    text_column("text", nullable=True),
    # NULL if the file was read.
    text_column("reason", nullable=True),
    # The number of times that a process began to read the file, including lost processes.
    count_column("attempts"),
    moment("claimed_until"),
    moment("extracted_at"),
    # Empty if a version that did not store it requested the text.
    text_column("user_id", default=""),
    # The previous version needs it. Remove it with the next version.
    Index("extracted_text_waiting", "content_id", postgresql_where=text("extracted_at IS NULL")),
    Index(
        "extracted_text_turns",
        "user_id",
        "content_id",
        postgresql_where=text("extracted_at IS NULL"),
    ),
)

search_progress = Table(
    "search_progress",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    count_column("changed_xid", BigInteger),
    count_column("content_id", BigInteger),
    CheckConstraint("singleton", name="singleton"),
)

erased_account = Table(
    "erased_account",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("user_integration_id", UUID, nullable=False, unique=True),
    changed_xid(),
    moment("erased_at", default=True),
    # The owner, whose tokens see the entry; NULL once all data of the owner are erased.
    text_column("user_id", nullable=True),
    Index("erased_account_changes", "changed_xid", "id"),
    Index("erased_account_user", "user_id", postgresql_where=text("user_id IS NOT NULL")),
)

held_deletion = Table(
    "held_deletion",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    account_key(index=True),
    Column("run_id", UUID, nullable=False, index=True),
    text_column("source", default=HoldSource.LISTING),
    text_column("state", default=HeldState.HELD),
    text_column("parent", nullable=True),
    moment("since"),
    moment("until"),
    Column("vanished", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    moment("created_at", default=True),
    moment("decided_at"),
    CheckConstraint(check_in("source", HoldSource), name="source"),
    CheckConstraint(check_in("state", HeldState), name="state"),
)

held_deletion_item = Table(
    "held_deletion_item",
    metadata,
    Column(
        "held_deletion_id",
        BigInteger,
        ForeignKey("held_deletion.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("external_id", Text, primary_key=True),
)

blob = Table(
    "blob",
    metadata,
    Column("key", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    moment("touched_at", default=True),
    # The time at which the leader found that no content row references it.
    moment("unreferenced_at"),
    Index(
        "blob_unreferenced",
        "unreferenced_at",
        postgresql_where=text("unreferenced_at IS NOT NULL"),
    ),
)
