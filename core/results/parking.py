"""Everything that parks a task. Whatever parks one names its cause from this list.

| cause | the task | decided in |
|---|---|---|
| `REFUSED` | raised `PermanentError` (or `NotFound`, its account or integration being unknown) | `core.results.decisions` |
| `INVALID` | returned what cannot be kept: wrong types, over a bound, no JSON, NUL in a payload or state; or has a type or payload that the installed plugin does not know | `core.results.result` and `outputs`, as `ResultInvalid`; `BaseIntegration.run_task`, as `TaskUnfit` |
| `ATTEMPTS` | failed with another exception for the last of its attempts | `core.results.decisions` |
| `CRASHES` | went over its time limit, or took its process down, three times | `core.results.decisions`; `core.ledger.leases`, `EXPIRE` |
| `SNOOZED` | had to wait for seven days in all | `core.ledger.commit`, `FINISH` |
| `CURSOR` | raised `CursorExpired` in a resync, or for a partition that cannot exist | `core.results.decisions` |
| `RUN_LIMIT` | returned follow-ups in a run that has more tasks than its integration allows | `core.ledger.commit` |
| `UNSAVABLE` | returned what PostgreSQL refuses though every check above passed (a data error) | `core.worker.saver` |

`core.testing` parks for the same causes, except the last one and the death of a process.
"""  # noqa: E501  a table

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """Why a task is parked; see the table of this module."""

    REFUSED = "refused"
    INVALID = "invalid"
    ATTEMPTS = "attempts"
    CRASHES = "crashes"
    SNOOZED = "snoozed"
    CURSOR = "cursor"
    RUN_LIMIT = "run_limit"
    UNSAVABLE = "unsavable"


MAX_CRASHES = 3
"""Crashes of a task before it is parked (`CRASHES`)."""

MAX_SNOOZED_SECONDS = 7 * 86_400
"""Seconds that a task may wait in all before it is parked (`SNOOZED`)."""


def snoozed_too_long(snoozed: float, seconds: float) -> bool:
    """Whether a task that has waited for `snoozed` seconds is parked instead of waiting longer."""
    return snoozed + seconds > MAX_SNOOZED_SECONDS
