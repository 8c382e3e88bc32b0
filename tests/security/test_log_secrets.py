"""No handler, however it was added, receives a record that holds a secret."""

from __future__ import annotations

import base64
import gc
import html
import io
import json
import logging
import logging.handlers
import queue
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import sentry_sdk
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Secret, SecretBytes, SecretStr, field_serializer
from support.collecting import collecting

from core import log_redaction
from core.known_secrets import (
    KNOWN,
    MAX_GENERATIONS,
    OPERATOR,
    KnownSecrets,
    Redactor,
    secrets_of,
)
from core.log_redaction import UNREADABLE, WITHHELD, install, renewing
from core.logs import HTTP_LIBRARIES, configure
from core.observability import errors, traces

SECRET = 'p@ss w/rd+"zwölf"&more'
SHORT = "tiny"
OTHERS = "the-secret-of-another-account"
OPERATORS = "the-operators-key"
ACCOUNT = "account-of-this-test"


@pytest.fixture(autouse=True)
def in_a_task() -> Iterator[None]:
    """Run the test as a task of an account, beside another account."""
    install()
    KNOWN.remember(ACCOUNT, [SECRET, SHORT])
    KNOWN.remember("another account", [OTHERS])
    KNOWN.remember(OPERATOR, [OPERATORS])
    KNOWN.enter(ACCOUNT)
    yield
    KNOWN.leave()
    for owner in (ACCOUNT, "another account", OPERATOR):
        KNOWN.forget(owner)


class Everything(logging.Handler):
    """A handler that keeps all that it can read in a record, however it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        values = vars(record)
        self.seen += [record.getMessage(), str(values), repr(values), self.format(record)]
        if record.exc_info:
            self.seen.append("".join(traceback.format_exception(*record.exc_info)))

    @property
    def text(self) -> str:
        return "\n".join(self.seen)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A plugin's logger that does not propagate, with a handler that was added after `install`."""
    logger = logging.getLogger("a.plugin.of.this.test")
    logger.propagate, logger.level = False, logging.DEBUG
    yield logger
    logger.handlers.clear()


@pytest.fixture
def handler(logger: logging.Logger) -> Everything:
    logger.addHandler(handler := Everything())
    return handler


