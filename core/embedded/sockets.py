"""The folder of a server's Unix socket."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from core.embedded.unix_user import UnixUser, chown_tree

# The kernel's limit is 104 bytes on macOS and 108 on Linux.
_MAX_PATH_BYTES = 100


def socket_folder(folder: Path, name: str, user: UnixUser | None = None) -> Path:
    """Return the folder for the socket `name`.

    This is `folder`, or a private temporary folder if the path is too long. A link beside `folder`
    then leads other processes to the temporary folder. Its mode 0700 controls the access.
    """
    # libpq reads a comma as the separator of two hosts.
    if len(os.fsencode(folder / name)) <= _MAX_PATH_BYTES and b"," not in os.fsencode(folder):
        return folder
    link = _link(folder)
    if not _private(link, user):
        # The path of this folder is short on every system.
        place = Path(tempfile.mkdtemp(prefix="polling-", dir="/tmp"))
        chown_tree(place, user)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
    return link.readlink()


def discard_socket_folder(folder: Path) -> None:
    """Delete the temporary folder and its link, if they exist."""
    link = _link(folder)
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)
        link.unlink()


def _link(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.socket")


def _private(link: Path, user: UnixUser | None) -> bool:
    """Return true if the link leads to a private folder of the right owner.

    If a cleaner has deleted the temporary folder, another user could create one of the same name.
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
