"""What hostile tasks do. Each takes the integration and the context, as a task does."""

from __future__ import annotations

import ctypes
import itertools
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dramatiq.middleware import SkipMessage
from pydantic import BaseModel

from core import (
    ConfigurationError,
    Context,
    CredentialsInvalid,
    CursorExpired,
    PermanentError,
    RateLimited,
    SkipItem,
    Task,
    TaskOutput,
    TaskResult,
    TransientError,
)

FOREVER = 10**12
TRIAL = 10**7
LOOP_SECONDS = 2
BLOCK = 64 * 1024 * 1024
PARTITION = "cursor"

Deed = Callable[[Any, Context], Any]


class Cursor(BaseModel):
    place: int = 0


# Hanging
# --------------------------------------------------------------------------------------------------


def sleep(plugin: Any, ctx: Context) -> TaskResult:
    """Work, as slow services do."""
    time.sleep(plugin.config.neighbour_ms / 1000)
    return TaskResult()


def hang(plugin: Any, ctx: Context) -> TaskResult:
    """Wait in a system call for what never comes; no exception reaches a thread there."""
    reader, _ = os.pipe()
    os.read(reader, 1)
    return TaskResult()


def loop_in_c(plugin: Any, ctx: Context) -> TaskResult:
    """Loop in C for some seconds with the interpreter's lock held: no other thread of the
    process runs meanwhile.
    """
    began = time.perf_counter()
    _spin(TRIAL)
    _spin(int(TRIAL * LOOP_SECONDS / (time.perf_counter() - began)))
    return TaskResult()


def loop_in_c_forever(plugin: Any, ctx: Context) -> TaskResult:
    """The same without an end."""
    _spin(FOREVER)
    return TaskResult()


def _spin(rounds: int) -> None:
    deque(itertools.repeat(None, rounds), maxlen=0)


def loop_in_python(plugin: Any, ctx: Context) -> TaskResult:
    """Loop where an exception can end it."""
    while True:
        time.sleep(0.01)


def swallow(plugin: Any, ctx: Context) -> TaskResult:
    """Catch whatever comes, for three seconds."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        with suppress(BaseException):
            time.sleep(0.01)
    return TaskResult()


def swallow_for_ever(plugin: Any, ctx: Context) -> TaskResult:
    """The same without an end."""
    while True:
        with suppress(BaseException):
            time.sleep(0.01)


# Dying
# --------------------------------------------------------------------------------------------------


def exit_process(plugin: Any, ctx: Context) -> TaskResult:
    """End the process without a word."""
    os._exit(7)


def segfault(plugin: Any, ctx: Context) -> TaskResult:
    """What a faulty extension module does; leaves no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)
    return TaskResult()


