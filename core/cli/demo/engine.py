"""The engine as the demo runs it: a home of its own, real worker processes, and two accounts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from core.accounts import limits, store
from core.accounts.vault import Vault
from core.db.migrate import migrate
from core.db.pool import Conn
from core.db.version import current, require_schema
from core.environment import Environment, get_environment, leave_environment
from core.errors import ServerUnavailable
from core.ledger.scheduling import request_run
from core.plugins import get_registry
from core.settings import Settings, get_settings

USER = "demo"
STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Account:
    """A connected account and the run that was asked for."""

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
def environment() -> Iterator[Environment]:
    """The servers, given or embedded.

    A database without a schema gets one; one of another version is left alone.
    """
    try:
        found = get_environment()
        if current(found.database_url) is None:
            migrate(found.database_url)
        require_schema(found.database_url)
        yield found
    finally:
        leave_environment()


class Workers:
    """Start `dramatiq core.actors` in its own session.

    Ctrl-C then reaches only the demo, which ends the workers in order.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        command = [sys.executable, "-m", "dramatiq", "core.actors"]
        command += ["--processes", str(settings.processes), "--threads", str(settings.threads)]
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )

    def require(self) -> None:
        """Raises ServerUnavailable, with what they said last, if they have ended."""
        code = self._process.poll()
        if code is not None:
            raise ServerUnavailable(
                f"the workers ended with exit code {code} ({self.last_words()})", f"Log: {self.log}"
            )

    def last_words(self) -> str:
        """The last line of their log that is worth reading."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        said = [line for line in lines if "error" in line.lower()] or lines or ["they said nothing"]
        return said[-1].strip()[:300]

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
    conn: Conn,
    found: Environment,
    domain: str,
    identity: str,
    config: Mapping[str, Any],
    credentials: Mapping[str, Any],
) -> Account:
    """Check an account, store it, and ask for a run of it.

    Parameters: identity: What makes it the same account in the next demo, although its server is at
      another port then.
    """
    integration = get_registry().get(domain)
    checked = integration.config_model.model_validate(config)
    secret = integration.credentials_model.model_validate(credentials)
    instance = integration(checked, secret)
    try:
        instance.initialize()
        instance.check()
    finally:
        instance.close()
    account, _ = store.connect(
        conn,
        user_id=USER,
        domain=domain,
        name=f"demo-{domain}",
        identity=identity,
        group=None,
        config=checked.model_dump(mode="json"),
        credentials=Vault(found.secret_keys).seal(secret),
        limits=limits.to_json(integration.limits(checked)),
    )
    run, _ = request_run(conn, account)
    return Account(account, domain, run)


def pause(conn: Conn, account: Account) -> None:
    """Pause the demo's account, because its server ends with the demo.

    Workers that start on this database later find it paused.
    """
    conn.execute(store.PAUSE, (account.id,))
