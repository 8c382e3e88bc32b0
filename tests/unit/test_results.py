"""From the result of a plugin to rows: it is kept completely, or refused with a reason."""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from core import Listing, Skipped, Task, TaskOutput, TaskResult
from core.errors import ResultInvalid
from core.integration.results import MAX_ID_BYTES, MAX_INLINE_BYTES
from core.ledger.outcomes import Dispatch, Outcome, result_outcome
from core.results import result as bounds
from core.results.outputs import output_row
from core.results.result import MAX_PAYLOAD_BYTES, MAX_TASKS, dedup_key
from core.results.rows import OutputRow, TaskRow
from core.results.text import is_storable
from core.states import Operation


class Store:
    """A blob store in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        key = hashlib.sha256(data).hexdigest()
        self.kept[key] = data
        return key


@pytest.fixture
def store() -> Store:
    return Store()


Come = Callable[..., Outcome]


@pytest.fixture
def outcome_of(dispatch: Callable[..., Dispatch], shop: Any, store: Store) -> Come:
    """Return `outcome_of(output=[…])`, which makes the outcome of a task with this result."""
    return lambda read={}, **result: result_outcome(
        dispatch(), TaskResult(**result), shop, store, read
    )


def row(store: Store, *args: Any, **kwargs: Any) -> OutputRow:
    return output_row(TaskOutput(*args, **kwargs), store)[0]


def task_row(task: Task, shop: Any) -> TaskRow:
    return bounds.task_row(task, shop)[0]


# Content
# --------------------------------------------------------------------------------------------------


@given(content=st.text() | st.binary() | st.text(st.sampled_from("a\0\ud800\U0001f600")))
def test_content_is_kept_exactly_as_text_or_as_bytes(content: str | bytes) -> None:
    kept = row(Store(), "a", content)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    if kept.text is not None:
        assert kept.text == content
        assert is_storable(kept.text)
    else:
        assert base64.b64decode(kept.bytes or "") == data
        assert isinstance(content, bytes) or not is_storable(content)
    assert (kept.size, kept.hash) == (len(data), hashlib.sha256(data).hexdigest())


def test_fifty_megabytes_of_text_go_to_the_blob_store(store: Store) -> None:
    text = "é" * 25_000_000
    kept = row(store, "a", text)
    assert (kept.text, kept.bytes, kept.size) == (None, None, 50_000_000)
    assert store.kept[kept.blob or ""] == text.encode()


def test_the_largest_inline_content_is_inline(store: Store) -> None:
    assert row(store, "a", b"x" * MAX_INLINE_BYTES).blob is None
    assert row(store, "a", b"x" * (MAX_INLINE_BYTES + 1)).bytes is None
    assert len(store.kept) == 1


@pytest.mark.parametrize("content", [1, ["a"], {"a": 1}, object(), Ellipsis])
def test_content_of_another_kind_is_refused(store: Store, content: Any) -> None:
    with pytest.raises(ResultInvalid, match="use a string, bytes, or a blob"):
        row(store, "a", content)


# Ids and the other columns
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id", ["", "a\0", "\ud800", "x" * 10_240, "é" * (MAX_ID_BYTES // 2 + 1), 5, None, b"a"]
)
def test_an_id_that_an_index_cannot_store_is_refused(store: Store, id: Any) -> None:
    for refused in (
        lambda: row(store, id),
        lambda: row(store, "a", parent=id),
        lambda: output_row(TaskOutput.gone(id), store),
    ):
        if id is not None or refused.__code__.co_consts[-1] != ("parent",):
            with pytest.raises(ResultInvalid):
                refused() if id is not None else row(store, id)


def test_the_longest_id_is_kept(store: Store) -> None:
    assert row(store, "x" * MAX_ID_BYTES).id == "x" * MAX_ID_BYTES


def test_names_that_cannot_be_stored_are_sanitized(store: Store) -> None:
    kept = row(store, "a", name="a\0b", kind="k\ud800", content_type="t\0")
    assert (kept.name, kept.kind, kept.type) == ("a\ufffdb", "k\ufffd", "t\ufffd")


@pytest.mark.parametrize(
    "moment",
    [datetime(2026, 1, 1), "2026-01-01", 1_700_000_000],  # noqa: DTZ001
)
def test_a_timestamp_without_a_zone_is_refused(store: Store, moment: Any) -> None:
    with pytest.raises(ResultInvalid, match="time zone"):
        row(store, "a", timestamp=moment)


def test_a_timestamp_keeps_its_moment(store: Store) -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert datetime.fromisoformat(row(store, "a", timestamp=moment).ts or "") == moment


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, object(), {1, 2}, b"x"])
def test_metadata_that_is_not_json_is_refused(store: Store, value: Any) -> None:
    for nested in (value, [value], {"b": {"c": value}}):
        with pytest.raises(ResultInvalid, match="not valid JSON"):
            row(store, "a", metadata={"m": nested})
        with pytest.raises(ResultInvalid, match="not valid JSON"):
            output_row(TaskOutput.update("a", metadata={"m": nested}), store)


def test_metadata_is_bounded_and_sanitized(store: Store) -> None:
    assert row(store, "a", metadata={"k\0": ["\ud800", {"x": "\0"}]}).metadata == {
        "k\ufffd": ["\ufffd", {"x": "\ufffd"}]
    }
    with pytest.raises(ResultInvalid, match="larger than"):
        row(store, "a", metadata={"m": "x" * MAX_INLINE_BYTES})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(metadata=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_digest_does_not_depend_on_the_order_of_keys(
    metadata: dict[str, Any],
) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    assert (
        row(Store(), "a", metadata=metadata).digest
        == row(Store(), "a", metadata=turned(metadata)).digest
    )


@pytest.mark.parametrize(
    "change",
    [
        {"content": "other"},
        {"kind": "k"},
        {"parent": "p"},
        {"name": "n"},
        {"timestamp": datetime(2026, 1, 1, tzinfo=UTC)},
        {"content_type": "t"},
        {"metadata": {"a": 1}},
        {"fingerprint": "f"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_change_changes_the_digest(store: Store, change: dict[str, Any]) -> None:
    assert row(store, "a", **{"content": "text"} | change).digest != row(store, "a", "text").digest


@pytest.mark.parametrize("code", [0, 201, 404, None, "200"])
def test_an_unknown_code_is_refused(store: Store, code: Any) -> None:
    with pytest.raises(ResultInvalid, match="use 200, 206 or 410"):
        row(store, "a", code=code)


# Complete results


def test_the_last_output_about_an_id_in_a_result_wins(outcome_of: Come) -> None:
    outcome = outcome_of(
        output=[TaskOutput("a", "first"), TaskOutput("b"), TaskOutput("a", "second")]
    )
    assert [(row.id, row.text) for row in outcome.outputs] == [("b", None), ("a", "second")]
    outcome = outcome_of(output=[TaskOutput.gone("a"), TaskOutput("a", "back")])
    assert [(row.operation, row.text) for row in outcome.outputs] == [(Operation.KEEP, "back")]
    outcome = outcome_of(output=[TaskOutput("a", "text"), TaskOutput.gone("a")])
    assert [row.operation for row in outcome.outputs] == [Operation.TOMBSTONE]


def test_an_update_is_merged_into_the_item_of_the_same_result(outcome_of: Come) -> None:
    update = TaskOutput.update("a", metadata={"y": 2}, fingerprint="f2")
    whole = TaskOutput("a", "text", metadata={"x": 1, "y": 1}, fingerprint="f1")
    (row,) = outcome_of(output=[whole, update]).outputs
    (same,) = outcome_of(
        output=[TaskOutput("a", "text", metadata={"x": 1, "y": 2}, fingerprint="f2")]
    ).outputs
    assert row == same
    (row,) = outcome_of(output=[update, TaskOutput.update("a", metadata={"x": 1})]).outputs
    assert (row.operation, row.metadata, row.fingerprint) == (
        Operation.UPDATE,
        {"x": 1, "y": 2},
        "f2",
    )
    (row,) = outcome_of(output=[TaskOutput.gone("a"), update]).outputs
    assert row.operation is Operation.TOMBSTONE


def test_later_changes_to_yielded_objects_have_no_effect(outcome_of: Come) -> None:
    def tasks() -> Iterator[Task]:
        payload: dict[str, Any] = {"number": 0, "of": []}
        for number in range(3):
            payload["number"] = number
            payload["of"].append(number)
            yield Task("step", payload)
        payload.clear()

    def output() -> Iterator[TaskOutput]:
        metadata: dict[str, Any] = {"labels": []}
        for number in range(3):
            metadata["labels"].append(number)
            yield TaskOutput(str(number), metadata=metadata)
        metadata.clear()

    outcome = outcome_of(tasks=tasks(), output=output())
    expected = [{"number": n, "of": list(range(n + 1))} for n in range(3)]
    assert [row.payload for row in outcome.tasks] == expected
    again = outcome_of(tasks=[Task("step", payload) for payload in expected])
    assert [row.key for row in outcome.tasks] == [row.key for row in again.tasks]
    assert [row.metadata for row in outcome.outputs] == [
        {"labels": list(range(n + 1))} for n in range(3)
    ]


@pytest.mark.parametrize("field", ["output", "tasks", "seen"])
def test_the_exception_of_a_generator_is_raised_unchanged(outcome_of: Come, field: str) -> None:
    def broken() -> Iterator[Any]:
        yield {"output": TaskOutput("a"), "tasks": Task("step"), "seen": "a"}[field]
        raise ConnectionError("reset")

    with pytest.raises(ConnectionError, match="reset"):
        outcome_of(**{field: broken()})


@pytest.mark.parametrize(
    "result",
    [
        {"output": [None]},
        {"output": ["text"]},
        {"tasks": [TaskOutput("a")]},
        {"tasks": ["step"]},
        {"output": 5},
        {"tasks": None},
        {"listed": ["/"]},
        {"seen": [1]},
        {"state": {"p": 5}},
        {"state": {"": None}},
    ],
    ids=str,
)
def test_wrong_types_are_refused(outcome_of: Come, result: dict[str, Any]) -> None:
    with pytest.raises(ResultInvalid):
        outcome_of(**result)


@pytest.mark.parametrize("returned", [None, [], TaskOutput("a"), {}])
def test_a_task_that_returns_no_result_is_refused(
    dispatch: Any, shop: Any, store: Store, returned: Any
) -> None:
    with pytest.raises(ResultInvalid, match="instead of a TaskResult"):
        result_outcome(dispatch(), returned, shop, store, {})


def test_a_million_follow_ups_are_refused_without_being_read(outcome_of: Come) -> None:
    made = itertools.count()
    with pytest.raises(ResultInvalid, match=f"may contain at most {MAX_TASKS:,} tasks"):
        outcome_of(tasks=(Task("step", {"number": next(made)}) for _ in range(1_000_000)))
    assert next(made) == MAX_TASKS + 1


def test_only_generators_are_counted_item_by_item(
    outcome_of: Come, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generator in the engine would cost more than most parts of a result."""
    counted: list[str] = []
    count = bounds._counted
    monkeypatch.setattr(
        bounds,
        "_counted",
        lambda items, most, what: counted.append(what) or count(items, most, what),
    )
    tasks = [Task("step", {"number": number}) for number in range(3)]
    outcome = outcome_of(output=[TaskOutput("a", "x")], tasks=(task for task in tasks), seen=("b",))
    assert (counted, len(outcome.tasks), outcome.seen) == (["tasks"], 3, ["b"])


