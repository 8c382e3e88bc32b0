"""What can be listed page by page, and the figures of one account."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.service.pagination import Keyset, PagedQuery

ACCOUNT_COLUMNS = """id, user_id, integration_domain, name, identity, limit_group, config,
    sync_status, status_reason, status_detail, poll_interval_minutes, next_sync_at, last_sync_at,
    consecutive_failures, resync_due, created_at, updated_at"""
TASK_COLUMNS = """id, run_id, user_integration_id, integration_domain, lane, parent_id, retry_of,
    retried_as, type, payload, state, priority, available_at, lease_until, dispatch_no, attempts,
    crashes, snoozes, snoozed_seconds, suspect, started_at, reason, errors, outputs_saved,
    outputs_unchanged, outputs_deleted, followups, created_at, finished_at"""
CONTENT_COLUMNS = """id, user_integration_id, integration_domain, external_id, kind, parent, name,
    external_timestamp, content_type, size, hash, metadata, fingerprint, blob_key,
    created_at, updated_at, deleted_at"""


CONTENT_COLUMNS_OF_C = ", ".join(f"c.{name.strip()}" for name in CONTENT_COLUMNS.split(","))

accounts = PagedQuery(
    ACCOUNT_COLUMNS,
    "user_integration",
    Keyset({"created_at": "timestamptz", "id": "uuid"}),
    filters={
        "user_id": "text",
        "integration_domain": "text",
        "sync_status": "text",
        "due_before": "timestamptz",
    },
    bounds={"due_before": "next_sync_at <= %(due_before)s"},
)
runs = PagedQuery(
    "*",
    "sync_run",
    Keyset({"started_at": "timestamptz", "id": "uuid"}),
    newest_first=True,
    filters={"user_integration_id": "uuid", "state": "text"},
)
tasks = PagedQuery(
    TASK_COLUMNS,
    "sync_task",
    Keyset({"id": "bigint"}),
    newest_first=True,
    filters={"run_id": "uuid", "user_integration_id": "uuid", "state": "text"},
)
content = PagedQuery(
    CONTENT_COLUMNS,
    "user_integration_content",
    Keyset({"id": "bigint"}),
    filters={"user_integration_id": "uuid", "kind": "text", "deleted": "boolean"},
    bounds={"deleted": "(deleted_at IS NOT NULL) = %(deleted)s"},
)
content_of_account = replace(
    content,
    key=Keyset({"external_id": "text"}),
    filters={**content.filters, "external_id": "text"},
)
"""Served by the unique index on account and external id; give it a `user_integration_id`."""

states = PagedQuery(
    "partition, value, version, updated_at",
    "sync_state",
    Keyset({"partition": "text"}),
    filters={"user_integration_id": "uuid", "deleted": "boolean"},
    bounds={"deleted": "(value IS NULL) = %(deleted)s"},
)
"""Give it a `user_integration_id`: served by the primary key.

A deleted partition keeps its row, without a value.
"""

COUNTED = """
SELECT count(*) FILTER (WHERE deleted_at IS NULL) AS items, count(deleted_at) AS deleted,
    coalesce(sum(size) FILTER (WHERE deleted_at IS NULL), 0)::bigint AS bytes
FROM user_integration_content WHERE user_integration_id = %(id)s
"""
HELD = """
SELECT parent, since, until, vanished, total, created_at FROM held_deletion
WHERE user_integration_id = %(id)s ORDER BY id
"""

KINDS = """
SELECT kind, count(*) AS items, coalesce(sum(size), 0)::bigint AS bytes,
    count(content_text) AS texts, count(content_bytes) AS binaries, count(blob_key) AS blobs
FROM user_integration_content WHERE user_integration_id = %(id)s AND deleted_at IS NULL
GROUP BY kind ORDER BY kind
"""


def account_kinds(conn: Conn, id: UUID) -> list[Row]:
    """How much is kept of an account by kind, and how: as text, as bytes, or as blobs."""
    return fetch(conn, KINDS, {"id": id})


def account_totals(conn: Conn, id: UUID) -> Row:
    """How much is kept of an account, and which deletions wait for a person."""
    return fetch(conn, COUNTED, {"id": id})[0] | {"held": fetch(conn, HELD, {"id": id})}
