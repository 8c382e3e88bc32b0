"""The walk through a tree: one task lists directories and fetches their small files.

A task works for some seconds, and leaves the rest to follow-ups. So a tree of many small
directories needs few tasks, and few logins.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from core import (
    MAX_INLINE_BYTES,
    Context,
    IntegrationError,
    Listing,
    PermanentError,
    RateLimited,
    TaskOutput,
    TaskResult,
    TransientError,
)
from core import Task as FollowUp
from integration_polling_ftp import names, server_hashes
from integration_polling_ftp.account import Config
from integration_polling_ftp.checksums import MISMATCH, Mismatch, expected
from integration_polling_ftp.connection import Connection, Stat, stat_of
from integration_polling_ftp.directory import SPECIAL, Directory, read
from integration_polling_ftp.errors import Dropped
from integration_polling_ftp.fetching import (
    MAX_HELD_BYTES,
    Received,
    judge,
    receive,
)
from integration_polling_ftp.follow_ups import ListedFile, NewFile, Place, batches, task_of
from integration_polling_ftp.listing import Entry, Kind, timestamp
from integration_polling_ftp.loops import leads_back
from integration_polling_ftp.markers import Markers
from integration_polling_ftp.reading import UNSTABLE, After, Look, file_output
from integration_polling_ftp.refusals import Memory
from integration_polling_ftp.renames import copy, sources
from integration_polling_ftp.selection import Selection
from integration_polling_ftp.versions import (
    FURTHEST_ZONE,
    GROWING,
    Version,
    is_racy,
    is_recent,
    is_same,
    is_same_look,
    precision,
    stat_of_version,
)

MAX_DEPTH = 64

FIRST_SECONDS = 0.5
SECONDS = 2.0
"""Seconds that the first task of a run, and each later one, works before it leaves the rest.

Each generation of a walk works three times as long as the one before, up to `SECONDS`: early ones
find work for all connections, and later ones need few tasks. A worker that is killed loses what its
tasks did.
"""

SUSPECT_SECONDS = 0.25
"""Seconds that a task works if a process died while it ran it.

The third such death parks a task, so that a file that kills its reader stops no others. A worker
that is killed again and again must not get there.
"""

WALK_ROUND_TRIPS = 30
"""The round trips for which a task works at least, if they take longer than its seconds."""

MAX_ITEMS = 20_000
"""The number of items that one task lists, before it leaves the rest."""

MIN_FILE_SECONDS = 0.001
"""The least estimated seconds for a small file."""

LARGE_BYTES = 4 * 1024 * 1024
"""The size from which a file has a task of its own."""

MAX_BATCH_FILES = 1_000
BATCH_SECONDS = 2.0
BATCH_ROUND_TRIPS = 60
"""Bounds of a follow-up, if a directory has more new files than a task fetches.

