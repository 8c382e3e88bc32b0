"""Our side: the real processes on embedded servers, and accounts made directly."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import psycopg

from benchmarks.processes import ended, program, wait_until
from core.accounts import store
from core.accounts.vault import new_key
from core.db.migrate import migrate
from core.db.pool import Conn, open_connection
from core.embedded import Servers, Urls
from core.ledger import scheduling
from core.ledger.processes import serving
from core.settings import Settings
from core.transport.queues import Queues

PROCESSES, THREADS = 2, 8

RUNS = """
SELECT array_agg(DISTINCT state), sum(tasks_done),
    extract(epoch FROM max(finished_at) - min(started_at))
FROM sync_run WHERE id = ANY(%s) HAVING count(*) FILTER (WHERE state = 'running') = 0
"""

MAX_LOG_CHARS = 20_000
"""Characters of the workers' log that a failure shows."""

STATE = {
    "tasks": (
        "SELECT state, count(*), min(lease_until - clock_timestamp())::text FROM sync_task GROUP"
        " BY 1"
    ),
    "queued": (
        "SELECT id, dispatch_no, suspect FROM sync_task WHERE state = 'queued' ORDER BY id LIMIT 20"
    ),
    "processes": "SELECT kind, pid, draining, (clock_timestamp() - seen_at)::text FROM process",
    "leader": "SELECT leader, (leader_until - clock_timestamp())::text FROM engine_state",
    "messages": None,
}


@dataclass(frozen=True, slots=True)
class Testbed:
    """Embedded PostgreSQL (fsync on), Valkey and a folder that belong to one benchmark."""

    urls: Urls
    home: Path

    def database(self, name: str) -> str:
        """The URL of a new, empty database on the same server, for a peer."""
        with psycopg.connect(self.urls.database_url, autocommit=True) as conn:
            conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            conn.execute(f'CREATE DATABASE "{name}"')
        return urlsplit(self.urls.database_url)._replace(path=f"/{name}").geturl()


@contextmanager
def testbed() -> Iterator[Testbed]:
    """Start the servers, migrate, and throw everything away afterwards."""
    with tempfile.TemporaryDirectory(prefix="polling-bench-") as folder:
        settings = Settings(_env_file=None, database_url=None, redis_url=None, home=Path(folder))
        with Servers(settings) as urls:
            migrate(urls.database_url)
            yield Testbed(urls, Path(folder))


class Engine:
    """The fleet of our engine, and what a benchmark asks of it."""

    def __init__(self, bed: Testbed, *plugins: str) -> None:
        self.urls = bed.urls
        self.home = bed.home
        self.conn: Conn = open_connection(bed.urls.database_url)
        self.queues = Queues(bed.urls.redis_url, "polling")
        self._workers: int | None = None
        self.environment: Mapping[str, str] = {
            "DATABASE_URL": bed.urls.database_url,
            "REDIS_URL": bed.urls.redis_url,
            "POLLING_HOME": str(bed.home),
            "POLLING_SECRET_KEYS": new_key(),
            "POLLING_PLUGINS": ",".join(plugins),
            "POLLING_LOG_LEVEL": "WARNING",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.conn.close()
        self.queues.close()

    @contextmanager
    def workers(self, processes: int = PROCESSES, threads: int = THREADS) -> Iterator[int]:
        """`dramatiq core.actors`, ready when all processes have said so; yields its process id."""
        arguments = [
            sys.executable,
            "-m",
            "dramatiq",
            "core.actors",
            "-p",
            str(processes),
            "-t",
            str(threads),
        ]
        log = self.home / "workers.log"
        self.conn.execute("DELETE FROM process")
        with program(arguments, self.environment, log) as pid:
            self._workers = pid
            try:
                wait_until(lambda: self.ready(processes), "the workers did not come up", pause=0.05)
                yield pid
            except Exception as error:
                # Its folder is thrown away with all that is in it.
                error.add_note(
                    f"{self._state()}\n{log.read_text('utf-8', 'replace')[-MAX_LOG_CHARS:]}"
                )
                raise
            finally:
                self._workers = None

    def ready(self, processes: int) -> bool:
        """Whether so many processes serve, and one of them leads."""
        _, serve = serving(self.conn).get("polling", (0, 0))
        leading = self.conn.execute("SELECT leader_until > now() FROM engine_state").fetchone()
        return serve >= processes and bool(leading and leading[0])

    def account(self, domain: str = "noop", **config: Any) -> UUID:
        """A new account that is never due by itself: only the benchmark makes runs."""
        made = store.connect(
            self.conn, user_id="bench", domain=domain, name=secrets.token_hex(4),
            identity=secrets.token_hex(8), group=None, config=config, credentials=None, limits=[],
            poll_interval_minutes=100_000,
        )  # fmt: skip
        self.conn.execute(
            "UPDATE user_integration SET next_sync_at = NULL WHERE id = %s", (made[0],)
        )
        return made[0]

    def start(self, account: UUID) -> UUID:
        """Request a run."""
        run, _ = scheduling.request_run(self.conn, account)
        self.queues.wake()
        return run

    def ended(self, *runs: UUID) -> tuple[int, float] | None:
        """Tasks done and seconds of succeeded runs; None while one is running.

        The database's clock measures the seconds.
        """
        row = self.conn.execute(RUNS, (list(runs),)).fetchone()
        if row is None:
            return None
        states, tasks, seconds = row
        if states != ["succeeded"]:
            raise RuntimeError(
                f"the runs {runs} ended as {states}; see {self.home / 'workers.log'}"
            )
        return int(tasks), float(seconds)

    def sync(self, *accounts: UUID, timeout: float = 600.0) -> tuple[int, float]:
        """Run accounts to the end, all at once; returns tasks done and seconds."""
        runs = [self.start(account) for account in accounts]
        deadline = time.monotonic() + timeout
        while (end := self.ended(*runs)) is None:
            if self._workers is not None and ended(self._workers):
                # Dramatiq ends them all when one of them dies: nobody is left who could end the
                # run.
                raise RuntimeError(f"the workers have ended, and their runs have not: {runs}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"these runs did not end: {runs}")
            time.sleep(0.02)
        return end

    def _state(self) -> str:
        """Describe open tasks, live processes and queues, to diagnose a run that does not end."""
        return "\n".join(
            f"{what}: {self.conn.execute(query).fetchall() if query else self.queues.ids('noop')}"
            for what, query in STATE.items()
        )

    def tree(self, pages: int, accounts: int = 1) -> float:
        """Tasks/s of trees of no-op tasks, on dedicated workers.

        The workers run a tree of a tenth of the size first, as a warm-up.

        Parameters:
          pages: Of all trees together.
          accounts: How many trees there are, an account each.
        """
        trees = [self.account(pages=max(1, pages // accounts)) for _ in range(accounts)]
        with self.workers():
            self.sync(self.account(pages=max(1, pages // 10)))
            tasks, seconds = self.sync(*trees)
        self.settle()
        return tasks / seconds

    def settle(self) -> None:
        """Bring the tables into the state that autovacuum keeps them in."""
        for table in ("sync_task", "user_integration_content", "sync_seen"):
            self.conn.execute(f"VACUUM ANALYZE {table}")
