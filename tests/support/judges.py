"""Two judges of a deed: the engine with a database, and the harness of the kit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from psycopg.types.json import Jsonb

from core import BaseIntegration, Context, Manifest, Rate, Task, TaskResult, task
from core.accounts.vault import Vault
from core.content.blobs import Blobs
from core.content.portions import SWEEP
from core.db.pool import Database
from core.egress import Egress
from core.ledger.dispatching import TaskPortion
from core.ledger.outcomes import Dispatch, Outcome
from core.limits.keys import to_json
from core.middleware.retries import Retries
from core.plugins import Registry
from core.results.decisions import RetryPolicy
from core.results.delete_guard import DeleteGuard
from core.states import Deletions
from core.testing import Harness
from core.testing.context import Account
from core.testing.outcome import SyncResult
from core.transport.queues import Queues
from core.worker.accounts import Accounts
from core.worker.context import Services
from core.worker.inflight import InflightTasks
from core.worker.instance_pool import InstancePool
from core.worker.runner import Runner
from core.worker.saver import Saver
from support.odd_results import Deed

DOMAIN = "odd"
MAX_ATTEMPTS = 3
POLICY = RetryPolicy(MAX_ATTEMPTS)
GUARD = DeleteGuard(0.5)
OVERTAKEN: Mapping[str, int] = {"overtaken": 1}


class Odd(BaseIntegration):
    """An integration whose first task does the deed of a test."""

    manifest = Manifest(DOMAIN, "Odd", limits=[Rate("quota", 1_000, 1)])
    deed: ClassVar[Deed]

    overtake: ClassVar[Callable[[str], None]]

    def start(self, ctx: Context) -> TaskResult:
        result: TaskResult = type(self).deed.do(ctx, type(self).overtake)
        return result

    @task
    def step(self, ctx: Context, number: int = 0) -> TaskResult:
        return TaskResult()


@dataclass
class Verdict:
    """The state of a task and of its account after a deed.

    Attributes:
      attempts, snoozes, deferrals: The task's counters, if it runs again.
      wait: The seconds until the task may run again; None unless it is ready.
      failing: The seconds since the task's first failure, at the end of a snooze; None if it has
        not failed, or does not run again.
      blocked: The limits that the deed blocked; None stands for the complete account.
      stopped: The reason why the account was stopped, or None.
      tasks: The follow-ups, each with type, payload, priority, lane and tens of seconds to wait.
      deleted: The number of rows that were marked deleted.
      written: The number of rows that were written or found unchanged.
      held: The number of listings whose deletions wait for a person.
    """

    state: str
    attempts: int | None = None
    snoozes: int | None = None
    deferrals: int | None = None
    wait: float | None = field(default=None, compare=False)
    failing: float | None = field(default=None, compare=False)
    blocked: set[str | None] = field(default_factory=set)
    stopped: str | None = None
    resync: bool = False
    content: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    tasks: list[tuple[Any, ...]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    deleted: int = 0
    written: int = 0
    held: int = field(default=0, compare=False)


class Engine:
    """The runner, the middleware `retries`, the saver and PostgreSQL, in this process."""

    CONTENT = """
    SELECT external_id, content_text, content_bytes, blob_key, kind, parent, name,
        external_timestamp, content_type, metadata, fingerprint, size, hash,
        gone_at_source IS NOT NULL
    FROM user_integration_content
    WHERE user_integration_id = %s AND deleted_at IS NULL
    """
    TASK = """
    SELECT t.state, t.attempts,
        extract(epoch FROM t.available_at - clock_timestamp())::float, a.status_reason,
        a.resync_due, (SELECT sum(outputs_deleted)::int FROM sync_task WHERE run_id = t.run_id),
        t.outputs_saved + t.outputs_unchanged, t.snoozes,
        t.deferrals, extract(epoch FROM clock_timestamp() - t.first_failed_at)::float, t.skipped,
        (SELECT count(*) FROM held_deletion h
            WHERE h.run_id = t.run_id AND h.source = 'listing' AND h.state = 'held')
    FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id WHERE t.id = %s
    """

    SWEEPS = """
    SELECT FROM sync_task WHERE user_integration_id = %s AND type = %s AND state = 'ready'
    """

    def __init__(
        self, desk: Any, database: Database, queues: Queues, vault: Vault, blobs: Blobs
    ) -> None:
        self.desk, self.blobs = desk, blobs
        registry = Registry({DOMAIN: Odd}, {DOMAIN: None})
        accounts = Accounts(database, vault, registry, {})
        egress = Egress()
        services = Services(database, accounts, blobs, None, lambda _: False, egress)  # type: ignore[arg-type]
        runner, inflight = Runner(services, InstancePool(egress), registry), InflightTasks()
        self.runner = runner
        self.saver = Saver(database, queues, inflight, registry, guard=GUARD)
        self.names = itertools.count()
        self.before = 0
        self.handed: list[Outcome] = []
        self.retries = Retries(inflight, runner, accounts, self.handed.append, registry, POLICY)

    def judge(
        self,
        deeds: Sequence[Deed],
        deletions: str = Deletions.MARK,
        guard: DeleteGuard = GUARD,
    ) -> list[Verdict]:
        """Run these deeds for one account, one run each; return the verdicts."""
        self.saver._guard = guard
        account = self.desk.account(
            str(next(self.names)),
            domain=DOMAIN,
            credentials=None,
            limits=to_json(Odd.manifest.limits),
        )
        self.desk.conn.execute(
            "UPDATE user_integration SET deletions = %s WHERE id = %s", (deletions, account)
        )
        return [self._judge(account, deed) for deed in deeds]

    def _judge(self, account: UUID, deed: Deed) -> Verdict:
        before, self.before = self.before, self.desk.value("SELECT nextval('dispatch_seq')")
        self.desk.conn.execute("SELECT setval('dispatch_seq', nextval('dispatch_seq'))")
        run = self.desk.run(account, trigger=deed.trigger)
        self.desk.conn.execute("UPDATE sync_run SET joined = true")  # its end keeps its rows
        self.desk.conn.execute(
            "UPDATE sync_task SET attempts = %s, first_failed_at = CASE WHEN %s > 0 THEN"
            " clock_timestamp() - %s * interval '1 second' END, deferrals = %s WHERE run_id = %s",
            (deed.attempts, deed.failing, deed.failing, deed.deferrals, run),
        )
        if deed.crowded:
            self.desk.conn.execute("UPDATE sync_run SET over_limit = 'full' WHERE id = %s", (run,))
        if deed.deleted:
            (other,) = self.desk.add(run, "another task")
            self.desk.conn.execute(
                "UPDATE sync_task SET state = 'done', outputs_gone = %s WHERE id = %s",
                (deed.deleted, other),
            )
        (dispatch,) = self.desk.claim(TaskPortion(str(account), "live", 1), domain=DOMAIN)
        if deed.late:
            dispatch = replace(dispatch, dispatch_seq=before)
        Odd.deed, Odd.overtake = deed, partial(self._overtake, account)
        self._run(dispatch)
        (outcome,) = self.handed
        self.handed.clear()
        self.saver.save([outcome])
        self._finish_sweeps(account)
        verdict = self._verdict(account, dispatch)
        self._clear(account)
        return verdict

    def _finish_sweeps(self, account: UUID) -> None:
        """Run the tasks of the engine in which a sweep continues. The kit has no such tasks."""
        while self.desk.rows(self.SWEEPS, account, SWEEP):
            claimed = self.desk.claim(TaskPortion(str(account), "live", 100), domain=DOMAIN)
            for dispatch in claimed:
                if dispatch.type == SWEEP:
                    self._run(dispatch)
            self.saver.save(self.handed)
            self.handed.clear()

    def _overtake(self, account: UUID, partition: str) -> None:
        """Write a partition, as a task that was dispatched later and is saved earlier."""
        self.desk.conn.execute(
            "INSERT INTO sync_state AS s (user_integration_id, partition, value, version,"
            " dispatch_seq) VALUES (%s, %s, %s, 1, nextval('dispatch_seq'))"
            " ON CONFLICT (user_integration_id, partition) DO UPDATE SET value = excluded.value,"
            " version = s.version + 1, dispatch_seq = excluded.dispatch_seq",
            (account, partition, Jsonb(OVERTAKEN)),
        )

    def _run(self, dispatch: Dispatch) -> None:
        try:
            self.handed.append(self.runner.run(dispatch))
        except BaseException as error:  # noqa: BLE001  as Dramatiq does
            self.retries.after(dispatch, None, error)  # type: ignore[arg-type]

    def _verdict(self, account: UUID, dispatch: Dispatch) -> Verdict:
        (row,) = self.desk.rows(self.TASK, dispatch.task_id)
        state, attempts, wait, stopped, resync, deleted, written, *row = row
        snoozes, deferrals, failing, skipped, held = row
        again = state in ("ready", "deferred")
        blocked = self.desk.rows(
            "SELECT key FROM limit_block WHERE key LIKE %s AND until > clock_timestamp()",
            f"account/{account}/%",
        )
        return Verdict(
            state,
            attempts if state == "ready" else None,
            snoozes if again else None,
            deferrals if again else None,
            wait if state == "ready" else None,
            failing + (wait if snoozes else 0) if again and failing is not None else None,
            {key.split("/", 2)[2] or None for (key,) in blocked},
            stopped,
            resync,
            {row[0]: self._item(row) for row in self.desk.rows(self.CONTENT, account)},
            dict(
                self.desk.rows(
                    "SELECT partition, value FROM sync_state WHERE user_integration_id = %s"
                    " AND value IS NOT NULL",
                    account,
                )
            ),
            sorted(
                self.desk.rows(
                    "SELECT t.type, t.payload::text, t.priority, t.lane,"
                    " greatest(round(extract(epoch FROM t.available_at - p.finished_at) / 10), 0)"
                    "::int FROM sync_task t JOIN sync_task p ON p.id = t.parent_id"
                    " WHERE p.id = %s AND t.type <> %s",
                    dispatch.task_id,
                    SWEEP,
                )
            ),
            skipped or {},
            deleted or 0,
            written or 0,
            held,
        )

    def _item(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        _, text, data, key, *rest = row
        content = self.blobs.get(key) if key is not None else data
        return (text if text is not None else content, *rest)

    def _clear(self, account: UUID) -> None:
        """Finish all other tasks and runs, and reset the account."""
        self.desk.conn.execute(
            "UPDATE sync_task SET state = 'done' WHERE user_integration_id = %s"
            " AND state IN ('ready', 'queued', 'deferred')",
            (account,),
        )
        self.desk.conn.execute(
            "UPDATE sync_run SET state = 'succeeded', finished_at = clock_timestamp()"
            " WHERE user_integration_id = %s AND state = 'running'",
            (account,),
        )
        self.desk.conn.execute(
            "UPDATE user_integration SET sync_status = 'active', status_reason = NULL,"
            " resync_due = false, drop_state = false WHERE id = %s",
            (account,),
        )
        self.desk.conn.execute(
            "DELETE FROM limit_block WHERE key LIKE %s", (f"account/{account}/%",)
        )


class Kit:
    """The harness of `core.testing`."""

    before = 0

    def judge(
        self,
        deeds: Sequence[Deed],
        deletions: str = Deletions.MARK,
        guard: DeleteGuard = GUARD,
    ) -> list[Verdict]:
        """Run these deeds in `core.testing.Harness`; return the verdicts."""
        harness = Harness(
            Odd,
            deletions=deletions,
            max_deleted_share=guard.max_share,
            min_guarded_items=guard.min_items,
            max_attempts=MAX_ATTEMPTS,
        )
        return [self._judge(harness, deed) for deed in deeds]

    def _judge(self, harness: Harness, deed: Deed) -> Verdict:
        ledger, queue = harness._ledger, harness._queue
        ledger.result, ledger.resync = SyncResult(), False
        before, self.before = self.before, harness._account.tick()
        ledger.start(deed.trigger, Task("start"))
        entry = queue.take()
        assert entry is not None
        entry.attempts, entry.deferrals = deed.attempts, deed.deferrals
        entry.first_failed = queue.clock - deed.failing if deed.failing else None
        ledger._max_tasks = 0 if deed.crowded else 1_000
        harness._account.content._gone[entry.run.info.id] = deed.deleted
        Odd.deed, Odd.overtake, now = deed, partial(self._overtake, harness._account), queue.clock
        sequence = before if deed.late else harness._account.tick()
        harness._settle(harness._worker.attempt(entry, sequence, harness._injector))
        result = ledger.result
        queued = [(now, each) for _, each in queue._ready]
        queued += [(at, each) for at, _, each in queue._waiting]
        state = (
            "parked" if result.parked
            else "deferred" if result.deferred
            else "done" if result.tasks_done
            else "ready"
        )  # fmt: skip
        again = state in ("ready", "deferred")
        wait = next((at - now for at, each in queued if each is entry), None)
        first = entry.first_failed
        verdict = Verdict(
            state,
            entry.attempts if state == "ready" else None,
            entry.snoozes if again else None,
            entry.deferrals if again else None,
            wait,
            now + (wait if entry.snoozes else 0) - first if again and first is not None else None,
            {limit for limit, until in queue._blocked.items() if until > now},
            _stopped(result.error),
            ledger.resync,
            {id: _item(item) for id, item in harness.content.items()},
            dict(harness.state),
            sorted(
                (
                    each.task.type,
                    _json(each.task.payload),
                    each.task.priority,
                    each.run.info.lane,
                    round((at - now) / 10),
                )
                for at, each in queued
                if each is not entry
            ),
            dict(result.skipped_items),
            result.outputs_deleted,
            result.outputs_saved + result.outputs_unchanged,
            len(result.held),
        )
        ledger.finish()
        ledger._deferred.clear()
        queue._ready.clear()
        queue._waiting.clear()
        queue._blocked.clear()
        return verdict

    def _overtake(self, account: Account, partition: str) -> None:
        account.versions[partition] += 1
        account.writers[partition] = account.tick()
        account.state[partition] = OVERTAKEN


def _stopped(error: Exception | None) -> str | None:
    names = {"CredentialsInvalid": "credentials", "ConfigurationError": "configuration"}
    return None if error is None else names[type(error).__name__]


def _item(item: Any) -> tuple[Any, ...]:
    content = item.content.decode() if item.is_text else item.content
    return (
        content, item.kind, item.parent, item.name, item.timestamp, item.content_type,
        item.metadata, item.fingerprint, item.size, item.hash, item.gone,
    )  # fmt: skip


def _json(payload: Any) -> str:
    """Return JSON in PostgreSQL's format."""
    import json

    return json.dumps(payload, ensure_ascii=False)
