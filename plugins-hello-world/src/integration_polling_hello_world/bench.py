"""The test bench: failures on purpose, and the content that a sync of Hello World must keep."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, Field, NonNegativeInt, field_validator

from core import (
    ConfigurationError,
    Context,
    CredentialsInvalid,
    Destination,
    PermanentError,
    RateLimited,
    SkipItem,
    TransientError,
)
from integration_polling_hello_world.events import HelloSettings

T = TypeVar("T")

Failure = Literal[
    "transient",
    "crash",
    "rate_limited",
    "credentials",
    "configuration",
    "skip",
    "permanent",
    "exit",
]
"""A failure. `crash` raises an unknown exception; `exit` ends the process, as a segfault does."""

FAILURES: tuple[Failure, ...] = get_args(Failure)
FOR_GOOD: frozenset[Failure] = frozenset({"skip", "permanent", "exit"})
ON_FIRST_ATTEMPT: frozenset[Failure] = frozenset({"transient", "crash"})
ERRORS: Mapping[Failure, type[Exception]] = {
    "transient": TransientError,
    "crash": RuntimeError,
    "rate_limited": RateLimited,
    "credentials": CredentialsInvalid,
    "configuration": ConfigurationError,
    "skip": SkipItem,
    "permanent": PermanentError,
}

MAX_DELAY_MS = 30_000
MAX_ITEM_BYTES = 1024 * 1024
MAX_PAGES = 10_000
MAX_ITEMS = 1_000
"""The bounds of an account's config where the operator does not allow the test bench."""

BENCH_ONLY: frozenset[Failure] = frozenset({"exit"})
"""Failures that harm the accounts of others: they end the worker process."""

_failed_once: set[tuple[str, str, str]] = set()
"""Account, run and name of each task that has failed in this process.

A task cannot tell from its attempt or its state that it has failed before.
"""


class Config(BaseModel, extra="forbid"):
    """The content and behaviour of the made-up service; the same for the same `seed`."""

    name: str = Field(
        "hello",
        title="Greeting name",
        description="The name that the made-up service greets. It identifies the account",
    )
    pages: NonNegativeInt = Field(3, description="Number of pages; each page is one task")
    items: NonNegativeInt = Field(10, description="Number of items on a page")
    item_bytes: NonNegativeInt = Field(
        100, title="Item size (bytes)", description="Length of an item"
    )
    delay_ms: NonNegativeInt = Field(0, title="Delay (ms)", description="Each task takes this long")
    fanout_depth: NonNegativeInt = Field(
        0,
        title="Nested levels",
        description="Levels of nested items. With 1 or more, each item is its own task",
    )
    fail_rate: dict[Failure, float] = Field(
        default_factory=dict,
        description="Share of tasks that fail, from 0 to 1, for each kind of error. An example is"
        ' {"permanent": 0.2}. The kinds are ' + ", ".join(get_args(Failure)),
    )
    seed: int = Field(0, description="Seed of the failures and of the items' text")
    grow: NonNegativeInt = Field(0, description="Number of items that each later run adds")
    hidden: NonNegativeInt = Field(
        0,
        title="Skipped items",
        description="Number of items on each page that the plugin skips on purpose",
    )
    pause_ms: NonNegativeInt = Field(
        0,
        title="Pause between pages (ms)",
        description="Each page starts this much later than the one before",
    )
    url: Annotated[str, Destination()] = Field(
        "",
        title="URL of greetings",
        description="URL of a text file; each of its lines is one more item",
    )

    @field_validator("delay_ms")
    @classmethod
    def _is_short(cls, value: int) -> int:
        return _allowed(value, value <= MAX_DELAY_MS, f"at most {MAX_DELAY_MS:,}")

    @field_validator("item_bytes")
    @classmethod
    def _is_small(cls, value: int) -> int:
        return _allowed(value, value <= MAX_ITEM_BYTES, f"at most {MAX_ITEM_BYTES:,}")

    # A task lists its pages, and the items that it skips or adds, in memory.
    @field_validator("pages")
    @classmethod
    def _has_few_pages(cls, value: int) -> int:
        return _allowed(value, value <= MAX_PAGES, f"at most {MAX_PAGES:,}")

    @field_validator("items", "hidden", "grow", "fanout_depth")
    @classmethod
    def _has_few_items(cls, value: int) -> int:
        return _allowed(value, value <= MAX_ITEMS, f"at most {MAX_ITEMS:,}")

    @field_validator("fail_rate")
    @classmethod
    def _ends_no_process(cls, value: dict[Failure, float]) -> dict[Failure, float]:
        return _allowed(value, not BENCH_ONLY & value.keys(), "without `exit`")


