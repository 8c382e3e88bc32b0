"""The heartbeat of a worker: its essential parts do not wait for the others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg

from core.accounts.vault import new_key
from core.environment import Environment
from core.settings import Settings
from core.transport.queues import Queues
from core.worker.process import WorkerProcess


def test_a_worker_that_cannot_write_its_throughput_drains_and_writes_it_later(
    database_url: str, tmp_path: Path
) -> None:
    """The table may be missing, as after a downgrade of the schema."""
    settings = Settings(_env_file=None, database_url=None, redis_url=None, home=tmp_path)
    environment = Environment(database_url, "redis://nobody", (new_key(),), embedded=False)
    registry: Any = SimpleNamespace(integrations={})
    nobody = Queues("redis://127.0.0.1:1", "polling")
    worker = WorkerProcess(settings, environment, nobody, registry)
    worker._assign(threads=1, serves=["shop"])
    worker.counters.count("tasks", 3)
    with psycopg.connect(database_url, autocommit=True) as conn:
        worker._heartbeat()
        assert conn.execute("SELECT sum(tasks) FROM throughput").fetchone() == (3,)
        conn.execute("ALTER TABLE throughput RENAME TO elsewhere")
        conn.execute("UPDATE process SET draining = true")
        worker.counters.count("tasks", 4)
        worker._heartbeat()
        assert worker.draining.is_set()
        conn.execute("ALTER TABLE elsewhere RENAME TO throughput")
        worker._heartbeat()
        worker._heartbeat()
        assert conn.execute("SELECT sum(tasks) FROM throughput").fetchone() == (7,)
        assert conn.execute("SELECT queues FROM process").fetchone() == ([],)
        undone: list[bool] = []
        worker.on_undo = lambda: undone.append(worker.accepting())
        conn.execute("UPDATE process SET draining = false")
        worker._heartbeat()
        assert undone == [True]
        assert conn.execute("SELECT queues FROM process").fetchone() == (["shop"],)
    worker.database.close()
