"""Looks at channels: busy channels often, quiet ones seldom, and none is forgotten."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from statistics import median, quantiles
from typing import Any

import pytest
from fake_slack import Fake
from integration_polling_slack import looks
from integration_polling_slack.looks import Looks

from core.testing import Harness

START = datetime(2026, 1, 1, tzinfo=UTC)


class Simulation:
    """An account of many channels, whose runs take a call for each channel.

    Attributes:
      ages: The seconds from each message to its look, by channel.
      looked: The times of all looks, by channel.
      shown: The minutes within which the row of each channel says that it is fresh.
      late: The number of messages that were older than their channel showed.
    """

    def __init__(self, channels: int, calls: int, interval: float, *, distributed: bool) -> None:
        self.ids = [f"C{number:04}" for number in range(channels)]
        self.calls, self.interval, self.distributed = calls, interval, distributed
        self.time = 0.0
        self.before = Looks()
        self.newest = dict.fromkeys(self.ids, -90 * 86_400.0)
        self.ages: dict[str, list[float]] = {id: [] for id in self.ids}
        self.looked: dict[str, list[float]] = {id: [] for id in self.ids}
        self.busy = 0.0
        self.shown: dict[str, float] = {}
        self.late = 0

    def run(self, seconds: float, messages: list[tuple[float, str]]) -> None:
        waiting = sorted(messages, reverse=True)
        unseen: dict[str, list[float]] = {id: [] for id in self.ids}
        while self.time < seconds:
            now = START + timedelta(seconds=self.time)
            most = looks.capacity(self.before, now, self.calls, is_distributed=self.distributed)
            self.before = looks.plan(
                self.ids, self.before, now, most,
                lambda channel: int(START.timestamp() + self.newest[channel]),
            )  # fmt: skip
            for id in self.before.last:
                bound = self.before.fresh_within(id)
                self.time += 60 / self.calls
                self.busy += 60 / self.calls
                while waiting and waiting[-1][0] <= self.time:
                    at, channel = waiting.pop()
                    unseen[channel].append(at)
                self.looked[id].append(self.time)
                for at in unseen[id]:
                    self.ages[id].append(self.time - at)
                    self.late += self.time - at > self.shown.get(id, math.inf) * 60
                    self.newest[id] = max(self.newest[id], at)
                unseen[id].clear()
                self.shown[id] = bound or math.inf
            self.time += self.interval

    def gap(self, id: str, after: float) -> float:
        times = [time for time in self.looked[id] if time >= after]
        return max((later - sooner for sooner, later in pairwise(times)), default=float("inf"))


def test_busy_channels_are_fresh_among_a_thousand() -> None:
    """99 % of 10,000 messages in eight hours are in 50 channels of 1,000."""
    draw, hours = Random(1), 8
    simulation = Simulation(1_000, 50, 60, distributed=False)
    active, quiet = simulation.ids[::20], [id for at, id in enumerate(simulation.ids) if at % 20]
    found = [
        (draw.uniform(0, hours * 3600), draw.choice(active if draw.random() < 0.99 else quiet))
        for _ in range(10_000)
    ]
    simulation.run(hours * 3600 + 3_600, found)
    ages = [age / 60 for id in active for age in simulation.ages[id]]
    assert len(ages) > 9_800
    assert median(ages) <= 3
    assert quantiles(ages, n=20)[-1] <= 10
    assert max(age for id in quiet for age in simulation.ages[id]) <= 45 * 60
    assert simulation.late == 0, "a channel's bound was too low"
    shown = sorted(simulation.shown.values())
    assert shown[20] <= 20, "the bound of a busy channel"
    assert shown[-1] <= 90, "the bound of a quiet channel"


@pytest.mark.parametrize("interval", [1, 15])
@pytest.mark.parametrize("channels", [200, 1_000])
def test_every_channel_is_looked_at(interval: int, channels: int) -> None:
    """No channel waits for more than three passes, and no run is longer than the one before."""
    simulation = Simulation(channels, 50, interval * 60, distributed=False)
    simulation.run(43_200, [])
    pause = max(interval, looks.MIN_MINUTES)
    per_run = 50 * looks.SHARE * pause
    cycle = per_run / 50 + interval
    longest = max(simulation.gap(id, 14_400) for id in simulation.ids)
    assert longest <= max(3 * channels / per_run, 2) * cycle * 60
    assert len(simulation.before.last) <= per_run + 1


@pytest.mark.parametrize("minutes", [1, 15, 600])
@pytest.mark.parametrize("calls", [50, 1])
def test_a_poll_beside_events_ends_within_moments(minutes: int, calls: int) -> None:
    now = START + timedelta(minutes=minutes)
    for at in (0, int(START.timestamp())):
        most = looks.capacity_beside_events(Looks(at=at), now, calls)
        assert 1 <= most <= max(calls / 2, 1)
        assert most <= max(calls * minutes / 5, 1) or at == 0


def test_a_distributed_app_leaves_calls_to_the_backfill() -> None:
    simulation = Simulation(40, 1, 15 * 60, distributed=True)
    simulation.run(86_400, [])
    assert simulation.busy <= 0.5 * simulation.time
    assert all(simulation.looked.values())


def test_an_account_with_few_channels_asks_all_in_each_run(
    fake: Fake, connect: Any, sync: Any
) -> None:
    made = [fake.workspace.add_channel(f"channel-{number}") for number in range(100)]
    sync(harness := connect())
    for channel in made:
        fake.workspace.post(channel, "new")
    sync(harness, "schedule")
    assert len([item for item in harness.content.values() if item.kind == "message"]) == 100
    assert "looks" not in harness.state


def test_an_account_with_many_channels_asks_the_busy_ones_first(
    fake: Fake, connect: Any, sync: Any
) -> None:
    made = [fake.workspace.add_channel(f"channel-{number:03}") for number in range(300)]
    harness: Harness = connect()
    for _ in range(4):
        sync(harness, "schedule")
        harness.now += timedelta(minutes=1)
    assert {one.id for one in made} == set(harness.state["looks"]["asked"])
    posted = made[::60]
    for channel in posted:
        fake.workspace.post(channel, "one", ts=f"{harness.now.timestamp():.0f}.000001")
    for _ in range(3):
        sync(harness, "schedule")
        harness.now += timedelta(minutes=4)
    asked = dict[str, int]()
    for number in range(5):
        for channel in posted:
            fake.workspace.post(
                channel, f"{number}", ts=f"{harness.now.timestamp():.0f}.00000{number}"
            )
        fake.calls.clear()
        sync(harness, "schedule")
        assert len(fake.called("conversations.history")) <= 200
        for call in fake.called("conversations.history"):
            asked[call.arguments["channel"]] = asked.get(call.arguments["channel"], 0) + 1
        harness.now += timedelta(minutes=4)
    assert all(asked[channel.id] >= 5 for channel in posted)
    shown = {id: harness.content[id].metadata["fresh_within_minutes"] for id in asked}
    assert all(shown.values())
    assert max(shown[channel.id] for channel in posted) <= min(
        minutes for id, minutes in shown.items() if id not in {one.id for one in posted}
    )
    sync(harness)
    texts = [item.text for item in harness.content.values() if item.kind == "message"]
    assert len(texts) == 5 * 6


def test_an_app_with_the_limits_of_a_distributed_one_is_noticed(
    fake: Fake, connect: Any, sync: Any
) -> None:
    fake.page_cap = 15
    for number in range(5):
        channel = fake.workspace.add_channel(f"channel-{number}")
        for message in range(40):
            fake.workspace.post(channel, f"message {message}")
    reason = "Slack limits this app as a distributed one: set app_kind"
    sync(harness := connect(), "schedule")
    fake.calls.clear()
    assert sync(harness, "schedule").skipped_items == {reason: 1}
    assert len(fake.called("conversations.history")) == 1, "half of three calls"
    texts = [item for item in harness.content.values() if item.kind == "message"]
    assert len(texts) == 200
    for kind in ("distributed", "marketplace"):
        harness = connect(app_kind=kind)
        for _ in range(2):
            assert not sync(harness, "schedule").skipped_items
