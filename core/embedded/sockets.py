"""Where a server's Unix socket lies."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from core.embedded.unix_user import UnixUser, chown_tree

# The kernel's limit is 104 bytes on macOS and 108 on Linux.
_LONGEST = 100


def socket_folder(folder: Path, name: str, user: UnixUser | None = None) -> Path:
    """The folder for the socket `name`.

    It is `folder`, or a private temporary one if that path is too long.

    A link beside `folder` tells the others where that is. Access is by the folder's mode alone:
    0700.
    """
    # libpq takes a comma for the border between two hosts.
    if len(os.fsencode(folder / name)) <= _LONGEST and b"," not in os.fsencode(folder):
        return folder
    link = _link(folder)
    if not _private(link, user):
        place = Path(tempfile.mkdtemp(prefix="polling-", dir="/tmp"))  # short, on every system
        chown_tree(place, user)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
    return link.readlink()


def discard_socket_folder(folder: Path) -> None:
    """Removes the temporary folder and its link, if there are any."""
    link = _link(folder)
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


def _link(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.socket")


def _private(link: Path, user: UnixUser | None) -> bool:
    """Return whether the link leads to a folder of ours.

    After a cleaner removed ours, others could create a link of that name.
    """
    if not link.is_dir():
        return False
    status = link.readlink().lstat()
    owner = user.pw_uid if user else os.geteuid()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == owner
        and stat.S_IMODE(status.st_mode) == 0o700
    )
