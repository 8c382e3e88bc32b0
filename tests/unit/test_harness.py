"""The harness follows the engine's rules for content, deletions and exceptions."""

from __future__ import annotations

import math
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, JsonValue

from core import (
    AccountIdentity,
    BaseIntegration,
    Concurrency,
    ConfigurationError,
    Context,
    CredentialsInvalid,
    CursorExpired,
    Limit,
    Listing,
    Manifest,
    NoFields,
    PermanentError,
    Rate,
    RateLimited,
    SkipItem,
    Task,
    TaskOutput,
    TaskResult,
    TransientError,
    task,
)
from core.errors import ServerUnavailable
from core.testing import Faults, Harness

Script = Callable[[Context, str], TaskResult]


class Token(BaseModel):
    token: str = "first"


class Counter(BaseModel):
    count: int = 0


class Scripted(BaseIntegration[NoFields, Token]):
    """Runs the script of a test; `root` is its first step."""

    manifest = Manifest(
        "scripted", "Scripted", limits=[Rate("quota", 1, 1), Concurrency("slots", 1)]
    )
    script: ClassVar[Script]
    opened: ClassVar[int] = 0

    def initialize(self) -> None:
        type(self).opened += 1

    def check(self) -> AccountIdentity:
        return AccountIdentity("scripted", "Scripted")

    def refresh(self) -> Token:
        return Token(token="second")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[step("root")])

    @task
    def step(self, ctx: Context, name: str) -> TaskResult:
        return type(self).script(ctx, name)

    @task(cost={"quota": 1, "slots": 0})
    def costly(self, ctx: Context, name: str) -> TaskResult:
        return type(self).script(ctx, name)


def step(name: str, **fields: Any) -> Task:
    return replace(Task("step", {"name": name}), **fields)


def scripted(script: Script, **options: Any) -> Harness:
    class Written(Scripted):
        pass

    Written.script = staticmethod(script)
    return Harness(Written, **options)


def always(result: TaskResult) -> Script:
    return lambda ctx, name: result


def keeps(*outputs: TaskOutput, **fields: Any) -> Script:
    return always(TaskResult(outputs, **fields))


def item(id: str, content: str = "text", **fields: Any) -> TaskOutput:
    return TaskOutput(id, content, **fields)


def in_turn(*results: TaskResult) -> Script:
    """Return a script with one result per run."""
    turns = iter(results)
    return lambda ctx, name: next(turns)


