"""Lock files and private folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import SettingsError


def open_lock(path: Path) -> int:
    """Open a file to be locked with `flock`; executed programs do not inherit the descriptor.

    Lock files are never deleted: a process that waits for a deleted file would get a lock that no
    other process sees.

    Raises:
      SettingsError: The file cannot be opened.
    """
    with _usable(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextmanager
def owned(descriptor: int) -> Iterator[int]:
    """Close the descriptor at the end of the block.

    This also releases its lock, unless another process shares the descriptor.
    """
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def private_folder(path: Path) -> Path:
    """Create the folder and missing parents with mode 0700, unless they exist.

    Raises:
      SettingsError: The folder cannot be created.
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
