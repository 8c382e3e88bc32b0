"""Run one command and return its exit code.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 a run ended as partial, 4 timed out, 130 Ctrl-C,
143 SIGTERM.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from core.cli.output import fail, fail_with, stderr
from core.errors import PollingError, ServerUnavailable


def run(argv: Sequence[str]) -> int:
    """Run one command, report errors on standard error, and release embedded servers at the end."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with _sigterm_as_exit():
        code = _run_guarded(argv)
        _stop_servers()
    return code


def _run_guarded(argv: Sequence[str]) -> int:
    try:
        code = _invoke(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has closed the pipe. Python flushes standard output again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception as error:  # noqa: BLE001  every error becomes a message and an exit code
        return _report(error, argv)


def _invoke(argv: Sequence[str]) -> int:
    from core.cli.app import command

    result = command().main(list(argv), prog_name="polling", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _report(error: Exception, argv: Sequence[str]) -> int:
    if isinstance(error, PollingError):
        fail_with(error)
        return 1
    if type(error).__name__ == "Abort":
        return 130
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return _report_usage(error, argv)
    if (catalogued := _catalogued(error)) is not None:
        fail_with(catalogued)
    else:
        fail(f"{type(error).__name__}: {_text(error)}", "For a traceback: POLLING_LOG_LEVEL=DEBUG")
    if os.environ.get("POLLING_LOG_LEVEL", "").upper() == "DEBUG":
        import traceback

        stderr().print("".join(traceback.format_exception(error)), soft_wrap=True)
    return 1


def _report_usage(error: Any, argv: Sequence[str]) -> int:
    """Report wrong usage and return the exit code."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return int(error.exit_code)  # a group without a subcommand has printed its help
    words = itertools.takewhile(lambda word: not word.startswith("-"), argv)
    path = context.command_path if context is not None else " ".join(("polling", *words))
    if (problem := _invalid(error)) is not None:
        error.message = problem
    advice = f"To list, run: {path}" if _asks_for_list(error) else f"Try: {path} --help"
    fail(" ".join(error.format_message().split()).rstrip("."), advice)
    return int(error.exit_code)


def _asks_for_list(error: Any) -> bool:
    """Return True if a group that lists without a subcommand got the subcommand `list`."""
    group = error.ctx.command if error.ctx is not None and error.ctx.parent else None
    lists = getattr(group, "invoke_without_command", False)
    return lists and error.format_message() in ("No such command 'list'.", "No such command 'ls'.")


def _invalid(error: Any) -> str | None:
    """Return the message about an option's invalid value; None if Typer's own is sufficient.

    For an option with a type, Typer says what pydantic expects, and not what it was given.
    """
    from pydantic import ValidationError

    from core.field_problems import first_problem

    if not isinstance(error.__cause__, ValidationError):
        return None
    problem = first_problem(error.__cause__)
    value = error.__cause__.errors(include_url=False, include_context=False)[0]["input"]
    return problem.message if problem.may_quote else f"{value!r:.100} {problem.message}"


def _catalogued(error: Exception) -> PollingError | None:
    """Return the catalogue's error for an unreachable server or a missing schema."""
    if "psycopg" in sys.modules:
        import psycopg

        if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
            return ServerUnavailable("schema-missing")
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return ServerUnavailable("postgres-unreachable", detail=_text(error))
    if "redis" in sys.modules:
        import redis

        from core.accounts.redaction import describe_redis

        if isinstance(error, redis.RedisError):
            return ServerUnavailable("redis-unreachable", detail=describe_redis(error))
    return None


def _text(error: Exception) -> str:
    """Return the error's text as one line, without values of database rows."""
    if "psycopg" in sys.modules:
        from core.db.errors import describe

        return describe(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else "no message"


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Make SIGTERM end a command as Ctrl-C does, so that it releases its resources."""

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(143)

    previous = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # some tests call it outside the main thread
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, previous)


def _stop_servers() -> None:
    """Release embedded servers; ignore further signals, which would leave them running."""
    if "core.environment" not in sys.modules:
        return
    from core.environment import leave_environment

    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        leave_environment()
    except PollingError as error:
        fail_with(error)
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, signal.default_int_handler)
