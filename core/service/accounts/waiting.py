"""Why is it not here yet? One sentence with numbers for each account and for each open run.

`polling accounts show`, `polling sync --wait`, `polling runs show`, REST and the dashboard show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from core.accounts.store import Account
from core.db.pool import Conn
from core.errors import Advice
from core.service.accounts import blockers as found_blockers
from core.service.accounts.blockers import Blocker, Facts
from core.service.backend import Backend
from core.service.formatting import ago, counted, moment, number, span
from core.service.runs import progress
from core.service.runs.progress import Progress
from core.states import Lane, WaitCause

BACKGROUND = "older items load in the background"

PACING = (WaitCause.RATE_LIMIT, WaitCause.SHARED_RATE_LIMIT)
"""The blockers that slow down a run, and do not stop it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The answer to "why is it not here yet?".

    Attributes:
      blocker: Its cause, with the end of the wait.
      all: All blockers, the most important first; empty if nothing blocks the account or the run.
      now: The progress of the run that it is about; None if no run is open.
    """

    blocker: Blocker
    all: tuple[Blocker, ...] = ()
    now: Progress | None = None

    @property
    def is_blocked(self) -> bool:
        """True if something has to pass before the account or the run continues."""
        return bool(self.all)

    @property
    def is_paced(self) -> bool:
        """True if tasks of the run continue, so that its pace tells when it ends."""
        return not self.all or self.blocker.cause in PACING

    @property
    def sentence(self) -> str:
        """The answer as one sentence, in one line."""
        parts = [clause(self.blocker), *([self.progress] if self.progress else [])]
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}."

    @property
    def progress(self) -> str:
        """The progress of the run: how much is done, the pace and the time left."""
        now = self.now
        if now is None:
            return ""
        parts = [f"{number(now.closed)} of {counted(now.known, 'known task')} done"]
        if self.is_paced and now.per_minute is not None:
            parts.append(f"{number(now.per_minute)} a minute")
        if self.is_paced and now.ends_at is not None:
            parts.append(f"about {span((now.ends_at - now.now).total_seconds())} left")
        if now.report():
            parts.append(f"running tasks report {now.report()}")
        return ", ".join(parts)

    @property
    def others(self) -> list[str]:
        """The reasons that would hold back the account or the run after this one, as clauses."""
        return [clause(blocker) for blocker in self.all[1:]]

    @property
    def advice(self) -> Advice | None:
        """The next step for a person, which a surface words; None if there is none."""
        return self.blocker.advice

    def to_json(self) -> dict[str, Any]:
        """Return the answer for programs, without the next step.

        `docs/reference/api.md` describes the fields.
        """
        now = self.now
        reported = now is not None and now.reported_total is not None
        return {
            "cause": self.blocker.cause,
            "sentence": self.sentence,
            "until": self.blocker.until,
            "ahead": self.blocker.ahead,
            "done": now and (now.reported_done if reported else now.closed),
            "total": now and (now.reported_total if reported else now.known),
            "per_minute": now.per_minute if now and self.is_paced else None,
            "ends_at": now.ends_at if now and self.is_paced else None,
        }


def clause(blocker: Blocker) -> str:
    """Return the reason and the end of a wait, as part of a sentence."""
    reason, ends = blocker.reason.rstrip("."), blocker.ends
    if "{until}" in ends:
        return reason if blocker.until is None else f"{reason}, {_ends(ends, blocker.until)}"
    return f"{reason}, {ends}"


def _ends(ends: str, until: datetime) -> str:
    return ends.replace("{until}", f"{moment(until)} ({ago(until)})")


def of_account(engine: Backend, conn: Conn, account: Account, *, shows_texts: bool = True) -> Wait:
    """Return the answer for an account.

    Args:
      engine: The backend.
      conn: A connection.
      account: The account.
      shows_texts: False to leave out the texts of plugins, which may quote the source.
    """
    work = found_blockers.facts(conn, [account.id])[account.id]
    live, backfill = (
        progress.cached(conn, engine.counts, run) if run is not None else None
        for run in (work.live, work.backfill)
    )
    now = live or backfill
    found = found_blockers.blockers(engine, conn, account, now, shows_texts=shows_texts)
    if found:
        return Wait(found[0], tuple(found), now)
    if live is not None and work.resync_due:
        return Wait(_resync(live), now=live)
    if backfill is not None:
        return Wait(_backfill(live), now=backfill)
    if live is not None:
        return Wait(_running(live), now=live)
    return Wait(_held(work) if work.held else _scheduled(work))


def of_run(
    engine: Backend, conn: Conn, account: Account, now: Progress, *, shows_texts: bool = True
) -> Wait:
    """Return the answer for an open run.

    Args:
      engine: The backend.
      conn: A connection.
      account: The account of the run.
      now: The progress of the run.
      shows_texts: As for `of_account`.
    """
    found = found_blockers.blockers(engine, conn, account, now, shows_texts=shows_texts)
    if found:
        return Wait(found[0], tuple(found), now)
    if now.run["lane"] == Lane.BACKFILL:
        work = found_blockers.facts(conn, [account.id])[account.id]
        live = progress.cached(conn, engine.counts, work.live) if work.live else None
        return Wait(_backfill(live), now=now)
    return Wait(_running(now), now=now)


def _running(now: Progress) -> Blocker:
    ends = "until the run ends" if now.ends_at is None else "probably until {until}"
    return Blocker(WaitCause.RUNNING, "a run is in progress", now.ends_at, ends)


def _backfill(live: Progress | None) -> Blocker:
    advice = Advice("wait-for-backfill")
    if live is None:
        ends = "until the backfill ends, and new items arrive in the meantime"
        return Blocker(WaitCause.BACKFILL, BACKGROUND, ends=ends, ahead=0, advice=advice)
    ahead = live.ready + live.queued
    reason = f"{BACKGROUND}, behind {counted(ahead, 'task')} of the live run"
    ends = "until the live run ends" if live.ends_at is None else "probably until {until}"
    return Blocker(WaitCause.BACKFILL, reason, live.ends_at, ends, ahead, advice)


def _resync(live: Progress) -> Blocker:
    running = _running(live)
    ahead = live.ready + live.queued
    reason = f"a resync starts after the open run, which has {counted(ahead, 'open task')}"
    advice = Advice("wait-for-run", {"run": live.run["id"]})
    return replace(running, cause=WaitCause.RESYNC, reason=reason, ahead=ahead, advice=advice)


def _held(work: Facts) -> Blocker:
    reason = f"the engine holds the deletion of {counted(work.held, 'item')}"
    ends, advice = "until a person accepts or refuses it", Advice("review-held-deletions")
    return Blocker(WaitCause.DELETION, reason, ends=ends, advice=advice)


def _scheduled(work: Facts) -> Blocker:
    advice = Advice("start-run", {"account": work.id})
    reason, ends = "the account waits for its next run", "which starts at {until}"
    return Blocker(WaitCause.SCHEDULED, reason, work.next_sync_at, ends, advice=advice)
