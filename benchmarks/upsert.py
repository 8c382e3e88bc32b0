"""Saving content, against a bare psycopg loop with the fastest batch statement.

The benchmark also shows if the rate stays flat as the table grows.

Both sides start from prepared rows, and write new items into the same table. A transaction has as
many rows as the saver gathers: 256 tasks of one row each, and up to 5,000 rows. The engine's
statement also finds the rows that changed, and ignores late writers. Checking and hashing a
plugin's outputs is a separate figure, because worker threads do that, not the saver.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from benchmarks.engine import Testbed
from benchmarks.peers import psycopg
from benchmarks.report import Budget, Options, Report, ratio
from core.content import store
from core.db.pool import Conn, Database
from core.integration.results import TaskOutput
from core.results.outputs import output_row

BATCHES = (256, 1_000, 5_000)
HEADLINE = 1_000
SIZES = (10_000, 100_000, 500_000, 1_000_000, 5_000_000)
TEXT = "Text somebody wrote to somebody else. " * 12

# Accounts of 10,000 items each, with unordered ids, like the ids of a provider.
FILL = """
INSERT INTO user_integration_content (
    user_integration_id, integration_domain, external_id, kind, name, content_text, size, hash,
    digest, content_seq, metadata_seq
)
SELECT md5((n / 10000)::text)::uuid, 'noop', md5(n::text), 'item', 'Item ' || n,
    repeat('What was here before. ', 10), 220, md5(n::text),
    decode(md5(n::text), 'hex'), 1, 1
FROM generate_series(%s::bigint, %s::bigint) AS n
"""

Save = Callable[[Conn, Sequence[Any]], object]


class NoBlobs:
    """A blob store that is never called, because no item is large."""

    def put(self, data: bytes) -> str:
        raise NotImplementedError


def run(bed: Testbed, options: Options) -> Report:
    """Measure the rows/s, by batch size and table size.

    The headline figure is for 1,000 rows per transaction in the largest table.
    """
    largest = options.rows or options.size(500_000, 20_000)
    sizes = [*(size for size in SIZES if size < largest), largest]
    count = options.size(20_000, 5_000)
    figures: dict[tuple[int, int], list[dict[str, float]]] = {}
    database, filled = Database(bed.urls.database_url), 0
    with database.connection() as conn:
        psycopg.prepare(conn)
        for size in sizes:
            _fill(conn, filled, size)
            filled = size
            for batch in BATCHES:
                figures[size, batch] = [_round(conn, batch, count) for _ in range(options.rounds)]
    database.close()
    rows = [_row(size, batch, rounds) for (size, batch), rounds in figures.items()]
    ours, theirs = _ours(figures[largest, HEADLINE]), _theirs(figures[largest, HEADLINE])
    flat = statistics.median(ours) / statistics.median(_ours(figures[sizes[0], HEADLINE]))
    budgets = [
        Budget(
            "lowest ratio to bare psycopg, of all batches and tables",
            min(row["ratio"] for row in rows),
            at_least=0.5,
        ),
        Budget(f"rows/s at {largest:,} rows, relative to {sizes[0]:,} rows", flat, at_least=0.8),
    ]
    return Report(
        "upsert",
        "rows/s",
        ours,
        theirs,
        "bare psycopg, with its fastest statement",
        budgets,
        {"growth": rows},
    )


def _ours(rounds: Sequence[Mapping[str, float]]) -> list[float]:
    return [figures["ours"] for figures in rounds]


def _theirs(rounds: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the rate of the faster of the two statements, for each round."""
    return [max(figures["copy"], figures["json"]) for figures in rounds]


def _round(conn: Conn, batch: int, count: int) -> dict[str, float]:
    """Measure the rows/s of each way to save.

    The batches alternate, so that other load on the machine affects all ways equally.
    """
    begun = time.perf_counter()
    checked = _checked(_outputs(count))
    checking = time.perf_counter() - begun
    ways: Mapping[str, tuple[Save, Sequence[Any]]] = {
        "ours": (_keep, checked),
        "copy": (psycopg.copy, _finished(count)),
        "json": (psycopg.array, _finished(count)),
    }
    seconds = dict.fromkeys(ways, 0.0)
    for start in range(0, count, batch):
        for name, (save, items) in ways.items():
            seconds[name] += _time(conn, save, items[start : start + batch])
    conn.execute("DELETE FROM user_integration_content WHERE content_seq > 1")
    conn.execute("VACUUM ANALYZE user_integration_content")
    return {name: count / taken for name, taken in seconds.items()} | {"checking": count / checking}


def _time(conn: Conn, save: Save, items: Sequence[Any]) -> float:
    begun = time.perf_counter()
    with conn.transaction():
        save(conn, items)
    return time.perf_counter() - begun


def _keep(conn: Conn, rows: Sequence[store.Write]) -> None:
    assert len(store.upsert(conn, rows)) == len(rows)


def _checked(outputs: Sequence[tuple[str, TaskOutput]]) -> list[store.Write]:
    return [
        (store.Writer(account, "noop", "run", task=1, seq=2), output_row(output, NoBlobs())[0])
        for account, output in outputs
    ]


def _outputs(count: int) -> list[tuple[str, TaskOutput]]:
    account = str(uuid4())
    return [
        (account, TaskOutput(_id(account, number), f"{number} {TEXT}", name=f"Item {number}"))
        for number in range(count)
    ]


def _finished(count: int) -> list[psycopg.Row]:
    account = str(uuid4())
    return [_row_of(account, number) for number in range(count)]


def _row_of(account: str, number: int) -> psycopg.Row:
    text = f"{number} {TEXT}"
    hash = hashlib.sha256(text.encode()).hexdigest()
    return (
        account,
        "noop",
        _id(account, number),
        "item",
        f"Item {number}",
        text,
        len(text),
        hash,
        hash[:32],
        2,
        2,
    )


def _id(account: str, number: int) -> str:
    return hashlib.md5(f"{account}{number}".encode(), usedforsecurity=False).hexdigest()


def _fill(conn: Conn, filled: int, size: int) -> None:
    portion = 100_000
    for start in range(filled, size, portion):
        conn.execute(FILL, (start, min(start + portion, size) - 1))
    conn.execute("VACUUM ANALYZE user_integration_content")
    conn.execute("CHECKPOINT")


def _row(size: int, batch: int, rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    medians = {
        "ours, rows/s": _ours(rounds),
        "COPY, rows/s": [figures["copy"] for figures in rounds],
        "JSON, rows/s": [figures["json"] for figures in rounds],
        "checking and hashing, rows/s": [figures["checking"] for figures in rounds],
    }
    return {
        "rows in the table": size,
        "rows a transaction": batch,
        **{name: round(statistics.median(values)) for name, values in medians.items()},
        "ratio": round(ratio(_ours(rounds), _theirs(rounds)), 2),
    }
