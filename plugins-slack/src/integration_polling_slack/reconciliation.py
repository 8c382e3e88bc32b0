"""The reconciliation: a slow walk through all history, with a share of the budget.

It finds replies to old threads, old edits, and deletions by a retention policy, which the lookback
does not reach. From time to time it also reads unchanged threads, because Slack does not tell of
edited replies and of reactions to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import BaseModel

from core import Context, Listing, PermanentError, Task, TaskResult, task
from integration_polling_slack import timestamps
from integration_polling_slack.channels import Followed
from integration_polling_slack.directory import FOLLOWED, ROUTINE, message_calls
from integration_polling_slack.errors import Unreadable
from integration_polling_slack.messages import thread_version
from integration_polling_slack.pages import Pages
from integration_polling_slack.threads import written
from integration_polling_slack.walking import ChannelState, Page, Walk, partition

RECONCILIATION = "reconciliation"
"""The partition of the state."""

SHARE = 0.05
"""The share of the calls of a method that the reconciliation may use."""

MAX_SAVED_MINUTES = 2
"""The maximum number of minutes for whose complete budget calls are saved up."""

MAX_PASSED_OVER = 200
"""The maximum number of channels to pass over in one task."""

PRIORITY = -2
"""The priority of the tasks: after new messages and after the lookback."""


class Progress(BaseModel):
    """The state of the reconciliation.

    Attributes:
      at: The time up to which calls were saved up.
      calls, threads: The calls of the history and of threads that may be made now.
      channel: The channel of `walk`, or the last channel that is done in this pass.
      walk: The next page; None between two channels.
      began: The time at which the pass began; None before the first one.
      is_open: True while a pass is not complete.
      compared_at: The time at which a pass began to compare unchanged threads.
      compares: True if this pass does so.
    """

    at: datetime | None = None
    calls: float = 0.0
    threads: float = 0.0
    channel: str = ""
    walk: Walk | None = None
    began: datetime | None = None
    is_open: bool = False
    compared_at: datetime | None = None
    compares: bool = False

    def earned(self, now: datetime, per_minute: int, *, at_least: float) -> Progress:
        """Return the state with the calls of the time that has passed.

        Args:
          now: The present time.
          per_minute: The calls that Slack allows in a minute.
          at_least: The calls to have in any case.
        """
        minutes = max((now - self.at) / timedelta(minutes=1), 0.0) if self.at else 0.0
        most = float(per_minute * MAX_SAVED_MINUTES)
        saved = minutes * per_minute * SHARE
        changes = {
            "at": now,
            "calls": max(min(self.calls + saved, most), at_least),
            "threads": max(min(self.threads + saved, most), at_least),
        }
        return self.model_copy(update=changes)


class Reconciliation(Pages):
    """The part of the integration that reconciles all history."""

    def _last_tasks(self, ctx: Context) -> list[Task]:
        if ctx.run.complete or ctx.run.trigger == "hint":
            return []
        return [replace(self.reconcile.task(), priority=PRIORITY)]

    @task
    def reconcile(self, ctx: Context, after: str = "") -> TaskResult:
        """Continue the pass, or begin one if it is due.

        Args:
          ctx: The task's context.
          after: The channel up to which this run has looked. Default: none.
        """
        before = ctx.state(RECONCILIATION, Progress) or Progress()
        calls = message_calls(is_distributed=self._is_distributed(ctx))
        # The first run, and those that a person asks for, do not wait for the share.
        asked = before.at is None or ctx.run.trigger not in ROUTINE
        now = before.earned(ctx.now, calls, at_least=calls if asked and not after else 0.0)
        if not now.is_open and now.calls >= 1:
            now = self._begun(ctx, now)
        return self._continued(ctx, before, now)

    def _begun(self, ctx: Context, now: Progress) -> Progress:
        """Return the state at the beginning of a pass."""
        hours = timedelta(hours=self.config.lookback_hours)
        compared_at = now.compared_at or ctx.now  # the first copy is up to date
        compares = ctx.now >= compared_at + hours
        return now.model_copy(
            update={
                "began": ctx.now, "is_open": True, "channel": "", "walk": None,
                "compares": compares, "compared_at": ctx.now if compares else compared_at,
            }
        )  # fmt: skip

    def _continued(self, ctx: Context, before: Progress, now: Progress) -> TaskResult:
        """Return the next page's task, while there are calls."""
        if now.calls < 1 or (now.compares and now.threads < 1):
            return self._saved(before, now)
        if now.walk is None:
            now = self._next_channel(ctx, now)
        if now.walk is not None:
            page = self.reconcile_page.task(channel=now.channel, walk=now.walk)
            return self._saved(before, now, [replace(page, priority=PRIORITY)])
        more = [self.reconcile.task(after=now.channel)] if now.is_open else []
        return self._saved(before, now, [replace(one, priority=PRIORITY) for one in more])

    def _saved(self, before: Progress, now: Progress, tasks: Sequence[Task] = ()) -> TaskResult:
        return TaskResult(tasks=list(tasks), state={} if now == before else {RECONCILIATION: now})

    def _next_channel(self, ctx: Context, now: Progress) -> Progress:
        """Return the state at the next channel that has something to compare."""
        followed = ctx.state(FOLLOWED, Followed) or Followed()
        left = [id for id in followed.ids if id > now.channel]
        for id in left[:MAX_PASSED_OVER]:
            state = ctx.state(partition(id), ChannelState) or ChannelState()
            if (walk := self._walk(ctx, state, compares=now.compares)) is not None:
                return now.model_copy(update={"channel": id, "walk": walk})
        if len(left) > MAX_PASSED_OVER:
            return now.model_copy(update={"channel": left[MAX_PASSED_OVER - 1]})
        return now.model_copy(update={"channel": "", "is_open": False})

    def _walk(self, ctx: Context, state: ChannelState, *, compares: bool) -> Walk | None:
        """Return the first page of a channel; None if there is nothing to compare.

        The lookback compares recent messages, but not unchanged threads.
        """
        oldest, recent = self.config.oldest, self._lookback_from(ctx)
        if not state.newest_ts or state.backfill is not None or state.unreadable:
            return None
        if timestamps.order(state.newest_ts) <= timestamps.order(oldest):
            return None  # an empty channel
        if compares:
            return Walk(mode="reconcile", oldest=oldest)
        is_older = not state.first_ts or timestamps.order(state.first_ts) <= timestamps.order(
            recent
        )
        if not is_older or recent == oldest:
            return None
        return Walk(mode="reconcile", oldest=oldest, latest=timestamps.above(recent))

    @task(cost={"conversations.history": 1})
    def reconcile_page(self, ctx: Context, channel: str, walk: Walk) -> TaskResult:
        """Compare a page of a channel's history with its rows.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          walk: The position in the history.
        """
        before = ctx.state(RECONCILIATION, Progress) or Progress()
        if before.channel != channel or before.walk != walk:
            return TaskResult()  # another task has continued from here
        state = ctx.state(partition(channel), ChannelState) or ChannelState()
        now = before.model_copy(update={"calls": before.calls - 1, "walk": None})
        try:
            page = self._page(ctx, channel, walk)
        except Unreadable as error:
            skipped = self._skipped(ctx, channel, state, error)
            return self._joined(skipped, self._continued(ctx, before, now))
        except PermanentError as error:
            # The next pass reads the rest of the channel, without the cursor of this one.
            ctx.log.warning("cannot reconcile %s: %s", channel, error)
            return self._continued(ctx, before, now)
        rereads = list[str]()
        if now.compares:
            threads = [one["ts"] for one in page.messages if thread_version(one)]
            rereads = threads[: int(now.threads)]
            if len(rereads) < len(threads):
                page = page.cut_after(rereads[-1])
            now = now.model_copy(update={"threads": now.threads - len(rereads)})
        if page.has_more:
            now = now.model_copy(update={"walk": page.after.without_cursor()})
        return self._joined(
            self._compared(ctx, channel, state, page, rereads), self._continued(ctx, before, now)
        )

    def _compared(
        self, ctx: Context, channel: str, state: ChannelState, page: Page, rereads: list[str]
    ) -> TaskResult:
        kept = self._keep(ctx, channel, page, rereads=rereads)
        after = self._compare_broadcasts(channel, state, page, kept)
        listed = [Listing(channel, *page.listing)] if page.listing else []
        return TaskResult(
            kept.output,
            [replace(one, priority=PRIORITY) for one in kept.tasks],
            {**kept.state, **written(channel, state, after)},
            kept.seen,
            listed,
        )

    def _joined(self, result: TaskResult, onward: TaskResult) -> TaskResult:
        """Return the result of a page with the next page's task."""
        return replace(
            result,
            tasks=[*result.tasks, *onward.tasks],
            state={**result.state, **onward.state},
        )
