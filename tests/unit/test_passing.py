"""Failures that may pass, and failures that do not."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import pytest

from core import Manifest, PermanentError, TransientError, Unavailable
from core.results.passing import may_pass


class DriverError(Exception):
    """An exception of a client library."""


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    current = error
    for cause in causes:
        current.__cause__ = cause
        current = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        TransientError("down"),
        Unavailable(),
        ConnectionRefusedError(),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
        socket.gaierror(socket.EAI_AGAIN, "no answer"),
        EOFError(),
        ssl.SSLError("handshake"),
        ssl.SSLEOFError(),
        http.client.RemoteDisconnected(),
        http.client.IncompleteRead(b""),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ETIMEDOUT, "timed out"),
        caused(DriverError("request failed"), ConnectionResetError()),
        caused(ValueError("x"), DriverError("y"), TimeoutError()),
    ],
    ids=repr,
)
def test_a_connection_error_may_pass(error: BaseException) -> None:
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        DriverError("x"),
        PermissionError(errno.EACCES, "denied"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        OSError(errno.ENOSPC, "disk full"),
        ssl.SSLCertVerificationError("self-signed"),
        caused(ValueError("x"), ssl.SSLCertVerificationError("self-signed")),
        caused(ValueError("x"), PermanentError("no")),
    ],
    ids=repr,
)
def test_a_fault_of_the_plugin_or_the_account_does_not_pass(error: BaseException) -> None:
    assert not may_pass(error)


def test_the_context_of_an_exception_is_not_its_cause() -> None:
    error = KeyError("a fault in the handler")
    error.__context__ = TimeoutError()
    assert not may_pass(error)


def test_a_plugin_names_the_exceptions_of_its_library() -> None:
    assert may_pass(DriverError("x"), (DriverError,))
    assert may_pass(caused(ValueError("x"), DriverError("y")), (DriverError,))


def test_a_loop_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not may_pass(first)


@pytest.mark.parametrize("passing", [["TimeoutError"], [KeyboardInterrupt], [5]])
def test_a_manifest_names_exception_classes(passing: list[object]) -> None:
    with pytest.raises(ValueError, match="exception classes"):
        Manifest("shop", "Shop", passing=passing)  # type: ignore[arg-type]
