"""The integration: tasks list directories, and one task downloads each new or changed file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from core import (
    AccountIdentity,
    BaseIntegration,
    Concurrency,
    ConfigurationError,
    Context,
    Limit,
    Listing,
    Manifest,
    Task,
    TaskOutput,
    TaskResult,
    task,
)
from integration_polling_ftp import names
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.download import fetch
from integration_polling_ftp.errors import CONNECTIONS, Missing
from integration_polling_ftp.listing import Entry, is_same, timestamp
from integration_polling_ftp.session import Session

MAX_DEPTH = 64


@dataclass(slots=True)
class Directory:
    """The entries of a directory, by path.

    Attributes:
      files, directories, links: The entries of each kind. Links to files become files.
      is_complete: False if a line of the listing was unreadable.
    """

    files: dict[str, Entry] = field(default_factory=dict)
    directories: dict[str, Entry] = field(default_factory=dict)
    links: dict[str, Entry] = field(default_factory=dict)
    is_complete: bool = True


class Ftp(BaseIntegration[Config, Credentials]):
    """The FTP integration: it keeps files and directories by path.

    A run downloads a file again if its size or time differs, and marks items deleted that a listing
    no longer has.
    """

    manifest = Manifest("ftp", "FTP", limits=[Concurrency(CONNECTIONS, 4)])

    @classmethod
    def limits(cls, config: Config) -> Sequence[Limit]:
        """Allow `max_connections` connections at a time."""
        return [Concurrency(CONNECTIONS, config.max_connections)]

    @cached_property
    def session(self) -> Session:
        """The connection to the server, opened on first use."""
        return Session(self.config, self.credentials)

    @cached_property
    def root(self) -> str:
        """The path of the root as it is stored."""
        return names.from_user(self.config.root)

    def close(self) -> None:
        """Close the connection."""
        self.session.close()

    def check(self) -> AccountIdentity:
        """Log in, and enter the root directory.

        Returns:
          The id `user@host:port/root`.

        Raises:
          ConfigurationError: The root does not exist, or the server requires encryption.
          CredentialsInvalid: The server rejects the login.
          RateLimited: The server has too many connections.
          TransientError: The server cannot be reached.
        """
        try:
            self.session.enter(self.root)
        except Missing as error:
            raise ConfigurationError(
                f"no directory {self.config.root} on the server: {error}"
            ) from None
        host = self.config.host.lower()
        return AccountIdentity(
            f"{self.credentials.username}@{host}:{self.config.port}{self.config.root}",
            f"{host}{self.config.root}",
        )

    def probe(self) -> None:
        """Connect and log in, unless a connection is open, and send `NOOP`.

        Raises:
          Unavailable: The server does not answer.
        """
        self.session.ping()

    def start(self, ctx: Context) -> TaskResult:
        """List the root directory."""
        return TaskResult(tasks=[self._listing(self.root, ())])

    @task(time_limit=600)
    def list_directory(self, ctx: Context, path: str, trail: tuple[str, ...] = ()) -> TaskResult:
        """List a directory, and return tasks for its subdirectories and its new or changed files.

        Args:
          ctx: The task's context.
          path: The directory's path as it is stored.
          trail: The `unique` facts (RFC 3659, section 7.5.2) of the directories from the root to
            this one. They show when a link leads back to one of them. Default: none.
        """
        if path == self.root:
            trail = tuple(filter(None, [self.session.unique(path)]))
        found = self._read(ctx, path)
        known = ctx.fingerprints(found.files)
        return TaskResult(
            output=[*_no_longer_directories(known), *_directories(found, path)],
            seen=found.files,
            tasks=[*self._descend(ctx, found, trail), *self._downloads(found, path, known)],
            listed=[Listing(path)] if found.is_complete else [],
        )

    @task(time_limit=6 * 3600)
    def download(self, ctx: Context, path: str, parent: str, version: str) -> TaskResult:
        """Download a file, or mark it deleted if it no longer exists.

        Args:
          ctx: The task's context.
          path: The file's path as it is stored.
          parent: The path of its directory.
          version: Size and time in the listing; see `Entry.version`.
        """
        try:
            blob = fetch(self.session, ctx, path, version)
        except Missing:
            if self._exists(path):
                raise
            return TaskResult([TaskOutput.gone(path)])
        file = TaskOutput(
            path, blob, kind="file", parent=parent, name=names.base_name(path),
            metadata={"size": blob.size}, timestamp=timestamp(version.partition(":")[2]),
            fingerprint=version,
        )  # fmt: skip
        return TaskResult([file])

    def _exists(self, path: str) -> bool:
        try:
            self.session.stat(path)
        except Missing:
            return False
        return True

    # Reading a directory

    def _read(self, ctx: Context, path: str) -> Directory:
        found = Directory()
        for entry in self.session.entries(path):
            if entry is None:
                ctx.log.warning(
                    "unreadable line in the listing of %r; nothing there is marked deleted", path
                )
                found.is_complete = False
            elif entry.kind != "other" and _is_wanted(ctx, entry, path):
                where = {"file": found.files, "directory": found.directories, "link": found.links}[
                    entry.kind
                ]
                where[names.join(path, entry.text)] = entry
        self._follow_links(ctx, found)
        return found

    def _follow_links(self, ctx: Context, found: Directory) -> None:
        """Turn links to files into files. Skip links to directories, which may form cycles."""
        for path, link in found.links.items():
            try:
                stat = self.session.follow(path)
            except Missing:
                ctx.log.info("link %r skipped: its target is not a file", path)
                continue
            found.files[path] = replace(link, kind="file", size=stat.size, modified=stat.modified)

    # Follow-up tasks

    def _descend(self, ctx: Context, found: Directory, trail: tuple[str, ...]) -> Iterator[Task]:
        for path, entry in found.directories.items():
            if entry.unique in trail:
                ctx.log.info("directory %r skipped: it is one of its own ancestors", path)
            elif path.count("/") - self.root.count("/") > MAX_DEPTH:
                ctx.log.warning(
                    "directory %r skipped: more than %d levels below the root", path, MAX_DEPTH
                )
            else:
                yield self._listing(path, (*trail, entry.unique) if entry.unique else trail)

    def _listing(self, path: str, trail: tuple[str, ...]) -> Task:
        return replace(self.list_directory.task(path=path, trail=trail), key=f"list {path}")

    def _downloads(
        self, found: Directory, parent: str, known: dict[str, str | None]
    ) -> Iterator[Task]:
        quiet_since = datetime.now(UTC) - timedelta(seconds=self.config.quiet_seconds)
        for path, entry in found.files.items():
            changed = timestamp(entry.modified)
            is_quiet = not self.config.quiet_seconds or changed is None or changed <= quiet_since
            if is_quiet and not is_same(known.get(path), entry.version):
                yield self.download.task(path=path, parent=parent, version=entry.version)


def _is_wanted(ctx: Context, entry: Entry, path: str) -> bool:
    if names.is_safe(entry.name):
        return True
    if entry.name not in (".", ".."):
        ctx.log.warning("unsafe name %r in directory %r skipped", entry.name, path)
    return False


def _directories(found: Directory, parent: str) -> Iterator[TaskOutput]:
    return (
        TaskOutput(path, kind="directory", parent=parent, name=names.base_name(path))
        for path in found.directories
    )


def _no_longer_directories(known: dict[str, str | None]) -> Iterator[TaskOutput]:
    """Return deletions of paths that were directories, and are files now.

    Directories have no fingerprint. A deletion includes everything that was in the directory.
    """
    return (TaskOutput.gone(path) for path, fingerprint in known.items() if fingerprint is None)