def assert_nothing_leaks(text: str, *secrets: str) -> None:
    for secret in secrets or (SECRET, SHORT):
        shapes = [secret, quote(secret), quote_plus(secret), repr(secret)[1:-1]]
        shapes += [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
        shapes += [html.escape(secret), base64.b64encode(secret.encode()).decode().rstrip("=")]
        assert not [shape for shape in shapes if shape in text], text


class Holder:
    """An object that prints a secret."""

    def __str__(self) -> str:
        return f"Holder({SECRET})"

    __repr__ = __str__


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    __repr__ = __str__


WRITTEN: dict[str, Callable[[logging.Logger], object]] = {
    "the message": lambda logger: logger.error(SECRET),
    "an argument": lambda logger: logger.error("it is %s", SECRET),
    "an argument that is not shown": lambda logger: logger.error("%.0s", SECRET),
    "an argument by name": lambda logger: logger.error("%(a)s", {"a": SECRET}),
    "a structure": lambda logger: logger.error("%r", {"a": [SECRET, (SHORT,)]}),
    "bytes": lambda logger: logger.error("%r", SECRET.encode()),
    "an object": lambda logger: logger.error("%s", Holder()),
    "an object as message": lambda logger: logger.error(Holder()),
    "an exception as message": lambda logger: logger.error(ValueError(SECRET)),
    "too many arguments": lambda logger: logger.error("no place for it", SECRET),  # noqa: PLE1205
    "an argument of the wrong type": lambda logger: logger.error("%d", SECRET),
    "an object that does not print": lambda logger: logger.error("%s", Unprintable()),
    "half in the message": lambda logger: logger.error(f"{SECRET[:9]}%s", SECRET[9:]),  # noqa: G004
    "a URL": lambda logger: logger.error("GET /?api_key=%s", quote_plus(SECRET)),
    "a path": lambda logger: logger.error("GET /%s/x", quote(SECRET)),
    "a URL in lower case": lambda logger: logger.error("GET /?k=%s", quote(SECRET, "").lower()),
    "a URL as requests repairs it": lambda logger: logger.error(
        "GET /?k=%s", quote(SECRET, safe="!#$%&'()*+,/:;=?@[]~")
    ),
    "a URL in a URL": lambda logger: logger.error("GET /?to=%s", quote(quote(SECRET, ""), "")),
    "JSON": lambda logger: logger.error(json.dumps({"key": SECRET})),
    "JSON in JSON": lambda logger: logger.error(json.dumps(json.dumps({"key": SECRET}))),
    "JSON with slashes": lambda logger: logger.error(json.dumps(SECRET).replace("/", "\\/")),
    "HTML": lambda logger: logger.error("<p>%s</p>", html.escape(SECRET)),
    "a Basic header": lambda logger: logger.error(
        "Basic %s", base64.b64encode(f"me:{SECRET}".encode()).decode()
    ),
    "extra fields": lambda logger: logger.error("x", extra={"url": SECRET, "all": {"a": Holder()}}),
    "the name of an asyncio task": lambda logger: logger.handle(
        logging.makeLogRecord({"msg": "x", "levelno": logging.ERROR, "taskName": f"GET {SECRET}"})
    ),
    "the name of the logger": lambda logger: logger.getChild(SHORT).error("x"),
    "a traceback": lambda logger: fails(logger, ValueError(SECRET)),
    "a cause": lambda logger: fails(logger, ValueError("x"), KeyError(SECRET)),
    "a note": lambda logger: fails(logger, noted(ValueError("x"))),
    "a group": lambda logger: fails(logger, ExceptionGroup("x", [ValueError(SECRET)])),
    "exc_info": lambda logger: logger.error("x", exc_info=ValueError(SECRET)),
    "a record of its own": lambda logger: logger.handle(
        logging.makeLogRecord({"msg": "%s", "args": (SECRET,), "levelno": logging.ERROR})
    ),
}


def noted(error: Exception) -> Exception:
    error.add_note(SECRET)
    return error


def fails(logger: logging.Logger, error: Exception, cause: Exception | None = None) -> None:
    try:
        raise error from cause
    except type(error):
        logger.exception("failed")


@pytest.mark.parametrize("place", WRITTEN)
def test_a_secret_is_removed_wherever_a_record_holds_it(
    logger: logging.Logger, handler: Everything, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    WRITTEN[place](logger)
    assert handler.seen
    assert_nothing_leaks(handler.text)
    assert_nothing_leaks("".join(capfd.readouterr()))


@pytest.mark.parametrize("place", WRITTEN)
def test_no_formatter_shows_a_secret(place: str) -> None:
    """The engine's own handler, as text and as JSON."""
    root, stream = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    before = root.handlers[:]
    root.handlers[:] = [handler]
    try:
        for form in ("text", "json"):
            configure("INFO", form)  # type: ignore[arg-type]
            WRITTEN[place](logging.getLogger("another.plugin"))
    finally:
        root.handlers[:] = before
    assert stream.getvalue()
    assert_nothing_leaks(stream.getvalue())


def test_a_traceback_without_its_secret_is_still_shown() -> None:
    root, stream = logging.getLogger(), io.StringIO()
    before = root.handlers[:]
    root.handlers[:] = [logging.StreamHandler(stream)]
    try:
        configure("INFO", "json")
        WRITTEN["a cause"](logging.getLogger("another.plugin"))
    finally:
        root.handlers[:] = before
    line = json.loads(stream.getvalue())
    assert "Traceback" in line["exception"]
    assert "KeyError: '***'" in line["exception"]
    assert line["event"] == "failed"


def test_a_record_without_a_secret_stays_as_it_is(
    logger: logging.Logger, handler: Everything
) -> None:
    records: list[logging.LogRecord] = []
    handler.emit = records.append  # type: ignore[method-assign]
    argument, error = object(), ValueError("x")
    logger.error("%s of %d", argument, 7, exc_info=error, extra={"more": argument})
    [record] = records
    assert record.args == (argument, 7)
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert (record.msg, record.more) == ("%s of %d", argument)  # type: ignore[attr-defined]


def test_the_template_and_the_other_arguments_stay(
    logger: logging.Logger, handler: Everything
) -> None:
    """Formatters that unpack the arguments, such as uvicorn's, still find them."""
    records: list[logging.LogRecord] = []
    handler.emit = records.append  # type: ignore[method-assign]
    logger.error("%s of %d", SECRET, 7)
    assert (records[0].msg, records[0].args) == ("%s of %d", ("***", 7))


HANDLERS: dict[str, Callable[[io.StringIO], logging.Handler]] = {
    "a stream": logging.StreamHandler,
    "a handler with a formatter of its own": lambda stream: with_formatter(stream),
    "a buffer": lambda stream: logging.handlers.MemoryHandler(
        1, target=logging.StreamHandler(stream)
    ),
}


def with_formatter(stream: io.StringIO) -> logging.Handler:
    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return repr(vars(record))

    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter())
    return handler


@pytest.mark.parametrize("kind", HANDLERS)
def test_a_handler_of_any_kind_that_is_added_later_sees_no_secret(
    logger: logging.Logger, kind: str
) -> None:
    stream = io.StringIO()
    logger.addHandler(HANDLERS[kind](stream))
    logger.error("it is %s", SECRET, exc_info=ValueError(SECRET))
    assert "***" in stream.getvalue()
    assert_nothing_leaks(stream.getvalue())


def test_a_queue_of_records_holds_no_secret(logger: logging.Logger) -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    logger.addHandler(logging.handlers.QueueHandler(records))
    logger.error("it is %s", SECRET)
    assert "***" in str(vars(records.get_nowait()))


def test_a_library_may_replace_the_factory_of_records_and_the_class_of_loggers(
    handler: Everything,
) -> None:
    class Logger(logging.Logger):
        def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:  # noqa: N802
            record = super().makeRecord(*args, **kwargs)
            record.more = SECRET
            return record

    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    try:
        own = Logger("of its own")
        own.addHandler(handler)
        own.error(SECRET)
    finally:
        logging.setLogRecordFactory(factory)
    assert handler.seen
    assert_nothing_leaks(handler.text)


def test_the_last_resort_of_logging_shows_no_secret(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers.clear()
    try:
        logging.getLogger("without.handlers").error(SECRET)
    finally:
        root.handlers[:] = before
    error = capfd.readouterr().err
    assert "***" in error
    assert_nothing_leaks(error)


def test_the_operators_secrets_are_removed_too(logger: logging.Logger, handler: Everything) -> None:
    logger.error("a key: %s", OPERATORS)
    assert_nothing_leaks(handler.text, OPERATORS)


def test_a_thread_that_a_plugin_starts_shows_no_secret(
    logger: logging.Logger, handler: Everything
) -> None:
    """The thread has no task, so the secrets of all accounts of this process are removed."""
    thread = threading.Thread(target=lambda: logger.error("%s %s", quote_plus(SECRET), OTHERS))
    thread.start()
    thread.join()
    assert handler.seen
    assert_nothing_leaks(handler.text, SECRET, OTHERS)


def test_a_thread_that_outlasts_a_check_shows_no_secret(
    logger: logging.Logger, handler: Everything
) -> None:
    """A check of new credentials ends at its deadline, and the plugin's thread continues."""
    ended = threading.Event()

    def late() -> None:
        ended.wait(20)
        logger.error("still trying %s", "a-rejected-password")

    thread = threading.Thread(target=late)
    with KNOWN.scope(["a-rejected-password"]):
        thread.start()
    ended.set()
    thread.join()
    assert handler.seen
    assert_nothing_leaks(handler.text, "a-rejected-password")


def test_a_client_that_accounts_share_shows_no_secret_of_another(
    logger: logging.Logger, handler: Everything
) -> None:
    """A task of one account logs a URL with the token of another one."""
    logger.error("GET /?api_key=%s", OTHERS)
    assert_nothing_leaks(handler.text, OTHERS)


def test_a_short_secret_of_one_user_does_not_remove_words_from_the_lines_of_others(
    logger: logging.Logger, handler: Everything
) -> None:
    KNOWN.enter("another account")
    logger.error("a tiny step")
    KNOWN.leave()
    logger.error("a tiny step")
    assert handler.text.count("***") == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_exception_that_ends_a_thread_is_printed_without_its_secret(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", log_redaction._of_thread)

    def target() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=target, name="of a plugin")
    thread.start()
    thread.join()
    error = capfd.readouterr().err
    assert "Exception in thread of a plugin:\nTraceback" in error
    assert "ValueError: ***" in error
    assert_nothing_leaks(error)


def test_exceptions_of_the_process_and_of_finalizers_are_printed_without_their_secret(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", log_redaction._of_finalizer)

    class Fails:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    Fails()
    gc.collect()
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        log_redaction._of_process(ValueError, error, error.__traceback__)
    printed = capfd.readouterr().err
    assert printed.count("ValueError: ***") == 2
    assert_nothing_leaks(printed)


PROGRAM = """
import _thread, asyncio, gc, sys, threading, time, warnings
from core.known_secrets import KNOWN
from core.logs import configure

configure("INFO")
KNOWN.remember("an account", [sys.argv[1]])

def fail():
    raise ValueError(sys.argv[1])

async def forgotten():
    fail()

async def main():
    asyncio.create_task(forgotten())
    await asyncio.sleep(0)

class Fails:
    def __del__(self):
        fail()

thread = threading.Thread(target=fail)
thread.start()
thread.join()
_thread.start_new_thread(fail, ())
Fails()
asyncio.run(main())
gc.collect()
warnings.warn(sys.argv[1])
time.sleep(0.2)
fail()
"""
"""Each way in which Python itself prints an exception or a warning."""


def test_nothing_that_python_prints_in_a_process_shows_a_secret() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, SECRET], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.count("ValueError: ***") == 5, ended.stderr
    assert "UserWarning: ***" in ended.stderr
    assert_nothing_leaks(ended.stderr, SECRET)


# Reports


@pytest.mark.filterwarnings("ignore:The send_default_pii option:DeprecationWarning")
def test_a_report_and_a_span_of_a_task_show_no_short_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("SENTRY_DSN", collector.dsn)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        errors.start("worker")
        traces.start("worker")
        with traces.span("a request", {"url.full": f"https://x.example/?key={SHORT}"}) as span:
            assert span is not None
            span.add_event(f"sent {SHORT}")
            sentry_sdk.get_isolation_scope().add_attachment(
                f"a response: {SHORT}".encode(), filename=f"{SHORT}.txt"
            )
            sentry_sdk.capture_message(f"it was {SHORT}")
            sentry_sdk.metrics.count(f"requests.{SHORT}", 1, attributes={"token": SHORT})
            sentry_sdk.get_isolation_scope().clear()
        traces.stop()
        errors.stop()
        assert [one["url.full"] for one in collector.spans()] == ["https://x.example/?key=***"]
        assert [event["message"] for event in collector.events()] == ["it was ***"]
        sent = b"".join(body for _, body in collector.requests).decode("utf-8", "replace")
    assert "requests.***" in sent, "the metric was sent"
    assert_nothing_leaks(sent, SHORT)


def test_a_warning_shows_no_secret() -> None:
    assert "***" in warnings.formatwarning(SECRET, UserWarning, "x.py", 1)


@pytest.mark.parametrize("pasted", ["{}\n", " {}", "\t{}\r\n"])
def test_a_secret_that_was_pasted_with_spaces_is_removed_without_them(
    logger: logging.Logger, handler: Everything, pasted: str
) -> None:
    """The plugin removes them before it uses the secret."""
    secret = "p@ste/d+secret"
    KNOWN.remember(ACCOUNT, [pasted.format(secret)])
    logger.error("GET /?key=%s", quote_plus(secret))
    assert_nothing_leaks(handler.text, secret)


@dataclass
class Pair:
    """A part of credentials that is not a model."""

    first: SecretStr
    second: list[SecretBytes]


class Revealing(BaseModel, extra="allow"):
    """Credentials whose author wants to see the token in the model's JSON."""

    token: SecretStr
    pair: Pair
    many: Secret[dict[str, list[str]]]

    @field_serializer("token", "pair", "many")
    def _plainly(self, value: Any) -> Any:
        return "plain" if isinstance(value, Pair) else value.get_secret_value()


def test_a_serializer_hides_no_secret_from_the_redactor() -> None:
    pair = Pair(SecretStr("one"), [SecretBytes(b"two")])
    many = Secret({"a": ["three", "four"]})
    model = Revealing(token=SecretStr(SECRET), pair=pair, many=many, more=SecretStr("five"))
    assert sorted(secrets_of(model)) == sorted([SECRET, "one", "two", "three", "four", "five"])


# Renewed credentials


def test_old_tokens_are_removed_after_a_renewal(
    logger: logging.Logger, handler: Everything
) -> None:
    for number in range(MAX_GENERATIONS - 1):
        KNOWN.remember(ACCOUNT, [f"renewed-token-{number}"])
    logger.error("%s renewed-token-0 renewed-token-1", SECRET)
    assert handler.seen[0] == "*** *** ***"


def test_lines_of_a_renewal_wait_until_its_token_is_known(
    logger: logging.Logger, handler: Everything
) -> None:
    with renewing():
        logger.error("the provider says: %s", "a-fresh-token")
        assert handler.seen == []
        KNOWN.learn(["a-fresh-token"])
    assert handler.seen[0] == "the provider says: ***"


def test_lines_of_a_failed_renewal_are_withheld(
    logger: logging.Logger, handler: Everything
) -> None:
    def renew() -> None:
        with renewing():
            logger.error("the provider says: %s", "a-lost-token", extra={"body": "a-lost-token"})
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        renew()
    assert handler.seen[0] == WITHHELD
    assert_nothing_leaks(handler.text, "a-lost-token")


def test_a_record_that_cannot_be_searched_is_withheld(
    logger: logging.Logger, handler: Everything
) -> None:
    logger.error("%s", Unprintable())
    assert handler.seen[0] == UNREADABLE


# The index of all secrets


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40)
ENCODINGS = [str, quote_plus, lambda text: json.dumps(text)[1:-1], lambda text: repr(text)[1:-1]]


@given(secrets=st.lists(TEXTS, min_size=1, max_size=8, unique=True), data=st.data())
def test_the_index_finds_what_the_redactor_of_an_account_finds(
    secrets: list[str], data: st.DataObject
) -> None:
    known = KnownSecrets()
    for secret in secrets:
        known.remember(secret, [secret])
    written = [
        data.draw(st.sampled_from(ENCODINGS))(data.draw(st.sampled_from(secrets)))  # type: ignore[operator]
        for _ in range(3)
    ]
    text = f"<{'|'.join(written)}>"
    assert known.redact_all(text) == Redactor(secrets)(text)
    for secret in secrets:
        known.forget(secret)
    assert known.redact_all(text) == text
    assert not known._index
    assert not known._unanchored


@pytest.mark.parametrize("secret", ["\\" * 40, '\\"' * 30, "\\n" * 30 + "/", " " * 30 + "/"])
def test_a_hostile_secret_does_not_slow_the_search_down(secret: str) -> None:
    """A user chooses the password, and a provider the text."""
    text = ("\\" * 2_000 + secret[:-1] + "%") * 3
    finished = threading.Event()
    thread = threading.Thread(
        target=lambda: (Redactor([secret])(text), finished.set()), daemon=True
    )
    thread.start()
    assert finished.wait(20)


@pytest.mark.parametrize("name", HTTP_LIBRARIES)
def test_http_libraries_log_warnings_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    configure("DEBUG")
    assert logging.getLogger(name).getEffectiveLevel() == logging.WARNING
