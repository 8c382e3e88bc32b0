"""The headers by which providers state pauses and rate limits."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import Message
from pathlib import Path

import httpx2
import pytest

from core.rate_headers import (
    MAX_PAUSE_SECONDS,
    pause_of,
    requests_left,
    response_time,
    retry_after,
)

ROOT = Path(__file__).parents[2]
NOW = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "1_000"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "99999999"}, MAX_PAUSE_SECONDS),
        ({"Retry-After": "Tue, 01 Jan 2030 12:01:00 GMT"}, 60),
        ({"Retry-After": "Tue, 01 Jan 2030 11:00:00 GMT"}, 0),
        # The provider's own clock is an hour ahead.
        (
            {
                "Retry-After": "Tue, 01 Jan 2030 13:00:30 GMT",
                "Date": "Tue, 01 Jan 2030 13:00:00 GMT",
            },
            30,
        ),
    ],
)
def test_retry_after_is_a_number_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx2.Headers(headers), NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "remaining", "pause"),
    [
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(EPOCH + 90)}, 0, 90),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((EPOCH + 90) * 1000)}, 0, 90),
        ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "12.5"}, 7, 12.5),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": str(EPOCH - 5)}, 0, 0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "20"}, 0, 20),
        ({"RateLimit": "limit=100, remaining=0, reset=50"}, 0, 50),
        ({"RateLimit": '"burst";r=5;t=10, "day";r=0;t=7'}, 0, 7),
        ({"RateLimit": '"default";r=3'}, 3, None),
        ({"RateLimit": "nonsense"}, None, None),
        ({"X-RateLimit-Remaining": "many"}, None, None),
        # A pause that the provider asks for precedes the reset.
        ({"Retry-After": "4", "X-RateLimit-Reset": "60"}, None, 4),
    ],
)
def test_the_usual_headers_of_rate_limits_are_read(
    headers: dict[str, str], remaining: float | None, pause: float | None
) -> None:
    assert requests_left(httpx2.Headers(headers)) == remaining
    assert pause_of(httpx2.Headers(headers), NOW) == pause


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"},
        {"Retry-After": "1 Jan 2026 00:00:00 +99999999999999"},
        {"Retry-After": "1, 2 3"},
        {"Retry-After": "Mon, 01 Jan 2026 00:00:00 GMT", "Date": "1 Jan 9999999999 0:0:0 GMT"},
        {"RateLimit": f"r={'9' * 5_000};t=3"},
        {"RateLimit": f"r=0;t={'9' * 5_000}"},
    ],
)
def test_hostile_headers_raise_nothing(headers: dict[str, str]) -> None:
    pause = pause_of(httpx2.Headers(headers), NOW)
    assert pause is None or 0 <= pause <= MAX_PAUSE_SECONDS
    requests_left(httpx2.Headers(headers))


@pytest.mark.parametrize("date", ["Fri, 01 Jan 9999 00:00:00 GMT", "Mon, 01 Jan 0001", "", "soon"])
def test_an_implausible_date_of_a_response_is_ignored(date: str) -> None:
    assert response_time({"date": date}, NOW) == NOW
    there = "Tue, 01 Jan 2030 12:00:30 GMT"
    assert retry_after({"retry-after": there, "date": date}, NOW) == 30


def test_the_headers_of_any_http_library_are_read() -> None:
    message = Message()
    message["Retry-After"] = "7"
    assert retry_after(message) == retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "٣"}) is None


def test_one_module_reads_the_header_retry_after() -> None:
    reading = [
        path.relative_to(ROOT).as_posix()
        for folder in (ROOT / "core", *ROOT.glob("plugins-*/src"))
        for path in sorted(folder.rglob("*.py"))
        if "retry-after" in path.read_text("utf-8")
    ]
    assert reading == ["core/rate_headers.py"]
