"""Fixtures for a ledger: accounts, runs, dispatches and results, by the engine's own statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.cloud import browser, product, provider  # noqa: F401  fixtures
from support.dashboard import dashboard  # noqa: F401  fixtures
from support.rest import api, backend, egress, hooked, integrations  # noqa: F401  fixtures

from core import BaseIntegration, Context, Manifest, TaskOutput, TaskResult, task
from core.accounts import store
from core.content import holds
from core.content.blobs import Blobs
from core.content.guard import Lost
from core.db.pool import Conn, Database
from core.ledger import completion, dispatching, leadership, processes, scheduling
from core.ledger.commit import CommitResult, commit_outcomes
from core.ledger.dispatching import TaskPortion
from core.ledger.outcomes import Dispatch, Outcome, result_outcome
from core.results.delete_guard import DeleteGuard
from core.states import HoldSource

DOMAIN = "shop"


class Shop(BaseIntegration):
    """An integration whose task results the tests provide."""

    manifest = Manifest(DOMAIN, "Shop")

    @task
    def step(self, ctx: Context, number: int = 0) -> TaskResult:
        return TaskResult()

    @task
    def page(self, ctx: Context, number: int = 0) -> TaskResult:
        return TaskResult()


@dataclass
class Desk:
    """Does manually the work of the scheduler, the dispatcher and a worker."""

    conn: Conn
    blobs: Blobs
    me: UUID = field(default_factory=uuid4)

    def account(self, name: str = "someone", domain: str = DOMAIN, **given: Any) -> UUID:
        """Connect an account that is due, and return its id."""
        defaults: dict[str, Any] = {
            "user_id": "u",
            "identity": name,
            "group": None,
            "config": {},
            "credentials": "sealed",
        }
        return store.connect(
            self.conn, domain=domain, name=name, **{**defaults, "limits": [], **given}
        )[0]

    def run(self, account: UUID, **given: Any) -> UUID:
        """Request a run, and return it or the one that is open."""
        return scheduling.request_run(self.conn, account, **given)[0]

    def hold(self, account: UUID, run: UUID, *items: str, parent: str | None = None) -> int:
        """Hold the deletion of items of a listing, and return its id."""
        place = {"account": account, "run": run, "source": HoldSource.LISTING, "parent": parent}
        place |= {"since": None, "until": None}
        holds.hold(self.conn, place, Lost(items, len(items), True))
        return self.value("SELECT max(id) FROM held_deletion")

    def add(
        self,
        run: UUID,
        *tasks: str,
        type: str = "step",
        priority: int = 0,
        conn: Conn | None = None,
    ) -> list[int]:
        """Insert ready tasks, as if the run's tasks had returned them."""
        statement = """
            INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type,
                payload, dedup_key,
                priority, parent_id)
            SELECT id, user_integration_id, integration_domain, lane, %s, '{}',
                convert_to(%s, 'UTF8'), %s, 1
            FROM sync_run WHERE id = %s RETURNING id"""
        rows = (
            (conn or self.conn).execute(statement, (type, key, priority, run)).fetchone()
            for key in tasks
        )
        return [row[0] for row in rows if row]

    def claim(
        self,
        *portions: TaskPortion,
        lease: float = 60.0,
        me: UUID | None = None,
        domain: str = DOMAIN,
        conn: Conn | None = None,
    ) -> list[Dispatch]:
        """Lead, and dispatch these portions, or all ready tasks if there are none."""
        leadership.lead(conn or self.conn, me or self.me)
        if not portions:
            found = self.conn.execute(
                """
                SELECT DISTINCT user_integration_id::text, lane FROM sync_task WHERE state = 'ready'
                """
            )
            portions = tuple(TaskPortion(account, lane, 1_000) for account, lane in found)
        return dispatching.claim(conn or self.conn, me or self.me, domain, portions, lease)

    def root(self, account: UUID, **given: Any) -> Dispatch:
        """Return the dispatched root task of a new run."""
        self.run(account, **given)
        (dispatch,) = self.claim(
            TaskPortion(str(account), "live", 1, without_types=["step", "page"])
        )
        return dispatch

    def outcome(self, dispatch: Dispatch, read: Mapping[str, int] = {}, **result: Any) -> Outcome:
        """Return the outcome of a task that returns this result."""
        return result_outcome(dispatch, TaskResult(**result), Shop, self.blobs, read)

    def save(
        self, *outcomes: Outcome, guard: float = 0.5, floor: int = 20, conn: Conn | None = None
    ) -> CommitResult:
        """Save outcomes as the saver does, without the check whether runs are complete."""
        return commit_outcomes(conn or self.conn, outcomes, guard=DeleteGuard(guard, floor))

    def finish(
        self, dispatch: Dispatch, guard: float = 0.5, floor: int = 20, **result: Any
    ) -> CommitResult:
        """Save a result, and end its run if that was the last task."""
        saved = self.save(self.outcome(dispatch, **result), guard=guard, floor=floor)
        completion.end_runs(self.conn, {dispatch.run_id})
        return saved

    def keep(self, account: UUID, *outputs: TaskOutput, **more: Any) -> None:
        """Complete a run that keeps these outputs."""
        self.finish(self.root(account), output=outputs, **more)

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return self.conn.execute(query, arguments or None).fetchall()

    def value(self, query: str, *arguments: Any) -> Any:
        ((value,),) = self.rows(query, *arguments)
        return value

    def tasks(self) -> dict[int, str]:
        return dict(
            self.rows("""
        SELECT id, state FROM sync_task ORDER BY id
        """)
        )

    def runs(self) -> list[str]:
        return [
            state for (state,) in self.rows("SELECT state FROM sync_run ORDER BY started_at, id")
        ]

    def content(self, columns: str = "content_text", where: str = "true") -> dict[str, Any]:
        found = self.rows(
            f"""
            SELECT external_id, {columns} FROM user_integration_content WHERE {where}
            ORDER BY external_id
            """
        )
        return {id: rest[0] if len(rest) == 1 else rest for id, *rest in found}

    def alive(self) -> set[str]:
        """Return the ids of the kept items that are not marked deleted."""
        return set(self.content(where="deleted_at IS NULL"))


