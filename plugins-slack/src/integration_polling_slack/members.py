"""The members of private channels, so that a product can show a channel to its members only.

A channel has one row with all of its members, or none: membership is complete or absent. The time
at which it was true is in the state, so that a run that finds the same members changes no row.

Source: https://docs.slack.dev/reference/methods/conversations.members
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from pydantic import BaseModel, JsonValue

from core import Context, PermanentError, Task, TaskOutput, TaskResult, task
from integration_polling_slack.account import PAGE_SIZES
from integration_polling_slack.channels import Ref
from integration_polling_slack.errors import InvalidCursor, Unreadable
from integration_polling_slack.listing import ChannelLists
from integration_polling_slack.names import is_id

LIMIT = "conversations.members"
MAX_PAGES = 50
"""The maximum number of pages of one channel; 49,950 members fit into a row."""


def members_id(channel: str) -> str:
    """Return the id of the row with a channel's members."""
    return f"{channel}:members"


class Membership(BaseModel):
    """The state of the members of a channel: the time at which the row was true."""

    as_of: datetime


def partition(channel: str) -> str:
    """Return the partition of the state."""
    return f"members/{channel}"


class Members(ChannelLists):
    """The part of the integration that keeps the members of private channels."""

    def _member_tasks(self, refs: Mapping[str, Ref], planned: Collection[str]) -> list[Task]:
        return [
            self.get_members.task(channel=ref.id, current=ref.current or ref.id)
            for ref in map(refs.__getitem__, planned)
            if ref.type == "private"
        ]

    def _without_members(
        self, ctx: Context, before: Collection[str], readable: Collection[Ref]
    ) -> TaskResult:
        present = {ref.id for ref in readable if ref.type == "private"}
        others = {members_id(id): id for id in {*before, *(ref.id for ref in readable)} - present}
        kept = sorted(ctx.fingerprints(sorted(others)))
        state = {partition(others[id]): None for id in kept}
        return TaskResult([TaskOutput.gone(id) for id in kept], state=state)

    @task(cost={LIMIT: 1})
    def get_members(self, ctx: Context, channel: str, current: str) -> TaskResult:
        """Fetch the members of a private channel. If they cannot be fetched, their row goes.

        All pages belong to one task, so that the list is complete.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          current: Slack's present id of the channel.
        """
        id, now = members_id(channel), ctx.now
        try:
            members = self._all_members(ctx, current)
        except (Unreadable, PermanentError) as error:
            ctx.log.info("cannot list the members of %s: %s", channel, error)
            if not ctx.fingerprints([id]):
                return TaskResult()
            return TaskResult([TaskOutput.gone(id)], state={partition(channel): None})
        metadata: dict[str, JsonValue] = {"channel": channel, "members": list(members)}
        row = TaskOutput(id, kind="members", parent=channel, metadata=metadata)
        return TaskResult([row], state={partition(channel): Membership(as_of=now)})

    def _all_members(self, ctx: Context, channel: str) -> list[str]:
        """Return the ids of all members, sorted.

        Raises:
          PermanentError: There are too many, or Slack repeats its pages.
        """
        found, cursor = set[str](), ""
        size = PAGE_SIZES[min(ctx.task.attempt, len(PAGE_SIZES)) - 1]
        for page in range(MAX_PAGES):
            if page:
                ctx.charge(LIMIT)
            answer = self._call(ctx, LIMIT, channel=channel, cursor=cursor, limit=size)
            members = answer.data.get("members")
            if not isinstance(members, list):
                raise PermanentError("conversations.members: unexpected response")
            found |= {one for one in members if is_id(one)}
            if not answer.cursor:
                return sorted(found)
            if answer.cursor == cursor:
                raise InvalidCursor("conversations.members: Slack repeats its pages")
            cursor = answer.cursor
        raise PermanentError("conversations.members: too many members for a row")
