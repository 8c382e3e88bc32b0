"""Errors of PostgreSQL and Redis state their cause, and never data of a row."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import redis
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from support.waiting import until

from core import PermanentError, TaskOutput
from core.accounts.redaction import describe_redis, error_text, message_of
from core.content import store as content_saving
from core.db.errors import describe
from core.db.migrate import engine
from core.db.pool import Database, open_connection
from core.dispatcher.maintenance import Job, Maintenance
from core.errors import PollingError, ServerUnavailable
from core.logs import place
from core.observability import errors as reports
from core.plugins import Registry
from core.results.delete_guard import DeleteGuard
from core.worker.inflight import InflightTasks
from core.worker.saver import Saver

SECRET = "correct-horse-4711"
TABLE = """
CREATE TEMP TABLE t (id int PRIMARY KEY, word text UNIQUE NOT NULL, small varchar(5),
    day date, flag bool, CHECK (word <> 'bad-' || 'correct-horse-4711'));
INSERT INTO t (id, word) VALUES (1, 'correct-horse-4711');
CREATE TEMP TABLE child (t int REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED, word text);
CREATE FUNCTION pg_temp.fail(word text) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'cannot take %', word; END $$;
CREATE FUNCTION pg_temp.deeper(word text) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('SELECT %L::int', word); RETURN 1; END $$;
CREATE FUNCTION pg_temp.busy(word text) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN
        RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01', DETAIL = word, HINT = word;
    END $$;
