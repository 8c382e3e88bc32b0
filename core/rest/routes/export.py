"""`/v1/export`: content as a file, from one cursor of the change feed to another."""

from __future__ import annotations

import itertools
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from core.db.pool import Conn
from core.rest.routes import problems
from core.service import authorization, tokens
from core.service.content import export as content_export
from core.service.content.export_formats import MEDIA_TYPES, Format, encoded
from core.web.dependencies import AccountFilter, After, Engine
from core.web.downloads import HARMLESS
from core.web.permissions import TO_READ_CONTENT, ContentReader
from core.web.problems import AccessEnded

router = APIRouter(prefix="/v1/export", tags=["changes"])

CURSOR = "Export-Cursor"
"""The header with the cursor of the next export."""


@router.get(
    "",
    response_class=StreamingResponse,
    responses=problems(401, 404, 410, 422)
    | {
        200: {
            "description": "The records",
            "content": {
                media_type.split(";")[0]: {"schema": {"type": "string", "format": "binary"}}
                # The first one lets generated clients return bytes. The server sends the others.
                for media_type in ("application/octet-stream", *MEDIA_TYPES.values())
            },
            "headers": {
                CURSOR: {
                    "description": "The cursor of the next export",
                    "schema": {"type": "string"},
                }
            },
        }
    },
)
def export_content(
    engine: Engine,
    principal: ContentReader,
    format: Annotated[Format, Query(description="The format of the response")] = Format.JSONL,
    account: AccountFilter = None,
    after: After = None,
) -> StreamingResponse:
    """Export content and its text as a file, from a cursor up to the latest change.

    The header `Export-Cursor` names the end. For later changes only, send it as `after`. It is also
    a cursor of `/v1/changes`, and the other way round. Deleted items are records with `deleted` as
    their `change`. Download the bytes of items without text from
    `/v1/user-integration-content/{content_id}/raw`.

    If the connection ends before the response is complete, start again from the same cursor. A
    missing final chunk shows it, and for Parquet a missing footer.
    """

    def authorize(conn: Conn) -> None:
        reader = tokens.current(conn, principal)
        if reader is None or not reader.may(*TO_READ_CONTENT.any_of):
            raise AccessEnded

    with engine.database.connection() as conn:
        if account is not None:
            authorization.require(conn, principal, "account", account)
        wanted = content_export.begin(conn, after=after, account=account)
    chunks = encoded(format, content_export.batches(engine, principal, wanted, authorize=authorize))
    first = next(chunks, b"")  # an invalid cursor must raise before the response starts
    return StreamingResponse(
        itertools.chain([first], chunks),
        headers={
            **HARMLESS,
            CURSOR: wanted.until,
            # Starlette adds a charset to `media_type`; a header is sent unchanged.
            "Content-Type": MEDIA_TYPES[format],
            "Content-Disposition": f'attachment; filename="content.{format}"',
        },
    )
