"""Listings, the search, the overview and the change feed, with millions of rows.

The database has 5 million items of 200,000 accounts, 2 million ended runs and their tasks, and two
runs of a million tasks (`benchmarks.archive`). `polling serve` answers one client, which asks each
question (`benchmarks.questions`) again and again. The client asks a question five times before the
measurement.

`--scale` makes the tables smaller. With `--folder`, the servers' data stay there. A later call
continues to fill the tables, and one that finds them full measures.
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg

from benchmarks import archive
from benchmarks.archive import Size
from benchmarks.clients import sign_in
from benchmarks.engine import Engine, Testbed
from benchmarks.kept import Kept
from benchmarks.questions import FEED, LISTING, MOST_MS, OVERVIEW, SEARCH, Question, questions
from benchmarks.readers import served
from benchmarks.report import Budget, Options, Report
from core.service import tokens

SECONDS_OF_A_QUESTION = 1.0
MIN_REQUESTS, MAX_REQUESTS = 5, 200
SLOW_SECONDS = 5.0
"""The client asks no question again that takes longer."""

USER = "user-0"
"""The user whose token asks: the owner of the largest account."""

SETTINGS = (
    "ALTER SYSTEM SET max_wal_size = '8GB'",
    "SELECT pg_reload_conf()",
    "SET synchronous_commit = off",
    "SET max_parallel_maintenance_workers = 1",
)
"""Settings of the server while it fills the tables."""


def run(bed: Testbed, options: Options) -> Report:
    """Fill the tables, and measure the time of each question."""
    scale = options.size(1, 0) * options.scale or 0.002
    size, kept = Size(scale), Kept(bed.home / "reading.json", options.minutes)
    if not fill(bed, size, kept):
        return Report("reading", "ms", [0.0], details={"scale": scale, "filled": list(kept.steps)})
    rows = list(_measured(bed, size, options))
    median = sorted(row["median, ms"] for row in rows)[len(rows) // 2]
    budgets = [budget for kind in MOST_MS if (budget := _budget(kind, rows, size)) is not None]
    return Report("reading", "ms", [median], budgets=budgets, details={"questions": rows})


def fill(bed: Testbed, size: Size, kept: Kept) -> bool:
    """Fill the tables as far as the time of this call goes. Returns True if they are full."""
    with psycopg.connect(bed.urls.database_url, autocommit=True) as conn:
        for name, step in archive.steps(size):
            if kept.of(name):
                continue
            if not kept.may_begin(0):
                return False
            begun = time.monotonic()
            for statement in SETTINGS:
                conn.execute(statement)
            step(conn)
            kept.add(name, {"seconds": round(time.monotonic() - begun, 1)})
    return True


def _measured(bed: Testbed, size: Size, options: Options) -> Iterator[dict[str, Any]]:
    with Engine(bed) as engine, served(engine) as url:
        admin = tokens.create(engine.conn, user_id=None).secret
        user = tokens.create(engine.conn, user_id=USER).secret
        session = sign_in(url, admin)
        headers = {
            ("json", False): {"Authorization": f"Bearer {admin}"},
            ("json", True): {"Authorization": f"Bearer {user}"},
            ("html", False): {"Cookie": session, "Accept": "text/html"},
            ("live", False): {"Cookie": session, "Accept": "text/event-stream"},
        }
        for question in questions(engine.conn, size):
            if options.only in f"{question.kind}: {question.name}":
                times, errors = _times(
                    url, question, headers[question.page, question.of_user], options
                )
                row = _row(question, times) | {"errors": errors}
                print(row, file=sys.stderr, flush=True)
                yield row


def _times(
    url: str, question: Question, headers: dict[str, str], options: Options
) -> tuple[Sequence[float], int]:
    """Return the milliseconds of each answer, sorted, and the number of errors.

    The first answers do not count, unless one of them alone takes too long.
    """
    times: list[float] = []
    errors = 0
    most = options.size(MAX_REQUESTS, MIN_REQUESTS)
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        begun = time.monotonic()
        for number in range(-MIN_REQUESTS, most):
            started = time.perf_counter()
            is_answer = _ask(connection, question, question.path(number), headers)
            seconds = time.perf_counter() - started
            if number == -1:
                begun = time.monotonic()
            if number >= 0 or seconds > SLOW_SECONDS:
                times.append(1000 * seconds)
                errors += not is_answer
            is_over = time.monotonic() - begun > SECONDS_OF_A_QUESTION
            if seconds > SLOW_SECONDS or (number >= MIN_REQUESTS and is_over):
                break
    return sorted(times), errors


def _ask(
    connection: http.client.HTTPConnection, question: Question, path: str, headers: dict[str, str]
) -> bool:
    """Send a request and read its answer, or the first update of a live page.

    Returns:
      True if the answer is not an error. `/readyz` answers 503 without workers.
    """
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    if question.page == "live":
        while line := answer.readline():
            if line.startswith(b"event: live"):
                break
        connection.close()
        return answer.status == 200
    body = answer.read()
    if answer.status == 200 or path == "/readyz":
        return True
    print(f"{path}: {answer.status} {body[:300]!r}", file=sys.stderr)
    return False


def _row(question: Question, times: Sequence[float]) -> dict[str, Any]:
    return {
        "": question.kind,
        "question": f"{question.name}{PAGES[question.page]}",
        "requests": len(times),
        "median, ms": round(times[len(times) // 2], 1),
        "p99, ms": round(times[min(len(times) - 1, int(len(times) * 0.99))], 1),
        "max, ms": round(times[-1], 1),
    }


PAGES = {"json": "", "html": " (page)", "live": " (live part)"}


def _budget(kind: str, rows: Sequence[dict[str, Any]], size: Size) -> Budget | None:
    slowest = max(
        (row for row in rows if row[""] == kind), key=lambda row: row["p99, ms"], default=None
    )
    if slowest is None:
        return None
    what = f"{NAMES[kind]}, {size.items:,} items: p99 of the slowest question, ms"
    return Budget(what, slowest["p99, ms"], at_most=MOST_MS[kind])


NAMES = {LISTING: "listings", SEARCH: "search", FEED: "change feed", OVERVIEW: "overview"}
