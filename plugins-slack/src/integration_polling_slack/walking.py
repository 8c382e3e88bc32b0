"""Walks through a channel's history: the payloads of their tasks, and the state between runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel

from core import Listing, PermanentError
from integration_polling_slack import timestamps
from integration_polling_slack.messages import Message, is_reply

FEW = 10
"""The maximum number of deletions to apply directly; the engine's delete guard handles more."""

MAX_EMPTY_PAGES = 10
"""The maximum number of consecutive pages without a message."""

MAX_RESTARTS = 3
"""The maximum number of restarts of a walk at the same position."""

MAX_REWALKS = 3
"""The maximum number of times that the backfill returns to unreadable threads of a channel."""

MAX_BROADCASTS = 2_000
"""The maximum number of replies to remember that were also sent to a channel."""

RECENT = 200
"""The maximum number of messages of a quiet channel to remember, to find single deletions."""


class Walk(BaseModel):
    """One walk through a channel's history, from the newest message to the oldest.

    The first page has no upper bound. All others are bounded by the oldest message of the first
    page, so that new messages shift nothing.

    Attributes:
      mode: `first`: the newest page of a new channel. `back`: everything below it. `live`: messages
        since the last run. `lookback`: recent messages that may have changed. `reconcile`: all
        messages, slowly.
      oldest, latest: The exclusive bounds; an empty `latest` means no bound.
      cursor: The cursor of the next page; empty for the first one.
      newest: The newest message seen so far.
      low: The oldest message seen so far.
      run: The id of the run of this part of the walk. A sweep compares only messages that one run
        has listed.
      top: The upper end of this part of the walk; empty if it started at the newest message.
      is_limited: True if Slack hides older messages, as on its free plan.
      empty, restarts: The number of consecutive empty pages, and of restarts at this position.
      count: The number of messages seen so far.
    """

    mode: Literal["first", "live", "back", "lookback", "reconcile"]
    oldest: str = timestamps.EARLIEST
    latest: str = ""
    cursor: str = ""
    newest: str = ""
    low: str = ""
    run: str = ""
    top: str = ""
    is_limited: bool = False
    empty: int = 0
    restarts: int = 0
    count: int = 0

    @property
    def is_whole(self) -> bool:
        """True if the walk covers the complete history, as in a new channel and a resync."""
        return self.mode in ("first", "back")

    @property
    def upper(self) -> str:
        """The upper bound to send; empty for none.

        With only a lower bound, Slack returns the messages next to it, and not the newest ones. See
        https://docs.slack.dev/messaging/retrieving-messages, which reads one message in this way.
        """
        is_bounded = self.oldest != timestamps.EARLIEST
        return self.latest or (timestamps.LATEST if is_bounded else "")

    def within(self, run: str) -> Self:
        """Return the walk as this run continues it."""
        return self if self.run == run else self.model_copy(update={"run": run, "top": self.low})

    def after(self, seen: Sequence[str], cursor: str, *, has_more: bool, is_limited: bool) -> Self:
        """Return the walk after a page.

        Args:
          seen: The timestamps on the page.
          cursor: The cursor of the next page. If it is empty, the next page starts below the oldest
            message seen.
          has_more: True if there is a next page.
          is_limited: True if Slack hides older messages.

        Raises:
          PermanentError: Slack repeats its pages.
        """
        low = timestamps.oldest([self.low, *seen])
        empty = 0 if seen else self.empty + 1
        same_place = cursor == self.cursor if cursor else not seen
        if has_more and (same_place or (seen and low == self.low) or empty > MAX_EMPTY_PAGES):
            raise PermanentError("the history does not end: Slack repeats its pages")
        changes = {
            "newest": timestamps.newest([self.newest, *seen]),
            "low": low,
            "is_limited": self.is_limited or is_limited,
            "empty": empty,
            "count": self.count + len(seen),
        }
        if has_more and low and not (cursor and self.latest):
            return self.model_copy(update={**changes, "latest": low, "cursor": ""})
        return self.model_copy(update={**changes, "cursor": cursor})

    def without_cursor(self) -> Self:
        """Return the walk below the oldest message seen: a cursor may expire until the next run."""
        return self.model_copy(update={"latest": self.low, "cursor": ""}) if self.low else self

    def again(self) -> Self:
        """Return the walk without its rejected cursor; it continues below the oldest message seen.

        Raises:
          PermanentError: The maximum number of restarts is reached.
        """
        latest = self.low or self.latest
        restarts = self.restarts + 1 if latest == self.latest else 1
        if not self.cursor or restarts > MAX_RESTARTS:
            raise PermanentError("Slack repeatedly rejected its own cursor")
        return self.model_copy(update={"latest": latest, "cursor": "", "restarts": restarts})

    def listings(self, channel: str) -> list[Listing]:
        """Return the listed range at the end of the walk; empty if Slack hides all messages."""
        if self.is_limited and not self.low:
            return []
        since = timestamps.moment(self.low) if self.is_limited else timestamps.after(self.oldest)
        return [Listing(channel, since, timestamps.moment(self.top) if self.top else None)]


