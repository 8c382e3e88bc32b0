"""Checks of accounts: problems that need a person."""

from __future__ import annotations

from collections.abc import Iterator

from core.content.visible import visible
from core.db.pool import Conn
from core.db.rows import fetch
from core.errors import Advice
from core.service.fleet import liveness
from core.service.fleet.doctor.check import Check
from core.service.runs import parked
from core.settings import Settings
from core.states import AccountState, HeldState

TROUBLES = f"""
SELECT
    (SELECT count(*) FROM user_integration WHERE sync_status = '{AccountState.ERROR}') AS stopped,
    (SELECT count(*) FROM sync_task t WHERE {parked.CONDITION}
        AND {visible("t.user_integration_id")}) AS parked,
    (SELECT count(*) FROM held_deletion WHERE state = '{HeldState.HELD}' AND {visible()}) AS held,
    (SELECT count(*) {liveness.OVERDUE}) AS overdue
"""
WORDS = {
    "stopped": (
        "accounts",
        "stopped: credentials or config rejected",
        "review-stopped-accounts",
    ),
    "parked": ("tasks", "parked: the engine does not retry them", "review-parked-tasks"),
    "held": (
        "deletions",
        "held: an unusually large share of items disappeared",
        "review-held-deletions",
    ),
    "overdue": (
        "accounts",
        "overdue",
        "review-overdue-accounts",
    ),
}


def examine(conn: Conn, settings: Settings) -> Iterator[Check]:
    """Yield a warning for each kind of problem that needs a person."""
    counts = fetch(conn, TROUBLES, liveness.overdue_params(settings))[0]
    for name, (what, state, advice) in WORDS.items():
        if counts[name]:
            yield Check(what, "warn", f"{counts[name]} {state}", Advice(advice))
    if not any(counts.values()):
        yield Check("accounts", "ok", "no account needs attention")
