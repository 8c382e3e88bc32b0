"""The runs of hints: they ask Slack only for the channels, threads and files that events name."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from core import (
    Context,
    HintedAccount,
    Hints,
    ListenableAccount,
    Listener,
    PermanentError,
    Skipped,
    Task,
    TaskOutput,
    TaskResult,
    WebhookRequest,
    WebhookResponse,
    task,
)
from integration_polling_slack import channels, events, messages, names, socket_mode, timestamps
from integration_polling_slack.account import Config, SlackSettings
from integration_polling_slack.channels import Followed, Ref, Workspace
from integration_polling_slack.directory import FOLLOWED, WORKSPACE
from integration_polling_slack.errors import OF_A_CHANNEL, Unreadable
from integration_polling_slack.listing import VANISHED
from integration_polling_slack.looks import EVENTS, LOOKS, Events, Looks
from integration_polling_slack.names import Names
from integration_polling_slack.parts import Part
from integration_polling_slack.reconciliation import Reconciliation
from integration_polling_slack.threads import GONE, written
from integration_polling_slack.walking import ChannelState, Walk, partition

APP = "app"
"""The key of the listener: the operator's app sends the events of all accounts."""

_APP_ID = re.compile(r"A[A-Z0-9]+", re.ASCII)

MAX_SHARES = 50
"""The number of messages with a file to ask for."""


