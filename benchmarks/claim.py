"""Claims of 100 due accounts, in tables of accounts of increasing size.

One statement claims the accounts and creates their runs and root tasks.
"""

from __future__ import annotations

import random
import statistics
import time

from benchmarks.engine import Engine, Testbed
from benchmarks.report import Budget, Options, Report
from core.db.pool import Conn
from core.ledger.scheduling import claim_due

DUE = 100
SIZES = (1_000, 10_000, 100_000, 1_000_000)
CLAIMS = 30

FILL = """
INSERT INTO user_integration (
    id, user_id, integration_domain, name, identity, config, next_sync_at
)
SELECT gen_random_uuid(), 'user-' || n / 10, 'noop', 'account-' || n, 'identity-' || n, '{}',
    now() + random() * interval '1 day' + interval '1 hour'
FROM generate_series(%s::int, %s::int) AS n
"""
MAKE_DUE = """
UPDATE user_integration SET next_sync_at = now() - random() * interval '1 minute'
WHERE name = ANY(%s)
"""


def run(bed: Testbed, options: Options) -> Report:
    """Measure the milliseconds per claim, by number of accounts.

    The ratio compares the largest table with the smallest.
    """
    sizes = SIZES[: options.size(len(SIZES), 2)]
    claims = {size: list[float]() for size in sizes}
    filled = 0
    with Engine(bed) as engine:
        for size in sizes:
            engine.conn.execute(FILL, (filled, size - 1))
            filled = size
            engine.conn.execute("VACUUM ANALYZE user_integration")
            for number in range(options.size(CLAIMS, 3) + 1):
                milliseconds = _claim(engine.conn, size, number)
                if number:  # the first claim of each size is a warm-up
                    claims[size].append(milliseconds)
    ours, first = claims[sizes[-1]], claims[sizes[0]]
    growth = statistics.median(ours) / statistics.median(first)
    budget = Budget(
        f"time among {sizes[-1]:,} accounts, relative to {sizes[0]:,} accounts",
        growth,
        at_most=1.5,
    )
    rows = [
        {"accounts": size, "median, ms": _ms(times), "slowest, ms": round(max(times), 2)}
        for size, times in claims.items()
    ]
    return Report(
        "claim",
        "ms",
        ours,
        first,
        f"the same among {sizes[0]:,} accounts",
        [budget],
        {"growth": rows},
    )


def _claim(conn: Conn, accounts: int, seed: int) -> float:
    """Make random accounts due and claim them; return the milliseconds of the claim."""
    chosen = random.Random(seed).sample(range(accounts), DUE)
    conn.execute(MAKE_DUE, ([f"account-{number}" for number in chosen],))
    begun = time.perf_counter()
    claim = claim_due(conn, DUE)
    milliseconds = (time.perf_counter() - begun) * 1000
    assert len(claim.runs) == DUE
    conn.execute("TRUNCATE sync_task, sync_run CASCADE")
    return milliseconds


def _ms(times: list[float]) -> float:
    return round(statistics.median(times), 2)
