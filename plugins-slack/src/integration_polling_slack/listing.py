"""The lists of channels, and the selection of the channels to keep.

Sources: https://docs.slack.dev/reference/methods/conversations.list and
https://docs.slack.dev/reference/methods/users.conversations
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

from pydantic import BaseModel

from core import (
    Context,
    PermanentError,
    RateLimited,
    Skipped,
    Task,
    TaskOutput,
    TaskResult,
    TransientError,
    task,
)
from integration_polling_slack import channels, looks, names, scopes, strangers, survey, timestamps
from integration_polling_slack.account import PAGE_SIZES, ChannelType
from integration_polling_slack.channels import Absent, Followed, Ref, Refs
from integration_polling_slack.directory import (
    ABSENT,
    FOLLOWED,
    ROUTINE,
    WORKSPACE,
    Directory,
    message_calls,
    one_more,
    user_row,
)
from integration_polling_slack.errors import InvalidCursor, MissingScope, Unreadable
from integration_polling_slack.looks import EVENTS, LOOKS, Events, Looks
from integration_polling_slack.names import Names
from integration_polling_slack.notices import noticed
from integration_polling_slack.selection import Selected
from integration_polling_slack.walking import ChannelState, partition

NOT_FOUND = "a channel that the config names was not found"
"""The reason with which a run counts such channels."""

NOT_INVITED = "the bot is not in a channel that the config names: invite it"
"""The reason for a channel that exists."""

VANISHED = "a channel was deleted, or the token no longer sees it"
"""The reason with which one run counts a channel that has vanished. Its row says so afterwards."""

RESTRICTED_APP = "Slack limits this app as a distributed one: set app_kind"
"""The reason with which a run counts older messages that Slack lets it read only slowly."""

COMPLETE_LIST_HOURS = 24
"""The hours between two lists of all channels. The runs in between list the bot's channels."""


class _Position(BaseModel):
    """The position in the lists: the payload of a task that lists a page of channels."""

    cursor: str = ""
    page: int = 0
    restarts: int = 0
    kinds: list[ChannelType] | None = None
    lost: list[ChannelType] = []

    def after(self, cursor: str) -> Self:
        """Return the position after a page: the list's next page, or the next kind's first."""
        kinds = self.kinds if cursor or self.kinds is None else self.kinds[1:]
        changes = {"cursor": cursor, "page": self.page + 1, "kinds": kinds}
        return self.model_copy(update=changes)

    def without(self, types: list[ChannelType]) -> Self | None:
        """Return the position after a missing scope; None if there is no other kind to list."""
        if self.kinds is None:
            return type(self)(kinds=types, restarts=self.restarts) if len(types) > 1 else None
        lost = [*self.lost, *self.kinds[:1]]
        return self.model_copy(update={"cursor": "", "kinds": self.kinds[1:], "lost": lost})