class TestOutput:
    def test_an_unchanged_item_is_not_saved_again(self) -> None:
        harness = scripted(keeps(item("a"), item("b")))
        assert harness.sync().outputs_saved == 2
        again = harness.sync()
        assert (again.outputs_saved, again.outputs_unchanged, again.state) == (0, 2, "succeeded")

    @pytest.mark.parametrize(
        "changed",
        [
            item("a", "other"),
            item("a", metadata={"x": 1}),
            item("a", fingerprint="2"),
            item("a", name="b"),
            item("a", parent="p"),
            TaskOutput("a", b"text", kind="file"),
        ],
    )
    def test_a_changed_item_is_saved_again(self, changed: TaskOutput) -> None:
        harness = scripted(in_turn(TaskResult([item("a")]), TaskResult([changed])))
        harness.sync()
        assert harness.sync().outputs_saved == 1

    def test_an_update_changes_only_the_metadata(self) -> None:
        update = TaskOutput.update("a", metadata={"y": 2}, fingerprint="2")
        unknown = TaskOutput.update("nobody", metadata={"y": 2})
        harness = scripted(
            in_turn(TaskResult([item("a", metadata={"x": 1})]), TaskResult([update, unknown]))
        )
        harness.sync()
        harness.sync()
        assert set(harness.content) == {"a"}
        assert harness.content["a"].metadata == {"x": 1, "y": 2}
        assert (harness.content["a"].text, harness.content["a"].fingerprint) == ("text", "2")

    def test_a_tombstone_covers_all_items_below_it(self) -> None:
        tree = [item("a"), item("b", parent="a"), item("c", parent="b"), item("d")]
        harness = scripted(
            in_turn(TaskResult(tree), TaskResult([TaskOutput.gone("a"), TaskOutput.gone("nobody")]))
        )
        harness.sync()
        assert harness.sync().outputs_deleted == 3
        assert (set(harness.content), harness.deleted) == ({"d"}, {"a", "b", "c"})

    def test_a_deleted_item_can_come_back(self) -> None:
        harness = scripted(
            in_turn(
                *[TaskResult([output]) for output in (item("a"), TaskOutput.gone("a"), item("a"))]
            )
        )
        for _ in range(3):
            harness.sync()
        assert set(harness.content) == {"a"}

    @pytest.mark.parametrize(
        "output",
        [
            TaskOutput(""),
            TaskOutput("x" * 2049),
            TaskOutput("\udcff"),
            TaskOutput("a\0"),
            TaskOutput("a", fingerprint="\udcff"),
            TaskOutput("a", metadata={"when": datetime.now(UTC)}),  # type: ignore[dict-item]
            TaskOutput("a", metadata={"x": float("nan")}),
            TaskOutput("a", timestamp=datetime(2026, 1, 1)),  # noqa: DTZ001  that is the point
            TaskOutput("a", 5),  # type: ignore[arg-type]
        ],
    )
    def test_an_output_that_cannot_be_kept_parks_its_task(self, output: TaskOutput) -> None:
        harness = scripted(keeps(item("good"), output))
        result = harness.sync()
        assert (result.state, result.tasks_parked, harness.content) == ("partial", 1, {})


