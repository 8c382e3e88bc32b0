"""`ctx`: the services of the engine for a running task."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TypeVar, overload
from uuid import uuid4

from pydantic import BaseModel

from core.accounts import refresh
from core.content.blobs import Blobs, SpooledWriter
from core.content.stored import READ_STATE
from core.db.pool import DATABASE_UNAVAILABLE, Database
from core.egress import Egress
from core.errors import VaultError
from core.http_session import HttpSession
from core.integration.context import (
    AccountInfo,
    ContextLogger,
    RunInfo,
    TaskInfo,
    require_progress,
    require_rate,
)
from core.integration.limits import Rate
from core.integration.stored import state_value
from core.known_secrets import KNOWN, secrets_of
from core.ledger.commit import block_limits
from core.ledger.hints import parts_of
from core.ledger.outcomes import Block, Dispatch
from core.limits.budgets import Budgets, UnitRequest
from core.log_redaction import renewing
from core.states import Lane, Trigger
from core.worker.accounts import Accounts, LoadedAccount
from core.worker.instance_pool import Instance

M = TypeVar("M", bound=BaseModel)

IS_COMPLETE = "SELECT complete FROM sync_run WHERE id = %s"
FINGERPRINTS = """
SELECT external_id, fingerprint FROM user_integration_content
WHERE user_integration_id = %s AND external_id = ANY(%s) AND deleted_at IS NULL
"""
# Served by `user_integration_content_listing`.
FINGERPRINTS_BELOW = """
SELECT external_id, fingerprint FROM user_integration_content
WHERE user_integration_id = %s AND parent = %s AND deleted_at IS NULL
"""
FINGERPRINTS_OF_ROOTS = """
SELECT external_id, fingerprint FROM user_integration_content
WHERE user_integration_id = %s AND parent IS NULL AND deleted_at IS NULL
"""
# Served by the unique key.
CONTENT_OF_ITEM = """
SELECT content_text, content_bytes, blob_key FROM user_integration_content
WHERE user_integration_id = %s AND external_id = %s AND deleted_at IS NULL
"""

log = logging.getLogger("core.task")


@dataclass(frozen=True, slots=True)
class Services:
    """The services that all contexts of a process share.

    Attributes:
      stopping: Returns True if a task should return early.
      admit: Raises an error if a task must not start.
      syncing: Returns True if the process has other work than rereads.
      report: Keeps a report of a task's progress: the units done, and in total.
      renew_units: Takes the units of rate limits again if they are too old.
    """

    database: Database
    accounts: Accounts
    blobs: Blobs
    budgets: Budgets
    stopping: Callable[[Dispatch], bool]
    egress: Egress
    admit: Callable[[Dispatch], None] = lambda _: None
    syncing: Callable[[], bool] = lambda: False
    report: Callable[[Dispatch, int, int | None], None] = lambda *_: None
    renew_units: Callable[[Dispatch], None] = lambda _: None


class TaskContext:
    """The `core.Context` of one dispatch.

    Attributes:
      read: The versions of the state partitions that the task has read. Their writes are
        compare-and-set.
      no_key: The error of a refresh whose credentials no key of this process decrypts.
    """

    def __init__(
        self, services: Services, dispatch: Dispatch, loaded: LoadedAccount, instance: Instance
    ) -> None:
        self._services = services
        self._dispatch = dispatch
        self._loaded = loaded
        self._instance = instance
        self.read: dict[str, int] = {}
        self.no_key: VaultError | None = None
        account = loaded.account
        self.task = TaskInfo(
            str(dispatch.task_id), dispatch.type, dispatch.attempts + 1, dispatch.suspect
        )
        self.account = AccountInfo(
            str(account.id), account.user_id, account.name, account.integration_domain
        )

    @cached_property
    def run(self) -> RunInfo:
        """The run that the task belongs to. The first access reads whether it is complete."""
        dispatch = self._dispatch
        with self._services.database.connection() as conn:
            row = conn.execute(IS_COMPLETE, (dispatch.run_id,)).fetchone()
        complete = row is not None and row[0]
        return RunInfo(
            dispatch.run_id, Trigger(dispatch.trigger), Lane(dispatch.lane), complete=complete
        )

    @cached_property
    def hints(self) -> tuple[str, ...]:
        """The parts that hints named, if hints made the run. The first access reads them."""
        dispatch = self._dispatch
        if dispatch.trigger != Trigger.HINT:
            return ()
        with self._services.database.connection() as conn:
            return parts_of(conn, dispatch.account_id, dispatch.run_id)

    @property
    def log(self) -> ContextLogger:
        """A logger that names account, run and task in each line, and redacts secrets."""
        dispatch = self._dispatch
        fields = {
            "account": dispatch.account_id,
            "run": dispatch.run_id,
            "task": dispatch.task_id,
            "domain": dispatch.domain,
        }
        return ContextLogger(log, fields, self._loaded.redact)

    @property
    def loaded(self) -> LoadedAccount:
        """The account as this task uses it: newer after a refresh."""
        return self._loaded

    @property
    def stopping(self) -> bool:
        """True if the process is stopping, or if the account was stopped."""
        return self._services.stopping(self._dispatch)

    def state(self, partition: str, model: type[M]) -> M | None:
        """Return the value of a state partition, or None if it is empty.

        Raises:
          CursorExpired: The stored value does not validate as `model`.
        """
        with self._services.database.connection() as conn:
            row = conn.execute(READ_STATE, (self._dispatch.account_id, partition)).fetchone()
        self.read[partition] = row[1] if row is not None else 0
        return state_value(partition, row[0] if row is not None else None, model)

    def progress(self, done: int, total: int | None = None) -> None:
        """Keep a report. The heartbeat records it, so that no task waits for PostgreSQL."""
        require_progress(done, total)
        self._services.report(self._dispatch, done, total)

    @property
    def now(self) -> datetime:
        """The current time, in UTC."""
        return datetime.now(UTC)

    @property
    def http(self) -> HttpSession:
        """The HTTP session of this instance. Its pauses block limits for all workers."""
        session = self._instance.http
        session.on_pause = self._pause
        return session

    def _pause(self, limit: str | None, seconds: float, reason: str) -> None:
        """Block a limit of the account, or the complete account, for all workers."""
        key = self._loaded.block_key(limit)
        try:
            with self._services.database.connection() as conn:
                block_limits(conn, [Block(key, seconds, reason)])
        except DATABASE_UNAVAILABLE:
            # This instance pauses anyway, and the provider refuses the requests of the others.
            log.warning("could not record a pause of %s for account %s", limit, self.account.id)

    @overload
    def fingerprints(self, ids: Iterable[str], /) -> dict[str, str | None]: ...

    @overload
    def fingerprints(self, *, parent: str | None) -> dict[str, str | None]: ...

    def fingerprints(
        self, ids: Iterable[str] | None = None, *, parent: str | None = None
    ) -> dict[str, str | None]:
        """Return the fingerprints of content that exists, by external id."""
        account, external_ids = self._dispatch.account_id, list(ids or ())
        if ids is not None and not external_ids:
            return {}
        with self._services.database.connection() as conn:
            if ids is not None:
                rows = conn.execute(FINGERPRINTS, (account, external_ids))
            elif parent is not None:
                rows = conn.execute(FINGERPRINTS_BELOW, (account, parent))
            else:
                rows = conn.execute(FINGERPRINTS_OF_ROOTS, (account,))
            return dict(rows.fetchall())

    def blob(self, key: str | None = None) -> SpooledWriter:
        """Return a writer for large content; with a `key`, a later attempt resumes it."""
        if key is None:
            return SpooledWriter(self._services.blobs, uuid4().hex, resumable=False)
        name = hashlib.sha256(
            f"{self._dispatch.account_id}/{key}".encode("utf-8", "surrogatepass")
        ).hexdigest()
        return SpooledWriter(self._services.blobs, name, resumable=True)

    def content(self, id: str) -> Iterator[bytes]:
        """Return the kept content of an item in blocks; see `core.Context.content`."""
        with self._services.database.connection() as conn:
            row = conn.execute(CONTENT_OF_ITEM, (self._dispatch.account_id, id)).fetchone()
        if row is None:
            return
        text, data, blob = row
        if blob is not None:
            yield from map(bytes, self._services.blobs.stream(blob))
        elif text is not None or data is not None:
            yield text.encode() if text is not None else bytes(data)

    def charge(self, limit: str, units: int = 1) -> None:
        """Charge units of a rate limit that the task used beyond its declared cost.

        Raises:
          PermanentError: The account has no rate limit of this name.
        """
        rates = {each.name: each for each in self._loaded.limits if isinstance(each, Rate)}
        require_rate(limit, rates, self._dispatch.domain)
        rate = rates[limit]
        self._services.budgets.charge(
            UnitRequest(self._loaded.key(rate), rate, units, self._loaded.heaviest(rate))
        )

    def refresh_credentials(self) -> None:
        """Renew the account's credentials, once in the fleet, and load them."""
        account = self._loaded.account

        def renew() -> str:
            with renewing():
                newer = self._instance.integration.refresh()
                KNOWN.remember(str(account.id), secrets_of(newer))
            return self._services.accounts.seal(self._loaded.account, newer)

        sealed = refresh.refresh(
            self._services.database, account.id, account.credentials_version, renew
        )
        try:
            self._loaded = self._services.accounts.renewed(
                self._loaded, sealed.ciphertext, sealed.version
            )
        except VaultError as error:
            self.no_key = error
            raise
        self._instance.integration.credentials = self._loaded.credentials
