"""The Unix user that runs the embedded PostgreSQL for root; PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.embedded.locks import private_folder
from core.errors import ServerUnavailable

UnixUser = pwd.struct_passwd

_NAME = "polling-postgres"
# Root copies programs to this folder if the user cannot enter their original folder.
_SHARED = Path("/var/lib/integration-polling")


def server_user(data: Path) -> UnixUser | None:
    """Return the user that runs the server; None unless this process runs as root.

    This is the owner of the data folder, or the system user `polling-postgres`, which is created if
    needed. If the machine has no `useradd`, it is `nobody`.
    """
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, KeyError):
        owner = pwd.getpwuid(data.stat().st_uid)
        if owner.pw_uid != 0:
            return owner
    return _find_user(_NAME) or _create_user() or pwd.getpwnam("nobody")


def run_as(user: UnixUser | None) -> dict[str, Any]:
    """Return the `subprocess` arguments that run a program as this user, without other groups."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def chown_tree(folder: Path, user: UnixUser | None) -> None:
    """Make the user the owner of the folder and of everything in it."""
    if user is None or folder.stat().st_uid == user.pw_uid:
        return
    # The folder is the last one: its owner shows that the change is complete.
    for path in (*folder.rglob("*"), folder):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def reachable_install(install: Path, user: UnixUser | None, version: str) -> Path:
    """Return the folder with PostgreSQL's programs.

    It is a copy if the user cannot enter the original folder, such as one in /root.

    Args:
      install: The original folder.
      user: The user that runs the programs.
      version: The version of the wheel. Each version has its own copy.

    Raises:
      ServerUnavailable: The programs cannot be copied.
    """
    install = install.resolve()
    if user is None or _open_to_all(install / "bin" / "initdb"):
        return install
    copy = _SHARED / f"pgserver-{version}"
    place = copy / install.parent.name / install.name
    try:
        if not place.exists():
            _copy(install, copy)
    except OSError as error:
        raise ServerUnavailable(
            "embedded-programs-unreachable",
            user=user.pw_name,
            folder=install,
            copy=copy,
            detail=error.strerror,
        ) from error
    return place


def _open_to_all(path: Path) -> bool:
    return all(step.stat().st_mode & 0o001 for step in (path, *path.parents))


def _copy(install: Path, copy: Path) -> None:
    """Copy the programs, and the libraries that they load from a path relative to their own."""
    private_folder(copy.parent).chmod(0o755)
    draft = copy.with_name(f"{copy.name}.{os.getpid()}")
    package = install.parent
    skip = shutil.ignore_patterns("include", "*.a", "pkgconfig")
    shutil.copytree(install, draft / package.name / install.name, symlinks=True, ignore=skip)
    for libraries in (Path(f"{package.name}.libs"), Path(package.name, ".dylibs")):
        if (package.parent / libraries).is_dir():
            shutil.copytree(package.parent / libraries, draft / libraries, symlinks=True)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    with suppress(OSError):  # another process has made the copy
        draft.rename(copy)
    shutil.rmtree(draft, ignore_errors=True)


def _find_user(name: str) -> UnixUser | None:
    with suppress(KeyError):
        return pwd.getpwnam(name)
    return None


def _create_user() -> UnixUser | None:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program:
        options = [
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/bin/false",
        ]
        subprocess.run([program, *options, _NAME], capture_output=True, check=False)
    return _find_user(_NAME)
