"""Slack's search names the channels and threads with new messages, for tokens of persons.

One call finds the newest messages of all channels, with late replies to old threads. Like an event,
a match is never data: the run asks for its channel or thread. The index may be late, and lacks
edits, so the polls and the reconciliation continue.

Source: https://docs.slack.dev/reference/methods/search.messages
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel

from core import Context, PermanentError, Task, TaskResult, TransientError, task
from integration_polling_slack import timestamps
from integration_polling_slack.channels import Followed
from integration_polling_slack.directory import FOLLOWED
from integration_polling_slack.hinted import Hinted
from integration_polling_slack.looks import LOOKS, Looks
from integration_polling_slack.names import is_id

METHOD = "search.messages"
SEARCH = "search"
"""The partition of the state."""

PAGE = 100
"""The number of matches in one call, which is Slack's maximum."""

MAX_PAGES = 5
"""The maximum number of calls of a run. The polls find further messages."""

LATE_SECONDS = 600
"""The time by which a message may be late in the index."""

MAX_SEEN = 2_000

PRIORITY = 1
"""The priority of the channels and threads that a search names: before other channels."""


class Searched(BaseModel):
    """The state of the search.

    Attributes:
      newest: The newest match so far.
      seen: The recent matches that a run has handled, as channel and timestamp.
    """

    newest: str = ""
    seen: list[str] = []


class Searching(Hinted):
    """The part of the integration that searches for changes."""

    def _last_tasks(self, ctx: Context) -> list[Task]:
        searches = self._workspace(ctx).searches and ctx.run.trigger == "schedule"
        found = [replace(self.search.task(), priority=PRIORITY)] if searches else []
        return found + super()._last_tasks(ctx)

    @task(cost={METHOD: 1})
    def search(self, ctx: Context, page: int = 1, since: str = "") -> TaskResult:
        """Ask for the channels and threads of the newest messages.

        Args:
          ctx: The task's context.
          page: The number of the page. Default: 1.
          since: The oldest match to handle. Default: decided by the state.
        """
        before = ctx.state(SEARCH, Searched) or Searched()
        since = since or self._since(before)
        day = (ctx.now - timedelta(days=2)).date()
        try:
            answer = self._call(
                ctx, METHOD, query=f"after:{day}", sort="timestamp", sort_dir="desc", count=PAGE,
                page=page,
            )  # fmt: skip
            found = list(_matches(answer.data))
        except (PermanentError, TransientError) as error:
            ctx.log.info("cannot search: %s", error)
            return TaskResult()
        new = [
            one for one in found
            if timestamps.order(one[1]) > timestamps.order(since or timestamps.EARLIEST)
            and f"{one[0]}:{one[1]}" not in before.seen
        ]  # fmt: skip
        now = Searched(
            newest=timestamps.newest([before.newest, *[ts for _, ts, _ in found]])
            or timestamps.before(ctx.now),
            seen=[*before.seen, *[f"{channel}:{ts}" for channel, ts, _ in new]][-MAX_SEEN:],
        )
        tasks = self._named(ctx, new) if since else []
        if since and len(new) == PAGE and page < MAX_PAGES:
            more = self.search.task(page=page + 1, since=since)
            tasks.append(replace(more, priority=PRIORITY))
        return TaskResult(tasks=tasks, state={} if now == before else {SEARCH: now})

    def _since(self, before: Searched) -> str:
        """Return the bound of the matches to handle; empty before the first search."""
        if not before.newest:
            return ""
        return timestamps.before(timestamps.moment(before.newest) - timedelta(seconds=LATE_SECONDS))

    def _named(self, ctx: Context, matches: Sequence[tuple[str, str, str]]) -> list[Task]:
        """Return the tasks for channels and threads that this run does not ask for anyway."""
        followed = set((ctx.state(FOLLOWED, Followed) or Followed()).ids)
        first = {now: id for id, now in self._workspace(ctx).moved.items()}
        plan = ctx.state(LOOKS, Looks)
        planned = followed if plan is None else set(plan.last)
        tasks = dict[str, Task]()
        for channel, _, root in matches:
            id = first.get(channel, channel)
            if id in followed and root:
                for one in self._messages_tasks(id, root, ""):
                    tasks[f"{id}:{root}"] = replace(one, priority=PRIORITY)
            elif id in followed - planned:
                tasks[id] = replace(self._news(ctx, id), priority=PRIORITY)
        return list(tasks.values())


def _matches(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield channel, timestamp and, for a reply, the timestamp of its thread's first message.

    The address of a reply names its thread: `…/archives/C1/p1?thread_ts=0.1&cid=C1`.
    """
    messages = data.get("messages")
    matches = messages.get("matches") if isinstance(messages, dict) else None
    for one in matches if isinstance(matches, list) else []:
        channel = one.get("channel") if isinstance(one, dict) else None
        id = channel.get("id") if isinstance(channel, dict) else None
        if is_id(id) and timestamps.is_ts(ts := one.get("ts")):
            root = _root(one.get("permalink"))
            yield id, ts, root if root != ts else ""


def _root(permalink: Any) -> str:
    try:
        found = parse_qs(urlsplit(permalink).query).get("thread_ts", [""])[0]
    except (ValueError, TypeError, AttributeError):
        return ""
    return found if isinstance(found, str) and timestamps.is_ts(found) else ""
