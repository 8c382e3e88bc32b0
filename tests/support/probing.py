"""Hello World with a provider that can be away, and probes that misbehave on purpose.

The provider is away while the file `AWAY` exists in the home folder. The fleets of the tests load
this module as a plugin.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dramatiq.middleware import SkipMessage
from integration_polling_hello_world import HelloWorld

from core import (
    BaseIntegration,
    Context,
    Manifest,
    PermanentError,
    RateLimited,
    TransientError,
    Unavailable,
    hookimpl,
)
from core.results.signals import AccountAway, AccountStopped, LeftToOthers
from support.metered import note_call

AWAY, PROBES, STARTS = "away", "probes.log", "starts.log"


class Unreadable(TransientError):
    """An exception that raises when it is read."""

    def __str__(self) -> str:
        raise ValueError("unreadable")

    @property
    def retry_after(self) -> float:  # type: ignore[override]
        raise ValueError("unreadable")


def _is_away() -> bool:
    return (Path(os.environ["POLLING_HOME"]) / AWAY).exists()


def _raise(error: BaseException) -> None:
    raise error


def _loop() -> None:
    while True:
        time.sleep(0.01)


def _swallow() -> None:
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        with suppress(BaseException):
            time.sleep(0.01)


def _late() -> None:
    """Answer just within the time limit of a task."""
    deadline = time.monotonic() + 1.7
    while time.monotonic() < deadline:
        time.sleep(0.01)


KILLS: Mapping[str, Callable[[], object]] = {
    "exit": lambda: os._exit(1),
    "block": lambda: threading.Lock().acquire() and threading.Semaphore(0).acquire(),
}
"""Probes that end their process or keep their thread for ever."""

SILENT: Mapping[str, Callable[[], object]] = {
    "loop": _loop,
    "unavailable": lambda: _raise(Unavailable("down", retry_after=float("nan"))),
    "connection": lambda: _raise(ConnectionResetError()),
}
"""Probes that show that the account does not answer."""

ANSWERS: Mapping[str, Callable[[], object]] = {
    "late": _late,
    "swallow": _swallow,
    "rubbish": lambda: {"rubbish": object()},
    "system_exit": lambda: _raise(SystemExit(1)),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "generator_exit": lambda: _raise(GeneratorExit()),
    "base": lambda: _raise(BaseException("base")),
    "skip_message": lambda: _raise(SkipMessage("skip")),
    "permanent": lambda: _raise(PermanentError("no")),
    "unreadable": lambda: _raise(Unreadable()),
    "account_away": lambda: _raise(AccountAway("away")),
    "account_stopped": lambda: _raise(AccountStopped("stopped")),
    "left_to_others": lambda: _raise(LeftToOthers("left")),
    "rate_limited": lambda: _raise(RateLimited("slow", retry_after=2)),
    "rate_limited_elsewhere": lambda: _raise(RateLimited("slow", retry_after=2, limit="other")),
}
"""Probes that do not show that."""

DEEDS = {**KILLS, **SILENT, **ANSWERS}


class Probing(HelloWorld):
    """Hello World's tree; the name of an account is the deed of its probe while it is away."""

    manifest = Manifest("probing", "Probing Hello")

    def probe(self) -> None:
        note_call(self.config.name, PROBES)
        if _is_away():
            DEEDS[self.config.name]()

    def _work(self, ctx: Context, name: str) -> None:
        note_call(self.config.name, STARTS)
        if _is_away():
            raise TransientError("the provider is away")
        super()._work(ctx, name)


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Probing]
