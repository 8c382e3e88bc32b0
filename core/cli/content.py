"""Commands for content: list it, and show one item."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import listing
from core.cli.output import clean, describe, dump, dump_all, note, say, stdout, table
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
    search: Annotated[
        str | None,
        typer.Option(
            metavar="QUERY",
            help='Search names and text. An example is --search "from:ann invoice".',
        ),
    ] = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Also show items that are marked as deleted.")
    ] = False,
    gone: Annotated[
        bool,
        typer.Option(
            "--gone",
            help="Show only items that disappeared at the source, but are kept here.",
        ),
    ] = False,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List or search content; show one item.

    \b
    Examples:
      polling content --account hello --limit 10
      polling content --search 'from:ann invoice -draft before:2026-05-01'
      polling content --json
    """
    if context.invoked_subcommand is not None:
        return
    if search is not None:
        _print_found(search, account, kind, deleted, gone, limit, after, json)
        return
    from core.service import lookup
    from core.service.content import queries as content_queries

    with backend() as engine, engine.database.connection() as conn:
        account_id = None if account is None else lookup.account_id(conn, account)
        listing.print_page(
            conn,
            content_queries.content if account_id is None else content_queries.content_of_account,
            ("ID", "INTEGRATION", "KIND", "SIZE", "UPDATED", "EXTERNAL ID"),
            _cells,
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


def _print_found(
    query: str,
    account: str | None,
    kind: str | None,
    deleted: bool,
    gone: bool,
    limit: int | None,
    after: str | None,
    json: bool,
) -> None:
    """Print a page of a search."""
    from core.service import lookup
    from core.service.content import listing as content_listing

    with backend() as engine, engine.database.connection() as conn:
        content_filter = content_listing.ContentFilter(
            account=None if account is None else lookup.account_id(conn, account),
            kind=kind,
            deleted=None if deleted else False,
            gone=True if gone else None,
            q=query,
        )
        page = content_listing.page(
            conn, engine.query_slots, content_filter, limit=limit or listing.PAGE, after=after
        )
    if json:
        dump_all(page.rows)
    elif page.rows:
        table(("ID", "KIND", "TIME", "NAME", "TEXT"), map(_found_cells, page.rows))
    else:
        say(f"No content found for: {clean(query)}")
    if page.cursor is not None:
        note(f"Next page: repeat the command with --after {page.cursor}")


def _found_cells(row: Row) -> tuple[object, ...]:
    moment = row["external_timestamp"] or row["created_at"]
    name = row["name"] or row["external_id"]
    return (row["id"], row["kind"], f"{moment:%Y-%m-%d}", name[:60], row["snippet"] or "")


def _cells(row: Row) -> tuple[object, ...]:
    state = "deleted" if row["deleted_at"] else "gone" if row["gone_at_source"] else None
    kind = f"{row['kind']} ({state})" if state else row["kind"]
    return (
        row["id"],
        row["integration_domain"],
        kind,
        size(row["size"]),
        ago(row["updated_at"]),
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
