"""Commands for content: list it, and show one item."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import listing
from core.cli.output import clean, describe, dump, stdout
from core.cli.session import backend
from core.cli.types import AccountFilter, After, Json, Limit
from core.service.formatting import ago, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.db.rows import Row

app = typer.Typer()

MAX_PREVIEW_CHARS = 4_000
"""Characters of an item that `show` prints without `--raw` or `--json`."""


@app.callback(invoke_without_command=True)
def list_content(
    context: typer.Context,
    account: AccountFilter = None,
    kind: Annotated[
        str | None, typer.Option(help="Show only this kind, such as file or message.")
    ] = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Include items that were deleted at the source.")
    ] = False,
    gone: Annotated[
        bool, typer.Option("--gone", help="Show only items that are kept, and gone at the source.")
    ] = False,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List content, or show one item.

    \b
    Examples:
      polling content --account hello --limit 10
      polling content --json
    """
    if context.invoked_subcommand is not None:
        return
    from core.service import lookup
    from core.service.content import queries as content_queries

    with backend() as engine, engine.database.connection() as conn:
        account_id = None if account is None else lookup.account_id(conn, account)
        listing.print_page(
            conn,
            content_queries.content if account_id is None else content_queries.content_of_account,
            ("ID", "INTEGRATION", "KIND", "SIZE", "CHANGED", "EXTERNAL ID"),
            _cells,
            command="polling content" + ("" if account is None else f" --account {account_id}"),
            nouns="content",
            hint="Sync an account: polling sync ID --wait",
            json=json,
            limit=limit,
            after=after,
            user_integration_id=account_id,
            kind=kind,
            deleted=None if deleted else False,
            gone=True if gone else None,
        )


def _cells(row: Row) -> tuple[object, ...]:
    state = "deleted" if row["deleted_at"] else "gone" if row["gone_at_source"] else None
    kind = f"{row['kind']} ({state})" if state else row["kind"]
    changed = ago(row["updated_at"])
    return (
        row["id"],
        row["integration_domain"],
        kind,
        size(row["size"]),
        changed,
        row["external_id"],
    )


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The item's ID, a number.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Write only the item's bytes to standard output.")
    ] = False,
    json: Json = False,
) -> None:
    """Show an item: its fields and its content.

    \b
    Examples:
      polling content show 42
      polling content show 42 --raw > picture.png
    """
    from core.service import lookup
    from core.service.content import reader as content_reader

    number = lookup.number(id, "content")
    with backend() as engine:
        if raw:
            for chunk in content_reader.read(engine, number):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        row = content_reader.describe(engine, number)
        data = (
            b"".join(content_reader.read(engine, number))
            if json
            else _first_chunk(content_reader.read(engine, number))
        )
    dump(row | _encode(data)) if json else _print_item(row, data)


def _first_chunk(chunks: Iterator[bytes]) -> bytes:
    return next(chunks, b"")


def _encode(data: bytes) -> dict[str, str]:
    try:
        return {"content": data.decode(), "encoding": "text"}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(data).decode(), "encoding": "base64"}


def _print_item(row: Row, data: bytes) -> None:
    describe(row | {"size": size(row["size"])})
    try:
        text = data[: MAX_PREVIEW_CHARS * 4].decode()
    except UnicodeDecodeError:
        stdout().print(
            f"\nBinary content. Save it: polling content show {row['id']} --raw > FILE",
            style="dim",
        )
        return
    stdout().print("\n" + clean(text[:MAX_PREVIEW_CHARS], lines=True), soft_wrap=True)
    if len(text) > MAX_PREVIEW_CHARS or row["size"] > len(data[: MAX_PREVIEW_CHARS * 4]):
        stdout().print(
            f"… Preview truncated. Show all: polling content show {row['id']} --raw", style="dim"
        )
