"""Threads: their replies, and the replies that are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from core import Context, Listing, PermanentError, Task, TaskOutput, TaskResult, task
from integration_polling_slack import messages, strangers, timestamps
from integration_polling_slack.attached import files_of
from integration_polling_slack.attachments import Attachments, Kept
from integration_polling_slack.directory import user_row
from integration_polling_slack.errors import OF_A_CHANNEL, InvalidCursor, Unreadable
from integration_polling_slack.messages import Message, Place, Version
from integration_polling_slack.names import Names
from integration_polling_slack.owed import UNKNOWN
from integration_polling_slack.walking import FEW, MAX_RESTARTS, ChannelState, partition

GONE = ("thread_not_found", "message_not_found")
"""The codes of a thread that does not exist any more."""


class Threads(Attachments):
    """The part of the integration that reads threads."""

    def _thread_task(
        self, channel: str, ts: str, before: str, version: str, *, whole: bool
    ) -> Task:
        """Return the task that reads a thread, or the new replies of a long one.

        Args:
          channel: The channel's id.
          ts: The timestamp of the thread's first message.
          before: The version of the thread as it is kept; empty to read all of it.
          version: Its present version.
          whole: True to take every reply as new.
        """
        after = messages.grown_since(before, version, self.config.page(1))
        found = self.get_thread.task(
            channel=channel, ts=ts, version=version, whole=whole, after=after,
            missing=messages.reply_count(version) - messages.reply_count(before) if after else 0,
        )  # fmt: skip
        return replace(found, key=f"thread:{channel}:{ts}:{version}:{after}")

    def _owed_thread(self, channel: str, ts: str, version: str) -> Task:
        """Return the task that reads a thread, in the background: it may be open there already."""
        if version == UNKNOWN:
            found = self.get_thread.task(channel=channel, ts=ts)
        else:
            found = self._thread_task(channel, ts, "", version, whole=False)
        return replace(found, background=True)

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
        after: str = "",
        missing: int = 0,
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
          after: The newest reply that is kept, to read only later ones. Default: read all.
          missing: With `after`, the number of later replies. Default: 0.
        """
        run = run or ctx.run.id
        given: dict[str, Any] = {
            "channel": channel,
            "ts": ts,
            "cause": cause,
            "whole": whole,
            "run": run,
            "is_missing": is_missing,
            "after": after,
        }
        # Read before the call. A reply that another task keeps during the call is not deleted
        # because this response lacks it.
        root = f"{channel}:{ts}"
        known: Mapping[str, str | None] = ctx.fingerprints([root])
        replies_before = set() if cursor or after else set(ctx.fingerprints(parent=root))
        try:
            answer = self._call(
                ctx,
                "conversations.replies",
                channel=self._current(ctx, channel),
                ts=ts,
                oldest=after,
                cursor=cursor,
                limit=self.config.page(ctx.task.attempt),
            )
        except InvalidCursor:
            if not cursor or restarts >= MAX_RESTARTS:
                raise
            return TaskResult(
                tasks=[
                    self.get_thread.task(
                        **given, version=version, missing=missing, restarts=restarts + 1
                    )
                ]
            )
        except Unreadable as error:
            if is_missing and error.code in GONE:
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
            given |= {"version": version, "restarts": restarts, "missing": missing - len(replies)}
            onward = self.get_thread.task(**given, cursor=more, page=page + 1)
            return TaskResult(kept.output, [*kept.tasks, onward], kept.state, kept.seen)
        if answer.data.get("has_more") is True:
            raise PermanentError("conversations.replies: more replies, but no cursor")
        if after and len(replies) != missing:
            # An older reply was deleted too.
            whole_thread = self._thread_task(channel, ts, "", version or "", whole=whole)
            return TaskResult(kept.output, [*kept.tasks, whole_thread], kept.state, kept.seen)
        is_limited = answer.data.get("is_limited") is True
        if page == 0 and not is_limited and not after:
            kept.output += _gone_replies(channel, replies_before, replies)
        count = len(replies) if page == 0 and not after else None
        kept.output += _end_of_thread(known, root, version, replies, count, kept)
        is_complete = run == ctx.run.id and not is_limited and not after
        listed = [Listing(root)] if is_complete else []
        return TaskResult(kept.output, kept.tasks, kept.state, kept.seen, listed)

    def _keep_replies(
        self, ctx: Context, channel: str, root: str, replies: Sequence[Message], *, whole: bool
    ) -> Kept:
        kept, changed, edited = Kept(), list[tuple[Message, str]](), set[str]()
        known = ctx.fingerprints([f"{channel}:{one['ts']}" for one in replies])
        for one in replies:
            id, own = f"{channel}:{one['ts']}", messages.own_version(one)
            if known.get(id) == str(Version(own)) and not whole:
                kept.seen.append(id)
            else:
                changed.append(({**one, "thread_ts": root}, own))
                if Version.parse(known.get(id)).is_other(own):
                    edited.add(one["ts"])
        fresh = [one for one, _ in changed]
        place = self._place(ctx, channel, kept, fresh)
        kept.output += [
            messages.row(one, place, str(Version(settled_own(one, own, kept))))
            for one, own in changed
        ]
        self._add_files(ctx, kept, place, fresh, edited)
        return kept

    def _keep_root(
        self, ctx: Context, kept: Kept, channel: str, root: Message
    ) -> Mapping[str, str | None]:
        """Keep a thread's first message if the history has not reached it.

        The fingerprint of its row names the replies.

        Returns:
          The row's version by its id; empty if the message is older than `since`.
        """
        if timestamps.order(root["ts"]) <= timestamps.order(self.config.oldest):
            return {}
        place = self._place(ctx, channel, kept, [root])
        own = settled_own(root, messages.own_version(root), kept)
        version = str(Version(own))
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
        return TaskResult([row], state=written(channel, state, now))

    def _place(self, ctx: Context, channel: str, kept: Kept, fresh: Sequence[Message]) -> Place:
        """Return the channel with its names, after a lookup of the strangers in new messages."""
        known, workspace = Names(ctx), self._workspace(ctx)
        found = strangers.look_up(ctx, self._call, known, fresh)
        kept.output += [user_row(user) for user in found.users]
        kept.state |= found.state
        kept.unnamed |= found.unnamed
        current = workspace.moved.get(channel, "")
        return Place(channel, workspace.url, known.get, current, known.is_person)

    def _current(self, ctx: Context, channel: str) -> str:
        """Return Slack's present id of a channel."""
        return self._workspace(ctx).moved.get(channel, channel)


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
    known: Mapping[str, str | None],
    root: str,
    version: str | None,
    replies: Sequence[Message],
    count: int | None,
    kept: Kept,
) -> list[TaskOutput]:
    """Return the update of a thread's first message at the end of its thread.

    Args:
      known: The first message's row, as it was before the call.
      root: The id of that row.
      version: The thread's version; None if it is unknown.
      replies: The replies on the last page.
      count: The number of all replies; None if it is unknown.
      kept: The rows of the last page.
    """
    if root not in known:
        return []
    before, newest = Version.parse(known[root]), timestamps.newest(one["ts"] for one in replies)
    thread = before.thread
    if version is not None:
        thread = messages.settled_version(version, newest, count, before.thread)
    if kept.unnamed:
        thread = messages.again(version or thread)
    if before.thread and not thread:
        thread = messages.EMPTIED
    now = replace(before, thread=thread)
    return [TaskOutput.update(root, metadata={}, fingerprint=str(now))] if now != before else []


def settled_own(message: Message, own: str, kept: Kept) -> str:
    """Return the version of a message; another one if a name in it could not be looked up now.

    Then the next look renders the message again.
    """
    return f"{own}~" if kept.unnamed.intersection(strangers.named([message])) else own


def written(
    channel: str, before: ChannelState, now: ChannelState
) -> Mapping[str, BaseModel | None]:
    """Return the channel's state, if it has changed."""
    return {} if now == before else {partition(channel): now}
