"""Workspaces of the fake Slack for benchmarks: their people, polls and arriving messages."""

from __future__ import annotations

import math
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from benchmarks.engine import Engine
from benchmarks.processes import ROOT, wait_until
from benchmarks.scaled_slack import Clock
from core.db.pool import open_connection
from core.ledger import scheduling

# The plugin's tests have the fake.
sys.path.append(str(ROOT / "plugins-slack" / "tests"))

from fake_slack import Fake, serve
from fake_slack.events import callback, posted
from fake_slack.server import BOT
from fake_slack.socket_mode import APP_TOKEN, serving
from fake_slack.workspace import Channel
from integration_polling_slack import Credentials
from integration_polling_slack.directory import SLOW, TIERS

__all__ = [
    "APP_TOKEN", "Arrivals", "Channel", "Fake", "archive", "callback", "connected", "faked",
    "polled", "posted", "serving", "settings",
]  # fmt: skip

LOOK_SECONDS = 0.02
BOUNDS_SECONDS = 0.5

NEXT_POLL = """
UPDATE user_integration SET next_sync_at = now()
WHERE id = %(account)s AND NOT EXISTS (SELECT FROM sync_run r
        WHERE r.user_integration_id = %(account)s AND lane = 'live' AND state = 'running')
    AND coalesce(last_sync_at, '-infinity') <= clock_timestamp() - %(pause)s * interval '1 second'
"""
ARRIVED = """
SELECT external_id FROM user_integration_content
WHERE user_integration_id = %s AND external_id = ANY(%s)
"""
BOUNDS = """
SELECT external_id, (metadata->>'fresh_within_minutes')::float FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'channel'
"""


@contextmanager
def faked(clock: Clock, *, distributed: bool = False) -> Iterator[Fake]:
    """Run a fake with Slack's limits, in the time of the clock."""
    with serve() as fake:
        slow = SLOW if distributed else ()
        fake.limits = {
            name: (1 if name in slow else units, 60.0 / clock.scale)
            for name, units in TIERS.items()
        }
        fake.page_cap = 15 if distributed else fake.page_cap
        yield fake


def settings(fake: Fake, clock: Clock) -> dict[str, str]:
    """Return the environment of workers for this fake."""
    return {
        "SLACK_API_URL": fake.api_url,
        "SLACK_BENCH_SCALE": str(clock.scale),
        "SLACK_BENCH_ORIGIN": str(clock.origin),
    }


def connected(engine: Engine, domain: str, limits: Sequence[Any], **config: Any) -> UUID:
    """Connect an account of the bot of the workspace T1."""
    credentials = Credentials.model_validate({"token": BOT})
    account = engine.account(domain, limits=limits, credentials=credentials, **config)
    identity = "UPDATE user_integration SET identity = 'T1:UBOT', limit_group = 'T1:A1'"
    engine.conn.execute(identity)
    return account


class Archive(Mapping[str, dict[str, Any]]):
    """The messages of a channel, which are made when somebody reads them."""

    def __init__(self, times: Sequence[str]) -> None:
        self._times = times

    def __getitem__(self, ts: str) -> dict[str, Any]:
        at = bisect_left(self._times, ts)
        if at == len(self._times) or self._times[at] != ts:
            raise KeyError(ts)
        text = f"message {at}: the <https://example.com/{at}|report> of *week {at % 53}* is ready"
        return {"type": "message", "user": f"U{at % 2 + 1}", "text": text, "ts": ts}

    def __iter__(self) -> Iterator[str]:
        return iter(self._times)

    def __len__(self) -> int:
        return len(self._times)


def archive(channel: Channel, messages: int, before: float, every: float = 3_600.0) -> None:
    """Fill a channel with messages before a time, one in each `every` seconds."""
    channel.top = [f"{before - (messages - at) * every:.0f}.{at:06d}" for at in range(messages)]
    channel.messages = Archive(channel.top)  # type: ignore[assignment]


@contextmanager
def polled(engine: Engine, account: UUID, pause: float) -> Iterator[None]:
    """Poll the account, during the block, this time after the end of each run."""

    def work(stop: threading.Event) -> None:
        with open_connection(engine.urls.database_url) as conn:
            while not stop.wait(LOOK_SECONDS):
                if conn.execute(NEXT_POLL, {"account": account, "pause": pause}).rowcount:
                    scheduling.poll(conn, 1)
                    engine.queues.wake()

    with _thread(work):
        yield


@dataclass
class Arrivals:
    """The messages that people post, and the time at which each becomes a row.

    Attributes:
      ages: The seconds of Slack from each message to its row, by channel.
      late: The number of messages that were older than the bound that their channel showed.
      waiting: The channel and time of each message without a row, by the id of its row.
    """

    engine: Engine
    account: UUID
    clock: Clock
    ages: dict[str, list[float]] = field(default_factory=dict)
    late: int = 0
    bounds: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, tuple[str, float, float]] = field(default_factory=dict)

    def post(
        self,
        messages: Sequence[tuple[float, Channel]],
        fake: Fake,
        event: Callable[[Channel, str], object] = lambda *_: None,
    ) -> None:
        """Post messages at their times, and wait until all of them are rows.

        Args:
          messages: The seconds of Slack from now, and the channel, in order.
          fake: The fake.
          event: Called after each message.
        """
        began = self.clock.slack(time.time())
        with _thread(self._watch), _thread(self._read_bounds):
            for number, (after, channel) in enumerate(messages):
                time.sleep(max(self.clock.real(began + after) - time.time(), 0))
                now = self.clock.slack(time.time())
                ts = f"{math.floor(now)}.{number:06d}"
                bound = self.bounds.get(channel.id, math.inf) * 60
                self.waiting[f"{channel.id}:{ts}"] = (channel.id, now, bound)
                fake.workspace.post(channel, f"message {number}", ts=ts)
                event(channel, ts)
            wait_until(lambda: not self.waiting, "all messages are rows", seconds=300.0)

    def _watch(self, stop: threading.Event) -> None:
        with open_connection(self.engine.urls.database_url) as conn:
            while not stop.wait(LOOK_SECONDS):
                ids = list(self.waiting)
                for (id,) in conn.execute(ARRIVED, (self.account, ids)).fetchall():
                    channel, posted, bound = self.waiting.pop(id)
                    age = self.clock.slack(time.time()) - posted
                    self.ages.setdefault(channel, []).append(age)
                    self.late += age > bound

    def _read_bounds(self, stop: threading.Event) -> None:
        with open_connection(self.engine.urls.database_url) as conn:
            while not stop.wait(BOUNDS_SECONDS):
                found = conn.execute(BOUNDS, (self.account,)).fetchall()
                self.bounds = {id: minutes or math.inf for id, minutes in found}


@contextmanager
def _thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a function in a thread, until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
