"""The search documents of items, `content_search`.

The indexer of `polling serve` writes them as content changes. Workers write those of files again,
once they have read the text. `core.search` prepares the words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.search.documents import FORM, MAX_TEXT_CHARS, ROLES, IndexedItem, document

FILE_KINDS = ("attachment", "file")
"""The kinds of items that are files of the item above them."""

WITHOUT_WORDS = ("source",)
"""The kinds of items that are never found: the source of a mail is found as the mail."""

MAX_PLACES = 50
"""The number of labels and folders of an item that `in:` finds."""

# One transaction at a time writes documents: one of the indexer, or of a worker.
WAIT_FOR_PROGRESS = "SELECT FROM search_progress FOR UPDATE"
# The primary key serves the ids, and the unique index on account and external id serves the parent.
# The index on account and parent serves the files of an item.
READ_ITEMS = f"""
SELECT c.id, c.user_integration_id, c.external_id, c.kind, c.parent, c.name, c.content_type, c.size,
    c.hash, left(coalesce(c.content_text, x.text), {MAX_TEXT_CHARS}) AS content_text,
    c.content_text IS NULL AND (c.content_bytes IS NOT NULL OR c.blob_key IS NOT NULL) AS has_bytes,
    c.metadata->>'thread_id' AS thread_id, c.metadata->>'channel' AS channel,
    c.metadata->>'user' AS author, c.metadata->'labels' AS labels,
    jsonb_build_object('from', c.metadata->'from', 'to', c.metadata->'to',
        'cc', c.metadata->'cc', 'bcc', c.metadata->'bcc') AS people,
    jsonb_typeof(c.metadata->'files') = 'array' AND c.metadata->'files' <> '[]' AS names_files,
    EXISTS (SELECT FROM user_integration_content f
        WHERE f.user_integration_id = c.user_integration_id AND f.parent = c.external_id
          AND f.kind = ANY(%(file_kinds)s) AND f.deleted_at IS NULL) AS has_files,
    p.id IS NOT NULL AS is_below, p.metadata->>'thread_id' AS parent_thread_id,
    p.metadata->>'channel' AS parent_channel, p.metadata->>'user' AS parent_author,
    p.metadata->'labels' AS parent_labels,
    jsonb_build_object('from', p.metadata->'from', 'to', p.metadata->'to',
        'cc', p.metadata->'cc', 'bcc', p.metadata->'bcc') AS parent_people
FROM user_integration_content c
LEFT JOIN extracted_text x ON x.content_id = c.id AND x.hash = c.hash
LEFT JOIN user_integration_content p ON c.kind = ANY(%(file_kinds)s)
    AND p.user_integration_id = c.user_integration_id AND p.external_id = c.parent
WHERE c.id = ANY(%(ids)s)
"""

# The foreign key deletes the document of an erased content row. Rows are locked in the order that
# all writers of content use, with a weak lock: savers do not wait for it, erasures do.
WRITE = f"""
INSERT INTO content_search (content_id, document, form, user_integration_id, moment)
SELECT c.id, written.document::tsvector, {FORM}, c.user_integration_id,
    CASE WHEN written.document <> '' THEN coalesce(c.external_timestamp, c.created_at) END
FROM unnest(%(ids)s::bigint[], %(documents)s::text[]) AS written(id, document)
JOIN user_integration_content c ON c.id = written.id
ORDER BY c.user_integration_id, c.external_id FOR KEY SHARE OF c
ON CONFLICT (content_id) DO UPDATE SET document = excluded.document, form = excluded.form,
    user_integration_id = excluded.user_integration_id, moment = excluded.moment
"""

# A file waits for the extraction of its text, once for each hash. The text stays as long as the
# content: a deleted item can still be listed, and erasing deletes both.
REQUEST_TEXTS = """
INSERT INTO extracted_text (content_id, hash, user_id)
SELECT c.id, c.hash, a.user_id FROM user_integration_content c
JOIN user_integration a ON a.id = c.user_integration_id
WHERE c.id = ANY(%(ids)s) AND c.hash IS NOT NULL
ORDER BY c.user_integration_id, c.external_id FOR KEY SHARE OF c
ON CONFLICT (content_id) DO UPDATE
SET hash = excluded.hash, user_id = excluded.user_id, text = NULL, reason = NULL,
    attempts = 0, claimed_until = NULL, extracted_at = NULL
WHERE extracted_text.hash <> excluded.hash
"""


def write_documents(conn: Conn, ids: Sequence[int], max_chars: int = MAX_TEXT_CHARS) -> None:
    """Write the search documents of items, in a transaction that holds the row of the progress.

    Args:
      conn: A connection in that transaction.
      ids: The ids of the items.
      max_chars: The number of characters of an item's text that are searchable.
    """
    if not ids:
        return
    rows = fetch(conn, READ_ITEMS, {"ids": list(ids), "file_kinds": list(FILE_KINDS)})
    documents = [document(item_of(row, max_chars)) if _has_words(row) else "" for row in rows]
    conn.execute(WRITE, {"ids": [row["id"] for row in rows], "documents": documents})
    files = [row["id"] for row in rows if row["has_bytes"] and _has_words(row)]
    if files:
        conn.execute(REQUEST_TEXTS, {"ids": files})


def item_of(row: Row, max_chars: int = MAX_TEXT_CHARS) -> IndexedItem:
    """Return a row of `READ_ITEMS` for the index. A file has the people of its mail."""
    text = (row["content_text"] or "")[:max_chars]
    above = "parent_" if row["is_below"] else ""
    channel = row["channel"] or (row["parent_channel"] if above else None)
    has_file = row["kind"] in FILE_KINDS or row["names_files"] or row["has_files"]
    has_link = "http://" in text or "https://" in text
    author = row[f"{above}author"] or row["author"]
    labels = row["labels"] or (row["parent_labels"] if above else None)
    return IndexedItem(
        account=str(row["user_integration_id"]),
        kind=row["kind"],
        name=row["name"] or "",
        text=text,
        is_message_of_place=row["kind"] == "message" and channel is not None,
        people=_people(row["people"]) or _people(row["parent_people"] if above else {}),
        thread=row["thread_id"] or (row["parent_thread_id"] if above else None) or "",
        places=list(_places(row, channel, labels)),
        authors=[author] if author else [],
        has=[*(["file"] if has_file else []), *(["link"] if has_link else [])],
    )


def _has_words(row: Row) -> bool:
    return row["kind"] not in WITHOUT_WORDS


def _people(people: Mapping[str, Any]) -> dict[str, Any]:
    return {role: people[role] for role in ROLES if isinstance(people.get(role), list)}


def _places(row: Row, channel: str | None, labels: Any) -> Iterator[str]:
    """Yield the ids of the channel, the labels, and the folders that an item is in."""
    if channel:
        yield channel
    found = labels[:MAX_PLACES] if isinstance(labels, list) else []
    yield from (label for label in found if isinstance(label, str))
    parent = row["parent"] or ""
    if parent.startswith("/"):
        parts = parent.strip("/").split("/")[:MAX_PLACES]
        yield from (f"/{'/'.join(parts[:count])}" for count in range(1, len(parts) + 1))
    elif parent:
        yield parent
