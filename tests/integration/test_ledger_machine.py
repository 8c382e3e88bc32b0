"""The ledger compared with a model in memory, in random interleavings.

Every rule does one thing to the real ledger and to the model. After each step both must agree on
the state of every task, on the open runs, and on the kept content. An ended run has no open task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from support.state_changes import forbidden, noted, watch

from core.accounts import store
from core.db.pool import Conn, open_connection
from core.errors import InvalidInput
from core.integration.base import START
from core.ledger import (
    breakers,
    carry_over,
    controls,
    dispatching,
    leadership,
    leases,
    scheduling,
)
from core.ledger.commit import commit_outcomes
from core.ledger.completion import end_runs
from core.ledger.dispatching import TaskPortion
from core.ledger.outcomes import Dispatch, Failure, Outcome
from core.results.delete_guard import OFF
from core.results.parking import MAX_CRASHES
from core.results.rows import ListingRow, OutputRow, TaskRow
from core.states import Operation

DOMAIN = "model"
LEADER = UUID(int=1)
PAST = """
UPDATE sync_task SET lease_until = now() - interval '1 s'
WHERE id = %s AND dispatch_no = %s AND state = 'queued'
"""
OPEN = ("ready", "queued")


@dataclass
class ModelTask:
    """The state of a task in the model.

    Attributes:
      carried: True if it is a copy of a task of an earlier run, or descends from one.
      listed: True if its own run has come to it too, so that it compares what it lists.
    """

    run: UUID
    key: str
    lane: str
    state: str = "ready"
    dispatch_no: int = 0
    attempts: int = 0
    crashes: int = 0
    root: bool = False
    due: bool = False
    suspect: bool = False
    retried: bool = False
    carried: bool = False
    listed: bool = False
    failed: bool = False

    @property
    def compares(self) -> bool:
        return self.listed or not self.carried


@dataclass
class ModelRun:
    """The state of a run in the model: its start, and the items that its tasks have seen.

    Attributes:
      polls: True if the schedule opened the run, and nobody joined it.
      changes: The number of items that it saved or deleted.
      followups: The number of tasks that its tasks returned.
      folded: True if it found nothing, so that its rows are deleted.
    """

    account: UUID
    lane: str
    start_seq: int
    began: int
    state: str = "running"
    seen: set[str] = field(default_factory=set)
    polls: bool = False
    changes: int = 0
    followups: int = 0
    folded: bool = False


@dataclass
class ModelItem:
    """A content row in the model: its last writer, and the step in which it changed."""

    seq: int
    changed: int
    deleted: bool = False


@dataclass
class ModelBreaker:
    """The breaker of an account in the model."""

    failed: list[int] = field(default_factory=list)
    failures: int = 0
    is_open: bool = False
    failed_probes: int = 0
    pause_over: bool = False
    probe: int | None = None


class Ledger(RuleBasedStateMachine):
    """A state machine whose bundle contains the dispatches in flight.

    Each dispatch is finished once, or again and late.
    """

    database_url = ""
    dispatches = Bundle("dispatches")

    def __init__(self) -> None:
        super().__init__()
        self.conn: Conn = open_connection(self.database_url)
        self.tasks: dict[int, ModelTask] = {}
        self.runs: dict[UUID, ModelRun] = {}
        self.content: dict[tuple[UUID, str], ModelItem] = {}
        self.steps = 0
        self.paused: set[UUID] = set()
        self.changed: set[UUID] = set()
        self.ended: list[UUID] = []
        self.breakers: dict[UUID, ModelBreaker] = {}

    def teardown(self) -> None:
        self.conn.execute(
            "TRUNCATE sync_task, user_integration_content, sync_seen, sync_state, user_integration"
            " CASCADE"
        )
        self.conn.execute("UPDATE engine_state SET leader = NULL, leader_until = NULL")
        self.conn.close()

    # Rules
    # ----------------------------------------------------------------------------------------------

    @initialize()
    def accounts(self) -> None:
        assert leadership.lead(self.conn, LEADER)
        self.accounts_ = [self._connect(str(number)) for number in range(2)]
        self.changed = {*self.accounts_}
        self.tick(joined=False)
        for account in (0, 1):
            for root in self._claim(account, 1, "live"):
                self.finish(root, [(key, key == "d") for key in "abcd"], "x")

    def _connect(self, name: str) -> UUID:
        made = store.connect(
            self.conn, user_id="u", domain=DOMAIN, name=name, identity=f"{name}-{uuid4()}",
            group=None, config={}, credentials=None, limits=[],
        )  # fmt: skip
        return made[0]

    @rule(joined=st.booleans())
    def tick(self, joined: bool) -> None:
        """Make every active account without an open live run due, and claim it.

        A person may join each run.
        """
        self.conn.execute("UPDATE user_integration SET next_sync_at = now()")
        due = [a for a in self.accounts_ if a not in self.paused and self._open(a, "live") is None]
        made = scheduling.claim_due(self.conn, 10).runs
        assert sorted(account for _, account in made) == sorted(due)
        for run, account in made:
            if joined:
                assert scheduling.request_run(self.conn, account) == (run, False)
                if account in self.breakers:
                    self.breakers[account].pause_over = True
            self._begin(run, account)
            self.runs[run].polls = not joined

    def _begin(self, run: UUID, account: UUID) -> None:
        self._add_run(run, account, "live")
        self._learn(run, {"root"})
        self._carry(run, account, "live")
        if self._waiting(account, "backfill"):
            backfill = self._open(account, "backfill") or self._learn_run(account, "backfill")
            self._carry(backfill, account, "backfill")

    def _waiting(self, account: UUID, lane: str) -> list[ModelTask]:
        """Return the tasks that continue in the next run.

        If the account has changed since its last sync, all deferred tasks continue.
        """
        return [
            task
            for task in self.tasks.values()
            if self.runs[task.run].account == account and task.lane == lane and not task.retried
            and (task.state == "cancelled"
                 or (task.state == "deferred"
                     and (task.due or task.root or account in self.changed)))
        ]  # fmt: skip

    def _carry(self, run: UUID, account: UUID, lane: str) -> None:
        for task in self._waiting(account, lane):
            task.retried |= task.run != run
        self._learn(run, None)

    @rule()
    def time_passes(self) -> None:
        """Make all deferred tasks due."""
        self.conn.execute(
            "UPDATE sync_task SET available_at = now() - interval '1 s' WHERE state = 'deferred'"
        )
        for task in self.tasks.values():
            task.due |= task.state == "deferred"

    @rule()
    def continue_deferred(self) -> None:
        carry_over.continue_deferred(self.conn, 1_000)
        for account in self.accounts_:
            for lane in ("live", "backfill"):
                self._continue(account, lane)

    def _continue(self, account: UUID, lane: str) -> None:
        due = [
            task
            for task in self.tasks.values()
            if self.runs[task.run].account == account and task.lane == lane
            and task.state == "deferred" and task.due and not task.retried
        ]  # fmt: skip
        passing = None if account in self.paused else self._passing(account, due)
        for task in due:
            task.due = False
            task.retried = passing is not None and task in passing
        if any(task.retried for task in due):
            self._learn(self._open(account, lane) or self._learn_run(account, lane), None)

    def _passing(self, account: UUID, due: list[ModelTask]) -> list[ModelTask]:
        """Return the due tasks that the breaker of the account lets through."""
        steps = [task for task in due if not task.root]
        breaker = self.breakers.get(account)
        if breaker is None or not breaker.is_open:
            return steps
        ready = any(
            task.state == "ready" and self.runs[task.run].account == account
            for task in self.tasks.values()
        )
        return steps[:1] if self._probe_due(breaker) and not ready else []

    def _probe_due(self, breaker: ModelBreaker) -> bool:
        in_flight = breaker.probe is not None and self.tasks[breaker.probe].state == "queued"
        return breaker.pause_over and not in_flight

    @rule()
    def pauses_end(self) -> None:
        """Let the pauses of all breakers pass."""
        self.conn.execute("UPDATE breaker SET probe_at = now() - interval '1 s'")
        for breaker in self.breakers.values():
            breaker.pause_over = True

    @rule(account=st.integers(0, 1), kind=st.sampled_from(["retry", "defer", "away"]))
    def everything_fails(self, account: int, kind: str) -> None:
        for lane in ("live", "backfill"):
            for one in self._claim(account, 9, lane):
                self.fail(one, kind)

    @rule(account=st.integers(0, 1))
    def an_outage(self, account: int) -> None:
        """Fail until the breaker opens, and then fail a probe."""
        for _ in range(breakers.OPENS_AFTER):
            self.everything_fails(account, "retry")
        self.pauses_end()
        self.everything_fails(account, "away")

    @rule(account=st.integers(0, 1))
    def the_account_answers_its_probe(self, account: int) -> None:
        breakers.close_account(self.conn, self.accounts_[account])
        self.breakers.pop(self.accounts_[account], None)

    @rule(target=dispatches, account=st.integers(0, 1), most=st.integers(1, 4))
    def dispatch(self, account: int, most: int) -> Any:
        return multiple(
            *self._claim(account, most, "live"), *self._claim(account, most, "backfill")
        )

    @rule(target=dispatches, one=dispatches)
    def expire_and_dispatch_again(self, one: Dispatch) -> Any:
        """Dispatch the same task again under another number, so that its first result is late."""
        self.lease_runs_out(one, started=False)
        account = self.accounts_.index(UUID(one.account_id))
        return multiple(*self._claim(account, 9, one.lane))

    def _claim(self, account: int, most: int, lane: str) -> list[Dispatch]:
        id = self.accounts_[account]
        if id in self.paused:
            return []
        breaker = self.breakers.get(id)
        if breaker is not None and breaker.is_open:
            if not self._probe_due(breaker):
                listed = dispatching.look(self.conn, DOMAIN, 9).accounts
                assert str(id) not in {each.account for each in listed}
                return []
            most = 1
        claimed = dispatching.claim(
            self.conn, LEADER, DOMAIN, [TaskPortion(str(id), lane, most)], 60.0
        )
        ready = [
            t
            for t in self.tasks.values()
            if (t.state, t.lane, self.runs[t.run].account) == ("ready", lane, id)
        ]
        assert len(claimed) == min(most, len(ready))
        for one in claimed:
            task = self.tasks[one.task_id]
            task.state, task.dispatch_no = "queued", task.dispatch_no + 1
            assert one.dispatch_no == task.dispatch_no
            assert one.probe == (breaker is not None and breaker.is_open)
            if one.probe:
                breaker.probe = one.task_id
        return claimed

    @rule(
        one=dispatches,
        new=st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=3),
        item=st.sampled_from([None, None, None, "x", "y", "z"]),
        seen=st.sets(st.sampled_from("xyz"), max_size=2),
        lists=st.booleans(),
    )
    def finish(
        self,
        one: Dispatch,
        new: list[tuple[str, bool]],
        item: str | None,
        seen: frozenset[str] = frozenset(),
        lists: bool = False,
    ) -> None:
        """Save output, follow-ups and a listing; the dispatch may finish again, and late."""
        rows = [TaskRow("t", {}, f"{ord(key):032x}", 0, bg) for key, bg in new]
        outcome = Outcome(
            one,
            outputs=[] if item is None else [_output(item, one.dispatch_seq)],
            tasks=rows,
            seen=sorted(seen),
            listed=[ListingRow(None, None, None)] if lists else [],
        )
        if self._save(outcome):
            task = self.tasks[one.task_id]
            task.state = "done"
            if not task.root:
                self.breakers.pop(self.runs[task.run].account, None)
            if item is not None:
                self._keep(self.runs[task.run], item, one.dispatch_seq)
            self.runs[task.run].seen |= seen
            self.runs[task.run].followups += len(new)
            if lists and task.compares:
                self._sweep(self.runs[task.run])
            lanes = {"backfill" if bg or task.lane == "backfill" else "live" for _, bg in new}
            account = self.runs[task.run].account
            for lane in lanes - {task.lane}:
                if self._open(account, lane) is None:
                    self._learn_run(account, lane)
            for run in [
                id for id, r in self.runs.items() if r.account == account and r.state == "running"
            ]:
                self._learn(run, None)
            self._come_to_carried(task, new)
        self._complete(one)

    def _come_to_carried(self, task: ModelTask, new: list[tuple[str, bool]]) -> None:
        """Come to carried tasks of the same keys: those that may have begun run again."""
        for name, bg in new if task.compares else ():
            lane, key = "backfill" if bg else task.lane, f"{ord(name):032x}"
            run = self._open(self.runs[task.run].account, lane)
            again = hashlib.md5(f"{key} again".encode()).hexdigest()
            for each in [t for t in self.tasks.values() if (t.run, t.key) == (run, key)]:
                if each.state == "ready":
                    each.listed = True
                elif each.state in ("queued", "done") and not each.compares:
                    assert any((t.run, t.key) == (run, again) for t in self.tasks.values())

    @rule(
        one=dispatches,
        kind=st.sampled_from(["retry", "snooze", "park", "defer", "crash", "away", "away"]),
    )
    def fail(self, one: Dispatch, kind: str) -> None:
        outcome = {
            "retry": Outcome(one, state="ready", attempt=1, error="e", failure=Failure("e")),
            "snooze": Outcome(one, state="ready", snooze=1, reason="r"),
            "park": Outcome(one, state="parked", attempt=1, reason="r", error="e"),
            "defer": Outcome(
                one, state="deferred", delay=60, attempt=1, error="e", failure=Failure("e")
            ),
            "away": Outcome(one, state="ready", reason="r", failed_probe=0.0),
            "crash": Outcome(one, state="ready", crash=1, suspect=True, error="e"),
        }[kind]
        if self._save(outcome):
            task = self.tasks[one.task_id]
            breaker = self._fail(one, kind)
            stays = breaker is not None and breaker.is_open and kind == "defer"
            task.state = (
                "ready" if stays else {"park": "parked", "defer": "deferred"}.get(kind, "ready")
            )
            task.suspect, task.failed = outcome.suspect, True
            task.attempts += outcome.attempt
            task.crashes += outcome.crash
            if breaker is not None and breaker.failed_probes:
                self._take_back(breaker)
        self._complete(one)

    def _fail(self, one: Dispatch, kind: str) -> ModelBreaker | None:
        """Count a failure that may pass, or a failed probe, on the account's breaker."""
        account = UUID(one.account_id)
        if kind not in ("retry", "defer", "away"):
            return None
        if kind == "away" and (account not in self.breakers or not self.breakers[account].is_open):
            return None
        breaker = self.breakers.setdefault(account, ModelBreaker())
        probed = breaker.is_open and (kind == "away" or breaker.probe == one.task_id)
        if kind != "away":
            breaker.failed.append(one.task_id)
            breaker.failures += 1
        if probed:
            breaker.failed_probes += 1
            breaker.pause_over, breaker.probe = False, None
        elif not breaker.is_open:
            breaker.is_open = breaker.failures >= breakers.OPENS_AFTER
            breaker.pause_over = False
        return breaker

    def _take_back(self, breaker: ModelBreaker) -> None:
        """Take back the attempts of an account that does not answer."""
        for id in breaker.failed:
            if self.tasks[id].state in OPEN:
                self.tasks[id].attempts = max(self.tasks[id].attempts - 1, 0)
        breaker.failed = []

    @rule(one=dispatches, started=st.booleans())
    def lease_runs_out(self, one: Dispatch, started: bool) -> None:
        task = self.tasks[one.task_id]
        current = task.state == "queued" and task.dispatch_no == one.dispatch_no
        if started and task.suspect:
            assert leases.start_suspect(self.conn, one.lease) == current
        self.conn.execute(PAST, (one.task_id, one.dispatch_no))
        expired = {e.task_id: e.state for e in leases.expire(self.conn)}
        assert expired.keys() == ({one.task_id} if current else set())
        if current:
            breaker = self.breakers.get(UUID(one.account_id), ModelBreaker())
            probed = breaker.is_open and breaker.probe == one.task_id
            convicted = task.suspect and started and not probed
            task.crashes += convicted
            task.state = "parked" if convicted and task.crashes >= MAX_CRASHES else "ready"
            task.suspect = task.failed = True
            assert expired[one.task_id] == task.state
            if probed:
                breaker.failed_probes += 1
                breaker.pause_over, breaker.probe = False, None
            if breaker.failed_probes:
                self._take_back(breaker)
        self._complete(one)

    @rule(one=dispatches)
    def release(self, one: Dispatch) -> None:
        leases.release(self.conn, [one.lease])
        task = self.tasks[one.task_id]
        if task.state == "queued" and task.dispatch_no == one.dispatch_no:
            task.state = "ready"

    @rule(one=dispatches)
    def renew(self, one: Dispatch) -> None:
        leases.renew(self.conn, [one.lease], 60.0)

    @rule(one=consumes(dispatches))
    def forget(self, one: Dispatch) -> None:
        """Expect no late result of this dispatch."""

    @rule(account=st.integers(0, 1))
    def pause_or_resume(self, account: int) -> None:
        id = self.accounts_[account]
        self.conn.execute(store.RESUME if id in self.paused else store.PAUSE, (id,))
        self.paused ^= {id}
        self.changed.add(id)

    @rule(account=st.integers(0, 1), lane=st.sampled_from(["live", "backfill"]))
    def cancel(self, account: int, lane: str) -> None:
        run = self._open(self.accounts_[account], lane)
        if run is None:
            return
        controls.cancel_run(self.conn, run)
        self.runs[run].state = "cancelled"
        for task in self.tasks.values():
            if task.run == run and task.state in OPEN:
                task.state = "cancelled"

    @rule(data=st.data())
    def retry_or_discard(self, data: st.DataObject) -> None:
        parked = sorted(
            id
            for id, task in self.tasks.items()
            if task.state in ("parked", "deferred") and not task.retried
        )
        if not parked:
            return
        id = data.draw(st.sampled_from(parked))
        task = self.tasks[id]
        if data.draw(st.booleans()):
            assert controls.discard(self.conn, [id]) == [id]
            task.state = "done"
            return
        account = self.runs[task.run].account
        controls.retry(self.conn, [id])
        task.retried = True
        run = self._open(account, task.lane) or self._learn_run(account, task.lane)
        self._learn(run, None)
        with pytest.raises(InvalidInput):
            controls.retry(self.conn, [id])

    # The model's own bookkeeping
    # --------------------------------------------------------------------------------------

    def _keep(self, run: ModelRun, id: str, seq: int) -> None:
        """Keep an item. One that a later dispatch has written stays, and counts as seen."""
        before = self.content.get((run.account, id))
        if before is None or before.seq < seq:
            self.content[run.account, id] = ModelItem(seq, self.steps)
            run.changes += 1
        else:
            run.seen.add(id)

    def _sweep(self, run: ModelRun) -> None:
        """Delete the items that the run has not seen, and that were written before it began."""
        for (account, id), item in self.content.items():
            if (
                account == run.account
                and not item.deleted
                and item.seq <= run.start_seq
                and item.changed < run.began
                and id not in run.seen
            ):
                item.seq, item.changed, item.deleted = run.start_seq, self.steps, True
                run.changes += 1

    def _save(self, outcome: Outcome) -> bool:
        self.steps += 1
        one = outcome.dispatch
        task = self.tasks[one.task_id]
        current = task.state == "queued" and task.dispatch_no == one.dispatch_no
        applied = commit_outcomes(self.conn, [outcome], guard=OFF).applied
        assert bool(applied) == current, (
            "the fence accepts a dispatch exactly if it is the current one"
        )
        return current

    def _complete(self, one: Dispatch) -> None:
        run = UUID(one.run_id)
        ended = [row["id"] for row in end_runs(self.conn, [one.run_id])]
        open_ = any(task.run == run and task.state in OPEN for task in self.tasks.values())
        assert ended == ([run] if self.runs[run].state == "running" and not open_ else [])
        if ended:
            assert run not in self.ended
            self.ended.append(run)
            self.runs[run].state = "ended"
            if self.runs[run].lane == "live":
                self.changed.discard(self.runs[run].account)
            kept = self.conn.execute("SELECT FROM sync_run WHERE id = %s", (run,)).fetchone()
            self._fold(run, gone=kept is None)

    def _fold(self, id: UUID, *, gone: bool) -> None:
        """Compare whether the rows of an ended run are gone with the model's own judgement.

        A task that failed before it was done may leave a remark, so that the run is kept.
        """
        run, tasks = self.runs[id], [task for task in self.tasks.values() if task.run == id]
        plain = run.polls and not run.changes and all(
            task.state == "done" and not task.retried and not task.carried for task in tasks
        )  # fmt: skip
        may_vanish = plain and run.followups >= len(tasks) - 1
        must_vanish = (
            plain and run.followups == len(tasks) - 1 and not any(task.failed for task in tasks)
        )
        assert must_vanish <= gone <= may_vanish
        run.folded = gone

    def _open(self, account: UUID, lane: str) -> UUID | None:
        return next(
            (
                id
                for id, run in self.runs.items()
                if (run.account, run.lane, run.state) == (account, lane, "running")
            ),
            None,
        )

    def _learn_run(self, account: UUID, lane: str) -> UUID:
        row = self.conn.execute(
            """
            SELECT id FROM sync_run WHERE user_integration_id = %s AND lane = %s
                AND state = 'running'
            """,
            (account, lane),
        ).fetchone()
        assert row is not None, f"a {lane} run should have been opened"
        self._add_run(row[0], account, lane)
        return row[0]

    def _add_run(self, run: UUID, account: UUID, lane: str) -> None:
        row = self.conn.execute("SELECT start_seq FROM sync_run WHERE id = %s", (run,)).fetchone()
        assert row is not None
        self.runs[run] = ModelRun(account, lane, row[0], self.steps)

    def _learn(self, run: UUID, _: set[str] | None) -> None:
        """Add the new rows of a run to the model: they are ready, and each key is unique."""
        rows = self.conn.execute(
            "SELECT id, dedup_key, lane, state, type, carried FROM sync_task WHERE run_id = %s",
            (run,),
        )
        for id, key, lane, state, type, carried in rows.fetchall():
            if id not in self.tasks:
                assert state == "ready"
                assert lane == self.runs[run].lane
                assert not any(t.run == run and t.key == key.hex() for t in self.tasks.values()), (
                    "a key runs once in a run"
                )
                self.tasks[id] = ModelTask(
                    run, key.hex(), lane, root=type == START, carried=carried
                )

    # Invariants
    # ----------------------------------------------------------------------------------------------

    @invariant()
    def tasks_agree(self) -> None:
        rows = self.conn.execute("""
            SELECT id, state, dispatch_no, attempts, crashes, retried_as IS NOT NULL, carried
            FROM sync_task
            """)
        found = {row[0]: row[1:] for row in rows}
        model = {
            id: (t.state, t.dispatch_no, t.attempts, t.crashes, t.retried, not t.compares)
            for id, t in self.tasks.items()
            if not self.runs[t.run].folded
        }
        assert found == model

    @invariant()
    def breakers_agree(self) -> None:
        found = {
            account: (failures, is_open, failed_probes)
            for account, failures, is_open, failed_probes in self.conn.execute("""
            SELECT user_integration_id, failures, opened_at IS NOT NULL, failed_probes FROM breaker
            """)
        }
        assert found == {
            account: (breaker.failures, breaker.is_open, breaker.failed_probes)
            for account, breaker in self.breakers.items()
        }

    @invariant()
    def runs_agree(self) -> None:
        found = {
            id: state == "running"
            for id, state in self.conn.execute("SELECT id, state FROM sync_run")
        }
        assert found == {
            id: run.state == "running" for id, run in self.runs.items() if not run.folded
        }
        for task in self.tasks.values():
            assert task.state not in OPEN or self.runs[task.run].state == "running", (
                "an ended run has no open task"
            )

    @invariant()
    def changes_of_state_are_allowed(self) -> None:
        assert not forbidden(noted(self.conn))

    @invariant()
    def content_agrees(self) -> None:
        rows = self.conn.execute(
            "SELECT user_integration_id, external_id, content_seq, deleted_at IS NOT NULL,"
            " content_text FROM user_integration_content"
        ).fetchall()
        found = {(account, id): (seq, deleted) for account, id, seq, deleted, _ in rows}
        assert found == {at: (item.seq, item.deleted) for at, item in self.content.items()}
        assert all(int(text) == seq for *_, seq, deleted, text in rows if not deleted)


def _output(id: str, seq: int) -> OutputRow:
    return OutputRow(Operation.KEEP, id, text=str(seq), size=1, hash=str(seq), digest=f"{seq:032x}")


@pytest.fixture
def machine(database_url: str) -> Iterator[type[Ledger]]:
    with open_connection(database_url) as conn:
        watch(conn)
    Ledger.database_url = database_url
    yield Ledger
    Ledger.database_url = ""


def test_the_ledger_agrees_with_the_model(machine: type[Ledger]) -> None:
    case = machine.TestCase
    case.settings = settings(
        max_examples=60,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()
