"""The integration: tasks that walk through the tree, and fetch new and changed files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from core import (
    AccountIdentity,
    BaseIntegration,
    Concurrency,
    ConfigurationError,
    Context,
    Limit,
    Manifest,
    PermanentError,
    Rehearsal,
    Task,
    TaskResult,
    task,
)
from integration_polling_ftp import names, verifying
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.connection import Connection
from integration_polling_ftp.detecting import with_protocol
from integration_polling_ftp.directory import read
from integration_polling_ftp.download import fetch_large
from integration_polling_ftp.errors import CONNECTIONS, Dropped, Missing
from integration_polling_ftp.follow_ups import ListedFile, Place, batches, split
from integration_polling_ftp.rehearsing import rehearse
from integration_polling_ftp.session import Session
from integration_polling_ftp.walking import (
    FIRST_SECONDS,
    SECONDS,
    SUSPECT_SECONDS,
    Walk,
)

MIN_IDLE_SECONDS = 15.0
MAX_IDLE_SECONDS = 120.0
LOGINS = 20
"""A connection is kept idle for as long as this many logins take, within these bounds."""


class Ftp(BaseIntegration[Config, Credentials]):
    """The FTP integration: it keeps files and directories by path.

    A run downloads a file again if its size or time differs, and marks items deleted that a listing
    no longer has.
    """

    manifest = Manifest("ftp", "FTP", limits=[Concurrency(CONNECTIONS, 4, per_instance=True)])

    @classmethod
    def limits(cls, config: Config) -> Sequence[Limit]:
        """Allow `max_connections` connections at a time."""
        return [Concurrency(CONNECTIONS, config.max_connections, per_instance=True)]

    @cached_property
    def session(self) -> Connection:
        """The connection to the server, opened on first use. It knows the protocol then."""
        self.config = with_protocol(self.config, self.credentials)
        return self._connection(self.config)

    def _connection(self, config: Config) -> Connection:
        if config.protocol == "sftp":
            from integration_polling_ftp.sftp import SftpSession  # it loads 15 MiB

            return SftpSession(config, self.credentials)
        return Session(config, self.credentials)

    @cached_property
    def root(self) -> str:
        """The path of the root as it is stored."""
        return names.from_user(self.config.root) or self.session.home()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "session" in vars(self):
            self.session.close()

    def check(self) -> AccountIdentity:
        """Log in, and enter the root directory. The config gets the protocol in place of `auto`.

        Returns:
          The id `user@host:port/root`.

        Raises:
          ConfigurationError: The host, the port or the root does not exist, or the server requires
            encryption. The error names the field.
          CredentialsInvalid: The server rejects the login.
          RateLimited: The server has too many connections.
          TransientError: The server cannot be reached.
        """
        try:
            self.session.enter(self.root)
        except Dropped as error:
            if not error.field:
                raise
            raise ConfigurationError(str(error), field=error.field) from None
        except Missing as error:
            raise ConfigurationError(
                f"no directory {self.root} on the server: {error}", field="root"
            ) from None
        host = self.config.host.lower()
        return AccountIdentity(
            f"{self.credentials.username}@{host}:{self.config.effective_port}{self.root}",
            f"{host}{self.root}",
        )

    def probe(self) -> None:
        """Connect and log in, unless a connection is open, and send `NOOP`.

        Raises:
          Unavailable: The server does not answer.
        """
        self.session.ping()

    def rehearse(self) -> Rehearsal:
        """Describe the server, and show the beginning of the tree that is kept."""
        return rehearse(self.session, self.config, self.root, self._connection)

    def start(self, ctx: Context) -> TaskResult:
        """List the root directory, and continue the verification. The server names the root."""
        tasks = [self.list_directory.task(path=names.from_user(self.config.root))]
        if self.config.verify_percent and ctx.run.trigger == "schedule":
            tasks.append(replace(self.verify.task(), priority=verifying.PRIORITY))
        return TaskResult(tasks=tasks)

    @task(time_limit=3600)
    def list_directory(
        self,
        ctx: Context,
        path: str,
        trail: tuple[str, ...] = (),
        after: str = "",
        again: int = 0,
    ) -> TaskResult:
        """List a directory and those below it, and fetch their new and changed small files.

        What is left after some seconds becomes follow-up tasks.

        Args:
          ctx: The task's context.
          path: The directory's path as it is stored. Empty: the root.
          trail: The `unique` facts (RFC 3659, section 7.5.2) of the directories from the root to
            this one. They show when a link leads back to one of them. Default: none.
          after: Only names behind this one, for the next portion of a large directory. Default:
            all names.
          again: The number of earlier tasks that listed it and left renamed files. Default: 0.
        """
        path = path or self.root
        walk = self._walk(ctx, FIRST_SECONDS if path == self.root else SECONDS)
        if after or again:
            left = walk.take(read(self.session, path, after), trail, again)
        else:
            left = walk.visit([(path, trail)])
        return self._rest(walk, left)

    @task(time_limit=3600)
    def walk(
        self, ctx: Context, items: list[tuple[str, tuple[str, ...]]], seconds: float = SECONDS
    ) -> TaskResult:
        """Continue with the directories that an earlier task left.

        Args:
          ctx: The task's context.
          items: Each directory's path and trail; see `list_directory`.
          seconds: The seconds to work. Default: `SECONDS`.
        """
        walk = self._walk(ctx, seconds)
        return self._rest(walk, walk.visit(items))

    @task(time_limit=3600)
    def fetch(
        self,
        ctx: Context,
        items: list[ListedFile],
        parent: str,
        size: int,
        settled: float = 0.0,
        *,
        again: bool = False,
    ) -> TaskResult:
        """Fetch small files of one directory, one after another.

        Args:
          ctx: The task's context.
          items: Each file's name as it is stored, its listed version, True for a link, and the
            checksum that it should have, if that is known.
          parent: The path of the directory.
          size: The number of entries of the directory.
          settled: The seconds since the first look at the files. Default: 0.
          again: True to fetch files whose size and time did not change. Default: False.
        """
        walk = self._walk(ctx, again=again)
        remaining = walk.fetch(parent, walk.with_known(parent, items), size, settled)
        left = walk.with_checksums(parent, remaining)
        walk.tasks += batches(
            "fetch", left, len(left) or 1, parent=parent, size=size, settled=settled, **walk.marks()
        )
        return walk.result()

    @task(time_limit=3600)
    def settle(
        self,
        ctx: Context,
        items: list[ListedFile],
        parent: str,
        size: int,
        *,
        again: bool = False,
    ) -> TaskResult:
        """Look at new and changed files again, and fetch those that did not change in between.

        Args:
          ctx: The task's context.
          items: Each file's name as it is stored, its listed version, True for a link, and the
            checksum that it should have, if that is known.
          parent: The path of the directory.
          size: The number of entries of the directory.
          again: True for files that differ from their copies, with the same size and time.
            Default: False.
        """
        walk = self._walk(ctx, again=again)
        walk.settle(parent, walk.with_known(parent, items), size)
        return walk.result()

    @task(time_limit=6 * 3600)
    def download(
        self,
        ctx: Context,
        path: str,
        parent: str,
        version: str,
        settled: float = 0.0,
        checksum: str = "",
        *,
        again: bool = False,
    ) -> TaskResult:
        """Download a large or growing file.

        Args:
          ctx: The task's context.
          path: The file's path as it is stored.
          parent: The path of its directory.
          version: Size and time in the listing; see `Entry.version`.
          settled: The seconds since the first look at the file. Default: 0.
          checksum: The checksum that the file should have. Default: unknown.
          again: True to fetch it although its size and time did not change. Default: False.
        """
        walk = self._walk(ctx, again=again)
        file = (names.base_name(path), version, False)
        try:
            if not again and not walk.drop_unchanged(parent, [file]):
                return walk.result()
            look = walk.look({path: file}, settled)
            walk.output.append(
                fetch_large(
                    self.session, ctx, path, parent, version, look, checksum,
                    hashes=self.config.server_hashes, again=again,
                )
            )  # fmt: skip
            walk.memory.worked(parent, names.base_name(path))
        except PermanentError as error:
            walk.failed(path, version, error, walk.listing_of(parent))
        return walk.result()

    @task(time_limit=3600)
    def verify(self, ctx: Context, step: int = 0) -> TaskResult:
        """Compare copied files with the server, for some seconds.

        Args:
          ctx: The task's context.
          step: The number of earlier tasks of this run. Default: 0.
        """
        result, goes_on = verifying.verify(self._walk(ctx), self.config.verify_percent)
        if not goes_on:
            return result
        following = replace(self.verify.task(step=step + 1), priority=verifying.PRIORITY)
        return replace(result, tasks=[*result.tasks, following])

    def run_task(self, task: Task, ctx: Context) -> TaskResult:
        """Run a task, and keep the connection afterwards for as long as its login is worth."""
        try:
            return super().run_task(task, ctx)
        finally:
            login = self.session.login_seconds * LOGINS
            self.idle_seconds = min(max(login, MIN_IDLE_SECONDS), MAX_IDLE_SECONDS)

    def _walk(self, ctx: Context, seconds: float = SECONDS, *, again: bool = False) -> Walk:
        seconds = min(seconds, SUSPECT_SECONDS) if ctx.task.is_suspect else seconds
        return Walk(ctx, self.session, self.config, self.root, seconds, again=again)

    def _rest(self, walk: Walk, left: Sequence[Place]) -> TaskResult:
        """Leave directories to follow-ups, so that each connection has work."""
        parts = self.config.max_connections if walk.seconds == FIRST_SECONDS else 2
        walk.tasks += split(left, parts, min(3 * walk.seconds, SECONDS))
        return walk.result()
