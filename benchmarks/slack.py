"""The age of messages in the copy of a large Slack workspace, within Slack's limits.

The fake of the plugin's tests refuses each call beyond Slack's limits. In three of the four parts,
time runs faster: for the plugin, the limits, the polls and the messages. A seed decides all
messages. There is no peer.

* `polls`: 1,000 channels and an interval of one minute. In eight hours, people post 10,000
  messages: 99 % in 50 channels, and the others in 950 channels. A message that arrives after the
  bound of its channel's row counts.
* `events`: the same workspace in real time, with the app's events over Socket Mode.
* `first copy`: 500,000 messages without threads in 200 channels, while polls continue.
* `distributed`: the first copy of a distributed app, while polls continue. The figure is the share
  of the messages that Slack's limit allows.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from integration_polling_slack import Config, Slack
from integration_polling_slack.directory import TIERS

from benchmarks.engine import Engine, Testbed
from benchmarks.processes import wait_until
from benchmarks.report import Budget, Options, Report
from benchmarks.scaled_slack import DOMAIN, Clock
from benchmarks.workspaces import (
    APP_TOKEN,
    Arrivals,
    Channel,
    Fake,
    archive,
    callback,
    connected,
    faked,
    polled,
    posted,
    serving,
    settings,
)
from core import Limit, Rate

SEED = 26
CHANNELS, ACTIVE, MESSAGES, HOURS = 1_000, 50, 10_000, 8.0
ACTIVE_SHARE = 0.99
COPIED_CHANNELS, COPIED_MESSAGES = 200, 500_000
MINUTE, DAY = 60.0, 86_400.0
QUIET_SECONDS = 65.0
"""The time after which the calls before it no longer count."""

Part = tuple[list[Budget], dict[str, Any]]

KEPT = "SELECT count(*) FROM user_integration_content WHERE kind = 'message'"
LISTENS = """
SELECT EXISTS (SELECT FROM listener WHERE connected_at IS NOT NULL)
    AND EXISTS (SELECT FROM listener_account)
    AND NOT EXISTS (SELECT FROM hint WHERE parts <> '{}' OR run_id IS NOT NULL)
"""
RUNS = "SELECT trigger, count(*) FROM sync_run WHERE lane = 'live' GROUP BY 1"
FORGET = """
TRUNCATE user_integration_content, sync_state, sync_task, sync_run, sync_seen, hint,
    listener_account, limit_block, breaker CASCADE
