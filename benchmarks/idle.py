"""An idle fleet: `polling up` with its defaults and a hundred accounts that are not due.

Statements are counted in PostgreSQL's own log (`log_statement = all`), including BEGIN and COMMIT.
This is exact, and needs no extension. CPU time is the operating system's figure for each process.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.engine import PROCESSES, THREADS, Engine, Testbed
from benchmarks.processes import cpu_seconds, family, program, wait_until
from benchmarks.report import Budget, Options, Report
from benchmarks.statements import log_of

ACCOUNTS = 100
STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*):\s+(.*)")


def run(bed: Testbed, options: Options) -> Report:
    """Measure the statements/s of the fleet, and each process's share of a core."""
    arguments = [
        str(Path(sys.executable).with_name("polling")),
        "up",
        f"--processes={PROCESSES}",
        f"--threads={THREADS}",
    ]
    log = bed.home / "up.log"
    with Engine(bed) as engine:
        for _ in range(ACCOUNTS):
            engine.account("hello-world")
        engine.conn.execute("ALTER SYSTEM SET log_statement = 'all'")
        with program(arguments, engine.environment, log) as pid:
            wait_until(lambda: engine.ready(PROCESSES), f"see {log}: the fleet was not ready")
            engine.conn.execute("SELECT pg_reload_conf()")
            time.sleep(options.size(15, 2))  # the start-up must be complete
            statements, shares, seconds = _watch(bed, pid, options.size(60, 5))
    rate = statements.total() / seconds
    budgets = [
        Budget("statements/s of the fleet", rate, at_most=10),
        Budget("busiest process, % of a core", max(shares), at_most=1),
    ]
    details = {
        "statements": [
            {"statement": f"`{text}`", "per minute": round(n * 60 / seconds, 1)}
            for text, n in statements.most_common(8)
        ],
        "processes": [
            {"process": number, "% of a core": share} for number, share in enumerate(shares, 1)
        ],
    }
    return Report("idle", "statements/s", [rate], budgets=budgets, details=details)


def _watch(bed: Testbed, pid: int, duration: float) -> tuple[Counter[str], list[float], float]:
    """Count statements by their first words, and measure each process's CPU use.

    Returns the counts, the percent of a core for each process, and the seconds measured.
    """
    before = len(log_of(bed.home))
    processes = family(pid)
    begun, used = time.perf_counter(), cpu_seconds(processes)
    time.sleep(duration)
    seconds = time.perf_counter() - begun
    shares = [
        round(100 * (now - then) / seconds, 2)
        for then, now in zip(used, cpu_seconds(processes), strict=True)
    ]
    statements = STATEMENT.findall(log_of(bed.home)[before:])
    return (
        Counter(" ".join(text.split())[:60] for text in statements),
        sorted(shares, reverse=True),
        seconds,
    )
