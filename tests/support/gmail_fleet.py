"""A fleet whose Gmail is the fake, for tests with real processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from integration_polling_gmail import Credentials, Gmail

from support.accounts import connect
from support.deployment import Deployment
from support.fleet import Fleet
from support.gmail import FakeGmail

LIMITS = {"quota": {"units": 1_000_000}, "project": {"units": 100_000_000}}
"""Limits so high that the test never waits for the quota. The limit of 8 concurrent calls stays."""

DOWNLOADS = "SELECT count(*) FROM sync_task WHERE type = 'download_email' AND state = 'done'"


@pytest.fixture
def gmail() -> Iterator[FakeGmail]:
    with FakeGmail() as fake:
        yield fake


@pytest.fixture
def gmail_fleet(make_fleet: Callable[..., Fleet], gmail: FakeGmail) -> Fleet:
    return make_fleet(**gmail.environment, POLLING_LIMITS=json.dumps({"gmail": LIMITS}))


def connected(deployment: Deployment, gmail: FakeGmail) -> UUID:
    return connect(deployment, Gmail, {}, Credentials.model_validate(gmail.credentials()))


def expected(gmail: FakeGmail) -> dict[str, str]:
    """Return the hash of each message's source, by the source's id."""
    return {
        f"{id}/raw": hashlib.sha256(each.raw).hexdigest()
        for id, each in gmail.mailbox.messages.items()
    }
