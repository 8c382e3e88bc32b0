"""Files that were renamed: the server's id proves that the kept bytes are theirs."""

from __future__ import annotations

from collections.abc import Iterable

from core import Context
from integration_polling_ftp.connection import Stat
from integration_polling_ftp.directory import Directory
from integration_polling_ftp.fetching import Received
from integration_polling_ftp.listing import Entry
from integration_polling_ftp.versions import Version, precision


def sources(ctx: Context, found: Directory, new: Iterable[str]) -> dict[str, str]:
    """Return the kept file whose bytes a new one has, by the path of the new one.

    The server must give the same `unique` fact, size and time, to the second. RFC 3659 promises the
    fact only for one connection, so a file that did not move must prove that it lasts longer.

    Args:
      ctx: The task's context.
      found: The complete listing of the directory.
      new: The paths of the files that are not kept.
    """
    entries = {path: found.files[path] for path in new if _is_identified(found.files[path])}
    if not entries or found.is_portion:
        return {}
    kept = {
        path: version
        for path, fingerprint in ctx.fingerprints(parent=found.path).items()
        if (version := Version.parse(fingerprint)) is not None and version.unique
    }
    witnesses = [path for path in kept if path in found.files and _stayed(kept[path], found, path)]
    if not witnesses or any(found.files[path].unique != kept[path].unique for path in witnesses):
        return {}
    moved = {version.unique: path for path, version in kept.items() if not version.mark}
    return {
        path: source
        for path, entry in entries.items()
        if (source := moved.get(entry.unique or "")) and _is_equal(kept[source], entry)
    }


def copy(ctx: Context, source: str, size: int | None) -> Received | None:
    """Return the kept bytes of a file; None if they are no longer there."""
    received = Received(ctx)
    try:
        for block in ctx.content(source):
            received.write(memoryview(block))
    except BaseException:
        received.close()
        raise
    if received.size != size:
        received.close()
        return None
    return received


def _is_identified(entry: Entry) -> bool:
    return bool(entry.unique and entry.size and precision(entry.modified) == 1)


def _stayed(version: Version, found: Directory, path: str) -> bool:
    entry = found.files[path]
    return version.is_same(Stat(entry.size, entry.modified))


def _is_equal(version: Version, entry: Entry) -> bool:
    return (version.size, version.modified) == (entry.size, entry.modified)
