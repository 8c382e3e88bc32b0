"""One view for each kind of content, with stable columns; the task that stopped an account

Revision: 0032, after 0030

A view that a later migration changes is dropped and created again there. The same holds before a
migration changes the type of a column, or drops one, that a view reads (decision 0111).

A plugin may put anything into metadata, so no expression here can raise an error.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0030"

CURRENT = """
FROM user_integration_content c JOIN user_integration a ON a.id = c.user_integration_id
WHERE c.deleted_at IS NULL AND a.sync_status <> 'erasing'
"""
IDENTITY = """
c.id AS content_id, a.user_id, c.user_integration_id, a.name AS account_name, c.integration_domain,
c.external_id, c.parent, c.name"""
TIMES = "c.external_timestamp, c.created_at, c.updated_at, c.gone_at_source"
BYTES = "c.content_type, c.size, c.hash, c.hash IS NOT NULL AS is_kept"


STRINGS = "WHERE jsonb_typeof(e) = 'string'"


def elements(field: str) -> str:
    """Return the elements of a JSON array in the metadata as rows `e`; none for another value."""
    value = f"c.metadata -> '{field}'"
    return (
        f"jsonb_array_elements(CASE WHEN jsonb_typeof({value}) = 'array'"
        f" THEN {value} ELSE '[]' END) AS e"
    )


def addresses(*roles: str) -> str:
    """Return the addresses of people as an array of texts."""
    people = " UNION ALL ".join(
        f"SELECT e ->> 'address' AS address FROM {elements(role)}" for role in roles
    )
    return f"ARRAY(SELECT address FROM ({people}) people WHERE address IS NOT NULL)"


def name_of(kind: str, external_id: str) -> str:
    """Return the name of another item of the same account."""
    return f"""(SELECT o.name FROM user_integration_content o
        WHERE o.user_integration_id = c.user_integration_id AND o.external_id = {external_id}
          AND o.kind = '{kind}' AND o.deleted_at IS NULL)"""


def is_true(field: str) -> str:
    """Return whether a field of the metadata is the JSON value true."""
    return f"coalesce(c.metadata -> '{field}' = 'true', false)"


TEXT = "(e #>> '{}')"
LABEL = f"coalesce({name_of('label', f'concat($$label/$$, {TEXT})')}, {TEXT})"

# Mail names its sender in `from`. Chat names the ID of its author, who is an item of its own.
MESSAGE = f"""
coalesce(c.metadata -> 'from' -> 0 ->> 'name', {name_of("user", "c.metadata ->> 'user'")})
    AS sender_name,
c.metadata -> 'from' -> 0 ->> 'address' AS sender_address,
c.metadata ->> 'user' AS sender_id,
{addresses("to", "cc", "bcc")} AS recipient_addresses,
coalesce(c.metadata ->> 'thread_id', c.metadata ->> 'thread_ts') AS thread_id,
c.metadata ->> 'channel' AS channel_id,
{name_of("channel", "c.metadata ->> 'channel'")} AS channel_name,
ARRAY(SELECT {LABEL} FROM {elements("labels")} {STRINGS}) AS label_names,
c.content_text AS text, coalesce(c.metadata ->> 'new_text', c.content_text) AS new_text,
c.metadata ->> 'permalink' AS permalink, c.metadata"""
MEMBERS = f"""
c.metadata ->> 'channel' AS channel_id,
ARRAY(SELECT {TEXT} FROM {elements("members")} {STRINGS}) AS member_ids"""
CHANNEL = f"""
c.metadata ->> 'type' AS type, {is_true("is_archived")} AS is_archived,
c.metadata ->> 'topic' AS topic, c.metadata ->> 'purpose' AS purpose,
c.metadata ->> 'unreadable' AS unreadable, c.metadata"""
USER = f"""
c.metadata ->> 'real_name' AS real_name, c.metadata ->> 'title' AS title,
c.metadata ->> 'tz' AS time_zone, {is_true("is_bot")} AS is_bot,
{is_true("deleted")} AS is_deactivated, c.metadata"""

KINDS = {
    "message": MESSAGE,
    "source": BYTES,
    "attachment": f"{is_true('inline')} AS is_inline, c.content_text AS text, {BYTES}",
    "file": f"c.content_text AS text, {BYTES}, c.metadata ->> 'skipped' AS skipped, c.metadata",
    "directory": "c.metadata",
    "channel": CHANNEL,
    "members": MEMBERS,
    "user": USER,
    "label": "c.metadata ->> 'type' AS type",
}
"""The columns of each kind's view, between those that all views have."""


def upgrade() -> None:
    op.add_column("user_integration", sa.Column("stopped_at", sa.DateTime(timezone=True)))
    op.add_column("user_integration", sa.Column("stopped_by", sa.BigInteger()))
    op.execute(
        f"CREATE VIEW content_item AS SELECT {IDENTITY}, c.kind, c.content_text AS text, {BYTES},"
        f" c.metadata, {TIMES} {CURRENT}"
    )
    for kind, columns in KINDS.items():
        op.execute(
            f"CREATE VIEW content_{kind} AS SELECT {IDENTITY}, {columns}, {TIMES} {CURRENT}"
            f" AND c.kind = '{kind}'"
        )


def downgrade() -> None:
    for kind in ("item", *KINDS):
        op.execute(f"DROP VIEW content_{kind}")
    op.drop_column("user_integration", "stopped_by")
    op.drop_column("user_integration", "stopped_at")
