"""Results and exceptions of plugins, including odd ones, to test the rules in `core.results`."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import redis
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel

from core import (
    ConfigurationError,
    CredentialsInvalid,
    CursorExpired,
    Listing,
    PermanentError,
    RateLimited,
    SkipItem,
    Skipped,
    Task,
    TaskOutput,
    TaskResult,
    TransientError,
    Unavailable,
)
from core.errors import NotFound, ResultInvalid, ServerUnavailable, TaskUnfit, VaultError
from core.results.decisions import MIN_DEFERRALS, RetryPolicy

A_WEEK = RetryPolicy().give_up_seconds

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001  a time without a zone is the test case


class Cursor(BaseModel):
    value: Any = 0


class Bare(RootModel[Any]):
    """A state that is not an object."""


class Unreadable(PermanentError):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Incomplete(RateLimited):
    """An exception without the attributes of its class."""

    def __init__(self) -> None:
        Exception.__init__(self, "bare")


@dataclass(frozen=True)
class Deed:
    """The behaviour of one task: it reads partitions, then returns or raises.

    Attributes:
      make: Creates the result or the exception, once for each judge.
      attempts: The task's attempts so far.
      failing: Seconds since the task's first failure; 0 if it has not failed.
      overtaken: Partitions that another task writes after this one has read.
      crowded: True if the run has more tasks than it may have.
      late: True if the task was dispatched before the task of the deed before.
      deleted: Items that other tasks of the run deleted because the plugin named them.
    """

    make: Callable[[], Any]
    reads: tuple[str, ...] = ()
    attempts: int = 0
    failing: float = 0.0
    trigger: str = "manual"
    overtaken: tuple[str, ...] = ()
    crowded: bool = False
    late: bool = False
    deleted: int = 0
    name: str = field(default="", compare=False)

    @property
    def deferrals(self) -> int:
        """The number of times that a task that has failed for long was deferred."""
        return MIN_DEFERRALS if self.failing else 0

    def __repr__(self) -> str:
        shown = self.name or repr(self.make())[:2_000]
        given = (
            self.reads, self.attempts, self.failing, self.trigger, self.overtaken, self.crowded,
            self.late, self.deleted,
        )  # fmt: skip
        return f"Deed({shown}, {', '.join(map(str, given))})"

    def do(self, ctx: Any, overtake: Callable[[str], None]) -> Any:
        for partition in self.reads:
            ctx.state(partition, Bare)
        for partition in self.overtaken:
            overtake(partition)
        made = self.make()
        if isinstance(made, BaseException):
            raise made
        return made


def returns(**fields: Any) -> Callable[[], TaskResult]:
    return lambda: TaskResult(**fields)


def keeps(*args: Any, **fields: Any) -> Callable[[], TaskResult]:
    return returns(output=[TaskOutput(*args, **fields)])


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def _many(count: int) -> Iterator[TaskOutput]:
    return (TaskOutput(str(number)) for number in range(count))


def _megabytes(count: int) -> Iterator[TaskOutput]:
    return (TaskOutput(str(number), "x" * 1_000_000) for number in range(count))


PARKED: Mapping[str, Callable[[], Any]] = {
    "metadata over 1 MiB": keeps("a", metadata={"m": "x" * 2**20}),
    "code=300": keeps("a", code=300),
    "priority 2**40": returns(tasks=[Task("step", priority=2**40)]),
    "NUL in a payload": returns(tasks=[Task("step", {"number": "\0"})]),
    "NUL in a state": returns(state={"p": Cursor(value="\0")}),
    "a lone surrogate in a state": returns(state={"p": Cursor(value="\ud800")}),
    "a lone surrogate in a key of a state": returns(state={"p": Cursor(value={"\ud800": 1})}),
    "a state that pydantic cannot write": returns(state={"p": Cursor(value=object())}),
    "a partition name of 2,000 characters": returns(state={"p" * 2_000: None}),
    "a partition name with NUL": returns(state={"\0": Cursor()}),
    "a state of 2 MiB": returns(state={"p": Cursor(value="x" * 2**21)}),
    "a name of 100,000 characters": keeps("a", name="x" * 100_000),
    "100,001 outputs": lambda: TaskResult(_many(100_001)),
    "68 MB inline": lambda: TaskResult(_megabytes(68)),
    "kind=5": keeps("a", kind=5),
    "Listing.since without a time zone": returns(listed=[Listing(since=NAIVE)]),
    "a parent of 3,000 bytes": keeps("a", parent="x" * 3_000),
    "NUL in a fingerprint": keeps("a", fingerprint="\0"),
    "metadata that is not a mapping": keeps("a", metadata=5),
    "a payload that is not a mapping": returns(tasks=[Task("step", 5)]),  # type: ignore[arg-type]
    "a state that is not a mapping": returns(state=[5]),
    "no result": lambda: None,
    "NotFound": lambda: NotFound("content-not-found", content="gone"),
    "CursorExpired of a partition that cannot exist": lambda: CursorExpired("\0"),
}
"""Results that park their task at the first attempt, and of which the engine saves nothing."""

KEPT: Mapping[str, Callable[[], Any]] = {
    "bytearray content": keeps("a", bytearray(b"\0x")),
    "memoryview content": keeps("a", memoryview(b"\0x")),
    "a lone surrogate in the name": keeps("a", name="x\ud800"),
    "a lone surrogate in the text": keeps("a", "x\ud800"),
    "NUL in the text": keeps("a", "x\0"),
    "NUL in metadata": keeps("a", metadata={"m\0": ["\0\\u0000", "\ud800\U0001f600"]}),
    "a text of 2 MB": keeps("a", "é" * 1_000_000),
    "an offset that PostgreSQL cannot read": keeps(
        "a", timestamp=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=20, microseconds=1)))
    ),
    "a child kept and its parent gone": lambda: TaskResult(
        [TaskOutput("b", "x", parent="a"), TaskOutput("a", "x"), TaskOutput.gone("a")]
    ),
    "an update of the same result": lambda: TaskResult(
        [
            TaskOutput("a", "x", metadata={"x": 1}),
            TaskOutput.update("a", metadata={"y": 2}, fingerprint="f"),
        ]
    ),
}
"""Unusual results that the engine saves."""

WAITS: Mapping[str, tuple[Callable[[], Any], float]] = {
    "RateLimited(inf)": (lambda: RateLimited(retry_after=math.inf), 10),
    "RateLimited(nan)": (lambda: RateLimited(retry_after=math.nan), 10),
    'RateLimited("soon")': (lambda: RateLimited(retry_after="soon"), 10),  # type: ignore[arg-type]
    "RateLimited(1e12)": (lambda: RateLimited(retry_after=1e12), 86_400),
    "RateLimited(-1)": (lambda: RateLimited(retry_after=-1), 1),
    "RateLimited of a limit with NUL": (lambda: RateLimited(retry_after=9, limit="q\0"), 9),
    "RateLimited without attributes": (Incomplete, 4),
    "an exception that cannot be read": (Unreadable, 4),
}
"""Exceptions that make their task wait, and the maximum seconds of the wait."""


EFFECTS: Mapping[str, tuple[Deed, str]] = {
    "SkipItem": (Deed(lambda: SkipItem("a draft")), "done"),
    "TransientError": (Deed(lambda: TransientError("down")), "ready"),
    "TransientError, the last quick attempt": (
        Deed(lambda: TransientError("down"), attempts=2),
        "deferred",
    ),
    "TransientError for a week": (
        Deed(lambda: TransientError("down"), attempts=2, failing=A_WEEK),
        "parked",
    ),
    "Unavailable for an hour": (Deed(lambda: Unavailable(retry_after=3_600)), "deferred"),
    "Unavailable for a second": (Deed(lambda: Unavailable(retry_after=1)), "ready"),
    "a refused connection, the last quick attempt": (
        Deed(lambda: ConnectionRefusedError("refused"), attempts=2),
        "deferred",
    ),
    "an unknown one, caused by a timeout": (
        Deed(lambda: _caused(KeyError("x"), TimeoutError("slow")), attempts=2),
        "deferred",
    ),
    "an unknown one, the last attempt": (Deed(lambda: KeyError("x"), attempts=2), "parked"),
    "a certificate that does not verify, the last attempt": (
        Deed(lambda: ssl.SSLCertVerificationError("self-signed"), attempts=2),
        "parked",
    ),
    "an unknown one": (Deed(lambda: KeyError("x"), attempts=1), "ready"),
    "SystemExit": (Deed(lambda: SystemExit(3)), "ready"),
    "PermanentError": (Deed(lambda: PermanentError("no")), "parked"),
    "RateLimited": (Deed(lambda: RateLimited(retry_after=9), attempts=2), "ready"),
    "RateLimited for a week": (
        Deed(lambda: RateLimited(retry_after=9), attempts=2, failing=A_WEEK),
        "ready",
    ),
    "VaultError": (Deed(lambda: VaultError("credentials-not-decrypted"), attempts=2), "ready"),
    "VaultError for a week": (
        Deed(lambda: VaultError("credentials-not-decrypted"), failing=A_WEEK),
        "ready",
    ),
    "ServerUnavailable": (
        Deed(
            lambda: ServerUnavailable("postgres-unavailable", detail="away"),
            attempts=2,
            failing=A_WEEK,
        ),
        "ready",
    ),
    "an error of Redis": (Deed(lambda: redis.ConnectionError("away"), attempts=2), "ready"),
    "CredentialsInvalid": (Deed(lambda: CredentialsInvalid("no"), attempts=2), "ready"),
    "ConfigurationError": (Deed(lambda: ConfigurationError("no"), attempts=2), "ready"),
    "CursorExpired": (Deed(lambda: CursorExpired("p")), "done"),
    "CursorExpired in a resync": (Deed(lambda: CursorExpired("p"), trigger="resync"), "parked"),
    "a result, after a week": (
        Deed(keeps("a"), attempts=2, failing=A_WEEK),
        "done",
    ),
    "follow-ups, one of them in the background": (
        Deed(
            returns(
                tasks=[
                    Task("step", {"number": 1}, priority=3),
                    Task("step", {"number": 2}, background=True),
                    Task("step", {"number": 1}),
                ]
            )
        ),
        "done",
    ),
    "follow-ups with keys and delays": (
        Deed(
            returns(
                tasks=[
                    Task("step", {"number": 1}, key="k"),
                    Task("step", {"number": 2}, key="k"),
                    Task("step", {"number": 3}, delay=90),
                ]
            )
        ),
        "done",
    ),
    "a follow-up, in a run that has too many": (
        Deed(returns(tasks=[Task("step")]), crowded=True),
        "parked",
    ),
    "no follow-up, in a run that has too many": (Deed(keeps("a"), crowded=True), "done"),
    "a state that another task has written since": (
        Deed(returns(state={"p": Bare(2)}), reads=("p",), overtaken=("p",)),
        "ready",
    ),
    "a state that another task has written, and this one has not read": (
        Deed(returns(state={"p": Bare(2)}), overtaken=("p",)),
        "done",
    ),
    "CursorExpired, and another task has written the partition": (
        Deed(lambda: CursorExpired("p"), overtaken=("p",)),
        "done",
    ),
    "a listing in a run that hints made": (
        Deed(returns(listed=[Listing()]), trigger="hint"),
        "done",
    ),
    "items that are skipped": (
        Deed(returns(skipped=[Skipped("a", "too large"), Skipped("b", "too large")])),
        "done",
    ),
    "numbers of items that are unchanged and skipped": (
        Deed(returns(unchanged=3, skipped={"a draft": 2, "none": 0})),
        "done",
    ),
    "RateLimited of a limit": (Deed(lambda: RateLimited(retry_after=9, limit="quota")), "ready"),
    "VaultError, after a failure": (
        Deed(lambda: VaultError("credentials-not-decrypted"), attempts=1, failing=100.0),
        "ready",
    ),
}
"""Deeds, and the state of the task after them."""


# Generated deeds


def mostly(good: st.SearchStrategy[Any], *odd: Any, share: int = 40) -> st.SearchStrategy[Any]:
    """Return a strategy that draws an odd value once in `share` times.

    The share is small, because a result has many values, and one odd value parks its task. `one_of`
    cannot express the share, because it removes duplicates.
    """
    return st.sampled_from(range(share)).flatmap(
        lambda number: st.sampled_from(odd) if number == share - 1 else good
    )


TEXT = st.text("ab\0\ud800\U0001f600\\", max_size=4)
IDS = mostly(st.sampled_from("abc"), "", "x\0", "\ud800", "é" * 1_025, "x" * 2_049, 5, None, b"a")
PARENTS = mostly(st.none() | st.sampled_from("abc"), "", "x" * 3_000, "\0", 5)
SCALARS = st.none() | st.booleans() | st.integers() | st.sampled_from([0.5, -1.25]) | TEXT
LISTS = st.lists(SCALARS, max_size=2) | st.dictionaries(TEXT, SCALARS, max_size=2)
JSON = SCALARS | LISTS | st.lists(LISTS, max_size=2) | st.dictionaries(TEXT, LISTS, max_size=2)
NO_JSON = (math.nan, object(), {1, 2}, b"x", {1: 2, "a": 3})
METADATA = mostly(
    st.dictionaries(TEXT, JSON, max_size=2), 5, None, [("a", 1)], *({"m": odd} for odd in NO_JSON)
)
OFFSETS = st.sampled_from([0, 5.5, -12, 14, 15.5, 23, 0.0001])
MOMENTS = mostly(
    st.none()
    | st.builds(
        lambda year, hours: datetime(year, 1, 1, tzinfo=timezone(timedelta(hours=hours))),
        st.sampled_from([1, 1990, 2026, 9999]),
        OFFSETS,
    ),
    NAIVE,
    "2026-01-01",
    1,
)
CONTENT = mostly(
    st.none() | TEXT | st.binary(max_size=4) | st.builds(bytearray, st.binary(max_size=4)),
    5,
    ["x"],
    object(),
)
NAMES = mostly(st.none() | TEXT, 5, b"x", "x" * 65_537)
OUTPUTS = mostly(
    st.builds(
        TaskOutput,
        IDS,
        CONTENT,
        mostly(st.sampled_from(["item", ""]) | TEXT, 5, None),
        PARENTS,
        NAMES,
        MOMENTS,
        NAMES,
        METADATA,
        mostly(st.none() | st.sampled_from("fg"), 5, "\0", "\ud800"),
        mostly(st.sampled_from([200, 200, 200, 206, 206, 410]), 0, 300, None, "200", [200], True),
    ),
    None,
    "a",
    Task("step"),
)
TASKS = mostly(
    st.builds(
        Task,
        mostly(st.just("step"), "start", "unknown", 5, []),
        mostly(
            st.builds(lambda value: {"number": value}, st.integers(0, 3)),
            {},
            {"number": "\0"},
            {"number": "\ud800"},
            {"number": "x" * 70_000},
            None,
            5,
            *({"number": odd} for odd in NO_JSON),
        ),
        st.none() | st.sampled_from(["k", "\0", "\ud800", 5]),
        mostly(st.integers(-3, 3), 2**31, -(2**31) - 1, "1", None, True),
        st.sampled_from([True, False, "yes", 0]),
        mostly(st.sampled_from([0, 0.0, 90]), -1, math.nan, "1", None, 86_401, True),
    ),
    None,
    "step",
)
PARTITIONS = mostly(st.sampled_from("pq"), "", "\0", "\ud800", "x" * 1_025, "\U0001f600" * 600, 5)
STATES = mostly(
    st.none() | st.builds(Cursor, value=JSON) | st.builds(Bare, JSON),
    5,
    {"value": 1},
    Cursor(value=math.nan),
)
LISTINGS = mostly(st.builds(Listing, PARENTS, MOMENTS, MOMENTS), None, "place")


REASONS = mostly(st.sampled_from(["too large", "a draft"]), "", "x\0", "x" * 201, 5, None)
COUNTS = mostly(st.integers(0, 3), -1, 2**31, None, "1", True)
SKIPPED = mostly(st.builds(Skipped, IDS, REASONS), None, "a")


def _lists(items: st.SearchStrategy[Any], *odd: Any) -> st.SearchStrategy[Any]:
    return mostly(st.lists(items, max_size=3), *odd)


RESULTS = mostly(
    st.builds(
        TaskResult,
        _lists(OUTPUTS, None, 5),
        _lists(TASKS, None, 5),
        mostly(st.dictionaries(PARTITIONS, STATES, max_size=2), None, 5),
        _lists(IDS, None, 5),
        _lists(LISTINGS, None, 5),
        mostly(st.integers(0, 3), -1, 2**31, None, "1", True),
        _lists(SKIPPED, None, 5) | st.dictionaries(REASONS, COUNTS, max_size=2),
    ),
    None,
    "done",
    [],
)
WORDS = st.sampled_from(["", "no", "x\0\ud800", "x" * 1_000])
EXCEPTIONS = st.one_of(
    *(
        st.builds(kind, WORDS)
        for kind in (
            SkipItem, TransientError, PermanentError, CredentialsInvalid, ConfigurationError,
            TaskUnfit, ResultInvalid, ValueError, KeyError, OSError, SystemExit,
            Unavailable, TimeoutError, EOFError, ssl.SSLError,
            GeneratorExit, asyncio.CancelledError, redis.ConnectionError,
        )
    ),
    st.builds(lambda word: NotFound("content-not-found", content=word), WORDS),
    st.builds(lambda word: ServerUnavailable("postgres-unavailable", detail=word), WORDS),
    st.just(VaultError("credentials-not-decrypted")),
    st.builds(CursorExpired, PARTITIONS),
    st.builds(
        lambda reason, after, limit: RateLimited(reason, retry_after=after, limit=limit),
        WORDS,
        st.none() | st.floats() | st.integers() | st.sampled_from(["soon", b"1", 10**400, 1j]),
        st.sampled_from([None, "quota", "unknown", "", "\0", 5, ["quota"]]),
    ),
    st.builds(Unreadable),
    st.builds(Incomplete),
)  # fmt: skip

DEEDS = st.builds(
    lambda made, reads, attempts, failing, trigger, overtaken, crowded: Deed(
        lambda: made, tuple(reads), attempts, failing, trigger, tuple(overtaken), crowded
    ),
    st.sampled_from([RESULTS, RESULTS, RESULTS, EXCEPTIONS]).flatmap(lambda drawn: drawn),
    st.lists(st.sampled_from("pq"), max_size=2, unique=True),
    st.integers(0, 2),
    st.sampled_from([0.0, A_WEEK]),
    st.sampled_from(["manual", "manual", "resync", "hint"]),
    st.lists(st.sampled_from("pq"), max_size=1),
    st.sampled_from([False, False, False, True]),
)

# Deeds without odd values: many changes of a few items
PLACES = st.none() | st.sampled_from("ab")
PLAIN_OUTPUTS = st.builds(
    TaskOutput,
    st.sampled_from("abcd"),
    st.sampled_from([None, "x", "y", b"\0"]),
    parent=PLACES,
    timestamp=st.none()
    | st.sampled_from([datetime(2026, 1, day, tzinfo=UTC) for day in (1, 3, 5)]),
    metadata=st.dictionaries(st.sampled_from("mn"), st.sampled_from([0, 1, True])),
    fingerprint=st.none() | st.sampled_from(["", "f", "g"]),
    code=st.sampled_from([200, 200, 200, 206, 410]),
)
PLAIN_LISTINGS = st.builds(
    Listing,
    PLACES,
    since=st.none() | st.just(datetime(2026, 1, 3, tzinfo=UTC)),
    until=st.none() | st.just(datetime(2026, 1, 3, tzinfo=UTC)),
)
PLAIN_DEEDS = st.builds(
    lambda output, seen, listed: Deed(
        lambda: TaskResult(output, seen=seen, listed=listed),
    ),
    st.lists(PLAIN_OUTPUTS, max_size=5),
    st.lists(st.sampled_from("abcd"), max_size=3),
    st.lists(PLAIN_LISTINGS, max_size=2),
)
