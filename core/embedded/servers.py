"""Start, share and stop the embedded servers of a home folder."""

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
from core.embedded.watcher import Watcher

if TYPE_CHECKING:
    from pydantic import SecretStr

    from core.settings import Settings


@dataclass(frozen=True)
class Urls:
    """The URLs of PostgreSQL and Redis. URLs of embedded servers contain no secrets."""

    database_url: str
    redis_url: str


class Servers:
    """The configured servers, or embedded ones for those that are not configured.

    A process that uses the servers holds a shared lock on `users.lock`. The kernel releases it when
    the process dies for any reason. A forked child counts as long as it lives. Servers are started
    and stopped under `start.lock`, which is always taken first. If the last user is killed, the
    watcher stops the servers within a minute, unless another user joins them before.
    """

    def __init__(self, settings: Settings) -> None:
        self._database_url = _revealed(settings.database_url)
        self._redis_url = _revealed(settings.redis_url)
        self._folder = settings.home.absolute() / "embedded"
        self._postgres = Postgres(self._folder)
        self._valkey = Valkey(self._folder)
        self._watcher = Watcher(self._folder)
        self._use: int | None = None

    def acquire(self) -> Urls:
        """Start or join the servers, and return when both answer.

        A second call has no effect.

        Raises:
          SettingsError: The wheels are not installed, or the home folder cannot be used.
          ServerUnavailable: A server does not start; the error names its log.
        """
        if self._database_url and self._redis_url:
            return Urls(self._database_url, self._redis_url)
        private_folder(self._folder)
        with self._starting():
            self._use = self._use if self._use is not None else self._enter()
            try:
                self._watcher.start()
                return Urls(
                    self._database_url or self._postgres.start(),
                    self._redis_url or self._valkey.start(),
                )
            except BaseException:
                self._leave()
                raise

    def release(self) -> None:
        """Stop the servers if no other process uses them.

        A second call, also in a forked child, does no harm.

        Raises:
          ServerUnavailable: A server does not stop; the error names its log.
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
        # Close the descriptor but do not unlock it: a parent or child may share the lock.
        os.close(self._use)
        self._use = None
        with owned(open_lock(self._folder / "users.lock")) as users, ExitStack() as stack:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            # Stop both, even if this process used one: the other's last user may have left already.
            # The watcher ends last: it stops the servers if this process is killed before.
            stack.callback(self._watcher.stop)
            stack.callback(self._postgres.stop)
            stack.callback(self._valkey.stop)


def _revealed(url: SecretStr | None) -> str | None:
    return url.get_secret_value() if url else None
