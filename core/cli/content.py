"""Content: listing it, and showing one item."""

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

app = typer.Typer(help="List what is kept, or show one item.")

MAX_PREVIEW_CHARS = 4_000
"""Characters of an item that are printed without `--raw` and `--json`."""


@app.callback(invoke_without_command=True)
def list_content(
    context: typer.Context,
    account: AccountFilter = None,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind, such as file or message.")
    ] = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Also what is deleted at the source.")
    ] = False,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List what is kept.

    Examples:

    \b
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
            empty="Nothing is kept yet. Sync an account: polling sync ID --wait",
            json=json,
            limit=limit,
            after=after,
            user_integration_id=account_id,
            kind=kind,
            deleted=None if deleted else False,
        )


def _cells(row: Row) -> tuple[object, ...]:
    kind = f"{row['kind']} (deleted)" if row["deleted_at"] else row["kind"]
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
    id: Annotated[str, typer.Argument(metavar="ID", help="The item's number.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Its bytes as they are, and nothing else.")
    ] = False,
    json: Json = False,
) -> None:
    """Show an item and its content.

    Examples:

    \b
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
            f"\nBytes. See them with: polling content show {row['id']} --raw", style="dim"
        )
        return
    stdout().print("\n" + clean(text[:MAX_PREVIEW_CHARS], lines=True), soft_wrap=True)
    if len(text) > MAX_PREVIEW_CHARS or row["size"] > len(data[: MAX_PREVIEW_CHARS * 4]):
        stdout().print(f"… all of it: polling content show {row['id']} --raw", style="dim")
