"""The CPU time and the WAL that a piece of work costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg

from benchmarks.processes import family

WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


class Usage:
    """Measures from its creation on.

    Args:
      conn: A connection to PostgreSQL.
      home: The folder of the embedded servers.
      programs: The process ids of the programs whose processes count.
    """

    def __init__(
        self, conn: psycopg.Connection[tuple[int, ...]], home: Path, programs: Sequence[int]
    ) -> None:
        self._conn, self._programs = conn, programs
        pid = (home / "embedded" / "postgres" / "postmaster.pid").read_text().split()[0]
        self._postgres = int(pid)
        self._begun = self._now()

    def of(self, number: int) -> dict[str, float]:
        """Return the costs since the creation, for each of this many units of work."""
        workers, postgres, wal = (
            now - then for now, then in zip(self._now(), self._begun, strict=True)
        )
        return {
            "CPU of workers, ms each": round(1000 * workers / number, 3),
            "CPU of PostgreSQL, ms each": round(1000 * postgres / number, 3),
            "WAL, kB each": round(wal / 1000 / number, 2),
        }

    def _now(self) -> tuple[float, float, float]:
        row = self._conn.execute(WAL).fetchone()
        assert row is not None
        workers = sum(_seconds(program) for program in self._programs)
        return workers, _seconds(self._postgres), float(row[0])


def _seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants, also of those that have ended."""
    return sum(
        times.user + times.system + times.children_user + times.children_system
        for times in (process.cpu_times() for process in family(pid))
    )