class TestListings:
    LISTED = (Listing("place"),)

    def listed(self, *ids: str, **fields: Any) -> TaskResult:
        return TaskResult([item(key, parent="place") for key in ids], listed=self.LISTED, **fields)

    def test_an_item_missing_from_a_listing_is_deleted_with_all_below_it(self) -> None:
        harness = scripted(
            in_turn(
                TaskResult([item("below", parent="c")]), self.listed(*"abc"), self.listed(*"ab")
            )
        )
        for _ in range(2):
            harness.sync()
        assert harness.sync().outputs_deleted == 2
        assert set(harness.content) == {"a", "b"}

    def test_seen_and_updated_items_stay(self) -> None:
        update = TaskOutput.update("b", metadata={"x": 1})
        second = TaskResult([update], seen=["a"], listed=self.LISTED)
        harness = scripted(in_turn(self.listed(*"abc"), second))
        harness.sync()
        harness.sync()
        assert set(harness.content) == {"a", "b"}

    def test_the_guard_holds_a_large_deletion_until_it_is_allowed(self) -> None:
        script = in_turn(self.listed(*"abc"), self.listed("a"), self.listed("a"))
        harness = scripted(script, min_guarded_items=2)
        harness.sync()
        held = harness.sync()
        assert (held.outputs_deleted, held.held) == (0, [Listing("place")])
        assert held.deletions_held == 2
        harness.accept_deletions()
        assert harness.sync().outputs_deleted == 2

    def test_the_guard_does_fewer_deletions_than_the_floor(self) -> None:
        harness = scripted(in_turn(self.listed(*"abc"), self.listed("a")), min_guarded_items=3)
        harness.sync()
        assert harness.sync().outputs_deleted == 2

    def test_the_guard_holds_the_last_items_unless_others_are_seen(self) -> None:
        new = TaskResult(seen=["b"], listed=self.LISTED)
        harness = scripted(in_turn(self.listed("a"), self.listed(), new))
        harness.sync()
        assert (harness.sync().deletions_held, set(harness.content)) == (1, {"a"})
        assert harness.sync().outputs_deleted == 1

    def test_the_guard_counts_descendants(self) -> None:
        below = [item(f"a/{number}", parent="a") for number in range(25)]
        first = TaskResult([*self.listed(*"abcd").output, *below])
        harness = scripted(in_turn(first, self.listed(*"bcd")))
        harness.sync()
        assert harness.sync().deletions_held == 26

    def test_single_deletions_of_a_run_count_together(self) -> None:
        ids = [str(number) for number in range(40)]

        def script(ctx: Context, name: str) -> TaskResult:
            if name != "root":
                return TaskResult([TaskOutput.gone(name)])
            if not ctx.fingerprints(ids):
                return TaskResult([item(id) for id in ids])
            return TaskResult(tasks=[step(id) for id in ids[:25]])

        harness = scripted(script)
        harness.sync()
        result = harness.sync()
        assert (result.outputs_deleted, result.deletions_held) == (20, 5)

    def test_a_listing_of_a_time_window_deletes_nothing_outside_it(self) -> None:
        days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
        items = [item(str(day.day), timestamp=day) for day in days]
        window = Listing(since=days[1], until=days[2])
        harness = scripted(
            in_turn(TaskResult([*items, item("timeless")]), TaskResult(listed=[window])),
            max_deleted_share=1,
        )
        harness.sync()
        harness.sync()
        assert harness.deleted == {"2"}

    def test_a_listing_without_a_parent_covers_items_without_a_parent(self) -> None:
        first = TaskResult(
            [
                item("a"),
                item("below", parent="a"),
                item("b"),
                item("c"),
                item("elsewhere", parent="x"),
            ]
        )
        harness = scripted(in_turn(first, TaskResult(seen=["b", "c"], listed=[Listing()])))
        harness.sync()
        harness.sync()
        assert harness.deleted == {"a", "below"}

    @pytest.mark.parametrize("seed", range(12))
    def test_an_item_that_a_download_returns_stays_in_any_order(self, seed: int) -> None:
        """The root lists x only by the task that downloads it."""
        order: list[str] = []

        def script(ctx: Context, name: str) -> TaskResult:
            order.append(name)
            match name:
                case "first":
                    return TaskResult([item(id, "old") for id in "xyz"])
                case "root":
                    first = not ctx.fingerprints("xyz")
                    tasks = [step("first")] if first else [step("page"), step("download")]
                    return TaskResult(tasks=tasks, seen=[] if first else ["y"])
                case "page":
                    return TaskResult(seen=["z"], listed=[Listing()])
                case _:
                    return TaskResult([item("x", "new")])

        faults = Faults(seed, overlap=0.5, reorder=True)
        harness = scripted(script, max_deleted_share=1, faults=faults)
        harness.sync()
        harness.sync()
        assert {id: item.text for id, item in harness.content.items()} == {
            "x": "new", "y": "old", "z": "old"
        }  # fmt: skip

    def test_a_failed_listing_deletes_nothing(self) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            if name == "root":
                return TaskResult(tasks=[step("page")])
            if ctx.fingerprints(["a"]):
                raise PermanentError("no")
            return self.listed("a")

        harness = scripted(script, max_deleted_share=1)
        harness.sync()
        assert harness.sync().state == "partial"
        assert set(harness.content) == {"a"}


