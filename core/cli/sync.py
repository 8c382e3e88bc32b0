"""`polling sync` and `resync`: a run now, and waiting for its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.output import dump, fail, fail_with, note, say, short
from core.cli.progress import Watcher
from core.cli.session import backend
from core.cli.types import Id
from core.service.formatting import span
from core.states import RunState

if TYPE_CHECKING:
    from uuid import UUID

    from core.service.backend import Backend
    from core.service.runs.progress import Progress

CODES = {"succeeded": 0, "failed": 1, "cancelled": 1, "partial": 3}
STOPPED, TIMED_OUT = 1, 4

Wait = Annotated[bool, typer.Option("--wait", help="Show progress until the run ends.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Wait no longer; exit with 4.")
]
JsonEnd = Annotated[bool, typer.Option("--json", help="Print what it came to as one JSON object.")]


def sync(
    id: Id,
    wait: Wait = False,
    timeout: Timeout = None,
    allow_deletions: Annotated[
        bool,
        typer.Option(
            "--allow-deletions", help="Also delete what is held because too much vanished at once."
        ),
    ] = False,
    json: JsonEnd = False,
) -> None:
    """Start a run of an account now, or join the one that is open.

    With --wait it exits with 0 if the run succeeded, 1 if it failed or was cancelled, 3 if some
    tasks were parked, and 4 if the time was up.

    Examples:

    \b
      polling sync hello --wait
      polling sync hello --wait --timeout 60 --json
    """
    from core.service import lookup
    from core.service.runs import actions as run_actions

    with backend() as engine:
        with engine.database.connection() as conn:
            account = lookup.account_id(conn, id)
        run, is_new = run_actions.sync(engine, account, allow_deletions=allow_deletions)
        _report_start(run, is_new, wait, json)
        if wait:
            raise typer.Exit(wait_for_end(engine, run, timeout, json))


def resync(id: Id, wait: Wait = False, timeout: Timeout = None, json: JsonEnd = False) -> None:
    """Forget all cursors of an account and list everything again; an open run ends first.

    Example:

    \b
      polling resync hello
    """
    from core.service import lookup
    from core.service.runs import actions as run_actions

    with backend() as engine:
        with engine.database.connection() as conn:
            account = lookup.account_id(conn, id)
        run, is_new = run_actions.resync(engine, account)
        if not is_new:
            note("A run is open: the resync begins when it has ended.")
        _report_start(run, is_new, wait, json)
        if wait:
            raise typer.Exit(wait_for_end(engine, run, timeout, json))


def _report_start(run: UUID, is_new: bool, wait: bool, json: bool) -> None:
    if json and not wait:
        dump({"run_id": str(run), "state": RunState.RUNNING, "is_new": is_new})
    elif not json and not wait:
        say(f"{'Started' if is_new else 'Joined'} run {run}")
        say(f"See how far it is: polling runs show {short(run)}")
    elif not is_new:
        note(f"Joined run {short(run)}, which is open already.")


def wait_for_end(engine: Backend, run: UUID, timeout: float | None, json: bool) -> int:
    """Wait for a run's end, say what it came to, and return the exit code."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with Watcher(engine, run) as watcher:
        while watcher.update() == "running" and watcher.run.stopped is None:
            if deadline is not None and time.monotonic() >= deadline:
                break
            time.sleep(watcher.run.pause)
    now, stopped = watcher.run.now, watcher.run.stopped
    if json:
        dump(now.summary())
    if stopped is not None:
        fail_with(stopped)
        return STOPPED
    if not json:
        _report(now)
    return CODES.get(now.state, TIMED_OUT)


def _report(now: Progress) -> None:
    figures = now.summary()
    if now.state == RunState.RUNNING:
        fail(
            f"the time is up; the run goes on, {now.tasks_done} of {now.known} tasks are done",
            f"See: polling runs show {short(figures['run_id'])}",
        )
        return
    say(
        f"Run {short(figures['run_id'])} {now.state} in {span(figures['seconds'])}:"
        f" {figures['outputs_saved']} saved, {figures['outputs_unchanged']} unchanged,"
        f" {figures['outputs_deleted']} deleted; {figures['tasks_done']} tasks done,"
        f" {figures['tasks_parked']} parked"
    )
    if figures["tasks_parked"]:
        fail(
            str(now.run["error"]),
            f"See: polling tasks --run {short(figures['run_id'])} --state parked",
        )
    elif now.state == RunState.SUCCEEDED:
        say(f"Next: polling content --account {short(now.run['user_integration_id'])}")
