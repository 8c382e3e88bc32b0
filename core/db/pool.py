"""The PostgreSQL connections of a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool

from core.db.errors import describe, remove_values
from core.errors import ServerUnavailable

Conn = Connection[tuple[Any, ...]]

DATABASE_UNAVAILABLE = (ServerUnavailable,)
"""The errors of `Database.connection` while the server is unavailable: wait, and retry."""

_DISK_FULL = "53100"

MINIMUM_VERSION = 150000

USES_OF_A_PLAN = 32
"""The number of uses after which a connection plans its statements again, in some milliseconds.

A plan that was made for a small table reads all of a grown table, until autovacuum analyzes it.
That takes a minute or more.
"""

MAX_IDLE_IN_TRANSACTION_SECONDS = 10
"""Seconds that a session may be idle within a transaction before PostgreSQL closes it.

A process that is stopped or cut off within a transaction would keep its locks for hours, and other
processes could not process its tasks. A process that resumes repeats its transaction.
"""

STATEMENT_SECONDS = 30.0
"""Seconds after which PostgreSQL cancels a statement. The engine's statements are short."""

REPLY_SECONDS = 1.0
"""Seconds that a reply may take beyond the time of its statement.

A connection that was cut silently is noticed then, also if a proxy or a firewall acknowledges what
it does not forward, so that neither keepalives nor `tcp_user_timeout` notice it.
"""

TUNE = f"""
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false), set_config('jit', 'off', false),
    set_config('statement_timeout', %s, false),
    set_config(
        'idle_in_transaction_session_timeout', '{MAX_IDLE_IN_TRANSACTION_SECONDS * 1000}', false)
"""

PLAN_MODE = "SELECT set_config('plan_cache_mode', %s, false)"

CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "application_name": "polling",
    # A host that vanished silently is noticed within 20 s, not after two hours.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""The parameters of every connection to PostgreSQL. Unix sockets ignore those of TCP."""


class DiskFull(ServerUnavailable):
    """PostgreSQL's disk is full.

    Smaller writes may still succeed, but a write that fails with this error is not at fault.
    """


