"""Directories that lead back to a directory above them, on servers that give no ids."""

from __future__ import annotations

from collections.abc import Sequence

from core import PermanentError
from integration_polling_ftp import names
from integration_polling_ftp.connection import Connection
from integration_polling_ftp.directory import Directory, read


def leads_back(session: Connection, found: Directory, trail: Sequence[str]) -> bool:
    """Return True if a directory is one of its own ancestors.

    Its listing is equal to the ancestor's in names, sizes and times. As directories below each
    other may look the same, the way from the ancestor to this directory is followed once more: all
    its listings must be equal, and have files.

    Args:
      session: The connection.
      found: The listing of the directory.
      trail: The digests of the listings from the root to the parent; see `Walk`.
    """
    if found.digest not in trail:
        return False
    levels = next(n for n in range(1, len(trail) + 1) if trail[-n] == found.digest)
    if levels == 1 and not found.files:
        return False
    way = found.path.split("/")[-levels:]
    expected = [*trail[len(trail) - levels + 1 :], found.digest]
    path, has_files = found.path, bool(found.files)
    for name, digest in zip(way, expected, strict=True):
        path = names.join(path, name)
        try:
            below = read(session, path, "", links=False)
        except PermanentError:
            return False
        if below.digest != digest:
            return False
        has_files = has_files or bool(below.files)
    return has_files
