"""The keys that encrypt credentials, from the settings or a key file."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from core.embedded.locks import open_lock, owned, private_folder
from core.errors import SettingsError

if TYPE_CHECKING:
    from core.settings import Settings


def secret_keys(settings: Settings) -> tuple[str, ...]:
    """Return the configured keys; for an embedded database, the key in `secret.key` under home.

    The file is created if it is missing. A configured database needs configured keys: other
    machines may share it, and could not decrypt credentials encrypted with a key of this machine.

    Raises:
      SettingsError: A database is configured without keys, or other users can read the key file.
    """
    if settings.secret_keys:
        return tuple(key.get_secret_value() for key in settings.secret_keys)
    if settings.database_url is not None:
        raise SettingsError("settings-missing-keys")
    path = settings.home.absolute() / "secret.key"
    if not path.exists():
        _make(path)
    return (_read(path),)


def _make(path: Path) -> None:
    from cryptography.fernet import Fernet

    private_folder(path.parent)
    with owned(open_lock(path.with_suffix(".lock"))) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        # Write the key to a draft and rename it: no process ever reads an incomplete key. A draft
        # that a crash left behind has no value.
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)


def _read(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SettingsError("key-file-readable", path=path)
        return path.read_text("ascii").strip()
    except PermissionError:
        raise SettingsError("key-file-unreadable", path=path) from None