class TestTasks:
    def test_one_key_runs_once_in_a_run(self) -> None:
        names: list[str] = []

        def script(ctx: Context, name: str) -> TaskResult:
            names.append(name)
            twins = [
                step("twin"),
                step("twin"),
                step("one", key="k"),
                step("other", key="k"),
                step("root"),
            ]
            return TaskResult(tasks=twins if name == "root" else [])

        harness = scripted(script)
        for _ in range(2):
            names.clear()
            assert harness.sync().tasks_done == 4
            assert names == ["root", "twin", "one"]

    def test_high_priority_first_and_backfill_last_in_a_run_of_its_own(self) -> None:
        seen: list[tuple[str, str]] = []

        def script(ctx: Context, name: str) -> TaskResult:
            seen.append((name, ctx.run.lane))
            tasks = {
                "root": [step("old", background=True), step("low"), step("high", priority=5)],
                "old": [step("older"), step("low")],
            }
            return TaskResult(tasks=tasks.get(name, []))

        result = scripted(script).sync()
        assert seen == [("root", "live"), ("high", "live"), ("low", "live")] + [
            (name, "backfill") for name in ("old", "older", "low")
        ]
        assert [run.lane for run in result.runs] == ["live", "backfill"]

    def test_a_delayed_task_runs_in_its_run_after_virtual_time(self) -> None:
        seen: list[str] = []

        def script(ctx: Context, name: str) -> TaskResult:
            seen.append(name)
            delayed = replace(step("late"), delay=150.0)
            return TaskResult(tasks=[delayed, step("soon")] if name == "root" else [])

        harness = scripted(script)
        result = harness.sync()
        assert seen == ["root", "soon", "late"]
        assert (len(result.runs), harness.clock) == (1, 150.0)

    def test_an_endless_tree_is_stopped_at_the_bound(self) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            return TaskResult(tasks=[step(name + "!")])

        result = scripted(script, max_tasks=20).sync()
        assert (result.state, result.tasks_done, result.tasks_parked) == ("partial", 20, 1)

    @pytest.mark.parametrize(
        "payload", [{"name": object()}, {"name": "x" * 70_000}, {"nam": "x"}, {"name": ["x"]}]
    )
    def test_invalid_payloads_are_parked(self, payload: Any) -> None:
        harness = scripted(
            lambda ctx, name: TaskResult(tasks=[Task("step", payload)] if name == "root" else [])
        )
        assert harness.sync().tasks_parked == 1

    def test_an_unknown_task_and_a_wrong_result_are_parked(self) -> None:
        assert scripted(always(TaskResult(tasks=[Task("nothing")]))).sync().tasks_parked == 1
        assert scripted(always(None)).sync().tasks_parked == 1  # type: ignore[arg-type]


class TestState:
    def test_the_state_is_json_between_runs(self) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            counter = ctx.state("runs", Counter) or Counter()
            return TaskResult(state={"runs": Counter(count=counter.count + 1)})

        harness = scripted(script)
        harness.sync()
        harness.sync()
        assert harness.state == {"runs": {"count": 2}}

    @pytest.mark.parametrize("seed", range(5))
    def test_a_write_after_a_read_is_compare_and_set(self, seed: int) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            if name == "root":
                return TaskResult(tasks=[step(str(number)) for number in range(20)])
            counter = ctx.state("tasks", Counter) or Counter()
            return TaskResult([item(name)], state={"tasks": Counter(count=counter.count + 1)})

        harness = scripted(script, faults=Faults.storm(seed))
        assert harness.sync().state == "succeeded"
        assert (harness.state, len(harness.content)) == ({"tasks": {"count": 20}}, 20)

    def test_none_removes_a_partition(self) -> None:
        harness = scripted(
            in_turn(TaskResult(state={"p": Counter()}), TaskResult(state={"p": None}))
        )
        harness.sync()
        harness.sync()
        assert harness.state == {}

    def test_a_state_that_no_longer_validates_causes_a_resync(self) -> None:
        triggers: list[str] = []

        def script(ctx: Context, name: str) -> TaskResult:
            triggers.append(ctx.run.trigger)
            ctx.state("p", Counter)
            return TaskResult(state={"p": Counter(count=1)})

        harness = scripted(script)
        stale: JsonValue = {"count": "many"}
        harness.state["p"] = stale
        result = harness.sync()
        assert (triggers, result.state, harness.state) == (
            ["manual", "resync"],
            "succeeded",
            {"p": {"count": 1}},
        )


def failing(error: Exception, times: int) -> tuple[Script, list[int]]:
    attempts: list[int] = []

    def script(ctx: Context, name: str) -> TaskResult:
        attempts.append(ctx.task.attempt)
        if len(attempts) <= times:
            raise error
        return TaskResult([item("a")])

    return script, attempts


