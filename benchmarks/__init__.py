"""Benchmarks of the engine; each alternates with its peer, round by round, within one run.

Run one with `python -m benchmarks NAME [--json]`.
"""

from __future__ import annotations

from collections.abc import Mapping

NAMES: Mapping[str, str] = {
    "chain": (
        "a durable tree of tasks, against two no-op actors of bare Dramatiq without a database"
    ),
    "procrastinate": "the same tree, on Procrastinate and the same PostgreSQL",
    "celery": "the same tree, on Celery and the same Valkey",
    "dlt": "10,000 items from a service with 50 ms latency, against a dlt pipeline",
    "upsert": "content rows/s, against the fastest batch statement of bare psycopg",
    "claim": "claiming 100 due accounts among 1,000 to 1 million accounts",
    "polls": (
        "polls of 200,000 accounts that find nothing, in a database with 1.6 million ended runs,"
        " against as many jobs on Procrastinate"
    ),
    "latency": "from a trigger to the first row on an idle system, against the stock consumer",
    "keepalive": "a request on a kept-alive connection, against bare uvicorn",
    "readers": (
        "a sync with 200 readers of the API and the dashboard, against the same sync without them"
    ),
    "reading": (
        "listings, search, the overview and the change feed with 5 million items, 200,000 accounts"
        " and millions of runs and tasks"
    ),
    "hostile": (
        "response times of the API with 2,000 hostile connections, against those without them"
    ),
    "reread": (
        "a reread of 20,000 kept mails, against reading the same mails alone, and a sync beside it"
    ),
    "shares": (
        "a sync beside a user who does the worst that a token allows, against the same sync alone"
    ),
    "sweep": (
        "a sync beside a sweep and an erasure of a million items, against the same sync alone"
    ),
    "mail": "reading ordinary, changed and hostile mails, against CPython's own parser",
    "ftp": (
        "copies of FTP servers with small files, latency, a limit and large files, against rclone,"
        " lftp and curl"
    ),
    "slack": "the age of messages in a workspace of 1,000 channels, and its first copy",
    "idle": "statements/s and CPU of an idle fleet",
    "size": "memory and cost per task of runs up to 100,000 tasks",
}
"""The description of each benchmark, by name.

Each name is a module of this package with `run(bed, options)`.
"""
