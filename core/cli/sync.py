"""The commands sync, resync and reread: start a run, and wait for its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.output import dump, fail, fail_with, note, say, short
from core.cli.progress import ProgressBar, why, why_json
from core.cli.session import backend
from core.cli.types import Id
from core.service.formatting import counted, span
from core.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from core.service.accounts.owed import Owed
    from core.service.backend import Backend
    from core.service.runs.progress import Progress

CODES: dict[str, int] = {
    RunState.SUCCEEDED: 0,
    RunState.FAILED: 1,
    RunState.CANCELLED: 1,
    RunState.PARTIAL: 3,
}
STOPPED, OWING, TIMED_OUT = 1, 3, 4

Wait = Annotated[bool, typer.Option("--wait", help="Wait until the run ends, and show progress.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Stop waiting after this time, and exit with 4. Default: no limit.",
    ),
]
JsonEnd = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def sync(
    id: Id,
    wait: Wait = False,
    timeout: Timeout = None,
    json: JsonEnd = False,
) -> None:
    """Start a run for an account now. If a run is open, no second one starts.

    \b
    Exit codes with --wait:
      0  The run succeeded, and no failed task of the account waits for a retry.
      1  The run failed or was cancelled, or the account is not active.
      3  Failed tasks wait for a retry. The engine retries deferred tasks.
         You retry parked tasks.
      4  The command timed out.

    \b
    Examples:
      polling sync hello --wait
      polling sync hello --wait --timeout 60 --json
    """
    from core.service.runs import actions as run_actions

    _start(run_actions.sync, id, wait, timeout, json)


def resync(id: Id, wait: Wait = False, timeout: Timeout = None, json: JsonEnd = False) -> None:
    """Start a run that lists all items of an account again, from the first one.

    The command deletes the account's cursors: the positions up to which earlier runs have read. It
    deletes no content. If a run is open, the new run starts after it. The exit codes with --wait
    are those of polling sync.

    \b
    Example:
      polling resync hello
    """
    from core.service.runs import actions as run_actions

    later = "A run is open. The resync starts when it has ended."
    _start(run_actions.resync, id, wait, timeout, json, later=later)


def reread(id: Id, wait: Wait = False, timeout: Timeout = None, json: JsonEnd = False) -> None:
    """Extract text and metadata from stored items again, without calling the provider.

    The engine does this automatically after an upgrade to a plugin version that extracts more.
    An item changes only if the new text or metadata differs. The exit codes with --wait are those
    of polling sync.

    \b
    Examples:
      polling reread hello
      polling reread hello --wait
    """
    from core.service.runs import actions as run_actions

    _start(run_actions.reread, id, wait, timeout, json)


def _start(
    request: Callable[[Backend, UUID], tuple[UUID, bool]],
    id: str,
    wait: bool,
    timeout: float | None,
    json: bool,
    *,
    later: str | None = None,
) -> None:
    """Request a run, and wait for its end if the options say so."""
    from core.service import lookup

    with backend() as engine:
        with engine.database.connection() as conn:
            account = lookup.account_id(conn, id)
        run, is_new = request(engine, account)
        if later is not None and not is_new:
            note(later)
        _report_start(run, is_new, wait, json)
        if wait:
            raise typer.Exit(wait_for_end(engine, run, timeout, json))


def _report_start(run: UUID, is_new: bool, wait: bool, json: bool) -> None:
    if json and not wait:
        dump({"run_id": str(run), "state": RunState.RUNNING, "is_new": is_new})
    elif not json and not wait:
        say(f"Started run {run}" if is_new else f"Run {run} is already open")
        say(f"Show its progress: polling runs show {short(run)}")
    elif not is_new:
        note(f"Run {short(run)} is already open.")


def wait_for_end(engine: Backend, run: UUID, timeout: float | None, json: bool) -> int:
    """Wait for a run's end, print the result, and return the exit code."""
    from core.service.accounts import waiting
    from core.service.accounts.owed import owed_by
    from core.service.runs import progress

    deadline = None if timeout is None else time.monotonic() + timeout
    with ProgressBar(engine, run) as watcher:
        while watcher.update() == RunState.RUNNING and watcher.run.stopped is None:
            if deadline is not None and time.monotonic() >= deadline:
                break
            time.sleep(watcher.run.pause)
    now, stopped = watcher.run.now, watcher.run.stopped
    with engine.database.connection() as conn:
        account = progress.load_account(conn, now)
        owed = owed_by(conn, account.id)
        wait = waiting.of_account(engine, conn, account)
    if json:
        dump(now.summary(owed) | {"why": why_json(wait)["why"]})
    if stopped is not None:
        fail_with(stopped)
        return STOPPED
    if not json:
        _report(now, owed)
        if now.state != RunState.RUNNING and wait.now is not None:
            note(f"Still to come: {why(wait)}")
    code = CODES.get(now.state, TIMED_OUT)
    return OWING if code == 0 and owed.tasks else code


def skips(skipped: Mapping[str, int]) -> str:
    """Return the numbers of skipped items and their reasons, as a part of a sentence."""
    return ", ".join(f"{number} ({reason})" for reason, number in skipped.items())


def _report(now: Progress, owed: Owed) -> None:
    figures = now.summary(owed)
    if now.state == RunState.RUNNING:
        fail(
            f"timed out; the run continues, {now.tasks_done} of {counted(now.known, 'task')} done",
            f"Show its progress: polling runs show {short(figures['run_id'])}",
        )
        return
    say(
        f"Run {short(figures['run_id'])} {now.state} in {span(figures['seconds'])}:"
        f" {figures['outputs_saved']} saved, {figures['outputs_unchanged']} unchanged,"
        f" {figures['outputs_deleted']} deleted; {counted(figures['tasks_done'], 'task')} done,"
        f" {figures['tasks_parked']} parked, {figures['tasks_deferred']} deferred"
    )
    if figures["skipped"]:
        note(f"Skipped: {skips(figures['skipped'])}.")
    if figures["deletions_held"]:
        note(
            f"The engine holds the deletion of {counted(figures['deletions_held'], 'item')} until"
            " you accept or refuse it."
            f" Show it: polling deletions --account {short(now.run['user_integration_id'])}"
        )
    if figures["tasks_parked"]:
        fail(
            str(now.run["error"]),
            f"List parked tasks: polling tasks --run {short(figures['run_id'])} --state parked",
        )
    elif figures["tasks_deferred"]:
        note(f"{now.run['error']}. The engine retries deferred tasks automatically.")
    if owed.tasks:
        note(owed.sentence)
    elif now.state == RunState.SUCCEEDED:
        say(f"Next: polling content --account {short(now.run['user_integration_id'])}")