"""


def run(bed: Testbed, options: Options) -> Report:
    """Measure the parts whose name contains `options.only`."""
    parts: dict[str, Callable[[Testbed, Options], Part]] = {
        "polls": _polls,
        "events": _events,
        "first copy": _first_copy,
        "distributed": _distributed,
    }
    budgets, rows = list[Budget](), list[dict[str, Any]]()
    for name, part in parts.items():
        if options.only in name:
            found, row = part(bed, options)
            budgets += found
            rows += [{"": name, "figure": key, "value": value} for key, value in row.items()]
    figures = [budgets[0].figure]
    return Report("slack", "min", figures, budgets=budgets, details={"parts": rows})


def _drawn(channels: Sequence[Channel]) -> tuple[set[str], list[tuple[float, Channel]]]:
    """Return the ids of the active channels, and all messages: their time and channel, in order."""
    draw = random.Random(SEED)
    active = draw.sample(channels, ACTIVE)
    ids = {one.id for one in active}
    quiet = [one for one in channels if one.id not in ids]
    messages = [
        (
            draw.uniform(0, HOURS * 3_600),
            draw.choice(active if draw.random() < ACTIVE_SHARE else quiet),
        )
        for _ in range(MESSAGES)
    ]
    return ids, sorted(messages, key=lambda one: one[0])


def _workspace(fake: Fake, now: float, channels: int) -> list[Channel]:
    """Add channels with a message each. The last message of most channels is some days old."""
    made = [fake.workspace.add_channel(f"channel-{number:04}") for number in range(channels)]
    draw = random.Random(SEED)
    for channel in made:
        fake.workspace.post(channel, "before", ts=f"{now - draw.uniform(1, 90) * DAY:.0f}.000001")
    return made


def _polls(bed: Testbed, options: Options) -> Part:
    clock, hours = Clock(30.0 * options.scale, time.time()), 0.25 if options.quick else HOURS
    if options.minutes:
        hours = min(hours, options.minutes * clock.scale / 60)
    with faked(clock) as fake, _engine(bed, settings(fake, clock)) as engine:
        channels = _workspace(fake, clock.origin, options.size(CHANNELS, 200))
        active, every = _drawn(channels)
        messages = [one for one in every if one[0] < hours * 3_600]
        account = connected(engine, DOMAIN, _limits(clock.scale))
        with engine.workers(), polled(engine, account, MINUTE / clock.scale):
            wait_until(
                lambda: _value(engine, KEPT) >= len(channels),
                "all channels have their first copy",
                seconds=600,
            )
            arrivals = Arrivals(engine, account, clock)
            arrivals.post(messages, fake)
        ages = [age / 60 for id in active for age in arrivals.ages.get(id, [])]
        quiet = [age / 60 for id, found in arrivals.ages.items() if id not in active
                 for age in found]  # fmt: skip
        refused = _refused(fake)
    budgets = [
        Budget("age in active channels, median, min", statistics.median(ages), at_most=3),
        Budget("age in active channels, p95, min", _p95(ages), at_most=10),
        Budget("age in quiet channels, longest, min", max(quiet), at_most=45),
        Budget("messages after the bound that their channel shows", arrivals.late, at_most=0),
    ]
    return budgets, {
        "scale": clock.scale, "messages": len(ages) + len(quiet), "hours": hours,
        "calls that the fake refused": refused, "longest age in active channels, min": max(ages),
    }  # fmt: skip


def _events(bed: Testbed, options: Options) -> Part:
    clock, minutes = Clock(1.0, time.time()), options.minutes or options.size(6, 1)
    with faked(clock) as fake, serving(fake) as socket_mode:
        given = settings(fake, clock) | {"SLACK_APP_TOKEN": APP_TOKEN}
        channels = _workspace(fake, clock.origin, options.size(CHANNELS, 100))
        limits, fake.limits = fake.limits, {}
        _, every = _drawn(channels)
        messages = [one for one in every if one[0] < minutes * 60]
        with _engine(bed, settings(fake, clock) | _unlimited()) as engine:
            account = connected(engine, "slack", Slack.limits(Config()))
            with engine.workers():
                engine.sync(account)
        time.sleep(QUIET_SECONDS)
        fake.limits = limits
        with _engine(bed, given, key=engine.environment["POLLING_SECRET_KEYS"]) as engine:
            with engine.workers():
                wait_until(lambda: _value(engine, LISTENS), "the events arrive", seconds=900)
                with polled(engine, account, MINUTE):
                    arrivals = Arrivals(engine, account, clock)
                    arrivals.post(
                        messages, fake,
                        lambda channel, ts: socket_mode.send(callback(posted(channel, ts))),
                    )  # fmt: skip
            runs = dict(engine.conn.execute(RUNS).fetchall())
        ages = [age for found in arrivals.ages.values() for age in found]
        refused = _refused(fake)
    budget = Budget("age with Socket Mode, p95, s", _p95(ages), at_most=3)
    return [budget], {
        "messages": len(ages), "median, s": statistics.median(ages), "longest, s": max(ages),
        "calls that the fake refused": refused, **{f"runs, {k}": v for k, v in runs.items()},
    }  # fmt: skip


def _first_copy(bed: Testbed, options: Options) -> Part:
    clock = Clock(2.0 * options.scale, time.time())
    number, total = options.size(COPIED_CHANNELS, 20), options.size(COPIED_MESSAGES, 20_000)
    with faked(clock) as fake, _engine(bed, settings(fake, clock)) as engine:
        for at in range(number):
            channel = fake.workspace.add_channel(f"channel-{at:03}")
            archive(channel, total // number, clock.origin - 60)
        account = connected(engine, DOMAIN, _limits(clock.scale))
        with engine.workers(), polled(engine, account, MINUTE / clock.scale):
            began = clock.slack(time.time())
            wait_until(
                lambda: _value(engine, KEPT) == total, "all are kept", seconds=3_000, pause=0.2
            )
            minutes = (clock.slack(time.time()) - began) / 60
        refused = _refused(fake)
    budget = Budget(f"minutes of Slack to copy {total:,} messages", minutes, at_most=20)
    return [budget], {"calls that the fake refused": refused, "calls": _calls(fake)}


def _distributed(bed: Testbed, options: Options) -> Part:
    clock, hours = Clock(60.0 * options.scale, time.time()), options.size(4, 1)
    channels, messages = 40, 300
    with faked(clock, distributed=True) as fake, _engine(bed, settings(fake, clock)) as engine:
        for at in range(channels):
            channel = fake.workspace.add_channel(f"channel-{at:03}")
            archive(channel, messages, clock.origin - 60)
        account = connected(engine, DOMAIN, _limits(clock.scale, "distributed"),
                            app_kind="distributed")  # fmt: skip
        with engine.workers(), polled(engine, account, 15 * MINUTE / clock.scale):
            time.sleep(hours * 3_600 / clock.scale)
            kept, calls = _value(engine, KEPT), _calls(fake)
        polls = {call.arguments["channel"] for call in fake.called("conversations.history")}
        refused = _refused(fake)
    share = kept / (hours * 60 * 15)
    budget = Budget("share of the allowed messages that are kept", share, at_least=0.5)
    return [budget], {"kept": kept, "calls": calls, "calls that the fake refused": refused,
                      "channels asked": len(polls)}  # fmt: skip


@contextmanager
def _engine(
    bed: Testbed, environment: Mapping[str, str], key: str | None = None
) -> Iterator[Engine]:
    """Open a fleet for one part. A further one of the same part has the key of the first one."""
    with Engine(bed, "benchmarks.scaled_slack") as engine:
        if key is None:
            engine.conn.execute(FORGET)
            engine.conn.execute("DELETE FROM user_integration")
        more = {"POLLING_SECRET_KEYS": key} if key else {}
        engine.environment = {**engine.environment, **environment, **more}
        yield engine


def _limits(scale: float, kind: str = "internal") -> list[Limit]:
    """Return the plugin's limits in scaled time."""
    found = Slack.limits(Config.model_validate({"app_kind": kind}))
    return [
        Rate(one.name, one.units, one.per / scale, one.by, one.backfill_share)
        for one in found
        if isinstance(one, Rate)
    ]


def _unlimited() -> dict[str, str]:
    """Return the operator's setting for limits that delay nothing."""
    limits = {name: {"units": 60_000, "per": 60} for name in TIERS}
    return {"POLLING_LIMITS": json.dumps({"slack": limits})}


def _value(engine: Engine, query: str) -> Any:
    row = engine.conn.execute(query).fetchone()
    return row[0] if row is not None else None


def _calls(fake: Fake) -> int:
    return len([one for one in fake.called("conversations.history") if one.status == 200])


def _refused(fake: Fake) -> int:
    return len([one for one in fake.calls if one.status == 429])


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[max(round(len(values) * 0.95) - 1, 0)]
