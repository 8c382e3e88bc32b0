"""The integration: the history of each channel, its changes and its threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from core import (
    Context,
    Listing,
    Manifest,
    OAuth,
    PermanentError,
    Reader,
    SkipItem,
    StoredItem,
    Task,
    TaskOutput,
    TaskResult,
    task,
)
from integration_polling_slack import messages, scopes, strangers, timestamps
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.attached import files_of
from integration_polling_slack.attachments import Attachments, Kept
from integration_polling_slack.channels import Ref
from integration_polling_slack.directory import limits, user_row, utc_now
from integration_polling_slack.errors import OF_A_CHANNEL, InvalidCursor, Unreadable
from integration_polling_slack.messages import Message, Place, Version
from integration_polling_slack.names import Names
from integration_polling_slack.text import READER_VERSION
from integration_polling_slack.walking import (
    FEW,
    MAX_RESTARTS,
    RECENT,
    ChannelState,
    Page,
    Walk,
    partition,
)


class Slack(Attachments):
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
        row = messages.reread(item.metadata, item.fingerprint, self._names.get)
        if row is None:
            raise SkipItem("the message was kept without its raw form")
        return TaskResult([row])

    @task
    def sync_channel(self, ctx: Context, channel: Ref) -> TaskResult:
        """Continue the channel's history: new messages in this run, old ones in the background.

        Args:
          ctx: The task's context.
          channel: The channel.
        """
        state = ctx.state(partition(channel.id), ChannelState) or ChannelState()
        if not channel.is_readable(is_bot=self._workspace(ctx).is_bot):
            return TaskResult([channel.row("not_in_channel")])
        row = channel.row(state.unreadable)
        if channel.archived and state.settled == channel.archived and not ctx.run.complete:
            return TaskResult([row])
        walk = (
            Walk(mode="live", oldest=state.newest_ts)
            if state.newest_ts
            else Walk(mode="first", oldest=self.config.oldest)
        )
        tasks = [
            self.get_channel_history.task(channel=channel.id, walk=walk, archived=channel.archived)
        ]
        if state.backfill is not None:
            tasks.append(self._in_background(channel.id, state.backfill))
        if channel.canvases and self.config.files != "none":
            # Slack does not tell when a canvas was edited, so it is compared with the lookback.
            due = self._is_due(ctx, state.lookback_done_at)
            tasks += self._canvases(channel.id, channel.canvases) if due else []
        return TaskResult([row], tasks)

    def _in_background(self, channel: str, walk: Walk) -> Task:
        return replace(self.get_channel_history.task(channel=channel, walk=walk), background=True)

    def _channel_task(self, channel: Ref) -> Task:
        return self.sync_channel.task(channel=channel)

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
            return self._goes_on(channel, state, walk.again(), Kept(), archived)
        except Unreadable as error:
            return self._skipped(ctx, channel, state, error)
        kept = self._keep(ctx, channel, page)
        now = self._compare_broadcasts(channel, state, page, kept)
        if page.has_more:
            result = self._goes_on(channel, now, page.after, kept, archived)
        else:
            result = self._at_the_end(ctx, channel, now, page, kept, archived)
        return replace(result, state={**_written(channel, state, now), **result.state})

    def _goes_on(
        self, channel: str, state: ChannelState, walk: Walk, kept: Kept, archived: str
    ) -> TaskResult:
        """Continue the walk. A new channel and a backfill record their position at each page."""
        if walk.mode == "live":
            more = self.get_channel_history.task(channel=channel, walk=walk, archived=archived)
            return TaskResult(kept.output, [*kept.tasks, more], kept.state, kept.seen)
        changes: dict[str, Any] = {"backfill": walk, "unreadable": None}
        if walk.mode == "first":
            changes["backfill"] = walk.model_copy(update={"mode": "back", "run": ""})
            changes |= {"newest_ts": walk.newest or walk.oldest, "lookback_done_at": utc_now()}
        now = state.model_copy(update=changes)
        assert now.backfill is not None
        return TaskResult(
            [*kept.output, *_readable_again(channel, state)],
            [*kept.tasks, self._in_background(channel, now.backfill)],
            {**kept.state, **_written(channel, state, now)},
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
            changes["lookback_done_at"] = utc_now()
        if walk.mode == "live":
            tasks += self._lookback_if_due(ctx, channel, state, archived)
        else:
            listed += walk.listings(channel)
        now = state.model_copy(update=changes)
        output = [*kept.output, *_readable_again(channel, state)]
        written = {**kept.state, **_written(channel, state, now)}
        return TaskResult(output, tasks, written, kept.seen, listed)

    def _lookback_if_due(
        self, ctx: Context, channel: str, state: ChannelState, archived: str
    ) -> list[Task]:
        """Return the lookback's first task if it is due.

        In a scheduled run, it is due at the config's interval; in others, always. In a run that
        must list everything, it reads the complete history.
        """
        if not self._is_due(ctx, state.lookback_done_at):
            return []
        oldest = self.config.oldest
        if not ctx.run.complete:
            midnight = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
            recent = timestamps.before(midnight - timedelta(days=self.config.lookback_days))
            oldest = timestamps.newest([recent, oldest])
        walk = Walk(mode="lookback", oldest=oldest, run=ctx.run.id)
        return [self._look_back(channel, walk, archived)]

    def _look_back(self, channel: str, walk: Walk, archived: str) -> Task:
        """Return a task of the lookback. It runs after new messages, which use the same limit."""
        return replace(
            self.lookback.task(channel=channel, walk=walk, archived=archived), priority=-1
        )

    @task(cost={"conversations.history": 1})
    def lookback(self, ctx: Context, channel: str, walk: Walk, archived: str = "") -> TaskResult:
        """Fetch a page of the last days again, to find edits, replies and deletions.

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
            written = {**kept.state, **_written(channel, state, now)}
            return TaskResult(kept.output, [*kept.tasks, more], written, kept.seen)
        changes = {
            "lookback_done_at": utc_now(),
            "recent": page.top_level[-RECENT:] if page.is_alone else [],
            "settled": archived if state.backfill is None else "",
        }
        gone = [TaskOutput.gone(f"{channel}:{ts}") for ts in page.vanished(state.recent)]
        return TaskResult(
            [*kept.output, *gone],
            kept.tasks,
            {**kept.state, **_written(channel, state, now.model_copy(update=changes))},
            kept.seen,
            page.after.listings(channel),
        )

    def _compare_broadcasts(
        self, channel: str, state: ChannelState, page: Page, kept: Kept
    ) -> ChannelState:
        """Return the state with the page's broadcasts, and add a task for each missing one."""
        now, missing = state.with_broadcasts(page)
        kept.tasks += [
            self.get_thread.task(channel=channel, ts=root, cause=ts, is_missing=True)
            for ts, root in missing.items()
        ]
        return now

    def _page(self, ctx: Context, channel: str, walk: Walk) -> Page:
        answer = self._call(
            ctx, "conversations.history", channel=self._current(ctx, channel), oldest=walk.oldest,
            latest=walk.latest, cursor=walk.cursor, limit=self.config.page,
        )  # fmt: skip
        found = [one for one in answer.items("messages") if messages.is_message(one)]
        has_more, is_limited = (
            answer.data.get(name) is True for name in ("has_more", "is_limited")
        )
        has_more = has_more or bool(answer.cursor)
        after = walk.within(ctx.run.id).after(
            [one["ts"] for one in found], answer.cursor, has_more=has_more, is_limited=is_limited
        )
        return Page(walk, after, has_more, found)

    def _skipped(
        self,
        ctx: Context,
        channel: str,
        state: ChannelState,
        error: Unreadable,
        now: ChannelState | None = None,
    ) -> TaskResult:
        """Show on the channel's row why it cannot be read.

        The channel's state stays, unless `now` replaces it.
        """
        ctx.log.warning("channel %s skipped: %s", channel, error)
        now = (now or state).model_copy(update={"unreadable": error.code})
        row = TaskOutput.update(channel, metadata={"unreadable": error.code})
        return TaskResult([row], state=_written(channel, state, now))

    # Pages of messages
    # ----------------------------------------------------------------------------------------------

    def _keep(self, ctx: Context, channel: str, page: Page) -> Kept:
        """Return rows for new and changed messages, and tasks for changed threads.

        A walk through the complete history takes every message as new. So after a resync, names and
        files are current.
        """
        kept, changed = Kept(), list[Message]()
        known = ctx.fingerprints([f"{channel}:{one['ts']}" for one in page.messages])
        whole, threads = page.walk.is_whole, dict[str, Task]()
        versions = {one["ts"]: messages.own_version(one) for one in page.messages}
        same = {
            ts
            for ts, own in versions.items()
            if not whole and own == Version.parse(known.get(f"{channel}:{ts}")).own
        }
        place = self._place(ctx, channel, kept, [m for m in page.messages if m["ts"] not in same])
        for one in page.messages:
            ts, id = one["ts"], place.id(one["ts"])
            before, own, is_same = Version.parse(known.get(id)), versions[ts], ts in same
            if messages.is_reply(one):
                # A reply that was also sent to the channel. Its thread may be older than this page,
                # or unreadable. The empty version requests the thread until it is fetched.
                if not is_same:
                    changed.append(one)
                    kept.output.append(messages.row(one, place, str(Version(""))))
                    root = one["thread_ts"]
                    threads.setdefault(
                        root, self.get_thread.task(channel=channel, ts=root, cause=ts, whole=whole)
                    )
                continue
            if is_same:
                kept.seen.append(id)
            else:
                changed.append(one)
                kept.output.append(messages.row(one, place, str(replace(before, own=own))))
            thread = messages.thread_version(one)
            again = bool(before.thread) and (whole or ctx.run.complete)
            if again or messages.thread_changed(before.thread, thread):
                threads[ts] = self.get_thread.task(
                    channel=channel, ts=ts, version=thread, whole=whole
                )
        kept.tasks += threads.values()
        self._add_files(ctx, kept, place, changed)
        return kept

    def _place(self, ctx: Context, channel: str, kept: Kept, fresh: Sequence[Message]) -> Place:
        """Return the channel with its names, after a lookup of the strangers in new messages."""
        known, workspace = Names(ctx), self._workspace(ctx)
        found = strangers.look_up(ctx, self._call, known, fresh)
        kept.output += [user_row(user) for user in found.users]
        kept.state |= found.state
        return Place(channel, workspace.url, known.get, workspace.moved.get(channel, ""))

    def _current(self, ctx: Context, channel: str) -> str:
        """Return Slack's present id of a channel."""
        return self._workspace(ctx).moved.get(channel, channel)

    # Threads
    # ----------------------------------------------------------------------------------------------

    @task(cost={"conversations.replies": 1})
    def get_thread(
        self,
        ctx: Context,
        channel: str,
        ts: str,
        version: str | None = None,
        cause: str = "",
        whole: bool = False,
        cursor: str = "",
        page: int = 0,
        run: str = "",
        restarts: int = 0,
        is_missing: bool = False,
    ) -> TaskResult:
        """Fetch a page of a thread.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          ts: The timestamp of the thread's first message.
          version: The `thread_version` of the first message. Default: None, which means unknown.
          cause: The timestamp of the reply that caused the task, so that a later reply causes
            another one. Default: empty.
          whole: True to take every reply as new. Default: False.
          cursor: The cursor of the page. Default: the first page.
          page: The number of the page. Default: 0.
          run: The id of the run that fetched the first page. Default: this run.
          restarts: The number of restarts so far. Default: 0.
          is_missing: True if the cause is a reply that the channel no longer shows. Default: False.
        """
        run = run or ctx.run.id
        given: dict[str, Any] = {
            "channel": channel,
            "ts": ts,
            "cause": cause,
            "whole": whole,
            "run": run,
        }
        # Read before the call. A reply that another task keeps during the call is not deleted
        # because this response lacks it.
        root = f"{channel}:{ts}"
        known: Mapping[str, str | None] = ctx.fingerprints([root])
        replies_before = set(ctx.fingerprints(parent=root)) if not cursor else set()
        try:
            answer = self._call(
                ctx,
                "conversations.replies",
                channel=self._current(ctx, channel),
                ts=ts,
                cursor=cursor,
                limit=self.config.page,
            )
        except InvalidCursor:
            if not cursor or restarts >= MAX_RESTARTS:
                raise
            return TaskResult(
                tasks=[
                    self.get_thread.task(
                        **given, version=version, restarts=restarts + 1, is_missing=is_missing
                    )
                ]
            )
        except Unreadable as error:
            if is_missing and error.code in ("thread_not_found", "message_not_found"):
                return TaskResult([TaskOutput.gone(f"{channel}:{cause}")])
            oldest = self.config.oldest if whole else timestamps.before(timestamps.moment(ts))
            return self._thread_skipped(ctx, channel, ts, oldest, error)
        found = [one for one in answer.items("messages") if messages.is_message(one)]
        replies = [one for one in found if one["ts"] != ts]
        kept = self._keep_replies(ctx, channel, ts, replies, whole=whole)
        for first in (one for one in found if one["ts"] == ts):
            version = messages.thread_version(first) if version is None else version
            kept.seen += [f"{root}:{file['id']}" for file in files_of(first)]
            known = known or self._keep_root(ctx, kept, channel, first)
        if more := self._next_page(answer, cursor, page):
            given |= {"version": version, "restarts": restarts, "is_missing": is_missing}
            onward = self.get_thread.task(**given, cursor=more, page=page + 1)
            return TaskResult(kept.output, [*kept.tasks, onward], kept.state, kept.seen)
        if answer.data.get("has_more") is True:
            raise PermanentError("conversations.replies: more replies, but no cursor")
        is_limited = answer.data.get("is_limited") is True
        if page == 0 and not is_limited:
            kept.output += _gone_replies(channel, replies_before, replies)
        kept.output += _end_of_thread(known, root, version, replies)
        is_complete = run == ctx.run.id and not is_limited
        listed = [Listing(root)] if is_complete else []
        return TaskResult(kept.output, kept.tasks, kept.state, kept.seen, listed)

    def _keep_replies(
        self, ctx: Context, channel: str, root: str, replies: Sequence[Message], *, whole: bool
    ) -> Kept:
        kept, changed = Kept(), list[tuple[Message, str]]()
        known = ctx.fingerprints([f"{channel}:{one['ts']}" for one in replies])
        for one in replies:
            id, own = f"{channel}:{one['ts']}", str(Version(messages.own_version(one)))
            if known.get(id) == own and not whole:
                kept.seen.append(id)
            else:
                changed.append(({**one, "thread_ts": root}, own))
        fresh = [one for one, _ in changed]
        place = self._place(ctx, channel, kept, fresh)
        kept.output += [messages.row(one, place, own) for one, own in changed]
        self._add_files(ctx, kept, place, fresh)
        return kept

    def _keep_root(
        self, ctx: Context, kept: Kept, channel: str, root: Message
    ) -> Mapping[str, str | None]:
        """Keep a thread's first message if the history has not reached it.

        The fingerprint of its row names the replies.

        Returns:
          The row's version by its id; empty if the message is older than `since`.
        """
        version = str(Version(messages.own_version(root)))
        if timestamps.order(root["ts"]) <= timestamps.order(self.config.oldest):
            return {}
        place = self._place(ctx, channel, kept, [root])
        kept.output.append(messages.row(root, place, version))
        self._add_files(ctx, kept, place, [root])
        return {place.id(root["ts"]): version}

    def _thread_skipped(
        self, ctx: Context, channel: str, ts: str, oldest: str, error: Unreadable
    ) -> TaskResult:
        """Skip a thread that is gone; return later to one that is unreadable with its channel.

        Raises:
          Unreadable: The thread is skipped.
        """
        state = ctx.state(partition(channel), ChannelState) or ChannelState()
        now = state.without_thread(ts, oldest) if error.code in OF_A_CHANNEL else None
        if now is None:
            raise error
        return self._skipped(ctx, channel, state, error, now)


