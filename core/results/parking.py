"""The causes for which a task is parked.

| cause | the task | decided in |
|---|---|---|
| `REFUSED` | raised `PermanentError`, or `NotFound` because its account or integration is unknown | `core.results.decisions` |
| `INVALID` | returned an invalid result: wrong types, over a bound, not JSON, or a NUL byte in a payload or state | `core.results.result` and `outputs`, as `ResultInvalid` |
| | has a type or payload that the installed plugin does not support | `BaseIntegration.run_task`, as `TaskUnfit` |
| `ATTEMPTS` | raised an exception unknown to the engine in the last of its attempts | `core.results.decisions` |
| `CRASHES` | exceeded its time limit, or crashed its process, three times | `core.results.decisions`; `core.ledger.leases`, `EXPIRE` |
| `GIVEN_UP` | failed for `POLLING_GIVE_UP_AFTER_DAYS` with errors that may pass, and was deferred at least 10 times | `core.results.decisions` |
| `CURSOR` | raised `CursorExpired` in a resync, or for a partition with an invalid name | `core.results.decisions` |
| `RUN_LIMIT` | returned follow-ups in a run with more tasks than its integration allows | `core.ledger.fence` |
| `UNSAVABLE` | returned a result that passed all checks, and whose commit still fails: with any error if it is saved alone, or ten times while PostgreSQL answers | `core.worker.saver` |

`core.testing` parks for the same causes, except `UNSAVABLE` and the crash of a process.
"""  # noqa: E501  a table

from __future__ import annotations

from enum import StrEnum


class Cause(StrEnum):
    """The cause for which a task is parked; see the table of this module."""

    REFUSED = "refused"
    INVALID = "invalid"
    ATTEMPTS = "attempts"
    CRASHES = "crashes"
    GIVEN_UP = "given_up"
    CURSOR = "cursor"
    RUN_LIMIT = "run_limit"
    UNSAVABLE = "unsavable"


MAX_CRASHES = 3
"""The number of crashes after which a task is parked (`CRASHES`)."""
