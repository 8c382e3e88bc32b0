"""A fake Slack for each test, and accounts connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_slack import Fake, serve
from fake_slack.server import BOT, CLIENT_ID, CLIENT_SECRET
from fake_slack.socket_mode import APP_TOKEN, SocketMode, serving
from integration_polling_slack import Slack
from support.processes import (  # noqa: F401  fixtures
    deployment,
    make_fleet,
    own_servers,
    server_pair,
)

from core.testing import Harness, SyncResult


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """The fake, to which the operator's settings point."""
    with serve() as fake:
        monkeypatch.setenv("SLACK_API_URL", fake.api_url)
        monkeypatch.setenv("SLACK_CLIENT_ID", CLIENT_ID)
        monkeypatch.setenv("SLACK_CLIENT_SECRET", CLIENT_SECRET)
        yield fake


@pytest.fixture
def socket_mode(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[SocketMode]:
    """The fake's Socket Mode, for which the operator has the token."""
    with serving(fake) as served:
        monkeypatch.setenv("SLACK_APP_TOKEN", APP_TOKEN)
        yield served


Connect = Callable[..., Harness]
Sync = Callable[..., SyncResult]


@pytest.fixture
def connect(fake: Fake) -> Connect:
    """Return a function that connects an account with a config."""

    def account(token: str = BOT, refresh_token: str | None = None, **config: Any) -> Harness:
        return Harness(Slack, config, {"token": token, "refresh_token": refresh_token})

    return account


@pytest.fixture
def sync() -> Sync:
    """Return a function that syncs an account, and fails unless the sync succeeds."""

    def run(harness: Harness, trigger: str = "manual", **options: Any) -> SyncResult:
        result = harness.sync(trigger, **options)
        assert result.state == "succeeded", [result.error, *result.parked]
        return result

    return run