def _allowed(value: T, is_harmless: bool, bound: str) -> T:
    """Return a value that is harmless to others, or that the operator allows."""
    if not is_harmless and not HelloSettings().hello_world_test_bench:
        raise ValueError(f"{bound}, unless the operator sets HELLO_WORLD_TEST_BENCH")
    return value


def greeting(config: Config, id: str) -> str:
    """Return the text of an item."""
    line = f"Hello {id} of {config.seed}! "
    return (line * (config.item_bytes // len(line) + 1))[: config.item_bytes]


def failure(config: Config, name: str) -> Failure | None:
    """Return the failure of the task with this name, or None."""
    digest = hashlib.blake2b(f"{config.seed}:{name}".encode(), digest_size=4).digest()
    place = int.from_bytes(digest) / 2**32
    for kind in FAILURES:  # in a fixed order, because JSON may reorder the mapping
        place -= config.fail_rate.get(kind, 0.0)
        if place < 0:
            return kind
    return None


def fail_on_purpose(config: Config, ctx: Context, name: str) -> None:
    """Raise the exception that the config selects for the task with this name.

    * `transient` and `crash` fail the first attempt.
    * `rate_limited`, `credentials` and `configuration` fail a task once in each run and process.
    * `skip`, `permanent` and `exit` fail every attempt.
    """
    kind = failure(config, name)
    if kind is None or (kind in ON_FIRST_ATTEMPT and ctx.task.attempt > 1):
        return
    if kind not in FOR_GOOD | ON_FIRST_ATTEMPT and not _first_time(ctx, name):
        return
    if kind == "exit":
        os._exit(1)
    raise (
        RateLimited(name, retry_after=1)
        if kind == "rate_limited"
        else ERRORS[kind](f"{kind} on purpose: {name}")
    )


def _first_time(ctx: Context, name: str) -> bool:
    key = (ctx.account.id, ctx.run.id, name)
    first = key not in _failed_once
    _failed_once.add(key)
    return first


def expected(config: Config | Mapping[str, Any], runs: int = 1) -> dict[str, str]:
    """Return the SHA-256 of each item's content after this number of runs, by id.

    Args:
      config: The account's config.
      runs: The number of completed runs. Default: 1.
    """
    config = Config.model_validate(config)
    ids = [*_grown(config, runs), *_listed(config)]
    return {key: hashlib.sha256(greeting(config, key).encode()).hexdigest() for key in ids}


def _grown(config: Config, runs: int) -> Iterator[str]:
    return (f"grown-{item}" for item in range(config.grow * (runs - 1)))


def _listed(config: Config) -> Iterator[str]:
    for page in range(1, config.pages + 1):
        if _comes(config, f"page-{page}"):
            yield from _below(config, str(page), 0)


def _below(config: Config, parent: str, level: int) -> Iterator[str]:
    """Yield the items below a page or an item.

    A task that fails for good also removes the items below it.
    """
    for item in range(config.items):
        name = f"{parent}-{item}"
        if config.fanout_depth and not _comes(config, name):
            continue
        yield name
        if level < config.fanout_depth:
            yield from _below(config, name, level + 1)


def _comes(config: Config, name: str) -> bool:
    return failure(config, name) not in FOR_GOOD
