"""The integration: the history of each channel, its changes and its threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, JsonValue

from core import (
    Context,
    Listing,
    Manifest,
    OAuth,
    Reader,
    SkipItem,
    StoredItem,
    Task,
    TaskOutput,
    TaskResult,
    task,
)
from integration_polling_slack import messages, scopes, timestamps
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.attachments import Kept
from integration_polling_slack.channels import Ref
from integration_polling_slack.directory import limits
from integration_polling_slack.errors import InvalidCursor, Unreadable
from integration_polling_slack.names import Names
from integration_polling_slack.owed import still_owed
from integration_polling_slack.searching import Searching
from integration_polling_slack.text import READER_VERSION
from integration_polling_slack.threads import written
from integration_polling_slack.walking import (
    RECENT,
    ChannelState,
    Page,
    Walk,
    partition,
)


class Slack(Searching):
    """The Slack integration: it keeps messages by channel and timestamp.

    Each run fetches new messages and looks back for changes; the backfill fetches older messages.
    """

    manifest = Manifest(
        "slack",
        "Slack",
        reader=Reader(READER_VERSION, ["message"]),
        limits=limits("internal"),
        oauth=OAuth(
            "https://slack.com/oauth/v2/authorize",
            "{SLACK_API_URL}oauth.v2.access",
            sorted(scopes.EVERY),
            "SLACK_CLIENT_ID",
            "SLACK_CLIENT_SECRET",
            # Slack separates scopes with commas, where RFC 6749 requires spaces.
            {"scope": ",".join(sorted(scopes.EVERY))},
            # Slack accepts PKCE only from apps that are public clients, which is permanent. All
            # other apps use the secret.
            pkce=False,
        ),
        docs="https://docs.slack.dev/apis/web-api",
        settings=SlackSettings,
    )

    _names: Names | None = None

    def reread(self, item: StoredItem) -> TaskResult:
        """Render a kept message again, without Slack; see `messages.reread`."""
        if self._names is None:
            self._names = Names(item)
        found = self._names
        row = messages.reread(item.metadata, item.fingerprint, found.get, found.is_person)
        if row is None:
            raise SkipItem("the message was kept without its raw form")
        return TaskResult([row])

    @task
    def sync_channel(self, ctx: Context, channel: Ref) -> TaskResult:
        """Continue the history of an archived channel, unless it is settled.

        Args:
          ctx: The task's context.
          channel: The channel.
        """
        state = ctx.state(partition(channel.id), ChannelState) or ChannelState()
        if not channel.is_readable(is_bot=self._workspace(ctx).is_bot):
            return TaskResult([channel.row("not_in_channel")])
        row = channel.row(state.unreadable, state.copied_back_to)
        if channel.archived and state.settled == channel.archived and not ctx.run.complete:
            return TaskResult([row])
        walk = self._walk_of_look(ctx, state)
        read = self.lookback if walk.mode == "lookback" else self.get_channel_history
        first = read.task(channel=channel.id, walk=walk, archived=channel.archived)
        tasks, owing = self._besides(ctx, channel, state)
        return TaskResult([row], [first, *tasks], owing)

    @task(cost={"conversations.history": 1})
    def look(self, ctx: Context, channel: Ref, fresh_within: int | None = None) -> TaskResult:
        """Continue the channel's history: new messages in this run, old ones in the background.

        Args:
          ctx: The task's context.
          channel: The channel.
          fresh_within: The minutes within which polls find a new message. Default: unknown.
        """
        state = ctx.state(partition(channel.id), ChannelState) or ChannelState()
        walk = self._walk_of_look(ctx, state)
        read = self.lookback if walk.mode == "lookback" else self.get_channel_history
        page = read(ctx, channel=channel.id, walk=walk, archived=channel.archived)
        tasks, owing = self._besides(ctx, channel, state)
        # The page has the newer state of a partition that both change.
        after = {**owing, **page.state}
        now = after.get(partition(channel.id)) or state
        assert isinstance(now, ChannelState)
        row = channel.row(now.unreadable, now.copied_back_to, fresh_within)
        others = [one for one in page.output if one.id != channel.id]
        return replace(page, output=[row, *others], tasks=[*page.tasks, *tasks], state=after)

    def _walk_of_look(self, ctx: Context, state: ChannelState) -> Walk:
        """Return the walk through new messages. A lookback, if it is due, has them too.

        In a scheduled run, a lookback is due at the config's interval; in others, always. In a run
        that must list everything, it reads the complete history.
        """
        if not state.newest_ts:
            return Walk(mode="first", oldest=self.config.oldest)
        if not self._is_due(ctx, state.lookback_done_at):
            return Walk(mode="live", oldest=state.newest_ts)
        oldest = timestamps.oldest([self._lookback_from(ctx), state.newest_ts])
        return Walk(mode="lookback", oldest=oldest, run=ctx.run.id)

    def _besides(
        self, ctx: Context, channel: Ref, state: ChannelState
    ) -> tuple[list[Task], dict[str, BaseModel | None]]:
        """Return the tasks of a channel besides its new messages, and the state of its threads."""
        tasks, owing = list[Task](), dict[str, BaseModel | None]()
        if state.backfill is not None:
            tasks.append(self._in_background(channel.id, state.backfill))
        if self._is_due(ctx, state.lookback_done_at):
            threads, owing = still_owed(ctx, channel.id, self._lookback_from(ctx))
            tasks += [self._owed_thread(channel.id, *one) for one in threads.items()]
            if self.config.files != "none":
                # Slack does not tell when a canvas was edited, so the lookback compares it.
                tasks += self._canvases(channel.id, channel.canvases)
        return tasks, owing

    def _in_background(self, channel: str, walk: Walk) -> Task:
        return replace(self.get_channel_history.task(channel=channel, walk=walk), background=True)

    def _history_task(self, channel: str, walk: Walk) -> Task:
        return self.get_channel_history.task(channel=channel, walk=walk)

    def _channel_task(self, channel: Ref, fresh_within: int | None = None) -> Task:
        if channel.is_archived:  # it may need no call
            return self.sync_channel.task(channel=channel)
        return self.look.task(channel=channel, fresh_within=fresh_within)

    # Messages
    # ----------------------------------------------------------------------------------------------

    @task(cost={"conversations.history": 1})
    def get_channel_history(
        self, ctx: Context, channel: str, walk: Walk, archived: str = ""
    ) -> TaskResult:
        """Fetch a page of a channel's new messages, or of its complete history.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          walk: The position in the history.
          archived: `Ref.archived` of the channel. Default: empty.
        """
        state = ctx.state(partition(channel), ChannelState) or ChannelState()
        if walk.mode == "back" and state.backfill != walk:
            return TaskResult()  # another task has continued from here
        try:
            page = self._page(ctx, channel, walk)
        except InvalidCursor:
            return self._goes_on(ctx, channel, state, walk.again(), Kept(), archived)
        except Unreadable as error:
            return self._skipped(ctx, channel, state, error)
        kept = self._keep(ctx, channel, page)
        now = self._compare_broadcasts(channel, state, page, kept)
        if page.has_more:
            result = self._goes_on(ctx, channel, now, page.after, kept, archived)
        else:
            result = self._at_the_end(ctx, channel, now, page, kept, archived)
        return replace(result, state={**written(channel, state, now), **result.state})

    def _goes_on(
        self, ctx: Context, channel: str, state: ChannelState, walk: Walk, kept: Kept, archived: str
    ) -> TaskResult:
        """Continue the walk. A new channel and a backfill record their position at each page."""
        if walk.mode == "live":
            more = self.get_channel_history.task(channel=channel, walk=walk, archived=archived)
            return TaskResult(kept.output, [*kept.tasks, more], kept.state, kept.seen)
        changes: dict[str, Any] = {"backfill": walk, "unreadable": None}
        if walk.mode == "first":
            changes["backfill"] = walk.model_copy(update={"mode": "back", "run": ""})
            changes |= {"newest_ts": walk.newest or walk.oldest, "lookback_done_at": ctx.now}
        now = state.model_copy(update=changes)
        assert now.backfill is not None
        return TaskResult(
            [*kept.output, *_shown(channel, state, now, is_end=False)],
            [*kept.tasks, self._in_background(channel, now.backfill)],
            {**kept.state, **written(channel, state, now)},
            kept.seen,
        )

    def _at_the_end(
        self, ctx: Context, channel: str, state: ChannelState, page: Page, kept: Kept, archived: str
    ) -> TaskResult:
        """End a walk. Only its last page moves the channel's bounds."""
        walk, changes = page.after, dict[str, Any](unreadable=None)
        tasks, listed = kept.tasks, list[Listing]()
        if walk.mode == "back":
            changes["backfill"] = None
        else:
            changes["newest_ts"] = timestamps.newest([state.newest_ts, walk.newest]) or walk.oldest
            changes["recent"] = [*state.recent, *page.top_level][-RECENT:] if page.is_alone else []
        if walk.mode == "first":
            changes["lookback_done_at"] = ctx.now
        if walk.is_whole:
            changes["first_ts"] = walk.low
            listed += walk.listings(channel)
        now = state.model_copy(update=changes)
        output = [*kept.output, *_shown(channel, state, now)]
        after = {**kept.state, **written(channel, state, now)}
        return TaskResult(output, tasks, after, kept.seen, listed)

    def _look_back(self, channel: str, walk: Walk, archived: str) -> Task:
        """Return the task of a further page. It runs after the first pages of all channels."""
        return replace(
            self.lookback.task(channel=channel, walk=walk, archived=archived), priority=-1
        )

    @task(cost={"conversations.history": 1})
    def lookback(self, ctx: Context, channel: str, walk: Walk, archived: str = "") -> TaskResult:
        """Fetch a page of the last days again: for new messages, edits, replies and deletions.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          walk: The position in the history.
          archived: `Ref.archived` of the channel. Default: empty.
        """
        state = ctx.state(partition(channel), ChannelState) or ChannelState()
        try:
            page = self._page(ctx, channel, walk)
        except InvalidCursor:
            return TaskResult(tasks=[self._look_back(channel, walk.again(), archived)])
        except Unreadable as error:
            return self._skipped(ctx, channel, state, error)
        kept = self._keep(ctx, channel, page)
        now = self._compare_broadcasts(channel, state, page, kept)
        if page.has_more:
            more = self._look_back(channel, page.after, archived)
            after = {**kept.state, **written(channel, state, now)}
            return TaskResult(kept.output, [*kept.tasks, more], after, kept.seen)
        changes = {
            "newest_ts": timestamps.newest([state.newest_ts, page.after.newest]),
            "unreadable": None,
            "lookback_done_at": ctx.now,
            "recent": page.top_level[-RECENT:] if page.is_alone else [],
            "settled": archived if state.backfill is None else "",
        }
        gone = [TaskOutput.gone(f"{channel}:{ts}") for ts in page.vanished(state.recent)]
        now = now.model_copy(update=changes)
        return TaskResult(
            [*kept.output, *gone, *_shown(channel, state, now)],
            kept.tasks,
            {**kept.state, **written(channel, state, now)},
            kept.seen,
            page.after.listings(channel),
        )


def _shown(
    channel: str, before: ChannelState, now: ChannelState, *, is_end: bool = True
) -> list[TaskOutput]:
    """Return the update of the channel's row, if it shows something else.

    The row of each run shows the progress of the backfill, and not each of its pages.
    """
    shown: dict[str, JsonValue] = {}
    if now.unreadable != before.unreadable:
        shown["unreadable"] = now.unreadable
    if is_end and now.copied_back_to != before.copied_back_to:
        shown["copied_back_to"] = now.copied_back_to
    return [TaskOutput.update(channel, metadata=shown)] if shown else []
