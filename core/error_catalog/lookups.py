"""Errors about runs, tasks and content: lookups, listings and changes of state."""

from __future__ import annotations

from core.error_catalog.entry import Catalog, entry

ENTRIES: Catalog = {
    "run-not-found": entry(
        404,
        "run {run} not found",
        cli="List runs: polling runs",
        rest="List an account's runs: GET /v1/user-integrations/{{id}}/runs",
        dashboard="Choose one from the list of runs",
    ),
    "run-ambiguous": entry(
        422, "{text!r} matches several runs: {matches}", "Use the UUID, or more of it"
    ),
    "run-ended": entry(
        409,
        "the run has already ended as {state}",
        "Only a running run can be cancelled",
        cli="List runs: polling runs",
    ),
    "limit-not-found": entry(
        404,
        "{domain} has no limit {limit!r}",
        "Choose one from the list of limits",
        cli="List limits: polling limits",
        rest="List limits: GET /v1/limits",
    ),
    "limit-without-figures": entry(
        422, "no figure is given for the limit {limit!r}", "Give at least one figure"
    ),
    "limit-figure-unknown": entry(
        422,
        "the figures of the limit are invalid: {reason}",
        "Give units, per and backfill_share for a rate, and tasks for a concurrency limit",
    ),
    "task-not-found": entry(
        404,
        "task {task} not found",
        cli="List tasks: polling tasks",
        rest="List a run's tasks: GET /v1/runs/{{id}}/tasks",
        dashboard="Choose one from the list of parked tasks",
    ),
    "task-not-parked": entry(
        409,
        "task {task} is neither parked nor deferred",
        "Only parked and deferred tasks can be retried or discarded",
        cli="List parked tasks: polling tasks --state parked",
    ),
    "task-step-open": entry(
        409,
        "the account's open run has the step of task {task} already",
        "Wait until the run has ended, and retry the task then",
    ),
    "payload-invalid": entry(
        422,
        "the payload does not fit the task: {reason}",
        "Correct the payload",
        cli="See the task's payload: polling tasks show ID",
    ),
    "task-retried": entry(
        409,
        "task {task} was retried already, as task {copy}",
        "Look at task {copy}",
        cli="Look at it: polling tasks show {copy}",
        rest="Look at it: GET /v1/tasks/{copy}",
    ),
    "deletion-not-found": entry(
        404,
        "held deletion {deletion} not found: it may be done, or replaced by a later listing",
        cli="List held deletions: polling deletions",
        rest="List held deletions: GET /v1/held-deletions",
        dashboard="Choose one from the list of held deletions",
    ),
    "content-not-found": entry(
        404,
        "content {content} not found",
        cli="List content: polling content",
        rest="List content: GET /v1/user-integration-content",
        dashboard="Choose an item from the list of content",
    ),
    "content-has-no-preview": entry(
        404, "this item has no preview", "Download the item to see its content"
    ),
    "content-has-no-thread": entry(
        404, "this item is not part of a thread", "Read the item itself"
    ),
    "blob-missing": entry(
        404,
        "blob {blob} is not in the blob store",
        "Ask the operator to set the same POLLING_BLOB_URL for every process",
        cli="Set POLLING_BLOB_URL to the value that the workers use",
    ),
    "id-not-a-number": entry(
        422,
        "{text!r} is not a valid {kind} id: use a number",
        "Take the id from a listing",
        cli="List ids: polling {listing}",
    ),
    "day-invalid": entry(422, "{text!r} is not a valid day", "Use a day such as 2026-01-31"),
    "cursor-invalid": entry(
        422,
        "invalid cursor",
        "Start at the first page",
        cli="Start at the beginning, without --after or --since",
        rest="Start at the first page, without `after`",
    ),
    "cursor-outdated": entry(
        410,
        "this cursor belongs to another database, or to the time before a restore",
        "Start again without a cursor, and delete items that are not listed again",
    ),
    "cursor-expired": entry(
        410,
        "this cursor is older than deleted items that were removed, so the feed may miss deletions",
        "Start again without a cursor, and delete items that are not listed again",
        cli="Delete the cursor file and the old exports, and export again",
    ),
    "parquet-package-missing": entry(
        422,
        "Parquet needs the package pyarrow, which is not installed",
        "Use another format, or ask the operator to install the extra `parquet`",
        cli="Use another format, or run in a clone of the repository: pip install -e '.[parquet]'",
    ),
    "search-invalid": entry(422, "invalid search query", "Remove punctuation"),
    "search-date-invalid": entry(
        422, "{value!r} is not a date", "Write a day, a month or a year: 2026-03-01, 2026-03, 2026"
    ),
    "search-date-excluded": entry(
        422, "{operator}: cannot be excluded", "Remove the minus sign, or use the other operator"
    ),
    "search-has-unknown": entry(
        422, "has:{value} is unknown", "Use one of these after has: {known}"
    ),
    "search-too-long": entry(422, "the search has more than {words} words", "Use fewer words"),
    "search-busy": entry(503, "too many searches are in progress", "Try again in a few seconds"),
    "search-too-slow": entry(
        422, "the search takes too long", "Select an account, or use rarer words"
    ),
}