class ChannelState(BaseModel):
    """The state of a channel.

    Attributes:
      newest_ts: Messages up to this one are kept, or left to the backfill. Empty before the first
        page.
      backfill: The next page of the history; None if the history is complete.
      lookback_done_at: The time of the last lookback.
      recent: The messages in the lookback's range, if the channel is quiet.
      broadcasts: The newest replies that were also sent to the channel, with their threads. Their
        rows belong to the threads, whose first messages may be older than any walk.
      unreadable: Slack's error code of the last failed read; None after a successful one.
      rewalks: The number of times that the backfill was sent back to unreadable threads.
      first_ts: The oldest message of the complete history; empty if it is unknown.
      settled: The version of the settings in which the channel is archived and completely kept.
    """

    newest_ts: str = ""
    backfill: Walk | None = None
    lookback_done_at: datetime | None = None
    recent: list[str] = []
    broadcasts: dict[str, str] = {}
    unreadable: str | None = None
    rewalks: int = 0
    first_ts: str = ""
    settled: str = ""

    @property
    def copied_back_to(self) -> str | None:
        """The time of the oldest message of an incomplete copy, in ISO 8601; None if complete."""
        low = self.backfill.low if self.backfill is not None else ""
        return timestamps.moment(low).isoformat() if timestamps.is_ts(low) else None

    def with_broadcasts(self, page: Page) -> tuple[ChannelState, dict[str, str]]:
        """Return the state after a page, and the broadcasts that the page should have and lacks.

        The threads of these show whether they are gone.
        """
        here = {one["ts"]: one["thread_ts"] for one in page.messages if is_reply(one)}
        missing = {
            ts: root for ts, root in self.broadcasts.items() if ts not in here and page.covers(ts)
        }
        kept = {ts: root for ts, root in self.broadcasts.items() if ts not in missing} | here
        newest = sorted(kept, key=timestamps.order)[-MAX_BROADCASTS:]
        return self.model_copy(update={"broadcasts": {ts: kept[ts] for ts in newest}}), missing

    def without_thread(self, ts: str, oldest: str) -> ChannelState | None:
        """Return the state after this thread and its channel became unreadable.

        The backfill returns to the thread. Otherwise a thread would be left out for good if its
        first message is kept and is too old for the lookback.

        Args:
          ts: The timestamp of the thread's first message.
          oldest: The lower bound for the backfill. A thread from a complete walk is one of many, so
            the backfill continues below it.

        Returns:
          The new state; None if the backfill has returned too often. Then the channel is readable
          and its threads are not.
        """
        rewalks = self.rewalks + (self.unreadable is None)
        if rewalks > MAX_REWALKS:
            return None
        changes: dict[str, Any] = {"rewalks": rewalks, "settled": ""}
        changes["backfill"] = _through(self.backfill, ts, oldest)
        return self.model_copy(update=changes)


def _through(walk: Walk | None, ts: str, oldest: str) -> Walk:
    """Return a backfill that passes this message, and continues to the lower of both bounds."""
    if walk is None:
        walk = Walk(mode="back", oldest=oldest, low=timestamps.EARLIEST)
    comes_by = not walk.low or timestamps.order(walk.low) > timestamps.order(ts)
    if comes_by and timestamps.order(walk.oldest) <= timestamps.order(oldest):
        return walk
    top = walk.low if comes_by else timestamps.above(ts)
    return Walk(mode="back", oldest=timestamps.oldest([walk.oldest, oldest]), latest=top, low=top)


def partition(channel: str) -> str:
    """Return the partition of a channel's state."""
    return f"channel/{channel}"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a walk.

    Attributes:
      walk: The position of the page.
      after: The position after the page.
      has_more: True if there is a next page.
      messages: The messages, newest first.
      is_restricted: True if Slack answers as it does to distributed apps.
    """

    walk: Walk
    after: Walk
    has_more: bool
    messages: Sequence[Message]
    is_restricted: bool = False

    @property
    def is_alone(self) -> bool:
        """True if the page has everything within the walk's bounds."""
        first = not self.walk.latest and not self.walk.cursor
        return first and not self.has_more and not self.after.is_limited

    def covers(self, ts: str) -> bool:
        """Return True if the page has every message of this time that exists."""
        if self.has_more or self.after.is_limited:
            low = timestamps.oldest(one["ts"] for one in self.messages)
        else:
            low = self.walk.oldest
        high = self.walk.low or self.walk.latest
        is_below = not high or timestamps.order(ts) < timestamps.order(high)
        return bool(low) and timestamps.order(low) < timestamps.order(ts) and is_below

    def cut_after(self, ts: str) -> Page:
        """Return the page up to this message. The walk continues below it."""
        found = [
            one for one in self.messages if timestamps.order(one["ts"]) >= timestamps.order(ts)
        ]
        after = self.after.model_copy(update={"latest": ts, "low": ts, "cursor": ""})
        return Page(self.walk, after, True, found)

    @property
    def listing(self) -> tuple[datetime, datetime | None] | None:
        """The range of time that the page lists completely; None if there is none."""
        if self.has_more or self.after.is_limited:
            low = timestamps.oldest(one["ts"] for one in self.messages)
            if not low:
                return None
            since = timestamps.moment(low)
        else:
            since = timestamps.after(self.walk.oldest)
        high = self.walk.low or self.walk.latest
        return since, timestamps.moment(high) if high else None

    @property
    def top_level(self) -> list[str]:
        """The timestamps of messages that are not replies, oldest first."""
        return sorted(
            (one["ts"] for one in self.messages if not is_reply(one)), key=timestamps.order
        )

    def vanished(self, recent: Sequence[str]) -> list[str]:
        """Return the messages of `recent` that are gone, at most 10, on a complete page."""
        if not self.is_alone:
            return []
        bound, here = timestamps.order(self.walk.oldest), set(self.top_level)
        gone = [ts for ts in recent if timestamps.order(ts) > bound and ts not in here]
        return gone if len(gone) <= FEW else []
