"""The notice of an account: the time of a pass, and the estimated end of the first copy.

Slack does not tell how many messages a channel has. So the estimate takes the messages so far, the
time that they cover, and the time since the channel's creation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from pydantic import BaseModel

from core import NOTICE, Context, Notice
from integration_polling_slack import owed, scopes, timestamps
from integration_polling_slack.account import Config
from integration_polling_slack.channels import Ref, Workspace
from integration_polling_slack.owed import Owed
from integration_polling_slack.survey import LONG_PASS_MINUTES, bound, pass_minutes
from integration_polling_slack.walking import ChannelState, Walk, partition

SAMPLE = 50
"""The number of channels to read for an estimate. The others count like these."""

BACKFILL_SHARE = 0.25
"""The share of the calls that the engine leaves to the backfill in any case."""

SHORT_MINUTES = 2
"""The minimum duration of a first copy to show."""


class Said(Notice):
    """The notice of an account.

    Attributes:
      at: The time of the estimate before, in Unix seconds; 0 before the first one.
      is_copied: True after the first copy. Then the notice has no estimate any more.
    """

    at: int = 0
    is_copied: bool = False


@dataclass(frozen=True, slots=True)
class Rest:
    """The estimated rest of the first copy.

    Attributes:
      pages: Calls for older messages.
      threads: Threads that are known and not read.
    """

    pages: float
    threads: float

    @property
    def is_nothing(self) -> bool:
        """True if nothing is left."""
        return not self.pages and not self.threads


def noticed(
    ctx: Context,
    config: Config,
    workspace: Workspace,
    asked: Sequence[Ref],
    planned: int,
    calls: int,
) -> dict[str, BaseModel | None]:
    """Return the state of the notice, if it changes.

    Args:
      ctx: The task's context.
      config: The account's config.
      workspace: The workspace.
      asked: The channels that the token can read.
      planned: The number of channels that this run asks.
      calls: The calls a minute that Slack allows for messages.
    """
    before = ctx.state(NOTICE, Said) or Said(text="")
    parts, at, is_copied = list[str](), int(ctx.now.timestamp()), before.is_copied
    if (minutes := pass_minutes(len(asked), calls)) >= LONG_PASS_MINUTES:
        parts.append(bound(len(asked), calls, minutes))
    if workspace.lacks_reactions:
        parts.append(scopes.NO_REACTIONS)
    if not is_copied and asked and before.at:
        rest = left(ctx, config, asked)
        is_copied = rest.is_nothing
        per_minute = planned * 60 / max(at - before.at, 1)
        parts += _estimate(ctx, rest, calls, max(calls - per_minute, calls * BACKFILL_SHARE))
    text = "".join(f"{one}. " for one in parts).rstrip()
    now = Said(text=text, at=before.at if is_copied else at, is_copied=is_copied)
    return {} if now == before else {NOTICE: now}


def _estimate(ctx: Context, rest: Rest, calls: int, for_pages: float) -> list[str]:
    """Return the sentence about the first copy; none if it ends soon.

    Args:
      ctx: The task's context.
      rest: What is left.
      calls: The calls a minute that Slack allows for threads.
      for_pages: The calls a minute for older messages that are left besides the polls.
    """
    of_pages, of_threads = rest.pages / for_pages, rest.threads / calls
    if max(of_pages, of_threads) < SHORT_MINUTES:
        return []
    end = ctx.now + timedelta(minutes=max(of_pages, of_threads))
    named = [
        f"{count:,.0f} {one if round(count) == 1 else many} ({_duration(minutes)})"
        for count, one, many, minutes in (
            (rest.pages, "page of messages", "pages of messages", of_pages),
            (rest.threads, "thread", "threads", of_threads),
        )
        if count >= 1
    ]
    return [
        f"First copy: about {' and '.join(named)} are left, until about"
        f" {end:%Y-%m-%d %H:%M} UTC. Each page may name further threads"
    ]


def _duration(minutes: float) -> str:
    hours = minutes / 60
    if hours < 2:
        return f"{max(minutes, 1):.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def left(ctx: Context, config: Config, asked: Sequence[Ref]) -> Rest:
    """Estimate what the first copy of these channels has left."""
    sample = asked[:: max(-(-len(asked) // SAMPLE), 1)]
    pages, threads = 0.0, 0.0
    for ref in sample:
        state = ctx.state(partition(ref.id), ChannelState) or ChannelState()
        found = ctx.state(owed.partition(ref.id), Owed) or Owed()
        threads += len(found.threads)
        if state.backfill is not None:
            pages += pages_left(state.backfill, ref.created, config)
        elif not state.newest_ts and not state.unreadable:
            pages += 1
    factor = len(asked) / len(sample)
    return Rest(pages * factor, threads * factor)


def pages_left(walk: Walk, created: int, config: Config) -> float:
    """Estimate the pages of older messages that a backfill has left.

    Args:
      walk: The position.
      created: The time of the channel's creation, in Unix seconds; 0 if it is unknown.
      config: The account's config.
    """
    low, newest = (timestamps.order(ts)[0] if ts else 0 for ts in (walk.low, walk.newest))
    first = max(created, timestamps.order(walk.oldest)[0])
    covered = max(newest - low, 1)
    if not walk.count or low <= first:
        return 1.0
    return max(walk.count / covered * (low - first) / config.page(1), 1.0)