class Hinted(Reconciliation):
    """The part of the integration that receives events, and runs what they name.

    Channels that the account does not follow cost no call, unless the event may have changed that.
    """

    @classmethod
    def listeners(
        cls, settings: BaseModel | None, accounts: Iterable[ListenableAccount]
    ) -> Sequence[Listener]:
        """Receive the events of the operator's app. They name accounts by their workspace.

        Accounts that are known to have a token of another app get no events. Without accounts there
        is no connection: Slack sends an event to only one of an app's connections.
        """
        if not isinstance(settings, SlackSettings) or not settings.receives_events:
            return []
        teams = {
            one.id: one.identity.partition(":")[0]
            for one in accounts
            if settings.app_id in ("", _app(one) or settings.app_id)
        }
        return [Listener(APP, teams, listens=settings.uses_socket_mode and bool(teams))]

    @classmethod
    # One app sends the events of all accounts.
    def listen(cls, listener: Listener, hints: Hints, stopping: threading.Event) -> None:  # noqa: ARG003
        """Receive the events of Socket Mode."""
        socket_mode.receive(SlackSettings(), hints, stopping)

    @classmethod
    def webhook(cls, request: WebhookRequest) -> WebhookResponse:
        """Answer a request of the Events API; see `events.answer`."""
        given = request.settings
        return events.answer(
            request, given if isinstance(given, SlackSettings) else SlackSettings()
        )

    @classmethod
    def follows(cls, part: str, account: HintedAccount) -> bool:
        """Return False for a part of a channel that the account does not copy."""
        named = Part.parse(part)
        followed = account.state(FOLLOWED, Followed)
        workspace = account.state(WORKSPACE, Workspace)
        if named is None or followed is None or workspace is None:
            return True
        config = Config.model_validate(account.config)
        if followed.selection != channels.selection(config):
            return True
        if named.kind in ("file", "settings"):
            return named.kind == "settings" or config.files != "none"
        first = {now: id for id, now in workspace.moved.items()}
        id = first.get(named.id, named.id)
        if named.kind == "members":
            return id not in followed.ids or followed.kinds.get(id) == "private"
        return id in followed.ids

    def start(self, ctx: Context) -> TaskResult:
        """Ask for the parts that hints name; otherwise begin with the workspace."""
        if ctx.run.trigger != "hint":
            return super().start(ctx)
        tasks = self._hinted(ctx) if ctx.hints else None
        result = super().start(ctx) if tasks is None else TaskResult(tasks=tasks)
        # A new connection hints at the complete account, and events follow.
        return replace(result, state={**result.state, EVENTS: Events(at=ctx.now)})

    def _hinted(self, ctx: Context) -> list[Task] | None:
        """Return the tasks for the parts; None if the lists must be read first."""
        followed, workspace = ctx.state(FOLLOWED, Followed), ctx.state(WORKSPACE, Workspace)
        named = [Part.parse(text) for text in ctx.hints]
        parts = [part for part in named if part is not None]
        if followed is None or workspace is None or len(parts) < len(named):
            return None
        if followed.selection != channels.selection(self.config):
            return None
        first = {now: id for id, now in workspace.moved.items()}
        places = [(part, first.get(part.id, part.id)) for part in parts]
        # The task for a channel itself asks for its new messages too.
        asked = {id for part, id in places if part.kind == "settings"}
        others = [(part, id) for part, id in places if id not in asked or part.ts]
        tasks = [self.get_channel.task(channel=id) for id in sorted(asked)]
        return tasks + [
            one for part, id in others for one in self._of_part(ctx, part, id, followed)
        ]

    def _of_part(self, ctx: Context, part: Part, id: str, followed: Followed) -> list[Task]:
        """Return the tasks for a part.

        Args:
          ctx: The task's context.
          part: The part.
          id: The id of the channel's row, or the file's id.
          followed: The channels that the account follows.
        """
        if part.kind == "file":
            return [] if self.config.files == "none" else [self.get_file_places.task(file=id)]
        is_followed = id in followed.ids
        if part.kind == "members":
            # Somebody has joined or left. Whether this was the token's owner is unknown.
            if not is_followed:
                return [self.get_channel.task(channel=id)]
            is_private = followed.kinds.get(id) == "private"
            current = self._current(ctx, id)
            return [self.get_members.task(channel=id, current=current)] if is_private else []
        if not is_followed:
            return []
        return self._messages_tasks(id, part.ts, part.root) if part.ts else [self._news(ctx, id)]

    def _news(self, ctx: Context, channel: str) -> Task:
        """Return the task that asks for a channel's new messages."""
        state = ctx.state(partition(channel), ChannelState)
        if state is None or not state.newest_ts:
            return self.get_channel.task(channel=channel)
        walk = Walk(mode="live", oldest=state.newest_ts)
        return self._history_task(channel, walk)

    def _history_task(self, channel: str, walk: Walk) -> Task:
        """Return the task that fetches a page of a channel's history."""
        raise NotImplementedError

    def _messages_tasks(self, channel: str, ts: str, root: str) -> list[Task]:
        """Return the task that asks for one message; none for one that is older than `since`."""
        if timestamps.order(ts) <= timestamps.order(self.config.oldest):
            return []
        if root:
            return [self.get_reply.task(channel=channel, ts=ts, root=root)]
        return [self.get_message.task(channel=channel, ts=ts)]

    @task(cost={"conversations.info": 1})
    def get_channel(self, ctx: Context, channel: str) -> TaskResult:
        """Read a channel's name and membership, and follow it if the config selects it.

        Args:
          ctx: The task's context.
          channel: The channel's id.
        """
        before = ctx.state(FOLLOWED, Followed) or Followed()
        try:
            answer = self._call(ctx, "conversations.info", channel=self._current(ctx, channel))
        except (Unreadable, PermanentError) as error:
            ctx.log.info("cannot read the channel %s: %s", channel, error)
            return self._lost(ctx, channel, before, error)
        known = Names(ctx)
        moves = self._workspace(ctx).moved
        found = channels.with_first_ids(channels.refs([answer.data.get("channel")], known), moves)
        if not [ref for ref in found if self._selects(ref, before)]:
            return TaskResult()
        [ref] = found
        state = names.changed(ctx, {ref.id: ref.name})
        if (now := before.including(ref)) != before:
            state[FOLLOWED] = now
        asked = [ref] if self._may_ask(ctx, ref) else []
        without = self._without_members(ctx, [ref.id], asked)
        output = [*without.output, *self._rows(ctx, [ref], asked, before)]
        bounds = ctx.state(LOOKS, Looks) or Looks()
        tasks = [self._first_task(ctx, one, bounds.fresh_within(one.id)) for one in asked]
        tasks += self._member_tasks({ref.id: ref}, [one.id for one in asked])
        return TaskResult(output, tasks, {**state, **without.state})

    def _selects(self, ref: Ref, before: Followed) -> bool:
        """Return True if the config selects this channel."""
        is_chosen = ref.id in channels.choose([ref], self.config, before).ids
        return is_chosen and ref.type in self.config.types

    def _lost(self, ctx: Context, channel: str, before: Followed, error: Exception) -> TaskResult:
        """Return the result for a channel that the token cannot see any more."""
        is_gone = isinstance(error, Unreadable) and error.code == "channel_not_found"
        if not is_gone or channel not in before.ids:
            return TaskResult()
        without = self._without_members(ctx, [channel], [])
        return TaskResult(
            [channels.vanished_row(channel), *without.output], state=without.state,
            skipped=[Skipped(channel, VANISHED)],
        )  # fmt: skip

    @task(cost={"conversations.history": 1})
    def get_message(self, ctx: Context, channel: str, ts: str) -> TaskResult:
        """Compare one message of a channel's history with its row, and its thread with its rows.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          ts: The message's timestamp.
        """
        state = ctx.state(partition(channel), ChannelState) or ChannelState()
        oldest, latest = timestamps.before(timestamps.moment(ts)), timestamps.above(ts)
        walk = Walk(mode="lookback", oldest=oldest, latest=latest, run=ctx.run.id)
        try:
            page = self._page(ctx, channel, walk)
        except Unreadable as error:
            return self._skipped(ctx, channel, state, error)
        if not page.messages:
            # A reply, or a deleted message. Slack may also hide it, or answer with an empty page.
            is_complete = not page.has_more and not page.after.is_limited
            reply = [self.get_reply.task(channel=channel, ts=ts, root=ts)]
            return TaskResult(tasks=reply if is_complete else [])
        kept = self._keep(ctx, channel, page)
        now = self._compare_broadcasts(channel, state, page, kept)
        after = {**kept.state, **written(channel, state, now)}
        return TaskResult(kept.output, kept.tasks, after, kept.seen)

    @task(cost={"conversations.replies": 1})
    def get_reply(self, ctx: Context, channel: str, ts: str, root: str) -> TaskResult:
        """Compare one reply with its row.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          ts: The reply's timestamp.
          root: The timestamp of its thread's first message; `ts` if that is unknown.
        """
        id, bounds = f"{channel}:{ts}", dict[str, str]()
        if root != ts:
            bounds["oldest"] = timestamps.before(timestamps.moment(ts))
            bounds["latest"] = timestamps.above(ts)
        known = ctx.fingerprints([id, f"{channel}:{root}"])
        try:
            answer = self._call(
                ctx, "conversations.replies", channel=self._current(ctx, channel), ts=root,
                limit=self.config.page(ctx.task.attempt), **bounds,
            )  # fmt: skip
        except Unreadable as error:
            if error.code in GONE:
                return TaskResult([TaskOutput.gone(id)] if id in known else [])
            if error.code not in OF_A_CHANNEL:
                raise
            state = ctx.state(partition(channel), ChannelState) or ChannelState()
            return self._skipped(ctx, channel, state, error)
        found = [one for one in answer.items("messages") if messages.is_message(one)]
        here = next((one for one in found if one["ts"] == ts), None)
        if here is None:
            is_complete = not answer.cursor and answer.data.get("is_limited") is not True
            return TaskResult([TaskOutput.gone(id)] if is_complete and id in known else [])
        if not messages.is_reply(here):
            return TaskResult()  # a first message that the history does not show
        thread = here["thread_ts"]
        if thread == root and f"{channel}:{root}" not in known:
            return TaskResult(tasks=self._messages_tasks(channel, root, ""))
        kept = self._keep_replies(ctx, channel, thread, [here], whole=False)
        return TaskResult(kept.output, kept.tasks, kept.state, kept.seen)

    @task(cost={"files.info": 1})
    def get_file_places(self, ctx: Context, file: str) -> TaskResult:
        """Return a task for each message with a file, in the channels that the account follows.

        Args:
          ctx: The task's context.
          file: The file's id.
        """
        try:
            data = self._call(ctx, "files.info", file=file).data.get("file")
        except (Unreadable, PermanentError) as error:
            # The events of the messages themselves tell of a deleted file.
            ctx.log.info("cannot read the file %s: %s", file, error)
            return TaskResult()
        followed = (ctx.state(FOLLOWED, Followed) or Followed()).ids
        first = {now: id for id, now in self._workspace(ctx).moved.items()}
        places = [(first.get(channel, channel), *one) for channel, *one in _shares(data)]
        found = [one for one in places if one[0] in followed][:MAX_SHARES]
        return TaskResult(tasks=[task for one in found for task in self._messages_tasks(*one)])


def _app(account: ListenableAccount) -> str:
    """Return the app of an account's token; empty if it is unknown, as for a person's token."""
    app = (account.group or "").partition(":")[2]
    return app if _APP_ID.fullmatch(app) else ""


def _shares(file: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the messages with a file: channel, timestamp, and that of a reply's thread.

    Source: https://docs.slack.dev/reference/objects/file-object
    """
    shares = file.get("shares") if isinstance(file, dict) else None
    for by_channel in shares.values() if isinstance(shares, dict) else ():
        for channel, places in by_channel.items() if isinstance(by_channel, dict) else ():
            for place in places if isinstance(places, list) else ():
                if isinstance(place, dict) and timestamps.is_ts(ts := place.get("ts")):
                    root = place.get("thread_ts")
                    is_reply = timestamps.is_ts(root) and root != ts
                    yield channel, ts, str(root) if is_reply else ""
