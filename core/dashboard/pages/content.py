"""The list of content with its search, and the page of one item."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from core.dashboard import mail_reading, previews, query_filters
from core.dashboard.query_filters import Text
from core.dashboard.responses import Renderer
from core.dashboard.session import ContentViewer, Viewer, find_viewer
from core.dashboard.wording import sentences
from core.db.pool import Conn
from core.db.rows import Row
from core.errors import InvalidInput, NotFound
from core.service import authorization, lookup
from core.service.accounts import queries as account_queries
from core.service.backend import Backend
from core.service.content import listing as content_listing
from core.service.content import queries as content_queries
from core.service.content import threads
from core.web import downloads, html_documents
from core.web.dependencies import After, ContentId, Engine

router = APIRouter()

DELETED = {"": False, "only": True, "also": None}
MAX_METADATA_ROWS = 200
MAX_VALUE_CHARS = 2_000
MAX_PEOPLE = 20
READ_APART = frozenset({"reading", "new_text", "signature"})
"""Metadata that the page shows in words."""

MAX_THREAD_TEXT_CHARS = 20_000


@router.get("/content")
def list_content(
    engine: Engine,
    viewer: ContentViewer,
    renderer: Renderer,
    q: Text = "",
    account: Text = "",
    domain: Text = "",
    kind: Text = "",
    deleted: Text = "",
    gone: Text = "",
    since: Text = "",
    until: Text = "",
    after: After = None,
) -> Response:
    """List the content that the viewer may see."""
    filters = {
        "q": q,
        "account": account,
        "domain": domain,
        "kind": kind,
        "deleted": deleted,
        "gone": gone,
        "since": since,
        "until": until,
    }
    values = {"filters": filters, "domains": query_filters.domains(engine, domain), "wrong": None}
    with engine.database.connection() as conn:
        try:
            content_filter = _filter(conn, viewer, filters)
            page = content_listing.page(conn, engine.query_slots, content_filter, after=after)
        except (InvalidInput, NotFound) as error:
            empty: dict[str, Any] = {"items": [], "cursor": None, "wrong": sentences(error)}
            return renderer.page("contents.html", values | empty, 422)
        items = lookup.with_account_names(conn, page.rows)
    return renderer.page("contents.html", values | {"items": items, "cursor": page.cursor})


@router.get("/content/{content_id}")
def show_content(
    engine: Engine,
    viewer: ContentViewer,
    renderer: Renderer,
    content_id: ContentId,
    after: After = None,
) -> Response:
    """Show one item with its preview, metadata and children."""
    with engine.database.connection() as conn:
        row = _row(conn, viewer, content_id)
        account = account_queries.accounts.one(conn, "account", row["user_integration_id"])
        child_filter = content_listing.ContentFilter(
            account=row["user_integration_id"],
            user=viewer.user_id,
            parent=row["external_id"],
            deleted=None,
        )
        children = content_listing.page(
            conn, engine.query_slots, child_filter, limit=20, after=after
        )
        parent = _parent(conn, row)
    try:
        preview = previews.preview(engine, row, viewer.user_id)
    except NotFound:
        preview = None
    people = _people(row["metadata"])
    hidden = READ_APART | {role.lower() for role, _ in people}
    metadata = {
        name: value
        for name, value in row["metadata"].items()
        if name not in hidden and value not in ([], {})
    }
    values = {
        "item": row,
        "account": account,
        "children": children.rows,
        "cursor": children.cursor,
        "parent": parent,
        "in_thread": threads.thread_of(row) is not None,
        "people": people,
        "notes": mail_reading.notes(row["metadata"]),
        "preview": preview,
        "metadata": _metadata(metadata),
    }
    return renderer.page("content.html", values)


@router.get("/content/{content_id}/thread")
def show_thread(
    engine: Engine,
    viewer: ContentViewer,
    renderer: Renderer,
    content_id: ContentId,
    after: After = None,
) -> Response:
    """Show the items of an item's thread, the oldest first."""
    with engine.database.connection() as conn:
        row = _row(conn, viewer, content_id)
        page = threads.page(
            conn, engine.query_slots, row, user=viewer.user_id, limit=20, after=after
        )
    items = [_shown_in_thread(item) for item in page.rows]
    return renderer.page("thread.html", {"item": row, "items": items, "cursor": page.cursor})


