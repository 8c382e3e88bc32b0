"""Content: listing it, and showing one item."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import listing
from core.cli.output import clean, describe, dump, stdout
from core.cli.session import backend
from core.cli.types import After, Json, Limit, OfAccount
from core.service.formatting import ago, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.db.rows import Row

app = typer.Typer(help="List what is kept, or show one item.")

PREVIEW = 4_000
"""Characters of an item that are shown to people."""


@app.callback(invoke_without_command=True)
def list_content(
    context: typer.Context,
    account: OfAccount = None,
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
    from core.service import listings, lookup

    with backend() as opened, opened.database.connection() as conn:
        of = None if account is None else lookup.account_id(conn, account)
        listing.show(
            conn,
            listings.content if of is None else listings.content_of_account,
            ("ID", "INTEGRATION", "KIND", "SIZE", "CHANGED", "EXTERNAL ID"),
            _cells,
            command="polling content" + ("" if account is None else f" --account {of}"),
            empty="Nothing is kept yet. Sync an account: polling sync ID --wait",
            json=json,
            limit=limit,
            after=after,
            user_integration_id=of,
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
    with backend() as opened:
        if raw:
            for portion in content_reader.read(opened, number):
                sys.stdout.buffer.write(portion)
            sys.stdout.buffer.flush()
            return
        row = content_reader.describe(opened, number)
        data = (
            b"".join(content_reader.read(opened, number))
            if json
            else _beginning(content_reader.read(opened, number))
        )
    dump(row | _encoded(data)) if json else _present(row, data)


def _beginning(portions: Iterator[bytes]) -> bytes:
    return next(portions, b"")


def _encoded(data: bytes) -> dict[str, str]:
    try:
        return {"content": data.decode(), "encoding": "text"}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(data).decode(), "encoding": "base64"}


def _present(row: Row, data: bytes) -> None:
    describe(row | {"size": size(row["size"])})
    try:
        text = data[: PREVIEW * 4].decode()
    except UnicodeDecodeError:
        stdout().print(
            f"\nBytes. See them with: polling content show {row['id']} --raw", style="dim"
        )
        return
    stdout().print("\n" + clean(text[:PREVIEW], lines=True), soft_wrap=True)
    if len(text) > PREVIEW or row["size"] > len(data[: PREVIEW * 4]):
        stdout().print(f"… all of it: polling content show {row['id']} --raw", style="dim")
