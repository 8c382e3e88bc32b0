"""Commands for tasks: list them, show one, and retry or discard parked ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import listing
from core.cli.output import describe, dump, note, say
from core.cli.session import backend
from core.cli.types import AccountFilter, After, Json, JsonObject, Limit
from core.errors import InvalidInput
from core.service.formatting import ago, counted
from core.states import StoppedState, TaskState

if TYPE_CHECKING:
    from core.db.rows import Row
    from core.service.backend import Backend
    from core.service.runs.parked import Act, ParkedFilter

app = typer.Typer()

LOSS = "The copy may now lack the items of discarded tasks."


Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="The tasks' IDs, which are numbers."),
]
ShownType = Annotated[
    str | None, typer.Option(metavar="TYPE", help="Show only tasks of this type.")
]
ShownState = Annotated[
    TaskState | None,
    typer.Option(
        help="Show only tasks in this state. A ready task waits in the database. A queued task"
        " waits for a thread of a worker, or runs."
    ),
]
ShownReason = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Show only tasks whose reason contains this text. The reason of a failed task is its"
        " error message. Case is ignored.",
    ),
]
ShownSince = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Show only tasks since this time, such as 2026-01-31T08:00 (UTC), 2h (two hours ago)"
        " or 3d (three days ago). The time of a task is when it was parked, deferred, cancelled or"
        " done. For a ready or queued task, it is the time of its creation.",
    ),
]
AccountSelection = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ID",
        help="Select the tasks of this account: its name, its UUID, or a unique prefix of the"
        " UUID.",
    ),
]
Domain = Annotated[
    str | None, typer.Option(metavar="DOMAIN", help="Select the tasks of this integration.")
]
Type = Annotated[str | None, typer.Option(metavar="TYPE", help="Select the tasks of this type.")]
Reason = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Select the tasks whose error message contains this text. Case is ignored.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Select the tasks that were parked or deferred after this time, such as"
        " 2026-01-31T08:00 (UTC), 2h (two hours ago) or 3d (three days ago).",
    ),
]
Stopped = Annotated[
    StoppedState | None,
    typer.Option("--state", help="Select the tasks in this state. Default: parked and deferred."),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", help="Skip the confirmation prompt. Without a terminal, there is none."),
]


@app.callback(invoke_without_command=True)
def list_tasks(
    context: typer.Context,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Show only this run: its UUID, or a unique prefix of the UUID."
        ),
    ] = None,
    account: AccountFilter = None,
    state: ShownState = None,
    type: ShownType = None,
    reason: ShownReason = None,
    since: ShownSince = None,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List tasks, newest first; show, retry or discard tasks.

    A task is one step of a run. A parked task has failed, and only you can retry it. A deferred
    task has failed too, and the engine retries it automatically. A retry makes a copy of the
    task, and the list shows the original as retried. --state finds the original by its old state.
    A done task whose plugin skipped its item appears as skipped.

    \b
    Examples:
      polling tasks --state parked --since 2h
      polling tasks --run 3f2a --json
    """
    if context.invoked_subcommand is not None:
        return
    from core.service import lookup, times
    from core.service.runs import queries as run_queries

    with backend() as engine, engine.database.connection() as conn:
        listing.print_page(
            conn,
            run_queries.tasks,
            ("ID", "TYPE", "STATE", "FAILED ATTEMPTS", "SINCE", "REASON"),
            _cells,
            nouns="tasks",
            json=json,
            limit=limit,
            after=after,
            run_id=None if run is None else lookup.run_id(conn, run),
            user_integration_id=None if account is None else lookup.account_id(conn, account),
            state=state,
            type=type,
            reason=reason,
            since=None if since is None else times.past(since),
        )


def _cells(row: Row) -> tuple[object, ...]:
    from core.service.runs.queries import shown_state

    failed = f"{row['attempts']}" + (f"+{row['crashes']} crashes" if row["crashes"] else "")
    return (
        row["id"],
        row["type"],
        shown_state(row),
        failed,
        ago(row["finished_at"] or row["created_at"]),
        row["reason"],
    )


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="The task's ID, a number.")],
    json: JsonObject = False,
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
    dump(row) if json else describe(row | {"state": run_queries.shown_state(row)})


