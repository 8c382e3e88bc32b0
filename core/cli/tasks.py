"""Commands for tasks: list them, show one, and retry or discard parked ones."""

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

app = typer.Typer()

Ids = Annotated[list[str], typer.Argument(metavar="ID", help="The tasks' IDs, which are numbers.")]


@app.callback(invoke_without_command=True)
def list_tasks(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Show only this run's tasks: its UUID, or a prefix of it."),
    ] = None,
    account: AccountFilter = None,
    state: Annotated[TaskState | None, typer.Option(help="Show only tasks in this state.")] = None,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List tasks, newest first; show one, and retry or discard parked tasks.

    \b
    Examples:
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
            ("ID", "TYPE", "STATE", "FAILED ATTEMPTS", "SINCE", "REASON"),
            _cells,
            command="polling tasks",
            empty="No tasks match.",
            json=json,
            limit=limit,
            after=after,
            run_id=None if run is None else lookup.run_id(conn, run),
            user_integration_id=None if account is None else lookup.account_id(conn, account),
            state=state,
        )


def _cells(row: Row) -> tuple[object, ...]:
    failed = f"{row['attempts']}" + (f"+{row['crashes']} crashes" if row["crashes"] else "")
    state = "retried" if row["retried_as"] is not None else row["state"]
    return (
        row["id"],
        row["type"],
        state,
        failed,
        ago(row["finished_at"] or row["created_at"]),
        row["reason"],
    )


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The task's ID, a number.")],
    json: Json = False,
) -> None:
    """Show a task: its payload, and the errors of its attempts.

    \b
    Example:
      polling tasks show 17
    """
    from core.service import lookup
    from core.service.runs import queries as run_queries

    with backend() as engine, engine.database.connection() as conn:
        row = run_queries.tasks.one(conn, "task", lookup.number(id, "task"))
    dump(row) if json else describe(row)


@app.command("retry")
def retry(ids: Ids, json: Json = False) -> None:
    """Retry parked tasks, in their account's open run or in a new run.

    \b
    Example:
      polling tasks retry 17 18
    """
    from core.service import lookup
    from core.service.runs import actions as run_actions

    with backend() as engine:
        copies = run_actions.retry(engine, [lookup.number(id, "task") for id in ids])
    dump({"tasks": copies}) if json else say(f"Retrying as {_task_list(copies)}.")


@app.command("discard")
def discard(ids: Ids, json: Json = False) -> None:
    """Discard parked tasks permanently. Content that they would have saved may be missing.

    \b
    Example:
      polling tasks discard 17
    """
    from core.service import lookup
    from core.service.runs import actions as run_actions

    with backend() as engine:
        discarded = run_actions.discard(engine, [lookup.number(id, "task") for id in ids])
    dump({"tasks": discarded}) if json else say(
        f"Discarded {_task_list(discarded)}. Content that they would have saved may be missing."
    )


def _task_list(ids: list[int]) -> str:
    return (
        f"task{'s' if len(ids) != 1 else ''} {', '.join(map(str, ids))}"
        if ids
        else "a task of the open run"
    )
