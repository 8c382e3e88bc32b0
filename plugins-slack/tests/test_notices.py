"""The notice of an account: the pass over all channels, and the rest of the first copy."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.server import BOT
from integration_polling_slack import Config
from integration_polling_slack.notices import pages_left
from integration_polling_slack.timestamps import LATEST
from integration_polling_slack.walking import Walk

from core import NOTICE
from core.testing import Harness

SCOPES = "users:read,channels:read,channels:history,groups:read,groups:history"


def said(harness: Harness) -> str:
    """Return the notice of the account; empty without one."""
    return str(harness.state.get(NOTICE, {}).get("text", ""))


def test_a_long_pass_is_on_the_account(fake: Fake, connect: Any, sync: Any) -> None:
    for number in range(130):
        fake.workspace.add_channel(f"channel-{number}")
    harness = connect()
    for trigger in ("manual", "schedule"):
        sync(harness, trigger)
        assert "130 channels, 50 calls a minute: a pass takes 3 min." in said(harness)
    for channel in list(fake.workspace.channels.values())[40:]:
        channel.is_member = False
    sync(harness, "schedule")
    assert "pass" not in said(harness)


@pytest.mark.parametrize("granted", [SCOPES, f"{SCOPES},reactions:read", ""])
@pytest.mark.parametrize("with_events", [True, False])
def test_a_missing_scope_of_reactions_is_said(
    fake: Fake, connect: Any, sync: Any, monkeypatch: Any, granted: str, with_events: bool
) -> None:
    """At connect and on the account; only if the app sends events, and if scopes are known."""
    fake.workspace.add_channel("general")
    fake.scopes = granted
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "secret" * with_events)
    harness = connect()
    sync(harness)
    is_missing = with_events and granted == SCOPES
    for text in (harness.check().notice or "", said(harness)):
        assert ("add the scope reactions:read" in text) == is_missing


def paused_copy(fake: Fake, harness: Harness) -> None:
    """Run polls whose backfill makes no call, so that the first copy stays incomplete."""
    fake.fail("conversations.history", "internal_error", times=10_000,
              when=lambda one: one.get("latest", LATEST) != LATEST)  # fmt: skip
    for _ in range(2):
        harness.sync("schedule")
        harness.now += timedelta(minutes=10)


def test_the_first_copy_has_an_estimated_end(fake: Fake, connect: Any, sync: Any) -> None:
    """Half of the time since the channel's creation is copied with 10 pages: 10 are left."""
    fake.page_cap = 999
    now = datetime.now(UTC).timestamp()
    created = 1_600_000_000
    for number in range(40):
        channel = fake.workspace.add_channel(f"channel-{number:02}")
        for message in range(2_000):
            ts = f"{now - message * (now - created) / 20_000:.0f}.{message:06d}"
            fake.workspace.post(channel, "x", ts=ts)
    harness: Harness = connect()
    paused_copy(fake, harness)
    # A page of 999 messages covers a twentieth of the time, so 19 more pages are expected.
    found = re.search(r"about ([\d,]+) pages of messages \((\d+) min\)", said(harness))
    assert found is not None, said(harness)
    pages, minutes = int(found[1].replace(",", "")), int(found[2])
    assert 0.9 * 40 * 19 <= pages <= 1.1 * 40 * 19
    # Polls ask 40 channels in 10 minutes, and so leave 46 calls a minute.
    assert pages / 50 <= minutes <= pages / 40
    end = re.search(r"until about (\S+ \S+) UTC", said(harness))
    assert end is not None
    expected = harness.now + timedelta(minutes=minutes - 10)
    assert abs(datetime.fromisoformat(f"{end[1]}+00:00") - expected) <= timedelta(minutes=3)


def test_threads_are_counted_apart(fake: Fake, connect: Any) -> None:
    for number in range(4):
        channel = fake.workspace.add_channel(f"channel-{number}")
        for _ in range(100):
            root = fake.workspace.post(channel, "root")
            fake.workspace.post(channel, "reply", thread=root)
    fake.fail("conversations.replies", "internal_error", times=10_000)
    harness: Harness = connect()
    for _ in range(2):
        harness.sync("schedule")
        harness.now += timedelta(minutes=10)
    assert "about 400 threads (8 min) are left" in said(harness)


def test_a_complete_copy_says_nothing(fake: Fake, connect: Any, sync: Any) -> None:
    channel = fake.workspace.add_channel("general")
    for number in range(3_000):
        fake.workspace.post(channel, f"message {number}")
    harness = connect()
    for _ in range(4):
        sync(harness, "schedule")
        harness.now += timedelta(minutes=10)
        assert "First copy" not in said(harness)
    before = harness.state[NOTICE]
    sync(harness, "schedule")
    assert harness.state[NOTICE] == before, "each poll would change the state"


def test_the_sample_of_an_estimate_stands_for_all(fake: Fake, connect: Any) -> None:
    for number in range(120):
        channel = fake.workspace.add_channel(f"channel-{number:03}")
        for message in range(20):
            fake.workspace.post(
                channel, f"{message}", ts=f"{1_700_000_000 + message * 86_400}.000001"
            )
    fake.page_cap = 10
    harness: Harness = connect(BOT, app_kind="internal")
    paused_copy(fake, harness)
    # 10 messages cover 9 days, and 1,166 days are left: 1.3 pages of 999 messages a channel.
    assert "about 156 pages" in said(harness)


def test_an_unknown_rate_counts_as_one_page() -> None:
    assert pages_left(Walk(mode="back"), 0, Config()) == 1
    walk = Walk(mode="back", low="1700000000.000000", newest="1700000100.000000", count=999)
    assert pages_left(walk, 1_700_000_000, Config()) == 1
    assert pages_left(walk, 1_699_999_900, Config()) == 1
    assert pages_left(walk, 1_699_999_000, Config()) == pytest.approx(10)
