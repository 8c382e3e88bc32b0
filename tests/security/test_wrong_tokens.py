"""Guessing tokens: it is slow, it is logged, and it locks nobody out."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from core.service import tokens
from core.web import wrong_tokens
from core.web.problems import HttpProblem
from core.web.wrong_tokens import BURST, DELAY_SECONDS, MAX_WAITING, WrongTokens, address_of

WRONG = tokens.PREFIX + "w" * 43
PATH = "/v1/user-integrations"


def test_further_wrong_tokens_of_an_address_wait(api) -> None:
    stranger = api.client(WRONG)
    for _ in range(BURST):
        assert stranger.get(PATH).status_code == 401
    begun = time.monotonic()
    assert stranger.get(PATH).status_code == 401
    assert time.monotonic() - begun >= DELAY_SECONDS


def test_a_flood_of_wrong_tokens_refuses_no_right_one(api) -> None:
    """While the attacker's answers wait, and after the server refuses more of them."""
    stranger, right = api.client(WRONG), api.user("ann")
    for _ in range(BURST):
        stranger.get(PATH)
    with ThreadPoolExecutor(3 * MAX_WAITING) as threads:
        guesses = [threads.submit(stranger.get, PATH) for _ in range(3 * MAX_WAITING)]
        answers = [right.get(PATH).status_code for _ in range(5)]
        refused = [guess.result() for guess in guesses]
    assert answers == [200] * 5
    statuses = {answer.status_code for answer in refused}
    assert statuses == {401, 429}
    (retry,) = {a.headers["retry-after"] for a in refused if a.status_code == 429}
    assert int(retry) >= 1


def test_the_form_is_slowed_down_together_with_the_api(dashboard) -> None:
    stranger = dashboard.stranger()
    for _ in range(BURST):
        dashboard.client(WRONG).get(PATH)
    begun = time.monotonic()
    assert stranger.send("/sign-in", {"token": WRONG}).status_code == 401
    assert time.monotonic() - begun >= DELAY_SECONDS
    assert stranger.send("/sign-in", {"token": dashboard.token("ann")}).status_code == 303


def test_a_wrong_token_is_logged_without_the_token(api, dashboard, caplog) -> None:
    secrets = [WRONG, "hunter2", tokens.PREFIX + "x" * 42 + "é"]
    for secret in secrets:
        dashboard.stranger().send("/sign-in", {"token": secret})
    api.client(WRONG).get(PATH)
    lines = [record.getMessage() for record in caplog.records if "wrong token" in record.msg]
    assert len(lines) == len(secrets) + 1
    assert all("127.0.0.1" in line for line in lines)
    assert not [secret for secret in secrets if secret in caplog.text]


def test_a_flood_is_logged_once_a_minute(monkeypatch, caplog) -> None:
    monkeypatch.setattr(wrong_tokens, "DELAY_SECONDS", 0.0)
    received = WrongTokens()

    async def flood() -> None:
        for _ in range(50 * BURST):
            await received.refuse(request("203.0.113.7"))

    asyncio.run(flood())
    assert len(caplog.records) == BURST


def request(host: str) -> SimpleNamespace:
    return SimpleNamespace(client=SimpleNamespace(host=host))


def test_another_address_does_not_wait(monkeypatch) -> None:
    received = WrongTokens()

    async def guess() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(wrong_tokens, "DELAY_SECONDS", 0.0)
            for _ in range(3 * BURST):
                await received.refuse(request("203.0.113.7"))
        monkeypatch.setattr(wrong_tokens, "DELAY_SECONDS", 3600.0)
        await asyncio.wait_for(received.refuse(request("203.0.113.8")), 60)

    asyncio.run(guess())


def test_the_answers_that_wait_and_the_addresses_are_bounded(monkeypatch) -> None:
    """An attacker with many addresses occupies neither all connections nor the memory."""
    monkeypatch.setattr(wrong_tokens, "MAX_ADDRESSES", 50)
    monkeypatch.setattr(wrong_tokens, "MAX_WAITING_IN_ALL", 7)
    monkeypatch.setattr(wrong_tokens, "DELAY_SECONDS", 3600.0)
    received = WrongTokens()

    async def flood() -> list[object]:
        hosts = [f"203.0.113.{n}" for n in range(20) for _ in range(BURST + 1)]
        tasks = [asyncio.create_task(received.refuse(request(host))) for host in hosts]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended = [task.exception() for task in tasks if task.done()]
        assert len([task for task in tasks if not task.done()]) == 7
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number in range(1_000):
            await received.refuse(request(f"198.51.{number // 250}.{number % 250}"))
        assert len(received._senders) == 50
        assert received._waiting == 0
        return ended

    refused = [problem for problem in asyncio.run(flood()) if problem is not None]
    assert len(refused) == 13
    assert all(isinstance(problem, HttpProblem) for problem in refused)


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
    ],
)
def test_a_network_of_ipv6_is_one_address(host, counted) -> None:
    assert address_of(request(host)) == counted