def test_an_endless_generator_is_refused(outcome_of: Come, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_OUTPUTS", 1_000)
    monkeypatch.setattr(bounds, "MAX_SEEN", 10_000)
    for result in (
        {"output": map(TaskOutput, map(str, itertools.count()))},
        {"seen": map(str, itertools.count())},
    ):
        with pytest.raises(ResultInvalid, match="may contain at most"):
            outcome_of(**result)


def test_the_bytes_of_one_result_are_bounded(
    outcome_of: Come, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_RESULT_BYTES", 10_000_000)
    tracemalloc.start()
    with pytest.raises(ResultInvalid, match="bytes"):
        outcome_of(output=(TaskOutput(str(n), b"x" * 700_000) for n in range(100_000)))
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("field", ["output", "tasks"])
def test_metadata_and_payloads_count_as_bytes_of_a_result(
    outcome_of: Come, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setattr(bounds, "MAX_RESULT_BYTES", 1_000_000)
    outputs = (TaskOutput(str(n), metadata={"m": "x" * 50_000}) for n in range(100))
    tasks = (Task("step", {"number": n, "m": "x" * 50_000}) for n in range(100))
    with pytest.raises(ResultInvalid, match="bytes"):
        outcome_of(**{field: outputs if field == "output" else tasks})


def test_skipped_items_are_counted_by_reason_and_seen(outcome_of: Come) -> None:
    skipped = [Skipped("a", "no permission"), Skipped("b", "too large"), Skipped("c", "too large")]
    outcome = outcome_of(seen=["z"], skipped=iter(skipped))
    assert outcome.skipped == {"no permission": 1, "too large": 2}
    assert outcome.seen == ["z", "a", "b", "c"]


def test_skipped_items_without_ids_are_counted(outcome_of: Come) -> None:
    outcome = outcome_of(skipped={"no permission": 3, "too large": 0})
    assert (outcome.skipped, outcome.seen) == ({"no permission": 3}, [])


@pytest.mark.parametrize(
    "skipped",
    [
        ["a"],
        [("a", "reason")],
        [Skipped("a", "")],
        [Skipped("a", "x" * 201)],
        [Skipped("", "reason")],
        [Skipped("a", f"reason {number}") for number in range(101)],
        {"reason": -1},
        "text",
    ],
    ids=range(8),
)
def test_skipped_items_are_bounded(outcome_of: Come, skipped: Any) -> None:
    with pytest.raises(ResultInvalid):
        outcome_of(skipped=skipped)


def test_an_outcome_survives_the_round_trip_through_json(outcome_of: Come) -> None:
    import json

    class Cursor(BaseModel):
        at: int

    outcome = outcome_of(
        output=[TaskOutput("a", b"\0", metadata={"x": 1}), TaskOutput.gone("b")],
        tasks=[Task("step", key="k")],
        seen=["c"],
        state={"p": Cursor(at=5), "q": None},
        listed=[Listing("p")],
        read={"p": 3},
    )
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert [row.read for row in outcome.states] == [3, None]


# Tasks
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [{"a": math.nan}, {"a": object()}, {"a": {1}}, {"a": b"x"}],
    ids=["NaN", "an object", "a set", "bytes"],
)
def test_a_payload_that_is_not_json_is_refused(shop: Any, payload: Any) -> None:
    with pytest.raises(ResultInvalid, match="not valid JSON"):
        task_row(Task("step", payload), shop)


@pytest.mark.parametrize("payload", [{"a": "\0"}, {"a": ["\ud800"]}, {"\0": 1}], ids=ascii)
def test_a_payload_that_postgresql_cannot_hold_is_refused(shop: Any, payload: Any) -> None:
    with pytest.raises(ResultInvalid, match="contains a NUL byte or an unpaired surrogate"):
        task_row(Task("step", payload), shop)


def test_astral_characters_are_not_treated_as_lone_surrogates(shop: Any) -> None:
    assert task_row(Task("step", {"number": "\U0001f600"}), shop).payload == {
        "number": "\U0001f600"
    }


def test_a_payload_over_64_kib_is_refused(shop: Any) -> None:
    task_row(Task("step", {"a": "x" * (MAX_PAYLOAD_BYTES - 8)}), shop)
    with pytest.raises(ResultInvalid, match="the maximum is 65,536"):
        task_row(Task("step", {"a": "x" * (MAX_PAYLOAD_BYTES - 7)}), shop)


@pytest.mark.parametrize(
    "task",
    [
        Task("unheard-of"),
        Task("start"),
        Task("step", priority=2**31),
        Task("step", priority="1"),
        Task("step", delay=-1),
        Task("step", delay=86_401),
        Task("step", delay=float("nan")),
    ],
)
def test_a_task_that_cannot_be_queued_is_refused(shop: Any, task: Task) -> None:
    with pytest.raises(ResultInvalid):
        task_row(task, shop)


@given(payload=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_the_key_of_a_payload_does_not_depend_on_the_order_of_names(
    payload: dict[str, Any],
) -> None:
    import json

    turned = dict(reversed(payload.items()))
    keys = {
        dedup_key(Task("step", one), json.dumps(dict(sorted(one.items()))))
        for one in (payload, turned)
    }
    assert len(keys) == 1


KEYED = st.builds(
    Task,
    st.sampled_from(["a", "b"]),
    st.dictionaries(st.sampled_from("xy"), st.integers(0, 2)),
    st.none() | st.text(max_size=3),
)


@given(first=KEYED, second=KEYED)
def test_two_tasks_share_a_key_only_if_they_are_the_same_work(first: Task, second: Task) -> None:
    import json

    same = (
        first.key == second.key
        if first.key is not None
        else second.key is None and (first.type, first.payload) == (second.type, second.payload)
    )
    keys = [
        dedup_key(task, json.dumps(dict(sorted(task.payload.items())))) for task in (first, second)
    ]
    assert (keys[0] == keys[1]) == same


@given(key=st.text())
def test_any_text_can_be_a_key(key: str) -> None:
    assert len(bytes.fromhex(dedup_key(Task("step", key=key), "{}"))) == 16
