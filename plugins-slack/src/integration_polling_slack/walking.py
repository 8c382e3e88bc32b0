"""Positions of walks through a channel: their tasks' payloads, and what runs remember."""

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
"""So many deletions at once are believed; more are left to the engine's guard."""

MAX_EMPTY_PAGES = 10
"""Pages without a message that may follow each other."""

MAX_RESTARTS = 3
"""Times that a walk may begin anew at the same place."""

MAX_REWALKS = 3
"""Times that a channel's history is gone back to for threads that could not be read with it."""

RECENT = 200
"""Messages of a quiet channel whose deletion is seen one by one."""


class Walk(BaseModel):
    """One walk through a channel's history, from its newest message to its oldest.

    The first page has no upper bound. All that follow are bounded by the oldest message of the
    first, so that what is posted meanwhile shifts nothing.

    Attributes:
      mode: `first` is the newest page of a channel that is new here, `back` all below it, `live`
        what came since the last run, and `lookback` what may have changed since.
      oldest, latest: Bounds, exclusive; an empty `latest` is none.
      newest, low: The newest and the oldest message seen so far.
      run, top: The run that this part of the walk belongs to, and where it began: only what one run
        has listed may be compared with what is kept.
      is_limited: Slack has hidden older messages, as it does on its free plan.
      empty, restarts: Pages without messages, and beginnings at the same place, so far.
    """

    mode: Literal["first", "live", "back", "lookback"]
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

    @property
    def is_whole(self) -> bool:
        """Whether it goes through everything, as with a new channel and in a resync."""
        return self.mode in ("first", "back")

    def within(self, run: str) -> Self:
        """The walk as this run goes on with it."""
        return self if self.run == run else self.model_copy(update={"run": run, "top": self.low})

    def after(self, seen: Sequence[str], cursor: str, *, has_more: bool, is_limited: bool) -> Self:
        """The walk after a page.

        Parameters:
          seen: The timestamps on the page.
          cursor: Where the next page begins. Without one, it begins below the oldest message seen.
          has_more: Whether there is a next page.

        Raises:
          PermanentError: It goes in circles.
        """
        low = timestamps.oldest([self.low, *seen])
        empty = 0 if seen else self.empty + 1
        same_place = cursor == self.cursor if cursor else not seen
        if has_more and (same_place or (seen and low == self.low) or empty > MAX_EMPTY_PAGES):
            raise PermanentError("the pages of the history go in circles")
        changes = {
            "newest": timestamps.newest([self.newest, *seen]),
            "low": low,
            "is_limited": self.is_limited or is_limited,
            "empty": empty,
        }
        if has_more and low and not (cursor and self.latest):
            return self.model_copy(update={**changes, "latest": low, "cursor": ""})
        return self.model_copy(update={**changes, "cursor": cursor})

    def again(self) -> Self:
        """The walk without its cursor, which Slack no longer knows: from the oldest message seen.

        Raises:
          PermanentError: That was tried often enough.
        """
        latest = self.low or self.latest
        restarts = self.restarts + 1 if latest == self.latest else 1
        if not self.cursor or restarts > MAX_RESTARTS:
            raise PermanentError("Slack refuses its own cursor again and again")
        return self.model_copy(update={"latest": latest, "cursor": "", "restarts": restarts})

    def listings(self, channel: str) -> list[Listing]:
        """The listed range at the end of the walk; nothing if Slack hides all messages."""
        if self.is_limited and not self.low:
            return []
        since = timestamps.moment(self.low) if self.is_limited else timestamps.after(self.oldest)
        return [Listing(channel, since, timestamps.moment(self.top) if self.top else None)]


class ChannelState(BaseModel):
    """What is remembered of a channel.

    Attributes:
      newest_ts: All messages from the oldest one wanted up to this one are kept, or are the
        backfill's. Empty before the first page.
      backfill: The page of the history that comes next; None when all is there.
      lookback_done_at: When changes were last looked for.
      recent: The messages of the lookback's window, in a channel so quiet that they are few.
      unreadable: Slack's word for why it could not be read the last time.
      rewalks: How often the backfill was sent back to threads that could not be read.
      settled: It was archived in this version of its settings, and all that it has is kept.
    """

    newest_ts: str = ""
    backfill: Walk | None = None
    lookback_done_at: datetime | None = None
    recent: list[str] = []
    unreadable: str | None = None
    rewalks: int = 0
    settled: str = ""

    def without_thread(self, ts: str, oldest: str) -> ChannelState | None:
        """The state when the channel and this thread are unreadable.

        The backfill returns to the thread.

        Without that, a thread would be left out for good whose first message is kept already, and
        is too old for the lookback.

        Parameters:
          oldest: How far the backfill goes from there: a thread of a walk through everything is one
            of many.

        Returns:
          None if the backfill was sent back often enough: threads of this channel cannot be read,
          though it can.
        """
        rewalks = self.rewalks + (self.unreadable is None)
        if rewalks > MAX_REWALKS:
            return None
        changes: dict[str, Any] = {"rewalks": rewalks, "settled": ""}
        changes["backfill"] = _through(self.backfill, ts, oldest)
        return self.model_copy(update=changes)


def _through(walk: Walk | None, ts: str, oldest: str) -> Walk:
    """A backfill that comes by this message, and goes on to `oldest` and wherever it was going."""
    if walk is None:
        walk = Walk(mode="back", oldest=oldest, low=timestamps.EARLIEST)
    comes_by = not walk.low or timestamps.order(walk.low) > timestamps.order(ts)
    if comes_by and timestamps.order(walk.oldest) <= timestamps.order(oldest):
        return walk
    top = walk.low if comes_by else timestamps.above(ts)
    return Walk(mode="back", oldest=timestamps.oldest([walk.oldest, oldest]), latest=top, low=top)


def partition(channel: str) -> str:
    """Where a channel's state is."""
    return f"channel/{channel}"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a walk.

    Attributes:
      walk: Where it was taken from.
      after: Where the walk stands now.
      messages: Newest first.
    """

    walk: Walk
    after: Walk
    has_more: bool
    messages: Sequence[Message]

    @property
    def is_alone(self) -> bool:
        """Whether it is all that there is within the bounds."""
        first = not self.walk.latest and not self.walk.cursor
        return first and not self.has_more and not self.after.is_limited

    @property
    def top_level(self) -> list[str]:
        """The timestamps of what is no reply, oldest first."""
        return sorted(
            (one["ts"] for one in self.messages if not is_reply(one)), key=timestamps.order
        )

    def vanished(self, recent: Sequence[str]) -> list[str]:
        """Those of `recent` that are no longer there, if the page can tell and they are few."""
        if not self.is_alone:
            return []
        bound, here = timestamps.order(self.walk.oldest), set(self.top_level)
        gone = [ts for ts in recent if timestamps.order(ts) > bound and ts not in here]
        return gone if len(gone) <= FEW else []
