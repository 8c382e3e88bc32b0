"""Lock files and private folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import SettingsError


def open_lock(path: Path) -> int:
    """Opens a file to be locked with `flock`; a program that we execute does not inherit it.

    Lock files are never deleted: whoever waited for a deleted one would hold a lock that nobody
    else sees.
    """
    with _usable(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def owned(descriptor: int) -> Iterator[int]:
    """Close the descriptor at the end.

    That also ends its lock unless another process shares it.
    """
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def private_folder(path: Path) -> Path:
    """Makes the folder with mode 0700 unless it exists; its parents are made private as well.

    Raises:
      SettingsError: It cannot be made, or is not ours.
    """
    with _usable(path):
        for folder in reversed((path, *path.parents)):
            folder.mkdir(mode=0o700, exist_ok=True)
    return path


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError("home-unusable", path=path, detail=error.strerror) from error
