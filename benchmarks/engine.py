"""The engine's side: real processes on embedded servers, with accounts inserted directly."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from pydantic import BaseModel

from benchmarks.processes import ended, program, wait_until
from core import Limit
from core.accounts import store
from core.accounts.vault import Vault, new_key
from core.db.migrate import migrate
from core.db.pool import Conn, open_connection
from core.embedded import Servers, Urls
from core.ledger import scheduling
from core.ledger.processes import serving
from core.limits.keys import to_json
from core.settings import Settings
from core.transport.queues import Queues

PROCESSES, THREADS = 2, 8

RUNS = """
SELECT array_agg(DISTINCT state), sum(tasks_done),
    extract(epoch FROM max(finished_at) - min(started_at))
FROM sync_run WHERE id = ANY(%s) HAVING count(*) FILTER (WHERE state = 'running') = 0
"""

MAX_LOG_CHARS = 20_000
"""The number of characters of the workers' log in an error message."""

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
    """Embedded PostgreSQL (fsync on) and Valkey, and a folder, for one benchmark."""

    urls: Urls
    home: Path

    def database(self, name: str) -> str:
        """Create an empty database on the same server, for a peer; return its URL."""
        with psycopg.connect(self.urls.database_url, autocommit=True) as conn:
            conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            conn.execute(f'CREATE DATABASE "{name}"')
        return self.address(name)

    def address(self, name: str) -> str:
        """Return the URL of a database on the same server."""
        return urlsplit(self.urls.database_url)._replace(path=f"/{name}").geturl()


@contextmanager
def testbed(home: Path | None) -> Iterator[Testbed]:
    """Start the servers and migrate.

    Args:
      home: The folder of all data, which stays. None: a folder that is deleted at the end.
    """
    made = tempfile.TemporaryDirectory(prefix="polling-bench-")
    with nullcontext(home) if home is not None else made as folder:
        settings = Settings(_env_file=None, database_url=None, redis_url=None, home=Path(folder))
        with Servers(settings) as urls:
            migrate(urls.database_url)
            yield Testbed(urls, Path(folder))


class Engine:
    """A fleet of the engine, and the operations that benchmarks need."""

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
            # Only the benchmark starts runs.
            "POLLING_CRON_SCHEDULE": "0 0 1 1 *",
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
        """Run `dramatiq core.actors`; yield its process id when all processes are ready."""
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
                wait_until(
                    lambda: self.ready(processes),
                    "the workers were not ready",
                    seconds=180,
                    pause=0.05,
                )
                yield pid
            except Exception as error:
                # The log is deleted with its folder, so the error includes the end of it.
                error.add_note(
                    f"{self._state()}\n{log.read_text('utf-8', 'replace')[-MAX_LOG_CHARS:]}"
                )
                raise
            finally:
                self._workers = None

    def ready(self, processes: int) -> bool:
        """Return True if at least this number of processes serve, and a dispatcher leads."""
        _, serve = serving(self.conn).get("polling", (0, 0))
        leading = self.conn.execute("SELECT leader_until > now() FROM engine_state").fetchone()
        return serve >= processes and bool(leading and leading[0])

    def account(
        self,
        domain: str = "noop",
        *,
        limits: Sequence[Limit] = (),
        credentials: BaseModel | None = None,
        **config: Any,
    ) -> UUID:
        """Create an account that is never due: only the benchmark starts its runs."""
        vault = Vault([self.environment["POLLING_SECRET_KEYS"]])
        made = store.connect(
            self.conn, user_id="bench", domain=domain, name=secrets.token_hex(4),
            identity=secrets.token_hex(8), group=None, config=config,
            credentials=None if credentials is None else vault.seal(credentials),
            limits=to_json(limits), poll_interval_minutes=100_000,
        )  # fmt: skip
        self.conn.execute(
            "UPDATE user_integration SET next_sync_at = NULL WHERE id = %s", (made[0],)
        )
        return made[0]

    def start(self, account: UUID) -> UUID:
        """Request a run for an account, and return its id."""
        run, _ = scheduling.request_run(self.conn, account)
        self.queues.wake()
        return run

    def ended(self, *runs: UUID) -> tuple[int, float] | None:
        """Return the tasks done and the seconds of succeeded runs; None while one is running.

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
        """Sync accounts concurrently until all runs end; return the tasks done and the seconds."""
        runs = [self.start(account) for account in accounts]
        deadline = time.monotonic() + timeout
        while (end := self.ended(*runs)) is None:
            if self._workers is not None and ended(self._workers):
                # Dramatiq stops all processes when one of them dies.
                raise RuntimeError(f"the workers exited before these runs ended: {runs}")
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
        """Measure the tasks/s of trees of no-op tasks, on dedicated workers.

        The workers first run a tree of a tenth of the size, as a warm-up.

        Args:
          pages: The number of pages of all trees together.
          accounts: The number of trees, with one account each. Default: 1.
        """
        trees = [self.account(pages=max(1, pages // accounts)) for _ in range(accounts)]
        with self.workers():
            self.sync(self.account(pages=max(1, pages // 10)))
            tasks, seconds = self.sync(*trees)
        self.settle()
        return tasks / seconds

    def settle(self) -> None:
        """Vacuum and analyze the tables, as autovacuum would."""
        for table in ("sync_task", "user_integration_content", "sync_seen"):
            self.conn.execute(f"VACUUM ANALYZE {table}")