@app.command("retry")
def retry(
    ids: Ids = None,
    account: AccountSelection = None,
    domain: Domain = None,
    type: Type = None,
    reason: Reason = None,
    since: Since = None,
    state: Stopped = None,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE",
            help="Retry one task, named by its ID, with this payload instead of its own.",
        ),
    ] = None,
    yes: Yes = False,
    json: JsonObject = False,
) -> None:
    """Retry parked or deferred tasks.

    Name the tasks by their IDs, or select them with options. Copies of them run in the account's
    open run, or in a new run. If several runs failed at the same step, one copy replaces all of
    them.

    \b
    Examples:
      polling tasks retry 17 18
      polling tasks retry --account hello --reason "503"
      polling tasks retry --type download --since 2h
      polling tasks retry 17 --payload '{"page": 3}'
    """
    from core.cli import inputs
    from core.service.runs import actions as run_actions

    if payload is not None and len(ids or ()) != 1:
        raise typer.BadParameter("--payload needs the ID of one task")
    with backend() as engine:
        chosen = _filter(engine, account, domain, type, reason, since, state)
        if not _by_ids(ids, chosen):
            assert chosen is not None
            _confirm(engine, chosen, "Retry {}?", yes=yes)
            _report(run_actions.retry, engine, chosen, "Number of retried tasks: {}.", json=json)
            return
        if payload is None:
            copies = run_actions.retry(engine, _numbers(ids))
        else:
            edited = inputs.json_object(payload, "--payload")
            copies = [run_actions.retry_edited(engine, _numbers(ids)[0], edited)]
    dump({"tasks": copies}) if json else say(f"Retrying as {_task_list(copies)}.")


@app.command("discard")
def discard(
    ids: Ids = None,
    account: AccountSelection = None,
    domain: Domain = None,
    type: Type = None,
    reason: Reason = None,
    since: Since = None,
    state: Stopped = None,
    yes: Yes = False,
    json: JsonObject = False,
) -> None:
    """Discard parked or deferred tasks: the engine never runs them again.

    Name the tasks by their IDs, or select them with options. The copy may then lack the items of
    these tasks.

    \b
    Examples:
      polling tasks discard 17
      polling tasks discard --account hello --type download
    """
    from core.service.runs import actions as run_actions

    with backend() as engine:
        chosen = _filter(engine, account, domain, type, reason, since, state)
        if not _by_ids(ids, chosen):
            assert chosen is not None
            _confirm(engine, chosen, "Discard {} permanently?", yes=yes)
            report = f"Number of discarded tasks: {{}}. {LOSS}"
            _report(run_actions.discard, engine, chosen, report, json=json)
            return
        discarded = run_actions.discard(engine, _numbers(ids))
    dump({"tasks": discarded}) if json else say(f"Discarded {_task_list(discarded)}. {LOSS}")


def _by_ids(ids: list[str] | None, chosen: ParkedFilter | None) -> bool:
    """Return True if the command names its tasks, and False if it selects them.

    Raises:
      InvalidInput: The command does neither, or both.
    """
    if bool(ids) == (chosen is not None):
        raise InvalidInput("tasks-not-selected")
    return bool(ids)


def _numbers(ids: list[str] | None) -> list[int]:
    from core.service import lookup

    return [lookup.number(id, "task") for id in ids or ()]


def _filter(
    engine: Backend,
    account: str | None,
    domain: str | None,
    type: str | None,
    reason: str | None,
    since: str | None,
    state: StoppedState | None,
) -> ParkedFilter | None:
    """Return the filter of a command; None if it has no option that selects tasks."""
    from core.service import lookup, times
    from core.service.runs.parked import ParkedFilter

    if not any((account, domain, type, reason, since, state)):
        return None
    with engine.database.connection() as conn:
        account_id = None if account is None else lookup.account_id(conn, account)
    return ParkedFilter(
        account=account_id,
        domain=domain,
        type=type,
        reason=reason,
        since=None if since is None else times.past(since),
        states=[TaskState(each) for each in ([state] if state else StoppedState)],
    )


def _confirm(engine: Backend, chosen: ParkedFilter, question: str, *, yes: bool) -> None:
    """Ask for confirmation on a terminal; a script needs none."""
    from core.service.runs import parked

    if yes or not sys.stdin.isatty():
        return
    with engine.database.connection() as conn:
        number = parked.count(conn, engine.query_slots, chosen)
    if number and not typer.confirm(question.format(counted(number, "task")), err=True):
        raise typer.Exit(1)


def _report(
    act: Act,
    engine: Backend,
    chosen: ParkedFilter,
    text: str,
    *,
    json: bool,
) -> None:
    """Act on all matching tasks, in portions, and print their number.

    Each portion continues the one before it, so that no task is retried twice.
    """
    from core.service.runs import parked

    result = parked.apply_to_all(engine, act, chosen)
    done, refused = result.done, result.refused
    while result.more:
        result = parked.apply_to_all(engine, act, chosen, result.cursor)
        done, refused = done + result.done, refused + result.refused
    if json:
        dump({"done": done, "refused": refused})
        return
    say(text.format(f"{done:,}") if done else "No tasks match.")
    if refused:
        note(
            f"{counted(refused, 'task')} skipped: no longer parked or deferred, or beyond a quota."
        )


def _task_list(ids: list[int]) -> str:
    return (
        f"task{'s' if len(ids) != 1 else ''} {', '.join(map(str, ids))}"
        if ids
        else "a task of the open run"
    )
