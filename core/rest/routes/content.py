"""`/v1/user-integration-content`: content."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from core.errors import NotFound
from core.rest.routes import problems
from core.rest.schemas.common import Page
from core.rest.schemas.content import ContentItem, FoundContent, ThreadItem
from core.service import authorization, tokens
from core.service.authorization import Principal
from core.service.content import listing as content_listing
from core.service.content import queries as content_queries
from core.service.content import threads
from core.web import downloads, html_documents
from core.web.dependencies import (
    NO_NUL,
    AccountFilter,
    After,
    ContentId,
    DomainFilter,
    Engine,
    Limit,
    UserFilter,
    visible_user,
)
from core.web.permissions import TO_READ_CONTENT, ContentReader
from core.web.timestamps import Timestamp

BYTES = {
    name: {"schema": {"type": "string", "format": "binary"}}
    for name in ("application/octet-stream", "*/*")
}
"""The media types of bytes. Generated clients know the first one. Items have any type."""

router = APIRouter(prefix="/v1/user-integration-content", tags=["content"])


@router.get("", responses=problems(401, 403, 422), response_model_exclude_unset=True)
def list_content(
    engine: Engine,
    principal: ContentReader,
    account: AccountFilter = None,
    user_id: UserFilter = None,
    domain: DomainFilter = None,
    external_id: Annotated[
        str | None,
        Query(max_length=2_048, pattern=NO_NUL, description="Return only items with this ID"),
    ] = None,
    parent: Annotated[
        str | None,
        Query(
            max_length=2_048, pattern=NO_NUL, description="Return only direct children of this item"
        ),
    ] = None,
    kind: Annotated[
        str | None,
        Query(max_length=1_000, pattern=NO_NUL, description="Return only items of this kind"),
    ] = None,
    since: Annotated[
        Timestamp | None,
        Query(description="Return only items with an `external_timestamp` at this time or later"),
    ] = None,
    until: Annotated[
        Timestamp | None,
        Query(description="Return only items with an `external_timestamp` before this time"),
    ] = None,
    updated_since: Annotated[
        Timestamp | None,
        Query(
            description=(
                "Return only items that changed at this time or later. To receive every change,"
                " read `/v1/changes` instead"
            )
        ),
    ] = None,
    deleted: Annotated[
        bool | None,
        Query(
            description="True: return only items that are marked deleted. False: only the others"
        ),
    ] = False,
    gone: Annotated[
        bool | None,
        Query(
            description=(
                "True: return only items that are kept, and gone at the source. False: only the"
                " others"
            )
        ),
    ] = None,
    q: Annotated[
        str | None,
        Query(
            max_length=1_000,
            pattern=NO_NUL,
            description=(
                "A search, such as"
                ' `invoice -draft "last call" or memo`. Operators restrict it, such as `from:ann`,'
                " `in:#general`, `has:file` and `before:2026-05-01`; the how-to `search.md` lists"
                " them."
                " New content becomes searchable after about a second"
            ),
        ),
    ] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[FoundContent]:
    """List content, ordered by account and external ID; with `q`, the best matches first.

    With filters, a page may have fewer items than `limit`, or none. The last page has a null
    `cursor`.
    """
    content_filter = content_listing.ContentFilter(
        account=account,
        user=visible_user(principal, user_id),
        domain=domain,
        external_id=external_id,
        parent=parent,
        kind=kind,
        since=since,
        until=until,
        updated_since=updated_since,
        deleted=deleted,
        gone=gone,
        q=q,
    )
    with engine.database.connection() as conn:
        page = content_listing.page(
            conn, engine.query_slots, content_filter, limit=limit, after=after
        )
    return Page[FoundContent].model_validate({"items": page.rows, "cursor": page.cursor})


@router.get(
    "/{content_id}",
    response_model=ContentItem,
    responses=problems(401, 404, 422)
    | {
        200: {
            "description": "The item; with `as=html`, a safe HTML document",
            "content": {"text/html": {"schema": {"type": "string"}}},
        }
    },
)
def get_content(
    engine: Engine,
    principal: ContentReader,
    content_id: ContentId,
    representation: Annotated[
        Literal["html"] | None,
        Query(
            alias="as",
            description=(
                "`html`: return the item as an HTML document. A message is shown as a person saw"
                " it, from its stored source, with its inline images. Scripts, links, forms and"
                " remote images are removed. Mail without HTML and other text is shown as text"
            ),
        ),
    ] = None,
) -> ContentItem | HTMLResponse:
    """Return an item, without its bytes; with `as=html`, return it as an HTML document."""
    row = _row(engine, principal, content_id)
    if representation is None:
        return ContentItem.model_validate(row)
    return HTMLResponse(
        html_documents.of_item(engine, row, principal.user_id), headers=html_documents.HEADERS
    )


@router.get("/{content_id}/thread", responses=problems(401, 404, 422))
def get_thread(
    engine: Engine,
    principal: ContentReader,
    content_id: ContentId,
    limit: Limit = 50,
    after: After = None,
) -> Page[ThreadItem]:
    """List all items of an item's thread with their texts, the oldest first.

    The items of a thread have the same `thread_id` in their metadata. A new item is part of it
    after about a second.
    """
    row = _row(engine, principal, content_id)
    with engine.database.connection() as conn:
        page = threads.page(
            conn, engine.query_slots, row, user=principal.user_id, limit=limit, after=after
        )
    return Page[ThreadItem].model_validate({"items": page.rows, "cursor": page.cursor})


@router.get(
    "/{content_id}/raw",
    response_class=StreamingResponse,
    responses=problems(401, 404, 416, 422)
    | {
        200: {"description": "The bytes of the item", "content": BYTES},
        206: {"description": "The bytes of the range", "content": BYTES},
        304: {"description": "The bytes of the item have not changed"},
    },
)
def get_raw_content(
    request: Request, engine: Engine, principal: ContentReader, content_id: ContentId
) -> Response:
    """Download the bytes of an item. Browsers do not display them.

    `ETag` is the item's SHA-256 hash. Send it as `If-None-Match` to download only changed bytes. To
    continue a download, send a `Range` of bytes, and the `ETag` as `If-Range`.
    """
    return downloads.download(
        request,
        engine,
        _row(engine, principal, content_id),
        lambda: _may_still_read(engine, principal, content_id),
    )


def _row(engine: Engine, principal: Principal, id: int) -> dict[str, Any]:
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "content", id)
        return content_queries.item(conn, id)


def _may_still_read(engine: Engine, principal: Principal, id: int) -> bool:
    with engine.database.connection() as conn:
        reader = tokens.current(conn, principal)
    if reader is None or not reader.may(*TO_READ_CONTENT.any_of):
        return False
    with suppress(NotFound):
        _row(engine, reader, id)
        return True
    return False
