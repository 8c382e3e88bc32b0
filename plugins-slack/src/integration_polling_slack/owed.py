"""The threads of a channel that are still to be read: in the state, not only in tasks.

A task may be lost: it is parked after a long outage, or its run is cancelled. A thread that is too
old for the lookback would then never be read.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from core import Context
from integration_polling_slack import timestamps
from integration_polling_slack.messages import Version, thread_changed

UNKNOWN = "?"
"""The version of a thread of which only a reply is known."""

MAX_OWED = 5_000
"""The maximum number of threads of a channel to remember; the newest ones stay."""

MAX_COMPARED = 500
"""The maximum number of threads to compare with their rows in one look."""

MAX_REQUESTED = 50
"""The maximum number of threads to request again in one look."""

MAX_REQUESTS = 3
"""The maximum number of times that one version of a thread is requested again."""


class Owed(BaseModel):
    """The threads to read: the version and the number of further requests, by timestamp."""

    threads: dict[str, tuple[str, int]] = {}


def partition(channel: str) -> str:
    """Return the partition of a channel's threads."""
    return f"threads/{channel}"


def with_threads(
    ctx: Context, channel: str, threads: Mapping[str, str]
) -> dict[str, BaseModel | None]:
    """Return the state with these threads, by their versions."""
    if not threads:
        return {}
    before = ctx.state(partition(channel), Owed) or Owed()
    now = dict(before.threads)
    for ts, version in threads.items():
        if now.get(ts, ("", 0))[0] != version:
            now[ts] = (version, 0)
    return _changed(channel, before, now)


def still_owed(
    ctx: Context, channel: str, below: str
) -> tuple[dict[str, str], dict[str, BaseModel | None]]:
    """Return the threads to request again, by version, and the state without those that were read.

    Their tasks may be open, so these threads need the same keys again.

    Args:
      ctx: The task's context.
      channel: The channel's id.
      below: The lower bound of the lookback, which requests newer threads itself.
    """
    before = ctx.state(partition(channel), Owed) or Owed()
    newest = sorted(before.threads, key=timestamps.order, reverse=True)[:MAX_COMPARED]
    known = ctx.fingerprints([f"{channel}:{ts}" for ts in newest]) if newest else {}
    now, wanted = dict(before.threads), dict[str, str]()
    for ts in newest:
        version, requests = now.pop(ts)
        row = known.get(f"{channel}:{ts}")
        if row is None or not _is_missing(Version.parse(row).thread, version):
            continue
        is_recent = timestamps.order(ts) > timestamps.order(below)
        if is_recent or len(wanted) >= MAX_REQUESTED or requests >= MAX_REQUESTS:
            now[ts] = (version, requests)
        else:
            now[ts], wanted[ts] = (version, requests + 1), version
    return wanted, _changed(channel, before, now)


def owed_versions(ctx: Context, channel: str) -> dict[str, str]:
    """Return the versions of the threads in the state, by timestamp."""
    state = ctx.state(partition(channel), Owed) or Owed()
    return {ts: version for ts, (version, _) in state.threads.items()}


def _is_missing(kept: str, version: str) -> bool:
    """Return True if a thread was not read in this version."""
    return not kept if version == UNKNOWN else thread_changed(kept, version)


def _changed(
    channel: str, before: Owed, threads: Mapping[str, tuple[str, int]]
) -> dict[str, BaseModel | None]:
    newest = sorted(threads, key=timestamps.order)[-MAX_OWED:]
    now = Owed(threads={ts: threads[ts] for ts in newest})
    if now.threads == before.threads:
        return {}
    return {partition(channel): now if now.threads else None}
