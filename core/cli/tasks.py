"""Tasks: listing them, and what to do with parked ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import listing
from core.cli.output import describe, dump, say
from core.cli.session import backend
from core.cli.types import AccountFilter, After, Json, Limit
from core.service.formatting import ago
from core.states import TaskState

if TYPE_CHECKING:
    from core.db.rows import Row

app = typer.Typer(help="List the tasks, show one, retry or discard parked ones.")

Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="The tasks' numbers.")]


@app.callback(invoke_without_command=True)
def list_tasks(
    context: typer.Context,
    run: Annotated[str | None, typer.Option(metavar="ID", help="Only of this run.")] = None,
    account: AccountFilter = None,
    state: Annotated[TaskState | None, typer.Option(help="Only in this state.")] = None,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List the tasks, the newest first.

    Examples:

    \b
      polling tasks --state parked
      polling tasks --run 3f2a --json
    """
    if context.invoked_subcommand is not None:
        return
    from core.service import lookup
    from core.service.runs import queries as run_queries

    with backend() as engine, engine.database.connection() as conn:
        listing.print_page(
            conn,
            run_queries.tasks,
            ("ID", "TYPE", "STATE", "TRIES", "SINCE", "REASON"),
            _cells,
            command="polling tasks",
            empty="No such tasks.",
            json=json,
            limit=limit,
            after=after,
            run_id=None if run is None else lookup.run_id(conn, run),
            user_integration_id=None if account is None else lookup.account_id(conn, account),
            state=state,
        )


def _cells(row: Row) -> tuple[object, ...]:
    tries = f"{row['attempts']}" + (f"+{row['crashes']} crashes" if row["crashes"] else "")
    state = "retried" if row["retried_as"] is not None else row["state"]
    return (
        row["id"],
        row["type"],
        state,
        tries,
        ago(row["finished_at"] or row["created_at"]),
        row["reason"],
    )


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The task's number.")], json: Json = False
) -> None:
    """Show a task: its payload, and the errors of all its attempts.

    Example:

    \b
      polling tasks show 17
    """
    from core.service import lookup
    from core.service.runs import queries as run_queries

    with backend() as engine, engine.database.connection() as conn:
        row = run_queries.tasks.one(conn, "task", lookup.number(id, "task"))
    dump(row) if json else describe(row)


@app.command("retry")
def retry(ids: Ids, json: Json = False) -> None:
    """Try parked tasks again, in their account's open run or in a new one.

    Example:

    \b
      polling tasks retry 17 18
    """
    from core.service import lookup
    from core.service.runs import actions as run_actions

    with backend() as engine:
        copies = run_actions.retry(engine, [lookup.number(id, "task") for id in ids])
    dump({"tasks": copies}) if json else say(f"Trying again, as {_task_list(copies)}.")


@app.command("discard")
def discard(ids: Ids, json: Json = False) -> None:
    """Drop parked tasks for good: what they would have brought may be missing.

    Example:

    \b
      polling tasks discard 17
    """
    from core.service import lookup
    from core.service.runs import actions as run_actions

    with backend() as engine:
        discarded = run_actions.discard(engine, [lookup.number(id, "task") for id in ids])
    dump({"tasks": discarded}) if json else say(
        f"Discarded {_task_list(discarded)}: what they would have brought may be missing."
    )


def _task_list(ids: list[int]) -> str:
    return (
        f"task{'s' if len(ids) != 1 else ''} {', '.join(map(str, ids))}"
        if ids
        else "a task of the open run"
    )