The first is its maximum number of files. The others are the time that it should take at least, in
seconds or round trips, whichever is longer: it begins with a dispatch and ends with a listing.
"""

MAX_COPIED_BYTES = 1024**3
"""The bytes of renamed files that one task copies from kept files."""

ENTRIES_PER_FILE = 10
"""The number of entries in a listing that cost as much as the facts of one file."""


@dataclass(slots=True)
class Walk:
    """One task's work: what it has listed, fetched and left out.

    With `again`, it fetches files although their size and time did not change.
    """

    ctx: Context
    session: Connection
    config: Config
    root: str
    seconds: float = SECONDS
    began: float = field(default_factory=time.monotonic)
    output: list[TaskOutput] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    tasks: list[FollowUp] = field(default_factory=list)
    listed: list[Listing] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unchanged: int = 0
    held: int = 0
    fetched: int = 0
    fetching_seconds: float = 0.0
    copied: int = 0
    gone: set[str] = field(default_factory=set)
    checksums: dict[str, str] = field(default_factory=dict)
    again: bool = False
    memory: Memory = field(init=False)
    selection: Selection = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.ctx)
        self.selection = Selection(self.config, self.root)

    def is_over(self) -> bool:
        """Return True if the task should leave the rest to follow-ups."""
        items = len(self.output) + len(self.seen)
        seconds = self.seconds
        if seconds > FIRST_SECONDS:  # the other connections wait for the first task
            seconds = max(seconds, WALK_ROUND_TRIPS * self.session.round_trip)
        late = time.monotonic() - self.began > seconds
        full = items > MAX_ITEMS or self.held >= MAX_HELD_BYTES
        return late or full or self.ctx.stopping

    def pace(self) -> float:
        """Return the estimated seconds for one small file: measured, or two round trips."""
        if self.fetched:
            return max(self.fetching_seconds / self.fetched, MIN_FILE_SECONDS)
        return max(2 * self.session.round_trip, MIN_FILE_SECONDS)

    def result(self) -> TaskResult:
        """Return everything that the task did."""
        seen = [path for path in self.seen if path not in self.gone]
        return TaskResult(
            self.output, self.tasks, self.memory.changes(), seen, self.listed,
            self.unchanged, dict(self.skipped),
        )  # fmt: skip

    # Directories

    def visit(self, places: Sequence[Place]) -> list[Place]:
        """List directories and their subdirectories, until the time is over.

        Returns:
          The directories that are left.
        """
        pending = list(places)
        done = 0
        while pending and not (done and self.is_over()):
            place = pending.pop()
            try:
                pending += self._directory(*place)
            except (Dropped, RateLimited):
                if not done:
                    raise
                return [*pending, place]
            except (TransientError, PermanentError):
                if not done and not pending:
                    raise
                self.tasks.append(task_of("list_directory", path=place[0], trail=list(place[1])))
            done += 1
        return pending

    def _directory(self, path: str, trail: tuple[str, ...]) -> list[Place]:
        """List one directory, and fetch its small files. Returns its subdirectories."""
        try:
            if path == self.root:
                trail = tuple(filter(None, [self.session.unique(path)]))
            found = read(self.session, path, "")
        except (TransientError, RateLimited):
            raise
        except PermanentError as error:
            if path == self.root:
                raise
            self._refused(path, "", error, kind="directory")
            return []
        if leads_back(self.session, found, trail):
            self._skip_loop(path)
            return []
        below = self.take(found, trail)
        if path != self.root:
            parent = path.rpartition("/")[0] or "/"
            self.output.append(
                TaskOutput(path, kind="directory", parent=parent, name=names.base_name(path))
            )
        return below

    def _skip_loop(self, path: str) -> None:
        """Do not keep a directory that leads back."""
        self.skipped["link to a directory above it"] += 1
        self.ctx.log.info("directory %r skipped: it is one of its own ancestors", path)
        self.gone.add(path)
        if self.ctx.fingerprints([path]):
            self.output.append(TaskOutput.gone(path))

    def take(self, found: Directory, trail: tuple[str, ...], again: int = 0) -> list[Place]:
        """Work on a portion of a directory. Returns its subdirectories.

        Args:
          found: The directory.
          trail: The `unique` facts or digests from the root to it.
          again: The number of earlier tasks that listed it for its renamed files.
        """
        found.raise_if_unreadable()
        markers = Markers(self.config.ready_marker, self.session, found)
        listed = set(found.files) if self.config.checksum_files else set()
        self.selection.apply(found)
        known = self.ctx.fingerprints(found.files)
        self._drop_special(found, known)
        below = list(self._below(found, trail))
        self.skipped.update(found.skipped)
        for line in found.unreadable[:3]:
            self.ctx.log.warning("unreadable line in the listing of %r: %r", found.path, line)
        self.output += (TaskOutput.gone(path) for path, value in known.items() if value is None)
        self.seen += found.directories  # each is kept when it is entered
        # The kept bytes must stay until they are copied.
        if not self._files(found, known, markers, listed):
            self.tasks.append(
                task_of("list_directory", path=found.path, trail=list(trail), again=again + 1)
            )
        elif found.after:
            self.tasks.append(
                task_of("list_directory", path=found.path, trail=list(trail), after=found.after)
            )
        elif found.is_complete:
            self.listed.append(Listing(found.path))
            self._forget(found)
        return below

    def _forget(self, found: Directory) -> None:
        """Forget the refusals of paths that a complete listing no longer has."""
        if not found.is_portion:
            for name in self.memory.names(found.path):
                if names.join(found.path, name) not in (found.files | found.directories):
                    self.memory.worked(found.path, name)

    def _below(self, found: Directory, trail: tuple[str, ...]) -> Iterator[Place]:
        """Yield the directories to enter, and count the others as skipped."""
        for path, entry in found.directories.items():
            if entry.unique in trail or self._is_loop(found, path, entry, trail):
                found.skipped["link to a directory above it"] += 1
                self.ctx.log.info("directory %r skipped: it is one of its own ancestors", path)
            elif path.count("/") - self.root.count("/") > MAX_DEPTH:
                found.skipped[f"more than {MAX_DEPTH} levels below the root"] += 1
                self.ctx.log.warning(
                    "directory %r skipped: more than %d levels below the root", path, MAX_DEPTH
                )
            elif refusal := self.memory.waiting(found.path, names.base_name(path), "directory"):
                found.skipped[_reason(refusal.reason)] += 1
            else:
                yield path, (*trail, entry.unique or found.digest)

    def _is_loop(self, found: Directory, path: str, entry: Entry, trail: tuple[str, ...]) -> bool:
        """Return True if a directory whose server gives no `unique` fact leads back to itself.

        An equal listing of an ancestor is the sign, and `LIST` must show a link on the way.
        """
        if entry.unique or not found.is_mlsd or found.digest not in trail:
            return False
        parent, name = path.rpartition("/")[0], names.base_name(path)
        return self._is_link(parent, name) or self._is_link(
            parent.rpartition("/")[0] or "/", names.base_name(parent)
        )

    def _is_link(self, parent: str, name: str) -> bool:
        return self._kinds(parent or "/").get(name) == "link"

    def _kinds(self, path: str) -> dict[str, Kind]:
        try:
            return self.session.kinds(path)
        except PermanentError:
            return {}

    def _drop_special(self, found: Directory, known: dict[str, str | None]) -> None:
        """Remove pipes, sockets and devices that MLSD shows as empty files."""
        if not found.is_mlsd:
            return
        empty = [
            path
            for path, entry in found.files.items()
            if entry.size == 0 and not is_same(known.get(path), entry.version)
        ]
        kinds = self._kinds(found.path) if empty else {}
        for path in empty:
            if kinds.get(names.base_name(path)) == "other":
                del found.files[path]
                found.others.add(path)
                found.skipped[SPECIAL] += 1

    # Files

    def _files(
        self, found: Directory, known: dict[str, str | None], markers: Markers, listed: set[str]
    ) -> bool:
        """Fetch new and changed files: few of them here, many in follow-ups.

        `listed` has the paths of all files of the directory, to find checksum files.

        Returns:
          True, unless renamed files are left to copy.
        """
        self.seen += found.files
        now = self.ctx.now
        new: list[NewFile] = []
        unsettled: list[NewFile] = []
        for path, entry in found.files.items():
            name, version = names.base_name(path), entry.version
            kept = Version.parse(known.get(path))
            if kept is not None and kept.is_current(stat_of(entry), now):
                self.unchanged += 1
            elif not markers.is_ready(name):
                self.skipped["without ready_marker"] += 1
            elif self._is_quiet(path, entry, now):
                self.skipped["changed too recently"] += 1
            elif refusal := self.memory.waiting(found.path, name, version):
                self.skipped[_reason(refusal.reason)] += 1
            elif self._is_unsettled(found.path, entry, name, kept, now):
                unsettled.append((name, version, path in found.links))
            else:
                new.append((name, version, path in found.links))
        changed = [names.join(found.path, name) for name, *_ in (*new, *unsettled)]
        copied, waiting = self._copy_renamed(found, [path for path in changed if path not in known])
        renamed = copied | waiting
        new = [file for file in new if names.join(found.path, file[0]) not in renamed]
        unsettled = [file for file in unsettled if names.join(found.path, file[0]) not in renamed]
        self._find_checksums(found.path, listed, [*new, *unsettled])
        new = self._leave_large(found.path, new, known)
        self._fetch_or_leave(found.path, new, found.size)
        waiting_files = self.with_checksums(found.path, unsettled)
        for task in batches(
            "settle", waiting_files, MAX_BATCH_FILES, parent=found.path, size=found.size
        ):
            self.tasks.append(replace(task, delay=self.config.settle_seconds))
        return not waiting

    def _is_quiet(self, path: str, entry: Entry, now: datetime) -> bool:
        """Return True if a file changed within the last `quiet_seconds`, to the second if known."""
        quiet = self.config.quiet_seconds
        changed = timestamp(entry.modified)
        if not quiet or changed is None:
            return False
        if (
            now - changed < timedelta(seconds=quiet) + FURTHEST_ZONE
            and precision(entry.modified) > 1
            and (exact := self.session.times([path]).get(path))
        ):
            changed = timestamp(exact) or changed
        return changed > now - timedelta(seconds=quiet)

    def _is_unsettled(
        self, parent: str, entry: Entry, name: str, kept: Version | None, now: datetime
    ) -> bool:
        """Return True if a file needs a second look.

        A file that rests since an earlier run needs none, nor does one that is only fetched again
        because its version is racy.
        """
        stat = stat_of(entry)
        if not self.config.settle_seconds or not is_recent(entry.modified, now):
            return False
        if kept is not None and (kept.is_same(stat) or kept.may_be_current(stat)):
            return False
        return not self.memory.rests(parent, name, entry.version)

    def _leave_large(
        self, parent: str, files: Sequence[NewFile], known: dict[str, str | None],
        settled: float = 0.0,
    ) -> list[NewFile]:  # fmt: skip
        """Leave large and growing files to tasks of their own. Returns the others."""
        small: list[NewFile] = []
        for name, version, is_link in files:
            path = names.join(parent, name)
            if (stat_of_version(version).size or 0) >= LARGE_BYTES or _needs_own_task(path, known):
                self._download(path, parent, version, settled)
            else:
                small.append((name, version, is_link))
        return small

    def _download(self, path: str, parent: str, version: str, settled: float = 0.0) -> None:
        """Leave a file to a task of its own."""
        checksum = {"checksum": self.checksums[path]} if path in self.checksums else {}
        self.tasks.append(
            task_of(
                "download", path=path, parent=parent, version=version, settled=settled,
                **checksum, **self.marks(),
            )
        )  # fmt: skip

    def _copy_renamed(self, found: Directory, new: Sequence[str]) -> tuple[set[str], set[str]]:
        """Keep renamed files with the bytes that are kept.

        Returns:
          Their paths, and those that wait for a further task, because this one holds enough.
        """
        renamed = sources(self.ctx, found, new)
        copied: set[str] = set()
        for path, source in renamed.items():
            if self.held >= MAX_HELD_BYTES or self.copied >= MAX_COPIED_BYTES:
                return copied, renamed.keys() - copied
            entry = found.files[path]
            received = copy(self.ctx, source, entry.size)
            if received is None:
                continue
            size = received.size
            self.held += min(size, MAX_INLINE_BYTES)
            self.copied += size
            version = Version(size, entry.modified, unique=entry.unique or "")
            kind = received.content_type(path)
            content = received.content(kind)
            self.output.append(
                file_output(path, found.path, content, size, version, self.session.source, kind)
            )
            copied.add(path)
        return copied, set()

    def drop_unchanged(self, parent: str, files: list[NewFile]) -> list[NewFile]:
        """Return the files without those whose exact time proves that they did not change."""
        if self.session.source != "LIST":
            return files
        known = self.ctx.fingerprints([names.join(parent, name) for name, *_ in files])
        kept = {
            path: version
            for name, listed, _ in files
            if (version := Version.parse(known.get(path := names.join(parent, name))))
            and version.may_be_current(stat_of_version(listed))
        }
        times = self.session.times(list(kept)) if kept else {}
        left: list[NewFile] = []
        for name, listed, is_link in files:
            path, stat = names.join(parent, name), stat_of_version(listed)
            if path not in kept or times.get(path) != kept[path].exact:
                left.append((name, listed, is_link))
                continue
            self.unchanged += 1
            if not kept[path].is_same(stat):  # the server shows its times in another zone now
                shown = replace(kept[path], modified=stat.modified)
                self.output.append(
                    TaskOutput.update(path, metadata={"size": stat.size}, fingerprint=shown.text)
                )
        return left

    def settle(self, parent: str, files: Sequence[NewFile], entries: int) -> None:
        """Look at files a second time, and fetch those that did not change.

        One listing answers for all of them. A file whose server gives neither size nor time counts
        as unchanged.

        Args:
          parent: The path of the directory.
          files: The files, with their versions of the first look.
          entries: The number of entries of the directory.
        """
        paths = [names.join(parent, name) for name, *_ in files]
        known = self.ctx.fingerprints(paths)
        after = self._after(parent, paths, entries)
        new: list[NewFile] = []
        for path, (name, version, is_link) in zip(paths, files, strict=True):
            now = self.session.follow(path) if is_link else after.stats.get(path)
            is_known = now is not None or after.names is not None
            before = stat_of_version(version)
            if after.names is not None and path not in after.names:
                self._gone(path)
            elif is_known and (now is None or not is_same_look(before, now)):
                self._changing(path, parent, before, now)
            else:
                new.append((name, version, is_link))
        if self.config.checksum_files and after.names is not None:
            self._find_checksums(parent, after.names, new)
        settled = 0.0 if self.again else self.config.settle_seconds
        new = self._leave_large(parent, new, known, settled)
        self._fetch_or_leave(parent, new, entries, settled)

    def _changing(self, path: str, parent: str, before: Stat, now: Stat | None) -> None:
        """Leave a file that still changes to the next run, which compares it with this look.

        With `growing`, a file that only grew is downloaded as far as it goes.
        """
        grows = now is not None and (now.size or 0) > (before.size or 0)
        if grows and now is not None and self.config.growing:
            self.tasks.append(task_of("download", path=path, parent=parent, version=now.version))
            return
        self.skipped["still changing"] += 1
        if now is not None:
            self.memory.changing(parent, names.base_name(path), now.version)

    def _fetch_or_leave(
        self, parent: str, new: list[NewFile], entries: int, settled: float = 0.0
    ) -> None:
        if new and not self.is_over():
            with suppress(Dropped, RateLimited):  # the listing is good: follow-ups fetch the files
                new = self.fetch(parent, new, entries, settled)
        batch = -(-len(new) // max(self.config.max_connections, 1))
        seconds = max(BATCH_SECONDS, BATCH_ROUND_TRIPS * self.session.round_trip)
        batch = min(max(batch, int(seconds / self.pace())), MAX_BATCH_FILES)
        left = self.with_checksums(parent, new)
        self.tasks += batches(
            "fetch", left, batch, parent=parent, size=entries, settled=settled, **self.marks()
        )

    def marks(self) -> dict[str, bool]:
        """Return the arguments of follow-ups that fetch the same files."""
        return {"again": True} if self.again else {}

    def leave_different(self, parent: str, files: Sequence[NewFile], entries: int) -> None:
        """Leave files to tasks that fetch them, although their size and time did not change."""
        self.tasks += batches(
            "settle", files, MAX_BATCH_FILES, parent=parent, size=entries, again=True
        )

    def _find_checksums(
        self, parent: str, listed: Collection[str], files: Sequence[NewFile]
    ) -> None:
        """Read the checksum files of a directory, for some files of it."""
        paths = [names.join(parent, name) for name, *_ in files]
        for path in paths:
            self.checksums.pop(path, None)
        self.checksums |= expected(self.session, self.config.encoding, parent, listed, paths)

    def with_checksums(self, parent: str, files: Sequence[NewFile]) -> list[ListedFile]:
        """Return files for a follow-up, with the checksums that they should have."""
        return [
            (*file, checksum)
            if (checksum := self.checksums.get(names.join(parent, file[0])))
            else file
            for file in files
        ]

    def with_known(self, parent: str, files: Sequence[ListedFile]) -> list[NewFile]:
        """Return the files of a follow-up, and remember their checksums."""
        for name, _, _, *checksum in files:
            if checksum:
                self.checksums[names.join(parent, name)] = checksum[0]
        return [(name, version, is_link) for name, version, is_link, *_ in files]

    def fetch(
        self, parent: str, files: Sequence[NewFile], entries: int, settled: float = 0.0
    ) -> list[NewFile]:
        """Fetch small files of one directory in a row, and check them with one listing.

        Args:
          parent: The path of the directory.
          files: The files.
          entries: The number of entries of the directory, which tells what a listing costs.
          settled: The seconds since the first look at these versions of the files. Default: 0.

        Returns:
          The files that are left: the time was over, or the connection was lost.
        """
        files = list(files) if self.again else self.drop_unchanged(parent, list(files))
        left = {names.join(parent, file[0]): file for file in files}
        look = self.look(left, settled)
        sizes = {
            path: None if is_link else stat_of_version(version).size
            for path, (_, version, is_link) in left.items()
        }
        room, began = MAX_HELD_BYTES - self.held, time.monotonic()
        arrived: list[tuple[str, Received]] = []
        try:
            for path, received in receive(
                self.session, self.ctx, sizes, room, self.is_over, self.checksums
            ):
                arrived.append((path, received))
            self.fetched += len(arrived)
            self.fetching_seconds += time.monotonic() - began
            after = self._after(parent, [path for path, _ in arrived], entries)
            look.exact |= self.session.times(
                [
                    path
                    for path, _ in arrived
                    if path not in look.exact and _is_coarse(after.stats.get(path), left[path])
                ]
            )
            for path, received in arrived:
                self._keep(path, parent, left.pop(path), received, after, look)
        finally:
            for _, received in arrived:
                received.close()
        return list(left.values())

    def _after(self, parent: str, paths: Sequence[str], entries: int) -> After:
        """Return the server's facts about files after their transfer.

        One listing answers for all of them, unless the directory is much larger than their number.
        """
        if not paths:
            return After()
        if entries <= ENTRIES_PER_FILE * len(paths) + 500:
            try:
                found = read(self.session, parent, "", links=False)
            except (Dropped, RateLimited):
                raise
            except IntegrationError:
                return After()
            if found.is_complete and not found.after:
                stats = {path: stat_of(entry) for path, entry in found.files.items()}
                return After(stats, found.names())
        stats = self.session.stats(paths)
        return After({path: stat for path, stat in stats.items() if stat != Stat()})

    def look(self, files: Mapping[str, NewFile], settled: float) -> Look:
        """Look at files before they are read; get their exact times, if those decide.

        Args:
          files: The files, by path.
          settled: The seconds since the first look at these versions.
        """
        began = self.ctx.now
        times = {
            path: stat_of_version(version).modified
            for path, (_, version, is_link) in files.items()
            if not is_link
        }
        racy = [
            path
            for path, modified in times.items()
            if precision(modified) > 1 and is_racy(modified, began, settled)
        ]
        exact = self.session.times(racy) if racy else {}
        return Look(began, settled, exact, frozenset(exact))

    def _keep(
        self, path: str, parent: str, file: NewFile, received: Received, after: After, look: Look
    ) -> None:
        """Keep a file that arrived, or say why not."""
        name, version, is_link = file
        if isinstance(received.error, Dropped):
            self._download(path, parent, version)
            return
        if received.error is not None:
            self.failed(path, version, received.error, after)
            return
        before, size = stat_of_version(version), received.size
        now = after.stats.get(path, None if after.names is not None else before)
        verdict = judge(size, before, now, is_link=is_link)
        if verdict == "short" and self.session.follow(path).size == size:
            verdict = "kept"  # the listing is wrong about the size
        if verdict in UNSTABLE:
            self.skipped[UNSTABLE[verdict]] += 1
            self.ctx.log.info(
                "%r skipped: %s (%d bytes, listed %s)", path, UNSTABLE[verdict], size, version
            )
            return
        proofs = {}
        if received.digest is not None and verdict == "kept":
            if not received.digest.matches():
                self._refused(path, version, Mismatch(MISMATCH))
                return
            proofs = {"checksum": received.digest.algorithm}
        kept = look.version(path, size, before, before if is_link else now or before, verdict)
        source = "MDTM" if is_link and self.session.source == "LIST" else self.session.source
        self.memory.worked(parent, name)
        self.held += min(size, MAX_INLINE_BYTES)
        kind = received.content_type(path)
        content = received.content(kind)
        self.output.append(file_output(path, parent, content, size, kept, source, kind, proofs))

    def listing_of(self, parent: str) -> After:
        """Return a new listing of a directory, as far as it can be read."""
        return self._after(parent, [parent], 0)

    def failed(self, path: str, version: str, error: IntegrationError, after: After) -> None:
        """Skip a file that the server refuses; a file that it no longer lists is gone."""
        if after.names is not None and path not in after.names:
            self._gone(path)
        else:
            self._refused(path, version, error)

    def _gone(self, path: str) -> None:
        """Mark a file deleted that disappeared after the listing."""
        self.gone.add(path)
        self.output.append(TaskOutput.gone(path))
        self.skipped["gone before it was fetched"] += 1

    def _refused(
        self, path: str, version: str, error: IntegrationError, *, kind: str = "file"
    ) -> None:
        parent, name = path.rpartition("/")[0] or "/", names.base_name(path)
        version = version if kind == "file" else kind
        may_pass = isinstance(error, TransientError | Mismatch)
        self.memory.refused(parent, name, version, str(error), may_pass=may_pass)
        self.skipped[_reason(str(error))] += 1
        self.ctx.log.warning("%s %r skipped: %s", kind, path, error)


def _is_coarse(now: Stat | None, file: NewFile) -> bool:
    """Return True if a listing does not give the second of a file's time."""
    modified = stat_of_version(file[1]).modified if now is None else now.modified
    return not file[2] and precision(modified) != 1


def _needs_own_task(path: str, known: dict[str, str | None]) -> bool:
    """Return True for a file that grew while it was read, or that was a directory before.

    The deletion of the directory must be committed before the file.
    """
    fingerprint = known.get(path, "")
    return fingerprint is None or fingerprint.endswith(f":{GROWING}")


def _reason(error: str) -> str:
    """Return a reason for counting: the reply code, without the text that names a path."""
    if error in (MISMATCH, server_hashes.MISMATCH):
        return error
    code = error[:3]
    if code.isdecimal():
        return f"refused by the server ({code})"
    return "not readable"
