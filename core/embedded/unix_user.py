"""The system user that runs PostgreSQL when we are root: PostgreSQL refuses to run as root."""

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
# Where root keeps copies of programs that lie in a folder which the user cannot enter.
_SHARED = Path("/var/lib/integration-polling")


def server_user(data: Path) -> UnixUser | None:
    """The owner of the data folder, or a system user, as whom the server runs; None if not root.

    The system user is `polling-postgres`, made if need be, or `nobody` where the machine has no way
    to make users.
    """
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, KeyError):
        owner = pwd.getpwuid(data.stat().st_uid)
        if owner.pw_uid != 0:
            return owner
    return _find_user(_NAME) or _create_user() or pwd.getpwnam("nobody")


def run_as(user: UnixUser | None) -> dict[str, Any]:
    """What `subprocess` needs to run a program as this user and with no other rights."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def chown_tree(folder: Path, user: UnixUser | None) -> None:
    """Make the user the owner of the folder and of all that is in it."""
    if user is None or folder.stat().st_uid == user.pw_uid:
        return
    for path in (*folder.rglob("*"), folder):  # the folder last: until then it is not done
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def reachable_install(install: Path, user: UnixUser | None, version: str) -> Path:
    """The folder with PostgreSQL's programs.

    It is a copy if the user cannot enter the original folder, such as one in /root.

    Args:
      version: The version of the wheel; each gets its own copy.

    Raises:
      ServerUnavailable: There is no place for a copy.
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
    """Copies the programs, and the libraries that they seek at a path relative to their own."""
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
    with suppress(OSError):  # another home's server was faster
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