@pytest.fixture
def blobs(database: Database, tmp_path: Any) -> Blobs:
    return Blobs(database, str(tmp_path / "blobs"), tmp_path / "spool")


@pytest.fixture
def desk(conn: Conn, blobs: Blobs) -> Desk:
    return Desk(conn, blobs)


@pytest.fixture
def healthy(desk: Desk) -> processes.Process:
    """Register a live worker and its dispatcher, so that the fleet is healthy."""
    process = processes.Process(uuid4(), "worker", "host", 17, [DOMAIN], 8)
    processes.heartbeat(desk.conn, process, datetime.now(UTC))
    leadership.lead(desk.conn, desk.me)
    desk.conn.execute("UPDATE engine_state SET last_tick_at = clock_timestamp()")
    return process


@pytest.fixture
def shop() -> type[Shop]:
    return Shop


@pytest.fixture
def together() -> Callable[..., list[Any]]:
    """Return `together(first, second, …)`, which runs functions concurrently.

    Each function has a thread of its own. The result contains what each returned, or raised.
    """
    import threading

    def run(*actions: Callable[[], Any]) -> list[Any]:
        results: list[Any] = [None] * len(actions)
        barrier = threading.Barrier(len(actions))

        def act(index: int) -> None:
            barrier.wait()
            try:
                results[index] = actions[index]()
            except Exception as error:  # noqa: BLE001  handed to the test
                results[index] = error

        threads = [threading.Thread(target=act, args=(index,)) for index in range(len(actions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


@pytest.fixture
def blocked_in(conn: Conn, until: Any) -> Callable[[int], None]:
    """Return `blocked_in(pid)`, which returns once that connection waits for a lock."""

    def wait(pid: int) -> None:
        until(
            lambda: (
                conn.execute(
                    "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", (pid,)
                ).fetchone()
                == (True,)
            )
        )

    return wait