"""
BY_CONDITION = {
    "SELECT %s::int": "invalid_text_representation",
    "SELECT %s::uuid": "invalid_text_representation",
    "SELECT %s::jsonb": "invalid_text_representation",
    "SELECT %s::date": "invalid_datetime_format",
    "SELECT %s::inet": "invalid_text_representation",
    "SELECT ('& ' || %s || ' &')::tsquery": "syntax_error",
    "SELECT 'a' ~ ('(' || %s)": "invalid_regular_expression",
    "INSERT INTO t (id, word, small) VALUES (2, 'a', %s)": "string_data_right_truncation",
    "UPDATE t SET flag = %s::bool": "invalid_text_representation",
    "SELECT to_date('2026-01-99', 'YYYY-MM-DD') || %s": "datetime_field_overflow",
    "SELECT pg_temp.fail(%s)": "raise_exception",
    "SELECT pg_temp.deeper(%s)": "invalid_text_representation",
    "SELECT set_config('work_mem', %s, false)": "invalid_parameter_value",
}
BY_MESSAGE = {
    "INSERT INTO t (id, word) VALUES (2, %s)": 'violates unique constraint "t_word_key"',
    "INSERT INTO t (id, word) VALUES (2, 'bad-' || %s)": "violates check constraint",
    "INSERT INTO t (id, word, small) SELECT 3, NULL, left(%s, 5)": 'null value in column "word"',
}
PASSING = "SELECT pg_temp.busy(%s)"
LATE = "INSERT INTO child VALUES (99, %s)"


def raised(act: Callable[[], Any]) -> BaseException:
    try:
        act()
    except Exception as error:  # noqa: BLE001  what it is about
        return error
    raise AssertionError("nothing was raised")


def run(database: Database, statement: str) -> Callable[[], None]:
    def act() -> None:
        with database.connection() as conn, conn.transaction():
            conn.execute(TABLE)
            conn.execute(statement, (SECRET,))

    return act


def run_alone(url: str, statement: str) -> Callable[[], None]:
    def act() -> None:
        with open_connection(url) as conn, conn.transaction():
            conn.execute(TABLE)
            conn.execute(statement, (SECRET,))

    return act


def everything_said(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    """Return everything that a log, a reason or a report contains of an error."""
    caplog.clear()
    try:
        raise error
    except Exception:
        logging.getLogger("core.test").exception("it failed: %s", error)
        logging.getLogger("core.test").warning("again: %r", error, exc_info=True)
    chain = "".join(traceback.format_exception(error))
    words = [describe(error), error_text(error, str), message_of(error), str(error), repr(error)]
    return "\n".join([caplog.text, chain, place(error), *words])


@pytest.mark.parametrize("statement", [*BY_CONDITION, *BY_MESSAGE, LATE, PASSING])
@pytest.mark.parametrize("way", ["pool", "alone"])
def test_no_value_leaves_a_connection(
    database: Database, database_url: str, caplog, statement: str, way: str
) -> None:
    act = run(database, statement) if way == "pool" else run_alone(database_url, statement)
    error = raised(act)
    assert isinstance(error, psycopg.Error | ServerUnavailable)
    assert SECRET not in everything_said(error, caplog)
    assert SECRET[:5] not in everything_said(error, caplog)


@pytest.mark.parametrize(("statement", "said"), [*BY_CONDITION.items(), *BY_MESSAGE.items()])
def test_a_database_error_states_its_cause(database: Database, statement: str, said: str) -> None:
    error = raised(run(database, statement))
    assert said in describe(error)
    assert said in str(error)


def test_a_temporary_database_error_states_its_cause(database: Database) -> None:
    error = raised(run(database, PASSING))
    assert isinstance(error, ServerUnavailable)
    assert str(error) == "PostgreSQL is not available (deadlock detected)"
    assert isinstance(error.__cause__, psycopg.errors.DeadlockDetected)


def test_an_unreachable_server_is_reported_with_the_cause_only() -> None:
    error = raised(lambda: open_connection("postgresql://someone@127.0.0.1:1/x"))
    assert isinstance(error, ServerUnavailable)
    assert "Connection refused" in str(error)
    assert "Is the server running" not in str(error)


@pytest.mark.parametrize(
    "url", [f"postgres:/{SECRET}", f"host=/nowhere {SECRET}", f"postgresql://a:%zz{SECRET}@h/d"]
)
def test_an_address_that_cannot_be_read_is_not_repeated(url: str, caplog) -> None:
    error = raised(lambda: open_connection(url))
    assert isinstance(error, ServerUnavailable)
    assert SECRET not in everything_said(error, caplog).replace("Error:", "")


def test_errors_made_by_psycopg_contain_no_value(database: Database, caplog) -> None:
    def adapt() -> None:
        with database.connection() as conn:
            conn.execute("SELECT %s", (f"{SECRET}\0",))

    def load() -> None:
        with database.connection() as conn:
            conn.execute("SELECT ('2' || '0000-01-01')::date").fetchall()

    for act in (adapt, load):
        error = raised(act)
        assert describe(error) == "DataError"
        assert "20000" not in everything_said(error, caplog)


def test_an_error_of_a_migration_contains_no_parameter(database_url: str) -> None:
    with engine(database_url).connect() as conn:
        error = raised(lambda: conn.execute(text("SELECT CAST(:word AS int)"), {"word": SECRET}))
    assert isinstance(error, DBAPIError)
    assert describe(error) == "invalid_text_representation"
    assert SECRET not in error_text(error, str)


def test_a_failed_migration_raises_one_error_without_values(database_url: str, monkeypatch) -> None:
    from core.db import migrate

    def fails(*_: Any) -> None:
        with engine(database_url).connect() as conn:
            conn.execute(text("SELECT CAST(:word AS int)"), {"word": SECRET})

    monkeypatch.setattr(migrate.command, "upgrade", fails)
    monkeypatch.setattr(migrate, "current", lambda _: None)
    error = raised(lambda: migrate.migrate(database_url))
    assert isinstance(error, PollingError)
    assert error.code == "migration-failed"
    assert SECRET not in "".join(traceback.format_exception(error))


def test_the_reason_of_a_result_that_cannot_be_saved_has_no_data(
    desk, database, queues, monkeypatch, caplog
) -> None:
    told: list[tuple[str, Any]] = []
    registry = SimpleNamespace(observe=lambda hook, **given: told.append((hook, given)))
    root = desk.root(desk.account("one"))
    outcome = desk.outcome(root, output=[TaskOutput("a", SECRET)])
    upsert = content_saving.upsert

    def refuse(conn: Any, rows: Any) -> Any:
        if rows:
            conn.execute("SELECT %s::int", (SECRET,))
        return upsert(conn, rows)

    monkeypatch.setattr(content_saving, "upsert", refuse)
    saver = Saver(database, queues, InflightTasks(), registry, guard=DeleteGuard())  # type: ignore[arg-type]
    saver.start()
    caplog.set_level("DEBUG")
    saver.hand_over(outcome)
    until(lambda: "task_parked" in dict(told), "the observer runs")
    saver.stop(20)
    (row,) = desk.rows("SELECT state, reason, errors::text FROM sync_task")
    assert row[0] == "parked"
    assert "invalid_text_representation" in row[1]
    assert SECRET not in f"{row} {told} {caplog.text} {desk.rows('SELECT error FROM sync_run')}"


def test_the_reason_of_a_violated_constraint_has_no_data(desk, database, queues, caplog) -> None:
    told: list[tuple[str, Any]] = []
    registry = SimpleNamespace(observe=lambda hook, **given: told.append((hook, given)))
    outcome = desk.outcome(desk.root(desk.account("one")), output=[TaskOutput("a", SECRET)])
    outcome.outputs[0] = outcome.outputs[0]._replace(kind=None)  # DETAIL may repeat the row
    saver = Saver(database, queues, InflightTasks(), registry, guard=DeleteGuard())  # type: ignore[arg-type]
    saver.start()
    saver.hand_over(outcome)
    until(lambda: "task_parked" in dict(told), "the observer runs")
    saver.stop(20)
    ((reason,),) = desk.rows("SELECT reason FROM sync_task")
    assert 'null value in column "kind"' in reason
    assert SECRET not in f"{reason} {told} {caplog.text}"


def test_a_job_of_the_leader_logs_no_row(database, caplog) -> None:
    def fails(conn: Any) -> None:
        conn.execute("SELECT %s::int", (SECRET,))

    maintenance = Maintenance.__new__(Maintenance)
    maintenance._redis_is_away = False
    maintenance._jobs = [Job(seconds=1.0, run=fails)]
    with database.connection() as conn:
        maintenance.run_due(conn)
    assert "invalid_text_representation" in caplog.text
    assert SECRET not in caplog.text


def test_an_observer_that_fails_logs_no_row(database_url: str, caplog) -> None:
    """The observer may use any database, through a connection of its own."""
    from core import hookimpl

    class Observer:
        @hookimpl
        def task_parked(self, task: Any) -> None:
            with psycopg.connect(database_url, autocommit=True) as conn:
                conn.execute("SELECT %s::int", (SECRET,))

    registry = Registry()
    registry.manager.register(Observer(), name="mine")
    registry.observe("task_parked", task={})
    registry._observers.drain(10)
    assert "InvalidTextRepresentation" in caplog.text
    assert "mine" in caplog.text
    assert SECRET not in caplog.text


def test_a_plugin_s_own_database_error_gives_a_reason_without_its_row(database_url: str) -> None:
    def act() -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute("SELECT %s::int", (SECRET,))

    error = raised(act)
    assert SECRET in str(error)
    assert message_of(error) == "invalid_text_representation"
    assert error_text(error, str) == "InvalidTextRepresentation: invalid_text_representation"


@pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
def test_reports_to_sentry_contain_no_row(database: Database, monkeypatch) -> None:
    pytest.importorskip("sentry_sdk")
    sent: list[Any] = []
    monkeypatch.setenv("SENTRY_DSN", "http://key@127.0.0.1:1/1")
    monkeypatch.setattr(reports, "_capture", sent.append)
    monkeypatch.setattr(reports, "END_SECONDS", 0.1)
    reports.start("worker")
    try:
        error = raised(run(database, "SELECT %s::int"))
        tags = {"domain": "shop", "type": "step"}
        reports.report_task(error, error_text(error, str), tags)
        reports.report_task(PermanentError("x"), message_of(error), tags)
        try:
            raise error
        except psycopg.Error:
            logging.getLogger("core.test").exception("the saver failed with %s", error)
    finally:
        reports.stop()
    assert len(sent) == 3
    assert "invalid_text_representation" in repr(sent)
    assert SECRET not in repr(sent)


@pytest.mark.parametrize(
    "statement", ["SELECT %s::int", "INSERT INTO t (id, word) VALUES (2, %s)", PASSING]
)
def test_neither_rest_nor_its_log_shows_a_row(
    api, database, monkeypatch, caplog, statement: str
) -> None:
    from core.service.pagination import PagedQuery

    monkeypatch.setattr(PagedQuery, "page", lambda *_, **__: run(database, statement)())
    caplog.set_level("DEBUG")
    answer = api.user("u").get("/v1/user-integrations")
    assert answer.status_code == (503 if statement == PASSING else 500)
    assert SECRET not in answer.text + caplog.text


@pytest.mark.parametrize("statement", ["SELECT %s::int", PASSING])
def test_no_page_shows_a_row(dashboard, database, monkeypatch, caplog, statement: str) -> None:
    from core.service.runs import listing as run_listing

    browser = dashboard.sign_in()
    monkeypatch.setattr(run_listing, "page", lambda *_, **__: run(database, statement)())
    caplog.set_level("DEBUG")
    answer = browser.get("/runs")
    assert answer.status_code == (503 if statement == PASSING else 500)
    assert SECRET not in answer.text + caplog.text


def test_errors_of_redis_repeat_no_command(queues) -> None:
    client: redis.Redis = queues.client
    key = queues.key("a-text")
    client.set(key, "x")

    def pipeline() -> None:
        with client.pipeline() as pipe:
            pipe.lpush(key, SECRET)
            pipe.execute()

    acts: list[Callable[[], Any]] = [
        pipeline,
        lambda: client.execute_command("NONSENSE", SECRET),
        lambda: client.eval(f"return redis.call('{SECRET}')", 0),
    ]
    for act in acts:
        error = raised(act)
        assert isinstance(error, redis.ResponseError)
        assert SECRET not in describe_redis(error) + message_of(error) + error_text(error, str)
    assert describe_redis(raised(pipeline)) == "ResponseError WRONGTYPE"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.ReadOnlyError("You can't write against a read only replica."), "read only replica"),
        (redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "memory"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), "good replicas"),
        (redis.ConnectionError("Error 111 connecting to localhost:1. Refused."), "Error 111"),
    ],
)
def test_a_refusal_by_redis_states_its_cause(error: redis.RedisError, said: str) -> None:
    assert said in describe_redis(error)
    error.args = (f"Command # 1 (SET k {SECRET}) of pipeline caused error: {error}",)
    if isinstance(error, redis.ResponseError):
        assert said in describe_redis(error)
        assert SECRET not in describe_redis(error)


def test_errors_of_pydantic_repeat_no_input() -> None:
    class Answer(BaseModel):
        count: int
        kinds: dict[str, int] = {}

    error = raised(lambda: Answer.model_validate({"count": SECRET, "kinds": {SECRET: SECRET}}))
    assert SECRET in str(error)
    said = error_text(error, str)
    assert said.startswith("ValidationError: Answer: count: must be a valid integer")
    assert said.endswith("(and 1 more)")
    assert SECRET not in said + message_of(error)
    assert SECRET not in message_of(
        raised(lambda: Answer.model_validate({"count": 1, "kinds": {SECRET: SECRET}}))
    )