class TestExceptions:
    @pytest.mark.parametrize("error", [TransientError("x"), KeyError("x")])
    def test_transient_and_unknown_errors_are_tried_three_times(self, error: Exception) -> None:
        script, attempts = failing(error, 2)
        harness = scripted(script)
        assert (harness.sync().state, attempts) == ("succeeded", [1, 2, 3])
        assert harness.clock > 0

    def test_an_unknown_error_parks_after_three_attempts(self) -> None:
        script, attempts = failing(ValueError("x"), 3)
        result = scripted(script).sync()
        assert (result.state, attempts, result.parked[0].attempts) == ("partial", [1, 2, 3], 3)

    def test_a_failure_that_may_pass_is_deferred_to_the_next_sync(self) -> None:
        script, attempts = failing(TransientError("x"), 4)
        harness = scripted(script)
        result = harness.sync()
        assert (result.state, attempts, result.parked) == ("partial", [1, 2, 3], [])
        assert [(each.task.payload, each.seconds) for each in result.deferred] == [
            ({"name": "root"}, 60)
        ]
        again = harness.sync()
        assert (again.state, attempts, again.deferred) == ("succeeded", [1, 2, 3, 1, 2], [])
        assert "a" in harness.content

    def test_a_continued_task_begins_without_snoozes(self) -> None:
        limited, down = RateLimited(), TransientError("x")
        errors = iter([limited, limited, down, down, down, limited, None])
        moments: list[float] = []

        def script(ctx: Context, name: str) -> TaskResult:
            moments.append(harness.clock)
            error = next(errors)
            if error is not None:
                raise error
            return TaskResult([item("a")])

        harness = scripted(script)
        assert (harness.sync().state, len(moments)) == ("partial", 5)
        assert (harness.sync().state, len(moments)) == ("succeeded", 7)
        first, second, again = (moments[at + 1] - moments[at] for at in (0, 1, 5))
        assert second > first == again

    def test_a_continued_task_remembers_how_often_it_was_deferred(self) -> None:
        script, _ = failing(TransientError("x"), 9)
        harness = scripted(script)
        pauses = [harness.sync().deferred[0].seconds for _ in range(3)]
        assert pauses == sorted(set(pauses))

    def test_a_deferred_task_is_continued_in_the_run_of_a_stopped_sync(self) -> None:
        errors = iter([*[TransientError("x")] * 3, CredentialsInvalid("x"), None, None])

        def script(ctx: Context, name: str) -> TaskResult:
            if name == "root":
                return TaskResult(tasks=[step("page"), step("an hour later", delay=3_600)])
            error = next(errors)
            if error is not None:
                raise error
            return TaskResult([item(name)])

        harness = scripted(script)
        stopped = harness.sync()
        assert (len(stopped.deferred), stopped.state) == (1, "failed")
        assert harness.sync().state == "succeeded"
        assert set(harness.content) == {"page", "an hour later"}

    @pytest.mark.parametrize(
        ("tasks", "pages", "kept"),
        [
            ([], 1, {"a", "b"}),
            ([step("page", key="page", priority=-1)], 1, {"a"}),
            ([step("before", priority=-2)], 2, {"a"}),
            ([step("another page", key="page")], 2, {"a"}),
        ],
        ids=["never", "while it waits", "after it has run", "under another payload"],
    )
    def test_a_page_that_a_run_took_over_compares_if_the_run_lists_it(
        self, tasks: list[Task], pages: int, kept: set[str]
    ) -> None:
        page, read = step("page", key="page", priority=-1), list[str]()
        roots = iter([[], [page], tasks])

        def script(ctx: Context, name: str) -> TaskResult:
            if name == "root":
                return TaskResult([] if harness.content else [item("a"), item("b")], next(roots))
            if name == "before":
                return TaskResult(tasks=[page])
            read.append(name)
            if len(read) <= 3:
                raise TransientError("x")
            return TaskResult(seen=["a"], listed=[Listing()])

        harness = scripted(script)
        assert [harness.sync().state for _ in range(3)] == ["succeeded", "partial", "succeeded"]
        assert (len(read), set(harness.content)) == (3 + pages, kept)

    def test_the_plugin_names_exceptions_that_may_pass(self) -> None:
        class DriverError(Exception):
            pass

        script, _ = failing(DriverError("x"), 3)
        harness = scripted(script)
        harness.integration.manifest = replace(harness.integration.manifest, passing=(DriverError,))
        harness = Harness(harness.integration)
        result = harness.sync()
        assert (result.state, len(result.deferred), result.parked) == ("partial", 1, [])

    def test_a_permanent_error_parks_immediately_and_its_siblings_continue(self) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            if name == "bad":
                raise PermanentError("x")
            return TaskResult([item(name)], [step("bad"), step("good")] if name == "root" else [])

        harness = scripted(script)
        result = harness.sync()
        assert (result.state, result.parked[0].attempts, set(harness.content)) == (
            "partial",
            1,
            {"root", "good"},
        )

    def test_a_rate_limit_waits_and_counts_no_attempt(self) -> None:
        script, attempts = failing(RateLimited("x", retry_after=100), 5)
        harness = scripted(script)
        assert (harness.sync().state, set(attempts), harness.clock) == ("succeeded", {1}, 500)

    @pytest.mark.parametrize(
        ("after", "seconds"),
        [(-5, 1), (1e12, 86_400), *((odd, 10) for odd in (math.nan, math.inf, "soon", None))],
    )
    def test_extreme_and_invalid_waits_are_clamped(self, after: Any, seconds: float) -> None:
        script, _ = failing(RateLimited("x", retry_after=after), 1)
        harness = scripted(script)
        harness.sync()
        assert harness.clock == seconds

    @pytest.mark.parametrize(
        ("limit", "order"), [(None, ["limited", "free"]), ("quota", ["free", "limited"])]
    )
    def test_only_tasks_of_the_named_limit_wait(self, limit: str | None, order: list[str]) -> None:
        done: list[str] = []
        refusals = [RateLimited("x", retry_after=9, limit=limit)]

        def script(ctx: Context, name: str) -> TaskResult:
            if name == "root":
                return TaskResult(
                    tasks=[Task("costly", {"name": "limited"}, priority=1), step("free")]
                )
            if name == "limited" and refusals:
                raise refusals.pop()
            done.append(name)
            return TaskResult()

        assert scripted(script).sync().state == "succeeded"
        assert sorted(done) == sorted(order)
        assert limit is None or done == order

    def test_refusals_for_weeks_park_nothing(self) -> None:
        script, _ = failing(RateLimited("x"), 10_000)
        harness = scripted(script)
        assert harness.sync().state == "succeeded"
        assert harness.clock > 30 * 86_400

    def test_a_skipped_item_is_done(self) -> None:
        script, _ = failing(SkipItem("nothing here"), 1)
        result = scripted(script).sync()
        assert (result.state, result.skipped, result.tasks_done) == (
            "succeeded",
            ["nothing here"],
            2,
        )

    @pytest.mark.parametrize("error", [CredentialsInvalid("x"), ConfigurationError("x")])
    def test_a_stopped_account_resumes_after_a_reconnect(self, error: Exception) -> None:
        script, attempts = failing(error, 1)
        harness = scripted(script)
        stopped = harness.sync()
        assert (stopped.state, stopped.error, harness.content) == ("failed", error, {})
        harness.reconnect({"token": "new"})
        assert (harness.sync().state, attempts, set(harness.content)) == (
            "succeeded",
            [1, 1],
            {"a"},
        )

    def test_a_task_that_waits_for_a_server_ends_with_an_error(self) -> None:
        script, _ = failing(ServerUnavailable("postgres-unavailable", detail="away"), 10_000)
        with pytest.raises(RuntimeError, match="does not have"):
            scripted(script).sync()

    @pytest.mark.parametrize("ending", [SystemExit(3), GeneratorExit(), CancelledError()])
    def test_an_exception_that_would_end_a_thread_counts_an_attempt(
        self, ending: BaseException
    ) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            raise ending

        result = scripted(script).sync()
        assert (result.state, result.parked[0].attempts) == ("partial", 3)
        assert type(ending).__name__ in str(result.parked[0].error)

    def test_ctrl_c_is_raised_unchanged(self) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scripted(script).sync()

    def test_a_cursor_that_expires_in_the_backfill_of_a_resync_is_parked(self) -> None:
        triggers: list[str] = []

        def script(ctx: Context, name: str) -> TaskResult:
            if name == "root":
                return TaskResult(tasks=[step("old", background=True)])
            triggers.append(ctx.run.trigger)
            raise CursorExpired("p")

        assert (scripted(script).sync().state, triggers) == ("partial", ["manual", "resync"])

    def test_an_expired_cursor_drops_its_partition_and_resyncs_once(self) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            if ctx.run.trigger == "resync":
                return TaskResult([item("a")], state={"p": Counter(count=9)})
            raise CursorExpired("p")

        harness = scripted(script)
        harness.state["p"], harness.state["q"] = {"count": 1}, {"count": 1}
        assert harness.sync().state == "succeeded"
        assert harness.state == {"p": {"count": 9}, "q": {"count": 1}}

    def test_a_cursor_that_expires_again_in_the_resync_is_parked(self) -> None:
        script, attempts = failing(CursorExpired("p"), 10)
        assert (scripted(script).sync().state, len(attempts)) == ("partial", 2)

    def test_an_expired_cursor_fences_off_older_writers(self) -> None:
        """The writer is dispatched first and saved last."""

        def script(ctx: Context, name: str) -> TaskResult:
            if name == "root":
                return TaskResult(
                    tasks=[step("writer"), step("expires")] if ctx.run.trigger != "resync" else []
                )
            if name == "expires":
                raise CursorExpired("p")
            return TaskResult(state={"p": Counter(count=1)})

        harness = scripted(script, faults=Faults(overlap=1))
        assert (harness.sync().state, harness.state) == ("succeeded", {})

    def test_an_error_in_a_generator_is_an_error_of_its_task(self) -> None:
        def outputs() -> Any:
            yield item("a")
            raise PermanentError("in the middle")

        harness = scripted(lambda ctx, name: TaskResult(outputs()))
        assert (harness.sync().tasks_parked, harness.content) == (1, {})

    def test_an_error_in_start_fails_the_run(self) -> None:
        class Broken(Scripted):
            def start(self, ctx: Context) -> TaskResult:
                raise PermanentError("x")

        assert Harness(Broken).sync().state == "failed"


