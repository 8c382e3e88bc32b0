"""No connection hangs: each one has deadlines, and notices a peer that has vanished silently."""

from __future__ import annotations

import re
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest
from support.proxy import Losses, postgres_proxy, postgres_url
from support.waiting import until

from core.db.migrate import engine
from core.db.pool import CONNECT, Database, SilentConnection, open_connection
from core.errors import ServerUnavailable
from core.transport.queues import KEEPALIVE_OPTIONS, open_client

CORE = Path(__file__).parents[2] / "core"
OPENS = re.compile(
    r"psycopg\.connect\(|Connection\.connect\(|Redis\.from_url\b|\b(?:Redis|Sentinel)\("
)
ONE_PLACE = {
    "db/pool.py": 1,
    # A migration may take hours.
    "db/migrate.py": 1,
    "transport/queues.py": 1,
    "transport/sentinel.py": 1,
    # The servers of `polling up`, over a Unix socket of this machine, while they start.
    "embedded/postgres.py": 1,
    "embedded/valkey.py": 1,
}
NEEDED = {"connect_timeout", "keepalives", "keepalives_idle", "tcp_user_timeout"}


def test_connections_are_opened_in_one_place_for_each_server() -> None:
    found = {
        path.relative_to(CORE).as_posix(): len(OPENS.findall(path.read_text("utf-8")))
        for path in CORE.rglob("*.py")
    }
    assert {path: count for path, count in found.items() if count} == ONE_PLACE


def test_every_connection_to_postgres_notices_a_vanished_host(database_url: str) -> None:
    assert CONNECT.keys() >= NEEDED
    database = Database(database_url)
    with database.connection() as pooled, open_connection(database_url) as single:
        ((timeout,),) = pooled.execute("SHOW statement_timeout")
        assert timeout == "30s"
        for conn in (pooled, single):
            assert isinstance(conn, SilentConnection)
            assert conn.reply_seconds == 31
            assert conn.info.get_parameters().keys() >= NEEDED
    database.close()
    migrating = engine(database_url).raw_connection()
    assert migrating.driver_connection.info.get_parameters().keys() >= NEEDED
    migrating.close()


def test_a_statement_is_cancelled_after_its_time(database_url: str) -> None:
    database = Database(database_url, statement_seconds=0.2)
    began = time.monotonic()
    with pytest.raises(ServerUnavailable), database.connection() as conn:
        conn.execute("SELECT pg_sleep(30)")
    assert time.monotonic() - began < 5
    with database.connection() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    database.close()


def single_statement(database: Database, cut: threading.Event) -> None:
    with database.connection(timeout=10) as conn:
        cut.set()
        conn.execute("SELECT 2")


def transaction(database: Database, cut: threading.Event) -> None:
    with database.connection(timeout=10) as conn, conn.transaction():
        conn.execute("SELECT 1")
        cut.set()
        conn.execute("SELECT 2")


def test_a_connection_that_a_proxy_has_cut_silently_fails_in_time(database_url: str) -> None:
    """The proxy acknowledges what it does not forward, within a transaction and outside."""
    cut = threading.Event()
    losses = Losses(lambda direction, message: cut.is_set(), rate=1.0, hanging=1.0)
    with postgres_proxy(database_url, losses) as proxy:
        database = Database(postgres_url(database_url, proxy), timeout=1.0, statement_seconds=0.5)
        with database.connection() as conn:
            conn.execute("SELECT 1")
        for block in (single_statement, transaction):
            cut.clear()
            began = time.monotonic()
            with pytest.raises(ServerUnavailable):
                block(database, cut)
            assert time.monotonic() - began < 10
        cut.clear()
        with database.connection(timeout=10) as conn:
            assert conn.execute("SELECT 4").fetchone() == (4,)
        database.close()


@pytest.mark.parametrize("ending", ["a statement", "the commit"])
def test_a_session_that_was_closed_within_its_transaction_is_an_outage(
    ending: str, database_url: str
) -> None:
    """A process that was stopped for some seconds repeats its transaction."""
    database, watcher = Database(database_url), Database(database_url)
    with pytest.raises(ServerUnavailable):
        idle_within_a_transaction(database, watcher, ending)
    database.close()
    watcher.close()


def idle_within_a_transaction(database: Database, watcher: Database, ending: str) -> None:
    """Wait within a transaction until PostgreSQL has closed the session, then go on."""
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    with database.connection() as conn, conn.transaction(), watcher.connection() as other:
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = 50")
        session = (conn.info.backend_pid,)
        until(lambda: other.execute(alive, session).fetchone() == (0,), "the session is closed")
        if ending == "a statement":
            conn.execute("SELECT 1")


def test_a_connection_to_redis_notices_a_vanished_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = open_client(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        connection = client.connection_pool.make_connection()
        opened = connection._connect()
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert opened.gettimeout() == 5
        for option, value in KEEPALIVE_OPTIONS.items():
            assert opened.getsockopt(socket.IPPROTO_TCP, option) == value
        opened.close()
        client.close()


def test_psycopg_resumes_a_waiting_statement(database_url: str) -> None:
    """`SilentConnection` depends on it: the deadline is checked while nothing arrives."""
    with SilentConnection.connect(database_url, autocommit=True) as conn:
        conn.reply_seconds = 0.3
        with pytest.raises(psycopg.OperationalError, match="no reply"):
            conn.execute("SELECT pg_sleep(10)")
        assert conn.closed