def _gone_replies(
    channel: str, before: Iterable[str], replies: Sequence[Message]
) -> list[TaskOutput]:
    """Return the deletions of the kept replies that a thread of one page no longer has.

    Args:
      channel: The channel's id.
      before: The ids of the rows below the first message, as they were before the call. The rows of
        its files are among them.
      replies: The replies on the page.
    """
    ids = {id for id in before if timestamps.is_ts(id.removeprefix(f"{channel}:"))}
    gone = ids - {f"{channel}:{one['ts']}" for one in replies}
    return [TaskOutput.gone(id) for id in sorted(gone)] if len(gone) <= FEW else []


def _end_of_thread(
    known: Mapping[str, str | None], root: str, version: str | None, replies: Sequence[Message]
) -> list[TaskOutput]:
    """Return the update of a thread's first message at the end of its thread.

    Args:
      known: The first message's row, as it was before the call.
      root: The id of that row.
      version: The thread's version; None if it is unknown.
      replies: The replies on the last page.
    """
    if root not in known:
        return []
    before, newest = Version.parse(known[root]), timestamps.newest(one["ts"] for one in replies)
    thread = before.thread if version is None else messages.settled_version(version, newest)
    if before.thread and not thread:
        thread = messages.EMPTIED
    now = replace(before, thread=thread)
    return [TaskOutput.update(root, metadata={}, fingerprint=str(now))] if now != before else []


def _written(
    channel: str, before: ChannelState, now: ChannelState
) -> Mapping[str, BaseModel | None]:
    """Return the channel's state, if it has changed."""
    return {} if now == before else {partition(channel): now}


def _readable_again(channel: str, state: ChannelState) -> list[TaskOutput]:
    return [TaskOutput.update(channel, metadata={"unreadable": None})] if state.unreadable else []