class SilentConnection(Connection[tuple[Any, ...]]):
    """A connection whose errors quote no values of rows when they leave its `with` block.

    See `core.db.errors.remove_values`.

    Attributes:
      reply_seconds: Seconds to wait for the reply to a statement. After that, the connection is
        closed. Default: the time of a statement, and `REPLY_SECONDS`.
    """

    reply_seconds = STATEMENT_SECONDS + REPLY_SECONDS

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """Wait for a reply, for at most `reply_seconds`."""
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Pass a generator of psycopg on. It is resumed ten times a second while nothing arrives.

        Raises:
          OperationalError: The reply did not come in time. The connection is closed.
        """
        end = time.monotonic() + self.reply_seconds
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > end:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no reply within {self.reply_seconds:.0f} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            if error is not None:
                remove_values(error)


def open_connection(url: str) -> Conn:
    """Open a connection outside of any pool, in autocommit mode.

    Raises:
      ServerUnavailable: The server does not answer, refuses the connection, or is older than
        PostgreSQL 15.
    """
    try:
        connection: Conn = SilentConnection.connect(url, autocommit=True, **CONNECT)
    except psycopg.Error as error:
        raise ServerUnavailable("postgres-unreachable", detail=describe(error)) from None
    if connection.info.server_version < MINIMUM_VERSION:
        connection.close()
        raise ServerUnavailable("postgres-too-old")
    return connection


class Database:
    """A pool of autocommit connections with prepared statements.

    The first use opens it, so that forked processes share no connection.

    Args:
      url: A libpq URL or connection string.
      size: The maximum number of connections. Default: 4.
      timeout: Seconds to wait for a connection. Default: 10.
      statement_seconds: Seconds after which PostgreSQL cancels a statement. Default: 30.
      plan_uses: The number of uses after which a connection plans its prepared statements again,
        for the current sizes of the tables. Default: 32.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int = 4,
        timeout: float = 10.0,
        statement_seconds: float = STATEMENT_SECONDS,
        plan_uses: int = USES_OF_A_PLAN,
    ) -> None:
        self.url = url
        self._statement_seconds = statement_seconds
        self.on_disk_full: Callable[[], None] = lambda: None
        """Called when a statement has failed because the server's disk is full."""
        self._plan_uses = plan_uses
        self._uses: WeakKeyDictionary[Conn, int] = WeakKeyDictionary()
        self._generic: WeakSet[Conn] = WeakSet()
        self._pool = ConnectionPool(
            url,
            connection_class=SilentConnection,
            min_size=0,
            max_size=size,
            timeout=timeout,
            max_idle=60.0,
            reconnect_timeout=5.0,
            open=False,
            configure=self._tune,
            kwargs={"autocommit": True, "prepare_threshold": 1, **CONNECT},
        )

    @contextmanager
    def connection(
        self, timeout: float | None = None, *, generic_plans: bool = False
    ) -> Iterator[Conn]:
        """Borrow a connection.

        Each statement commits by itself unless `Connection.transaction` is used.

        Args:
          timeout: Seconds to wait for a connection. Default: that of the pool.
          generic_plans: Use one plan for all values of a statement's parameters. While a table
            grows, PostgreSQL would often plan single executions. Default: False.

        Raises:
          ServerUnavailable: The server is unavailable, or became so during the block. Retry.
        """
        if self._pool.closed:
            self._pool.open()
        try:
            with self._pool.connection(timeout) as connection:
                self._discard_cached_plans(connection)
                self._use_generic_plans(connection, wanted=generic_plans)
                yield connection
        except psycopg.Error as error:
            if not passes(error):
                raise
            unavailable = _unavailable(error)
            if isinstance(unavailable, DiskFull):
                self.on_disk_full()
            raise unavailable from error

    def resize(self, size: int) -> None:
        """Set the maximum number of connections."""
        self._pool.resize(0, size)

    def _discard_cached_plans(self, connection: Conn) -> None:
        uses = self._uses.get(connection, 0)
        if uses >= self._plan_uses:
            connection.execute("DISCARD PLANS")
        self._uses[connection] = 1 if uses >= self._plan_uses else uses + 1

    def _use_generic_plans(self, connection: Conn, *, wanted: bool) -> None:
        if wanted == (connection in self._generic):
            return
        connection.execute(PLAN_MODE, ("force_generic_plan" if wanted else "auto",))
        (self._generic.add if wanted else self._generic.discard)(connection)

    def _tune(self, connection: Conn) -> None:
        """Configure a connection so that its plans last while a table grows to millions of rows.

        Statements are prepared at their first use, and their plans are reused. Every statement of a
        worker reads a few rows by an index. A hash or merge join would read a complete table, which
        looks cheap while the statistics say that the table is small.
        """
        connection.execute(TUNE, (f"{self._statement_seconds * 1000:.0f}",))
        assert isinstance(connection, SilentConnection)
        connection.reply_seconds = self._statement_seconds + REPLY_SECONDS

    def close(self) -> None:
        """Close the pool and its connections."""
        self._pool.close(timeout=2.0)


def _unavailable(error: psycopg.Error) -> ServerUnavailable:
    if error.sqlstate == _DISK_FULL:
        return DiskFull("postgres-disk-full", detail=describe(error))
    return ServerUnavailable("postgres-unavailable", detail=describe(error))


def passes(error: psycopg.Error) -> bool:
    """Return True if a retry can help.

    It can after errors of connections, shutdowns, timeouts, resources, files, deadlocks and
    standbys, but not after invalid data. A process that was stopped within a transaction finds its
    session closed.
    """
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in {"08", "40", "53", "57", "58"} or error.sqlstate in {
        "25006",
        "25P03",
        "25P04",
        "55P03",
    }
