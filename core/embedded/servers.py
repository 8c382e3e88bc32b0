"""Who uses the embedded servers of a home folder, and who therefore starts and stops them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from core.embedded.locks import open_lock, owned, private_folder
from core.embedded.postgres import Postgres
from core.embedded.valkey import Valkey

if TYPE_CHECKING:
    from pydantic import SecretStr

    from core.settings import Settings


@dataclass(frozen=True)
class Urls:
    """Where PostgreSQL and Redis are reached; nothing in them is secret when they are embedded."""

    database_url: str
    redis_url: str


class Servers:
    """The servers that the settings name, and the embedded ones for those that they do not name.

    A user is whoever holds the shared lock on `users.lock`: the kernel drops it when a process
    dies, whatever the reason, and a forked child counts as long as it lives. Starting and stopping
    happen under `start.lock`, which is always taken first. A user that is killed leaves the servers
    running; the next one joins them.
    """

    def __init__(self, settings: Settings) -> None:
        self._database_url = _revealed(settings.database_url)
        self._redis_url = _revealed(settings.redis_url)
        self._folder = settings.home.absolute() / "embedded"
        self._postgres = Postgres(self._folder)
        self._valkey = Valkey(self._folder)
        self._use: int | None = None

    def acquire(self) -> Urls:
        """Join the running servers, or start them; return when both answer.

        Calling it again changes nothing.

        Raises:
          SettingsError: The wheels are not installed, or the home folder cannot be used.
          ServerUnavailable: A server does not come up; its log is named.
        """
        if self._database_url and self._redis_url:
            return Urls(self._database_url, self._redis_url)
        private_folder(self._folder)
        with self._starting():
            self._use = self._use if self._use is not None else self._enter()
            try:
                return Urls(
                    self._database_url or self._postgres.start(),
                    self._redis_url or self._valkey.start(),
                )
            except BaseException:
                self._leave()
                raise

    def release(self) -> None:
        """Stop the servers if no other process uses them.

        Calling it again, or in a forked child, does no harm.

        Raises:
          ServerUnavailable: A server does not stop; its log is named.
        """
        if self._use is not None:
            with self._starting():
                self._leave()

    def __enter__(self) -> Urls:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    @contextmanager
    def _starting(self) -> Iterator[None]:
        with owned(open_lock(self._folder / "start.lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _enter(self) -> int:
        use = open_lock(self._folder / "users.lock")
        fcntl.flock(use, fcntl.LOCK_SH)
        return use

    def _leave(self) -> None:
        assert self._use is not None
        # Only closed, never unlocked: unlocking would take the lock from a parent or child that
        # shares it.
        os.close(self._use)
        self._use = None
        with owned(open_lock(self._folder / "users.lock")) as users, ExitStack() as stack:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            # Both, although we may have used one: the last user of the other may have left before
            # us.
            stack.callback(self._postgres.stop)
            stack.callback(self._valkey.stop)


def _revealed(url: SecretStr | None) -> str | None:
    return url.get_secret_value() if url else None
