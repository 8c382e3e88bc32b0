"""The engine as the demo runs it: a home of its own, real worker processes, and two accounts."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from core.db.migrate import migrate
from core.db.version import current, require_schema
from core.environment import get_environment, leave_environment
from core.errors import ServerUnavailable, WrongState
from core.service.accounts import actions as account_actions
from core.service.accounts import queries as account_queries
from core.service.backend import Backend, open_backend
from core.service.runs import actions as run_actions
from core.settings import Settings, get_settings
from core.supervisor import worker_command

USER = "demo"
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Account:
    """A connected account and its run."""

    id: UUID
    domain: str
    run: UUID


def choose_home() -> Path:
    """The home folder of the settings.

    It is a new temporary one if they name neither home nor servers.
    """
    settings = get_settings()
    if not settings.model_fields_set & {"home", "database_url", "redis_url"}:
        os.environ["POLLING_HOME"] = tempfile.mkdtemp(prefix="polling-demo-")
        get_settings.cache_clear()
    home = get_settings().home.absolute()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return home


@contextmanager
def backend(settings: Settings) -> Iterator[Backend]:
    """The backend of the servers, given or embedded.

    A database without a schema gets one; one of another version is left alone.

    Raises:
      ServerUnavailable, SettingsError: What is missing, and what to do.
    """
    try:
        servers = get_environment()
        if current(servers.database_url) is None:
            migrate(servers.database_url)
        require_schema(servers.database_url)
        engine = open_backend(settings, servers)
        try:
            yield engine
        finally:
            engine.close()
    finally:
        leave_environment()


class Workers:
    """Start `dramatiq core.actors` in its own session.

    Ctrl-C then reaches only the demo, which ends the workers in order.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        command = worker_command(settings.processes, settings.threads)
        with log.open("wb") as log_file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )

    def require(self) -> None:
        """Raises ServerUnavailable, with what they said last, if they have ended."""
        code = self._process.poll()
        if code is not None:
            raise ServerUnavailable(
                "demo-workers-ended", exit_code=code, last_words=self.last_words(), log=self.log
            )

    def last_words(self) -> str:
        """The last line of their log that is worth reading."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
        return errors[-1].strip()[:300]

    def stop(self) -> None:
        """Ask them to end, and kill what is left after a while or at a second Ctrl-C."""
        self._process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                self._process.wait(STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def working(settings: Settings, log: Path) -> Iterator[Workers]:
    """Worker processes for as long as the block runs."""
    workers = Workers(settings, log)
    try:
        yield workers
    finally:
        workers.stop()


def connect(
    backend: Backend, domain: str, config: Mapping[str, Any], credentials: Mapping[str, Any]
) -> Account:
    """Connect an account of the demo's user, and start a run of it.

    Raises:
      NotFound, InvalidInput, PollingError: As `accounts.connect`.
    """
    connection = account_actions.connect(
        backend,
        domain,
        config=config,
        credentials=credentials,
        user_id=USER,
        name=f"demo-{domain}",
    )
    run, _ = run_actions.sync(backend, connection.id)
    return Account(connection.id, domain, run)


def pause(backend: Backend, account: Account) -> None:
    """Pause an account whose server ends with the demo, for workers that start on this database
    later.
    """
    with suppress(WrongState), backend.database.connection() as conn:
        account_actions.pause(conn, account.id)


def login(root: Path) -> str:
    """The user name at the FTP server that stands for this directory."""
    return f"demo-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def last_port(backend: Backend, login: str) -> int | None:
    """The port at which an earlier demo served the same directory.

    The server's address is a part of what makes it the same account again.
    """
    with backend.database.connection() as conn:
        for row in account_queries.accounts.pages(conn, user_id=USER, integration_domain="ftp"):
            if row["identity"].startswith(f"{login}@"):
                return int(row["config"]["port"])
    return None