@router.get("/content/{content_id}/preview")
def preview_content(engine: Engine, viewer: ContentViewer, content_id: ContentId) -> Response:
    """Show the item's HTML in a page without scripts or remote content, for the preview frame."""
    row = _visible_row(engine, viewer, content_id)
    return HTMLResponse(
        html_documents.of_item(engine, row, viewer.user_id), headers=html_documents.HEADERS
    )


@router.get("/content/{content_id}/raw")
def raw_content(
    request: Request,
    engine: Engine,
    viewer: ContentViewer,
    content_id: ContentId,
    inline: bool = False,
) -> Response:
    """Send the bytes of an item as a download, or an image for display with `inline`."""

    def allowed() -> bool:
        now = find_viewer(engine, request)
        if now is None or not now.reads_content:
            return False
        with suppress(NotFound):
            _visible_row(engine, now, content_id)
            return True
        return False

    row = _visible_row(engine, viewer, content_id)
    return downloads.download(request, engine, row, allowed, image=inline, typed=False)


def _filter(conn: Conn, viewer: Viewer, filters: dict[str, str]) -> content_listing.ContentFilter:
    return content_listing.ContentFilter(
        account=query_filters.find_account(conn, viewer, filters["account"]),
        user=viewer.user_id,
        domain=filters["domain"] or None,
        kind=filters["kind"] or None,
        since=query_filters.parse_day(filters["since"]),
        # The filter includes the last day.
        until=query_filters.parse_day(filters["until"], offset_days=1),
        deleted=DELETED.get(filters["deleted"], False),
        gone=True if filters["gone"] == "only" else None,
        q=filters["q"].strip() or None,
    )


def _visible_row(engine: Backend, viewer: Viewer, id: int) -> Row:
    with engine.database.connection() as conn:
        return _row(conn, viewer, id)


def _row(conn: Conn, viewer: Viewer, id: int) -> Row:
    authorization.require(conn, viewer.principal, "content", id)
    return content_queries.item(conn, id)


def _parent(conn: Conn, row: Row) -> Row | None:
    """Return the parent item; None if there is none, or the parent is not an item."""
    if row["parent"] is None:
        return None
    account = row["user_integration_id"]
    page = content_queries.content_of_account.page(
        conn, limit=1, user_integration_id=account, external_id=row["parent"]
    )
    return page.rows[0] if page.rows else None


def _shown_in_thread(item: Row) -> Row:
    text = item["text"] or ""
    truncated = item["truncated"] or len(text) > MAX_THREAD_TEXT_CHARS
    new = item["metadata"].get("new_text")
    return item | {
        "people": _people(item["metadata"]),
        "new_text": new[:MAX_THREAD_TEXT_CHARS] if isinstance(new, str) else None,
        "text": text[:MAX_THREAD_TEXT_CHARS],
        "truncated": truncated,
    }


def _people(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the participants of an item as text, by role."""
    found = []
    for role in ("from", "to", "cc", "bcc"):
        people = metadata.get(role)
        if not isinstance(people, list):
            continue
        shown = [_person(person) for person in people[:MAX_PEOPLE]]
        if names := ", ".join(filter(None, shown)):
            found.append((role.capitalize(), names[:MAX_VALUE_CHARS]))
    return found


def _person(person: Any) -> str:
    if not isinstance(person, dict):
        return ""
    name, address = person.get("name"), person.get("address")
    return f"{name} <{address}>" if name and address else str(name or address or "")


def _metadata(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in list(metadata.items())[:MAX_METADATA_ROWS]
    ]
    return [(name[:200], value[:MAX_VALUE_CHARS]) for name, value in pairs]