class ChannelLists(Directory):
    """The tasks that list channels.

    A bot asks for the channels that it is a member of in each run. All channels are listed once a
    day, and when something needs them: a name in the config, `join_public`, or a channel that the
    bot has left.
    """

    def _notice(self, owner: Mapping[str, Any]) -> str | None:
        is_distributed = self.config.app_kind == "distributed"
        is_bot, calls = "bot_id" in owner, message_calls(is_distributed=is_distributed)
        try:
            found = survey.survey(self._ask, self.config, is_bot=is_bot)
        except (RateLimited, TransientError, PermanentError):
            return None  # the first run says what is wrong
        survey.require_known(found, self.config)
        return survey.notice(found, self.config, is_bot=is_bot, calls=calls)

    def _list_channels(self, ctx: Context) -> Task:
        before = ctx.state(FOLLOWED, Followed) or Followed()
        is_recent = before.listed_at is not None and ctx.now < before.listed_at + timedelta(
            hours=COMPLETE_LIST_HOURS
        )
        suffices = (
            is_recent
            and before.selection == channels.selection(self.config)
            and self._workspace(ctx).is_bot
            and not (self.config.join_public or ctx.run.complete)
        )
        return self.get_own_channels.task() if suffices else self.get_channel_list.task()

    @task(cost={"users.conversations": 1})
    def get_own_channels(
        self,
        ctx: Context,
        cursor: str = "",
        page: int = 0,
        restarts: int = 0,
        kinds: list[ChannelType] | None = None,
        lost: list[ChannelType] | None = None,
    ) -> TaskResult:
        """List a page of the channels that the bot is a member of; see `get_channel_list`.

        Args:
          ctx: The task's context.
          cursor: The cursor of the page. Default: the first page.
          page: The number of the page. Default: 0.
          restarts: The number of restarts so far. Default: 0.
          kinds: The kinds still to be listed one by one. Default: all kinds together.
          lost: The kinds that the token may not list. Default: none.
        """
        position = _Position(
            cursor=cursor, page=page, restarts=restarts, kinds=kinds, lost=lost or []
        )
        try:
            return self._list(ctx, "users.conversations", position)
        except PermanentError as error:
            ctx.log.info("cannot list the bot's own channels; listing all: %s", error)
            return TaskResult(tasks=[self.get_channel_list.task()])

    @task(cost={"conversations.list": 1})
    def get_channel_list(
        self,
        ctx: Context,
        cursor: str = "",
        page: int = 0,
        restarts: int = 0,
        kinds: list[ChannelType] | None = None,
        lost: list[ChannelType] | None = None,
    ) -> TaskResult:
        """List a page of all channels. The last page returns a task for each channel to keep.

        Names of all channels are known then. If the token has lost the scope of some kinds, each
        kind is listed alone, and the channels of the lost kinds say so.

        Args:
          ctx: The task's context.
          cursor: The cursor of the page. Default: the first page.
          page: The number of the page. Default: 0.
          restarts: The number of restarts so far. Default: 0.
          kinds: The kinds still to be listed one by one. Default: all kinds together.
          lost: The kinds that the token may not list. Default: none.
        """
        position = _Position(
            cursor=cursor, page=page, restarts=restarts, kinds=kinds, lost=lost or []
        )
        return self._list(ctx, "conversations.list", position)

    def _list(self, ctx: Context, method: str, at: _Position) -> TaskResult:
        again = self.get_own_channels if method == "users.conversations" else self.get_channel_list
        kinds = self.config.types if at.kinds is None else at.kinds[:1]
        types = ",".join(channels.TYPES[kind] for kind in kinds)
        size = PAGE_SIZES[min(ctx.task.attempt, len(PAGE_SIZES)) - 1]
        try:
            answer = self._call(ctx, method, types=types, cursor=at.cursor, limit=size)
        except InvalidCursor:
            return TaskResult(tasks=[again.task(restarts=one_more(at.restarts))])
        except MissingScope as error:
            next = at.without(self.config.types)
            if next is None or set(next.lost) == set(self.config.types):
                raise
            ctx.log.warning("cannot list channels of the types %s: %s", types, error)
            if next.kinds:
                return TaskResult(tasks=[again.task(**next.model_dump())])
            return self._chosen(ctx, method, [], next)
        items, known = answer.items("channels"), Names(ctx)
        # The partners of direct messages, whom the list of people may lack.
        partners = strangers.look_up(
            ctx, self._call, known, [{"user": one.get("user")} for one in items if one.get("is_im")]
        )
        people = [user_row(user) for user in partners.users]
        found = channels.refs(items, known)
        state = partners.state | names.changed(ctx, {ref.id: ref.name for ref in found})
        more = self._next_page(answer, at.cursor, at.page)
        if more or (at.kinds and at.kinds[1:]):
            state[f"channels/{at.page}"] = Refs(refs=found)
            return TaskResult(people, [again.task(**at.after(more).model_dump())], state)
        result = self._chosen(ctx, method, found, at)
        return TaskResult(
            [*people, *result.output], result.tasks, {**state, **result.state},
            skipped=result.skipped,
        )  # fmt: skip

    def _chosen(self, ctx: Context, method: str, found: list[Ref], at: _Position) -> TaskResult:
        """Return the result of the last page: a task for each readable channel to keep."""
        for number in range(at.page):
            found += self._page_of(ctx, number)
        before = ctx.state(FOLLOWED, Followed) or Followed()
        found, state = self._with_first_ids(ctx, found, before)
        listed = {ref.id: ref for ref in found}
        selected = channels.choose(listed.values(), self.config, before)
        wanted, absent = [listed[id] for id in listed if id in selected.ids], selected.absent
        is_complete = method == "conversations.list"
        if not is_complete:
            has_left = set(before.members) - set(listed) - set(before.of(at.lost))
            if has_left or (absent and self._is_due(ctx, before.listed_at)):
                return TaskResult(state=state, tasks=[self.get_channel_list.task()])
            absent &= set((ctx.state(ABSENT, Absent) or Absent()).names)
        output, changes = self._absent(ctx, absent)
        state |= changes
        output += [channels.without_scope(id) for id in before.of(at.lost)]
        now = before.after(wanted, self.config, lost=at.lost, is_complete=is_complete)
        vanished = list[str]()
        if is_complete:
            now = now.listed(ctx.now, selected, self.config)
            vanished = before.vanished(listed, self.config.types, at.lost)
            output += map(channels.vanished_row, vanished)
            left_out = self._left_out(ctx, listed, selected, now)
            output += map(TaskOutput.gone, left_out)
            state |= dict.fromkeys(map(partition, left_out))
        if now != before:
            state[FOLLOWED] = now
        asked = [ref for ref in wanted if self._may_ask(ctx, ref)]
        planned, bounds, changes = self._planned(ctx, [ref.id for ref in asked])
        state |= changes
        calls = message_calls(is_distributed=self._is_distributed(ctx))
        state |= noticed(ctx, self.config, self._workspace(ctx), asked, len(planned), calls)
        output += self._rows(ctx, wanted, asked, before)
        without = self._without_members(ctx, before.ids, asked)
        output += without.output
        state |= without.state
        tasks = [self._first_task(ctx, listed[id], bounds.fresh_within(id)) for id in planned]
        tasks += [*self._member_tasks(listed, planned), *self._last_tasks(ctx)]
        outside = now.named(self.config) - {ref.id for ref in asked}
        skipped = [
            *self._reasons(ctx, at, before, absent),
            *[Skipped(id, NOT_INVITED) for id in sorted(outside.difference(now.of(at.lost)))],
            *[Skipped(id, VANISHED) for id in vanished if id not in before.words.values()],
        ]
        return TaskResult(output, tasks, state, skipped=skipped)

    def _rows(
        self, ctx: Context, wanted: Sequence[Ref], asked: Sequence[Ref], before: Followed
    ) -> list[TaskOutput]:
        """Return the rows of channels that cannot be read, and of new ones.

        The row of a new channel shows it before its first messages, and if they cannot be read.
        """
        ids, known = {ref.id for ref in asked}, set(before.ids)
        is_bot = self._workspace(ctx).is_bot
        found = [ref.row("not_in_channel") for ref in wanted if ref.id not in ids]
        new = [ref for ref in asked if ref.id not in known and ref.is_readable(is_bot=is_bot)]
        return found + [ref.row(None) for ref in new]

    def _reasons(
        self, ctx: Context, at: _Position, before: Followed, absent: Collection[str]
    ) -> list[Skipped]:
        """Return the omissions of the run: missing channels, lost scopes, and a slow app."""
        found = [Skipped(channels.missing_id(name), NOT_FOUND) for name in sorted(absent)]
        for kind in at.lost:
            reason = f"the token lacks the scope {scopes.LISTS[kind]}"
            found += [Skipped(id, reason) for id in before.of([kind]) or [kind]]
        if self._is_distributed(ctx) and self.config.app_kind != "distributed":
            found.append(Skipped("app_kind", RESTRICTED_APP))
        return found

    def _planned(
        self, ctx: Context, ids: list[str]
    ) -> tuple[list[str], Looks, dict[str, BaseModel | None]]:
        """Return the channels to look at in this run, the bounds to show, and the state."""
        before = ctx.state(LOOKS, Looks) or Looks()
        is_asked = ctx.run.complete or ctx.run.trigger not in ROUTINE
        if is_asked or len(ids) > looks.MAX_PLANNED:
            return ids, before, {}
        most = self._capacity(ctx, before)
        if len(ids) <= most:
            return ids, Looks(), {}

        def newest(id: str) -> int:
            state = ctx.state(partition(id), ChannelState)
            return timestamps.order(state.newest_ts)[0] if state and state.newest_ts else 0

        now = looks.plan(ids, before, ctx.now, most, newest)
        is_long = ctx.run.trigger == "hint" and not self._is_repeated(ctx, before)
        long_at = int(ctx.now.timestamp()) if is_long else before.long_at
        now = now.model_copy(update={"long_at": long_at})
        return now.last, now, {LOOKS: now}

    def _capacity(self, ctx: Context, before: Looks) -> int:
        """Return the number of channels that this run can look at."""
        is_distributed = self._is_distributed(ctx)
        calls = message_calls(is_distributed=is_distributed)
        is_beside = ctx.run.trigger == "schedule" and self._receives_events(ctx)
        if is_beside or self._is_repeated(ctx, before):
            return looks.capacity_beside_events(before, ctx.now, calls)
        return looks.capacity(before, ctx.now, calls, is_distributed=is_distributed)

    def _is_repeated(self, ctx: Context, before: Looks) -> bool:
        """Return True for a run of hints soon after another one for the complete account."""
        is_recent = ctx.now.timestamp() < before.long_at + looks.LONG_SECONDS
        return ctx.run.trigger == "hint" and is_recent

    def _receives_events(self, ctx: Context) -> bool:
        """Return True if events name the channels to ask.

        A person reads public channels without joining them, and gets no events of those.
        """
        latest = ctx.state(EVENTS, Events)
        is_recent = latest is not None and ctx.now < latest.at + looks.EVENTS_LAST
        return is_recent and self._workspace(ctx).is_bot

    def _member_tasks(self, refs: Mapping[str, Ref], planned: Collection[str]) -> list[Task]:
        """Return the tasks that list the members of the planned private channels."""
        raise NotImplementedError

    def _without_members(
        self, ctx: Context, before: Collection[str], readable: Collection[Ref]
    ) -> TaskResult:
        """Return the deletions of members of channels that are not private and readable any more.

        Args:
          ctx: The task's context.
          before: The channels that were kept before.
          readable: The channels that are kept now, and can be read.
        """
        raise NotImplementedError

    def _last_tasks(self, ctx: Context) -> list[Task]:
        """Return the tasks of a run that do not belong to one channel."""
        raise NotImplementedError

    def _left_out(
        self, ctx: Context, listed: Mapping[str, Ref], selected: Selected, now: Followed
    ) -> list[str]:
        """Return the channels to delete because the config no longer selects them."""
        if self.config.deselected == "keep":
            return []
        return channels.deselected(self._kept(ctx), listed, selected.ids, now)

    def _kept(self, ctx: Context) -> list[str]:
        """Return the ids of the rows of channels."""
        rows = ctx.fingerprints(parent=channels.PARENT)
        return [id for id in rows if not id.startswith(channels.missing_id(""))]

    def _with_first_ids(
        self, ctx: Context, found: list[Ref], before: Followed
    ) -> tuple[list[Ref], dict[str, BaseModel | None]]:
        """Return the channels with the ids of their rows, and the state of changed ids."""
        workspace = self._workspace(ctx)
        moves = channels.moved(found, before, workspace.moved)
        refs = channels.with_first_ids(found, moves)
        if moves == workspace.moved:
            return refs, {}
        ctx.log.info("channels with a new id: %s", moves)
        return refs, {WORKSPACE: workspace.model_copy(update={"moved": moves})}

    def _page_of(self, ctx: Context, number: int) -> list[Ref]:
        page = ctx.state(f"channels/{number}", Refs)
        if page is None:
            raise TransientError(f"page {number} of the channel list is missing from the state")
        return page.refs

    def _absent(
        self, ctx: Context, absent: set[str]
    ) -> tuple[list[TaskOutput], dict[str, BaseModel | None]]:
        """Return rows for missing channels of the config, and delete rows of found ones."""
        before = ctx.state(ABSENT, Absent) or Absent()
        for name in sorted(absent):
            ctx.log.warning("channel %r does not exist, or the token cannot see it", name)
        output = [channels.missing_row(name) for name in sorted(absent)]
        output += [
            TaskOutput.gone(channels.missing_id(name))
            for name in before.names
            if name not in absent
        ]
        after = Absent(names=sorted(absent))
        return output, {} if after == before else {ABSENT: after}

    def _may_ask(self, ctx: Context, ref: Ref) -> bool:
        """Return True if the token can read the channel, or the bot joins it."""
        is_readable = ref.is_readable(is_bot=self._workspace(ctx).is_bot)
        return is_readable or (self.config.join_public and ref.may_be_joined)

    def _first_task(self, ctx: Context, ref: Ref, fresh_within: int | None = None) -> Task:
        """Return the first task of a channel: read it, or join it if the config says so."""
        if ref.is_readable(is_bot=self._workspace(ctx).is_bot):
            return self._channel_task(ref, fresh_within)
        return self.join_channel.task(channel=ref)

    @task(cost={"conversations.join": 1})
    def join_channel(self, ctx: Context, channel: Ref) -> TaskResult:
        """Let the bot join a public channel, and continue with the channel.

        Args:
          ctx: The task's context.
          channel: The channel.
        """
        try:
            self._call(ctx, "conversations.join", channel=channel.current or channel.id)
        except Unreadable as error:
            ctx.log.warning("cannot join %s: %s", channel.name, error)
            return TaskResult([channel.row(error.code)])
        except MissingScope as error:
            ctx.log.warning("cannot join %s: %s", channel.name, error)
            row, reason = channel.row("not_in_channel"), str(error)[:200]
            return TaskResult([row], skipped=[Skipped(channel.id, reason)])
        joined = channel.model_copy(update={"is_member": True})
        return TaskResult([joined.row(None)], [self._channel_task(joined)])
