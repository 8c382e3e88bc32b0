"""Requests that break the rules of HTTP do no harm, and fill no log.

A proxy and the server could read different requests from the same bytes ("request smuggling",
RFC 9112, sections 6 and 11.2). Such bytes end the connection.
"""

from __future__ import annotations

import logging
import re
import socket
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest
from support.rest import serving

from core.dashboard.app import Site

HOST = b"Host: localhost\r\n"
GET = b"GET /v1/integrations HTTP/1.1\r\n" + HOST
POST = b"POST /v1/user-integrations HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
HIDDEN = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture
def url(backend):
    with serving(backend, Site) as url:
        yield url


def answers(url: str, *parts: bytes) -> list[int]:
    """Send the parts, each after the response to the one before; return the statuses."""
    at, received = urlsplit(url), b""
    with closing(socket.create_connection((at.hostname, at.port), timeout=10)) as one:
        for number, part in enumerate(parts):
            with suppress(OSError):
                one.sendall(part)
                if number < len(parts) - 1:
                    received += one.recv(65_536)
        with suppress(OSError):
            while part := one.recv(65_536):
                received += part
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", received)]


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
        POST + CHUNKED + b"Content-Length: 0\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        POST + b"Content-Length: 5, 6\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: 0x5\r\n\r\nhello",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        GET + b"X: a\rY: b\r\n\r\n",
        GET + b"X: a\0b\r\n\r\n",
        GET + b"Host: evil.example\r\n\r\n",
        b"GET /v1/integrations HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_ambiguous_requests_are_refused_and_hide_no_other(url, request_) -> None:
    assert answers(url, request_ + HIDDEN) == [400]


def test_a_body_without_a_length_of_http_1_0_hides_no_other(url) -> None:
    request = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKED + b"\r\n0\r\n\r\n"
    assert answers(url, request + HIDDEN) == [401]


@pytest.mark.parametrize(
    "parts",
    [
        (b"junk\r\n\r\n",),
        (POST + CHUNKED + b"\r\nzz\r\n",),
        (POST + CHUNKED + b"\r\n2;a=" + b"a" * 100_000,),
        (b"POST /nowhere HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n", b"zz\r\n", b"zz\r\n"),
        (b"POST /sign-out HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n", b"zz\r\n"),
        (POST + b"Content-Length: 99999999\r\n\r\n", b"zz\r\n"),
        (b"GET /sign-in HTTP/1.1\r\n" + HOST + b"\r\n", b"\x00\r\n\r\n"),
        (b"GET /sign-in HTTP/1.1\r\n" + HOST + b"\r\n\x00\r\n\r\n",),
        (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n", b"x"),
        (GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b"\0\r\n\r\n"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",),
        (b"GET /" + b"a" * 70_000,),
        (POST + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,),
        (POST + b"Content-Length: 200000\r\n\r\n" + b"1" * 200_000,),
        (POST + b"Content-Length: 200004\r\n\r\n[" + b'{"":' * 50_000 + b"[]}",),
    ],
)
def test_no_request_writes_to_the_log(url, parts, caplog) -> None:
    """Anyone could fill the disk."""
    with caplog.at_level(logging.INFO):
        assert not [status for status in answers(url, *parts) if status >= 500]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