class TestContext:
    def test_fingerprints_of_kept_items_are_available(self) -> None:
        harness = scripted(keeps(item("a", fingerprint="1"), item("b")))
        harness.sync()
        assert harness.context().fingerprints(["a", "b", "c"]) == {"a": "1", "b": None}

    def test_a_blob_is_resumed_on_the_next_attempt_until_it_is_kept(self) -> None:
        told: list[int] = []

        def script(ctx: Context, name: str) -> TaskResult:
            with ctx.blob("key") as blob:
                told.append(blob.tell())
                blob.write(b"half")
                if ctx.task.attempt == 1:
                    raise TransientError("cut")
            return TaskResult([TaskOutput("a", blob.blob)])

        harness = scripted(script)
        harness.sync()
        assert (told, harness.content["a"].content) == ([0, 4], b"halfhalf")
        harness.sync()
        assert told == [0, 4, 0, 4]

    def test_a_large_blob_is_not_part_of_the_result(self) -> None:
        """100 of these blobs, of a megabyte each, exceed the bytes that a result may have."""

        def script(ctx: Context, name: str) -> TaskResult:
            outputs = []
            for number in range(100):
                with ctx.blob() as blob:
                    blob.write(b"x" * 1_100_000)
                outputs.append(TaskOutput(str(number), blob.blob))
            return TaskResult(outputs)

        harness = scripted(script)
        assert harness.sync().state == "succeeded"
        assert harness.content["7"].size == 1_100_000

    def test_a_charge_has_to_name_a_rate_limit(self) -> None:
        harness = scripted(always(TaskResult()))
        context = harness.context()
        context.charge("quota", 3)
        assert harness.charged == {"quota": 3}
        for wrong in ("typo", "slots"):
            with pytest.raises(PermanentError, match="no rate limit"):
                context.charge(wrong)

    def test_refreshed_credentials_are_kept_for_later_runs(self) -> None:
        def script(ctx: Context, name: str) -> TaskResult:
            ctx.refresh_credentials()
            return TaskResult()

        harness = scripted(script)
        harness.sync()
        assert harness.credentials == Token(token="second")

    def test_a_context_reports_that_the_worker_stops(self) -> None:
        harness = scripted(always(TaskResult()))
        assert not harness.context().stopping
        harness.stopping = True
        assert harness.context().stopping

    def test_an_instance_is_closed_after_a_failure(self) -> None:
        script, _ = failing(TransientError("x"), 1)
        harness = scripted(script)
        harness.sync()
        assert harness.integration.opened == 2  # type: ignore[attr-defined]


