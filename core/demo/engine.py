"""Run the engine for the demo: a separate home folder, worker processes and two accounts."""

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
from core.programs import worker_command
from core.service.accounts import actions as account_actions
from core.service.accounts import queries as account_queries
from core.service.backend import Backend, open_backend
from core.service.runs import actions as run_actions
from core.settings import Settings, get_settings

USER = "demo"
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Account:
    """A connected account and its run."""

    id: UUID
    domain: str
    run: UUID


def choose_home() -> Path:
    """Return the configured home folder, created if missing.

    If neither a home folder nor a server is configured, it is a new temporary folder.
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
    """Open the backend of the configured or embedded servers.

    An empty database is migrated. A database with another version's schema is not changed.

    Raises:
      ServerUnavailable: A server does not answer, or the schema has another version.
      SettingsError: A setting is missing or invalid.
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
    """Worker processes, started with `dramatiq core.actors` in their own session.

    Ctrl-C therefore reaches only the demo, which then stops the workers properly.
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
        """Raise ServerUnavailable with the last log line if the workers have exited."""
        code = self._process.poll()
        if code is not None:
            raise ServerUnavailable(
                "demo-workers-ended", exit_code=code, last_words=self.last_words(), log=self.log
            )

    def last_words(self) -> str:
        """Return the last line of their log that contains "error", or else the last line."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no output"]
        return errors[-1].strip()[:300]

    def stop(self) -> None:
        """Stop the workers; kill the rest after 20 seconds or at a second Ctrl-C."""
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
    """Run worker processes until the block ends."""
    workers = Workers(settings, log)
    try:
        yield workers
    finally:
        workers.stop()


def connect(
    backend: Backend, domain: str, config: Mapping[str, Any], credentials: Mapping[str, Any]
) -> Account:
    """Connect an account for the demo's user, and start its run.

    Raises:
      PollingError: The account cannot be connected; see `core.service.accounts.actions.connect`.
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
    """Pause the account of the demo's FTP server, so that later workers do not poll it."""
    with suppress(WrongState):
        account_actions.pause(backend, account.id)


def login(root: Path) -> str:
    """Return the FTP user name for this directory, derived from its path."""
    return f"demo-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def last_port(backend: Backend, login: str) -> int | None:
    """Return the port of an earlier demo for the same directory, or None.

    The port is part of the account's identity: with the same port, the demo connects the same
    account again.
    """
    with backend.database.connection() as conn:
        for row in account_queries.accounts.pages(conn, user_id=USER, integration_domain="ftp"):
            if row["identity"].startswith(f"{login}@"):
                return int(row["config"]["port"])
    return None
