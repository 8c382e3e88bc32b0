"""Our side: the real processes on embedded servers, and accounts made directly."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from core.accounts import store
from core.accounts.vault import new_key
from core.db.migrate import migrate
from core.db.pool import Conn, open_connection
from core.embedded import Servers, Urls
from core.ledger import scheduling, upkeep
from core.queues import Queues
from core.settings import Settings

PROCESSES, THREADS = 2, 8

RUN = """
SELECT state, tasks_done, extract(epoch FROM finished_at - started_at) FROM sync_run WHERE id = %s AND state <> 'running'
"""


@contextmanager
def servers() -> Iterator[tuple[Urls, Path]]:
    """Embedded PostgreSQL (fsync on) and Valkey of their own, thrown away afterwards."""
    with tempfile.TemporaryDirectory(prefix="polling-bench-") as folder:
        settings = Settings(_env_file=None, database_url=None, redis_url=None, home=Path(folder))  # type: ignore[call-arg]
        with Servers(settings) as urls:
            migrate(urls.database_url)
            yield urls, Path(folder)


class Engine:
    """Workers of our engine, and what a benchmark asks of them."""

    def __init__(self, urls: Urls, home: Path, plugins: str = "benchmarks.noop") -> None:
        self.urls = urls
        self.conn: Conn = open_connection(urls.database_url)
        self.queues = Queues(urls.redis_url, "polling")
        self._home = home
        self.environment = os.environ | {
            "DATABASE_URL": urls.database_url,
            "REDIS_URL": urls.redis_url,
            "POLLING_HOME": str(home),
            "POLLING_SECRET_KEYS": new_key(),
            "POLLING_PLUGINS": plugins,
            "POLLING_LOG_LEVEL": "WARNING",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }

    @contextmanager
    def workers(self, processes: int = PROCESSES, threads: int = THREADS) -> Iterator[int]:
        """`dramatiq core.actors`, ready when all processes have said so; yields its process id."""
        arguments = [sys.executable, "-m", "dramatiq", "core.actors", "-p", str(processes), "-t", str(threads)]
        log = (self._home / "workers.log").open("ab")
        self.conn.execute("DELETE FROM process")
        program = subprocess.Popen(arguments, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        try:
            self._until_ready(processes)
            yield program.pid
        finally:
            program.terminate()
            with suppress(subprocess.TimeoutExpired):
                program.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            log.close()

    def _until_ready(self, processes: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            serving = upkeep.serving(self.conn).get("polling", (0, 0))
            leading = self.conn.execute("SELECT leader_until > now() FROM ledger").fetchone()
            if serving[1] >= processes and leading and leading[0]:
                return
            time.sleep(0.05)
        raise TimeoutError(f"the workers did not come up; see {self._home / 'workers.log'}")

    def account(self, domain: str = "noop", **config: Any) -> UUID:
        """A new account, paused so that only the benchmark makes runs."""
        made = store.connect(
            self.conn, user_id="bench", domain=domain, name=secrets.token_hex(4), identity=secrets.token_hex(8), group=None,
            config=config, credentials=None, limits=[], poll_interval_minutes=100_000,
        )  # fmt: skip
        self.conn.execute("UPDATE user_integration SET next_sync_at = NULL WHERE id = %s", (made[0],))
        return made[0]

    def start(self, account: UUID) -> UUID:
        """Request a run."""
        run, _ = scheduling.request_run(self.conn, account)
        self.queues.wake()
        return run

    def sync(self, account: UUID, timeout: float = 600.0) -> tuple[int, float]:
        """Run to the end; returns tasks done and seconds, by the database's clock."""
        run = self.start(account)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            row = self.conn.execute(RUN, (run,)).fetchone()
            if row is not None:
                assert row[0] == "succeeded", row
                return row[1], float(row[2])
            time.sleep(0.02)
        raise TimeoutError(f"run {run} did not end")

    def settle(self) -> None:
        """Bring the tables into the state that autovacuum keeps them in."""
        for table in ("sync_task", "user_integration_content", "sync_seen"):
            self.conn.execute(f"VACUUM ANALYZE {table}")

    def close(self) -> None:
        self.conn.close()
        self.queues.close()


def cpu_seconds(group: int) -> Mapping[int, float]:
    """CPU seconds used so far by each process of a process group."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / ticks
    return used
