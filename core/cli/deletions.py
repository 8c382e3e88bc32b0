"""Commands for held deletions: list them, show their items, accept or refuse them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import listing
from core.cli.output import describe, dump_all, note, say, short, table
from core.cli.session import backend
from core.cli.types import AccountFilter, After, Json, Limit
from core.service.formatting import ago, counted, moment, size
from core.states import HeldState, HoldSource, ShownHeldState

if TYPE_CHECKING:
    from core.db.rows import Row
    from core.service.content.deletions import Decided

app = typer.Typer()

Ids = Annotated[
    list[str], typer.Argument(metavar="ID", help="The held deletions' IDs, which are numbers.")
]


@app.callback(invoke_without_command=True)
def list_deletions(
    context: typer.Context,
    account: AccountFilter = None,
    state: Annotated[
        ShownHeldState | None,
        typer.Option(
            help="Show only deletions in this state. A held deletion waits for your decision. An"
            " accepted one waits for the run that marks its items."
        ),
    ] = None,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List large deletions that wait for your decision; show, accept or refuse them.

    If an unusually large share of an account's items disappears at the source, the engine does not
    mark them as deleted. It holds the deletion until you accept or refuse it. The list also has
    the deletions that you refused. An accepted deletion leaves the list when a run has marked its
    items.

    \b
    Examples:
      polling deletions --account hello
      polling deletions show 3
      polling deletions accept 3
    """
    if context.invoked_subcommand is not None:
        return
    from core.service import lookup
    from core.service.content import deletions

    with backend() as engine, engine.database.connection() as conn:
        listing.print_page(
            conn,
            deletions.deletions,
            ("ID", "ACCOUNT", "STATE", "MISSING ITEMS", "DETECTED", "LISTING"),
            _cells,
            nouns="held deletions",
            json=json,
            limit=limit,
            after=after,
            user_integration_id=None if account is None else lookup.account_id(conn, account),
            state=state,
        )


def _cells(row: Row) -> tuple[object, ...]:
    return (
        row["id"],
        row["account_name"],
        row["state"],
        f"{row['vanished']:,} of {row['total']:,}",
        ago(row["created_at"]),
        place(row),
    )


def place(row: Row) -> str:
    """Return the listing whose items disappeared, for people."""
    if row["source"] == HoldSource.GONE:
        return "one by one, by the source"
    from core.service.content.deletions import place_name

    parent = "entire account" if row["parent"] is None else place_name(row)
    since, until = (
        moment(time) if time is not None else None for time in (row["since"], row["until"])
    )
    if since and until:
        return f"{parent}, {since} to {until}"
    if since or until:
        return f"{parent}, {'since' if since else 'until'} {since or until}"
    return parent


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The held deletion's ID, a number.")],
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """Show the items that a held deletion would mark as deleted.

    \b
    Examples:
      polling deletions show 3
      polling deletions show 3 --json
    """
    from core.service import lookup
    from core.service.content import deletions

    number = lookup.number(id, "deletion")
    with backend() as engine, engine.database.connection() as conn:
        row = deletions.deletions.one(conn, "deletion", number)
        if json and limit is None and after is None:
            dump_all(deletions.items.pages(conn, held_deletion_id=number))
            return
        page = deletions.page_of_items(conn, number, limit=limit or listing.PAGE, after=after)
    if json:
        dump_all(page.rows)
    else:
        if after is None:
            describe(row)
            say("")
        table(("EXTERNAL ID", "KIND", "SIZE", "NAME"), map(_item_cells, page.rows))
    if page.cursor is not None:
        note(f"Next page: polling deletions show {number} --after {page.cursor}")
    if row["state"] == HeldState.HELD and not json:
        note(f"Delete these items: polling deletions accept {number}")
        note(f"Keep them: polling deletions refuse {number}")


def _item_cells(row: Row) -> tuple[object, ...]:
    return (row["external_id"], row["kind"], size(row["size"]), row["name"] or "")


@app.command("accept")
def accept(ids: Ids, json: Json = False) -> None:
    """Accept held deletions: the next run deletes the items that are still missing.

    That run lists everything again. It deletes an item only if `polling deletions show` lists it,
    and if it is not back at the source. If more items are missing, the engine holds their deletion
    too.

    \b
    Example:
      polling deletions accept 3 4
    """
    from core.service import lookup
    from core.service.content import deletions

    with backend() as engine:
        decided = deletions.accept(engine, [lookup.number(id, "deletion") for id in ids])
    if json:
        dump_all(each.row | {"confirming_run_id": each.run} for each in decided)
        return
    for each in decided:
        say(
            f"Accepted: {_items(each)} of {each.row['account_name']}. The next run looks for these"
            " items again. If an item is still missing, the run marks it as deleted."
        )
    for run in dict.fromkeys(each.run for each in decided):
        if run is not None:
            say(f"Show the run's progress: polling runs show {short(run)}")
        else:
            note("That run starts after the open one, or when the account is active again.")


@app.command("refuse")
def refuse(ids: Ids, json: Json = False) -> None:
    """Refuse held deletions: keep the items, although the source no longer has them.

    You can still accept them later.

    \b
    Example:
      polling deletions refuse 3
    """
    from core.service import lookup
    from core.service.content import deletions

    with backend() as engine:
        decided = deletions.refuse(engine, [lookup.number(id, "deletion") for id in ids])
    if json:
        dump_all(each.row for each in decided)
        return
    for each in decided:
        say(f"Refused: {_items(each)} of {each.row['account_name']} stay.")


def _items(each: Decided) -> str:
    return counted(each.row["vanished"], "item")
