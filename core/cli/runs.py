"""Commands for runs: list them, show one, and cancel one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import listing
from core.cli.output import describe, dump, note, say, short
from core.cli.progress import why, why_json
from core.cli.session import backend
from core.cli.types import AccountFilter, After, Json, Limit, RunId
from core.service.formatting import ago, span
from core.states import Lane, RunState

if TYPE_CHECKING:
    from core.db.rows import Row

app = typer.Typer()

INTERNAL = (
    "allow_deletions",
    "config_version",
    "joined",
    "next_sync_at",
    "poll_due",
    "pruned",
    "start_seq",
)
"""Columns of a run that only `--json` prints."""

LANES = {
    Lane.LIVE: "live (this run loads new and changed items)",
    Lane.BACKFILL: "backfill (this run loads older items)",
}


@app.callback(invoke_without_command=True)
def list_runs(
    context: typer.Context,
    account: AccountFilter = None,
    state: Annotated[
        RunState | None,
        typer.Option(
            help="Show only runs in this state. A partial run has failed tasks: parked tasks, which"
            " you retry, or deferred tasks, which the engine retries."
        ),
    ] = None,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List runs, newest first; show one, or cancel one.

    A run is one sync of one account. The list leaves out scheduled runs that found nothing new.

    \b
    Examples:
      polling runs --account hello
      polling runs --state running
    """
    if context.invoked_subcommand is not None:
        return
    from core.service import lookup
    from core.service.runs import queries as run_queries

    with backend() as engine, engine.database.connection() as conn:
        listing.print_page(
            conn,
            run_queries.listed_runs,
            ("ID", "ACCOUNT", "INTEGRATION", "STATE", "STARTED", "DURATION", "SAVED", "PARKED"),
            _cells,
            nouns="runs",
            hint="Start one: polling sync ID --wait",
            json=json,
            limit=limit,
            after=after,
            wide="INTEGRATION",
            user_integration_id=None if account is None else lookup.account_id(conn, account),
            state=state,
        )


def _cells(row: Row) -> tuple[object, ...]:
    from core.service.runs.queries import shown_run_state

    duration = (
        span((row["finished_at"] - row["started_at"]).total_seconds()) if row["finished_at"] else ""
    )
    return (
        short(row["id"]),
        short(row["user_integration_id"]),
        row["integration_domain"],
        shown_run_state(row["state"], row["account_state"]),
        ago(row["started_at"]),
        duration,
        row["outputs_saved"] if duration else "",
        row["tasks_parked"] or "",
    )


@app.command("show")
def show(id: RunId, json: Json = False) -> None:
    """Show a run and its progress. If it is open, the command also names the cause of its wait.

    \b
    Example:
      polling runs show 3f2a
    """
    from core.service import lookup
    from core.service.accounts import waiting
    from core.service.accounts.owed import owed_by
    from core.service.runs import progress
    from core.service.runs import queries as run_queries

    with backend() as engine, engine.database.connection() as conn:
        run = lookup.run_id(conn, id)
        row = run_queries.runs.one(conn, "run", run)
        now = progress.progress(conn, run)
        owed = owed_by(conn, row["user_integration_id"])
        account = progress.load_account(conn, now)
        is_open = now.state == RunState.RUNNING
        wait = waiting.of_run(engine, conn, account, now) if is_open else None
    open_tasks: dict[str, int | None] = {
        "tasks_known": now.known,
        "tasks_queued": now.queued,
        "tasks_ready": now.ready,
    }
    open_tasks |= {"progress_done": now.reported_done, "progress_total": now.reported_total}
    row |= now.summary(owed) | (open_tasks if now.state == RunState.RUNNING else {})
    row.pop("run_id")
    if json:
        dump(row | why_json(wait))
        return
    shown = {name: value for name, value in row.items() if name not in INTERNAL}
    state = run_queries.shown_run_state(row["state"], account.sync_status)
    describe(shown | {"state": state, "lane": LANES[Lane(row["lane"])]})
    if wait is not None:
        note(why(wait))


@app.command("cancel")
def cancel(id: RunId) -> None:
    """End a run now. Its open tasks continue in the account's next run.

    \b
    Example:
      polling runs cancel 3f2a
    """
    from core.service import lookup
    from core.service.runs import actions as run_actions

    with backend() as engine:
        with engine.database.connection() as conn:
            run = lookup.run_id(conn, id)
        run_actions.cancel(engine, run)
    say("Cancelled. The open tasks move to the account's next run.")