class TestFaults:
    def tree(self, ran: list[str]) -> Script:
        def script(ctx: Context, name: str) -> TaskResult:
            ran.append(name)
            below = [step(f"{name}{number}") for number in range(3)] if len(name) < 7 else []
            return TaskResult([item(name)], below)

        return script

    @pytest.mark.parametrize(
        ("faults", "strikes"),
        [
            (Faults(1, kill=0.3), lambda ran: len(ran) > len(set(ran))),
            (Faults(1, twice=0.3), lambda ran: len(ran) > len(set(ran))),
            (Faults(1, reorder=True), lambda ran: ran != sorted(ran, key=len)),
            (Faults(1, overlap=0.5), lambda ran: True),
            (Faults(1, transient=1, rate_limited=1), lambda ran: True),
            (Faults.storm(1), lambda ran: len(ran) > len(set(ran))),
        ],
    )
    def test_injected_faults_change_no_result(
        self, faults: Faults, strikes: Callable[[Sequence[str]], bool]
    ) -> None:
        ran: list[str] = []
        calm = scripted(self.tree([]))
        calm.sync()
        shaken = scripted(self.tree(ran), faults=faults)
        result = shaken.sync()
        assert (result.state, result.tasks_done) == ("succeeded", len(calm.content) + 1)
        assert shaken.content == calm.content
        assert strikes(ran)

    def test_the_same_seed_injects_the_same_faults(self) -> None:
        first: list[str] = []
        second: list[str] = []
        for ran in (first, second):
            scripted(self.tree(ran), faults=Faults.storm(5)).sync()
        assert first == second

    def test_a_transient_error_is_injected_once_per_task(self) -> None:
        result = scripted(always(TaskResult()), faults=Faults(transient=1)).sync()
        assert [str(error) for error in result.failures] == ["injected fault: transient"] * 2

    def test_a_late_result_does_not_restore_a_deleted_item(self) -> None:
        """The download is dispatched first and saved last."""

        def script(ctx: Context, name: str) -> TaskResult:
            outputs = {"download": [item("a")], "delete": [TaskOutput.gone("a")]}
            return TaskResult(
                outputs.get(name, []), [step("download"), step("delete")] if name == "root" else []
            )

        assert set(scripted(script, faults=Faults(overlap=1)).sync().outputs) >= {"ignored"}


def test_the_harness_uses_the_limits_of_the_config() -> None:
    class Configured(Scripted):
        @classmethod
        def limits(cls, config: NoFields) -> Sequence[Limit]:
            return [Rate("mine", 3, 1)]

    harness = Harness(Configured)
    harness.context().charge("mine")
    assert harness.charged == {"mine": 1}