def killed(plugin: Any, ctx: Context) -> TaskResult:
    """What the kernel does to the process of a task that took all memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return TaskResult()


def eat_memory(plugin: Any, ctx: Context) -> TaskResult:
    """Allocate until the process may not have more; the test limits its address space."""
    eaten = [bytes(BLOCK) for _ in range(1024)]
    raise PermanentError(f"{len(eaten)} blocks were not too many: the test sets no limit")


def system_exit(plugin: Any, ctx: Context) -> TaskResult:
    """Try to end the thread."""
    raise SystemExit(3)


# Garbage
# --------------------------------------------------------------------------------------------------


def _garbage(make: Callable[[], Any]) -> Deed:
    return lambda plugin, ctx: make()


def _endless_outputs() -> Iterator[TaskOutput]:
    return (TaskOutput(f"output-{number}") for number in itertools.count())


def _raises_midway() -> Iterator[TaskOutput]:
    yield TaskOutput("never-kept", "the other half fails")
    raise PermanentError("the second half is missing")


GARBAGE: Mapping[str, Deed] = {
    "return_none": _garbage(lambda: None),
    "return_text": _garbage(lambda: "done!"),
    "return_outputs_that_are_none": _garbage(lambda: TaskResult(output=None)),
    "return_wrong_outputs": _garbage(lambda: TaskResult(output=[{"id": 1}])),
    "return_wrong_tasks": _garbage(lambda: TaskResult(tasks=["noop"])),  # type: ignore[list-item]
    "return_unknown_task": _garbage(lambda: TaskResult(tasks=[Task("no_such_task")])),
    "return_payload_with_nul": _garbage(lambda: TaskResult(tasks=[Task("noop", {"number": "\0"})])),
    "return_payload_no_json": _garbage(
        lambda: TaskResult(tasks=[Task("noop", {"number": object()})])
    ),  # type: ignore[dict-item]
    "return_large_payload": _garbage(
        lambda: TaskResult(tasks=[Task("noop", {"number": "x" * 100_000})])
    ),
    "return_wrong_state": _garbage(lambda: TaskResult(state={PARTITION: {"place": 1}})),
    "return_endless_outputs": _garbage(lambda: TaskResult(output=_endless_outputs())),
    "return_half": _garbage(lambda: TaskResult(output=_raises_midway())),
    "return_wrong_id": _garbage(lambda: TaskResult(output=[TaskOutput(7, "x")])),
    "return_content_no_text": _garbage(lambda: TaskResult(output=[TaskOutput("x", 3.14)])),
}
"""Results that cannot be kept: each parks its task."""


# Saying so
# --------------------------------------------------------------------------------------------------


def _raise(make: Callable[[Any], Exception]) -> Deed:
    def deed(plugin: Any, ctx: Context) -> TaskResult:
        raise make(plugin)

    return deed


def leak(plugin: Any, ctx: Context) -> TaskResult:
    """Give the secret away wherever that can be done."""
    secret = plugin.credentials.token.get_secret_value()
    ctx.log.warning("the token is %s", secret)
    try:
        raise ValueError(f"GET /me?token={secret}")
    except ValueError as error:
        ctx.log.error("refused", exc_info=error)
        raise RuntimeError(f"Authorization: Bearer {secret}") from error


def expire_cursor(plugin: Any, ctx: Context) -> TaskResult:
    """The provider forgot our cursor, once."""
    if ctx.run.trigger == "resync":
        return TaskResult(state={PARTITION: Cursor(place=1)})
    raise CursorExpired(PARTITION)


def ask_for_budget(plugin: Any, ctx: Context) -> TaskResult:
    """Go on with a task that has a cost."""
    return TaskResult(tasks=[replace(plugin.frugal.task(), priority=1)])


def name_one_key(plugin: Any, ctx: Context) -> TaskResult:
    """Many follow-ups that are one."""
    return TaskResult(
        tasks=[
            replace(plugin.noop.task(number=number), key="the only one") for number in range(100)
        ]
    )


DEEDS: Mapping[str, Deed] = {
    **{
        deed.__name__: deed
        for deed in (
            sleep,
            hang,
            loop_in_c,
            loop_in_c_forever,
            loop_in_python,
            swallow,
            swallow_for_ever,
        )
    },
    **{deed.__name__: deed for deed in (exit_process, segfault, killed, eat_memory, system_exit)},
    **GARBAGE,
    **{deed.__name__: deed for deed in (leak, expire_cursor, ask_for_budget, name_one_key)},
    "transient": _raise(lambda plugin: TransientError("try again")),
    "permanent": _raise(lambda plugin: PermanentError("never")),
    "skip": _raise(lambda plugin: SkipItem("nothing here")),
    "skip_message": _raise(lambda plugin: SkipMessage("Dramatiq's, not ours")),
    "rate_limited": _raise(
        lambda plugin: RateLimited("slow down", retry_after=plugin.config.retry_after)
    ),
    "credentials": _raise(lambda plugin: CredentialsInvalid("the token was revoked")),
    "configuration": _raise(lambda plugin: ConfigurationError("no such folder")),
}
"""By name."""
