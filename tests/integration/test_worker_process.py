"""The heartbeat of a worker: what matters in it does not wait for what does not."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
from support.waiting import until

from core import TaskOutput
from core.accounts.vault import new_key
from core.environment import Environment
from core.queues import Queues
from core.settings import Settings
from core.worker.held import Held
from core.worker.process import WorkerProcess
from core.worker.saver import Saver


def test_a_worker_that_cannot_tell_its_activity_still_drains_and_tells_it_later(
    database_url: str, tmp_path: Path
) -> None:
    """As where the schema was taken back beneath it."""
    settings = Settings(_env_file=None, database_url=None, redis_url=None, home=tmp_path)  # type: ignore[call-arg]
    environment = Environment(database_url, "redis://nobody", (new_key(),), embedded=False)
    registry: Any = SimpleNamespace(integrations={})
    nobody = Queues("redis://127.0.0.1:1", "polling")
    worker = WorkerProcess(settings, environment, nobody, registry, threads=1, serves=[])
    worker.figures.count("tasks", 3)
    with psycopg.connect(database_url, autocommit=True) as conn:
        worker._say_alive()
        assert conn.execute("SELECT sum(tasks) FROM activity").fetchone() == (3,)
        conn.execute("ALTER TABLE activity RENAME TO elsewhere")
        conn.execute("UPDATE process SET draining = true")
        worker.figures.count("tasks", 4)
        worker._say_alive()
        assert worker.draining.is_set()
        conn.execute("ALTER TABLE elsewhere RENAME TO activity")
        worker._say_alive()
        worker._say_alive()
        assert conn.execute("SELECT sum(tasks) FROM activity").fetchone() == (7,)
    worker.database.close()


def test_a_saver_whose_observer_hangs_is_seen_to_be_stuck(desk, database, queues, monkeypatch) -> None:
    """What waits behind it would be held for ever: its process ends, and the leases bring it back."""
    hangs, goes_on = threading.Event(), threading.Event()

    def observe(*_: Any, **__: Any) -> None:
        hangs.set()
        assert goes_on.wait(20)

    saver = Saver(database, queues, Held(), SimpleNamespace(observe=observe), delete_guard=0.5)  # type: ignore[arg-type]
    saver.start()
    saver.hand_over(desk.outcome(desk.root(desk.account("one")), output=[TaskOutput("a", "text")]))
    assert hangs.wait(20)
    assert not saver.stuck
    monkeypatch.setattr("core.worker.saver.STUCK_SECONDS", 0.01)
    until(lambda: saver.stuck, "it is stuck")
    goes_on.set()
    until(lambda: not saver.stuck, "it rests")
    saver.stop(20)
