"""The deeds of hostile tasks. Each takes the integration and the context, as a task does."""

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
    """Wait, as for a slow service."""
    time.sleep(plugin.config.neighbour_ms / 1000)
    return TaskResult()


def hang(plugin: Any, ctx: Context) -> TaskResult:
    """Wait in a system call for ever; no exception reaches a thread there."""
    reader, _ = os.pipe()
    os.read(reader, 1)
    return TaskResult()


def loop_in_c(plugin: Any, ctx: Context) -> TaskResult:
    """Loop in C for some seconds with the interpreter's lock held, so that no other thread runs."""
    began = time.perf_counter()
    _spin(TRIAL)
    _spin(int(TRIAL * LOOP_SECONDS / (time.perf_counter() - began)))
    return TaskResult()


def loop_in_c_forever(plugin: Any, ctx: Context) -> TaskResult:
    """Do the same for ever."""
    _spin(FOREVER)
    return TaskResult()


def _spin(rounds: int) -> None:
    deque(itertools.repeat(None, rounds), maxlen=0)


def loop_in_python(plugin: Any, ctx: Context) -> TaskResult:
    """Loop in Python, where an exception can end the loop."""
    while True:
        time.sleep(0.01)


def swallow(plugin: Any, ctx: Context) -> TaskResult:
    """Catch every exception for three seconds."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        with suppress(BaseException):
            time.sleep(0.01)
    return TaskResult()


def swallow_for_ever(plugin: Any, ctx: Context) -> TaskResult:
    """Do the same for ever."""
    while True:
        with suppress(BaseException):
            time.sleep(0.01)


# Dying
# --------------------------------------------------------------------------------------------------


def exit_process(plugin: Any, ctx: Context) -> TaskResult:
    """End the process without a message."""
    os._exit(7)


def segfault(plugin: Any, ctx: Context) -> TaskResult:
    """Crash as a faulty extension module does, without a core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)
    return TaskResult()


def killed(plugin: Any, ctx: Context) -> TaskResult:
    """Kill the process, as the kernel does when a task takes all memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return TaskResult()


def eat_memory(plugin: Any, ctx: Context) -> TaskResult:
    """Allocate memory up to the limit of the process; the test limits its address space."""
    eaten = [bytes(BLOCK) for _ in range(1024)]
    raise PermanentError(f"{len(eaten)} blocks were not too many: the test sets no limit")


def system_exit(plugin: Any, ctx: Context) -> TaskResult:
    """Try to end the thread with `SystemExit`."""
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
"""Invalid results: each parks its task."""


# Raising exceptions
# --------------------------------------------------------------------------------------------------


def _raise(make: Callable[[Any], Exception]) -> Deed:
    def deed(plugin: Any, ctx: Context) -> TaskResult:
        raise make(plugin)

    return deed


def leak(plugin: Any, ctx: Context) -> TaskResult:
    """Leak the secret in every possible place."""
    secret = plugin.credentials.token.get_secret_value()
    ctx.log.warning("the token is %s", secret)
    try:
        raise ValueError(f"GET /me?token={secret}")
    except ValueError as error:
        ctx.log.error("refused", exc_info=error)
        raise RuntimeError(f"Authorization: Bearer {secret}") from error


def expire_cursor(plugin: Any, ctx: Context) -> TaskResult:
    """Raise `CursorExpired`, except in a resync."""
    if ctx.run.trigger == "resync":
        return TaskResult(state={PARTITION: Cursor(place=1)})
    raise CursorExpired(PARTITION)


def ask_for_budget(plugin: Any, ctx: Context) -> TaskResult:
    """Return a follow-up that has a cost."""
    return TaskResult(tasks=[replace(plugin.frugal.task(), priority=1)])


def name_one_key(plugin: Any, ctx: Context) -> TaskResult:
    """Return many follow-ups with the same key."""
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
"""All deeds, by name."""
