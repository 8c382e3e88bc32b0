"""Pages of messages: their rows, and the threads that have changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from core import Context, Task
from integration_polling_slack import messages, timestamps
from integration_polling_slack.account import RESTRICTED_PAGE
from integration_polling_slack.attachments import Kept
from integration_polling_slack.channels import Restricted
from integration_polling_slack.directory import RESTRICTED
from integration_polling_slack.messages import Message, Version
from integration_polling_slack.owed import UNKNOWN, owed_versions, with_threads
from integration_polling_slack.threads import Threads, settled_own
from integration_polling_slack.walking import ChannelState, Page, Walk


class Pages(Threads):
    """The part of the integration that keeps pages of messages."""

    def _lookback_from(self, ctx: Context) -> str:
        """Return the exclusive lower bound of a lookback of this run."""
        if ctx.run.complete:
            return self.config.oldest
        midnight = ctx.now.replace(hour=0, minute=0, second=0, microsecond=0)
        recent = timestamps.before(midnight - timedelta(days=self.config.lookback_days))
        return timestamps.newest([recent, self.config.oldest])

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
        size = self.config.page(ctx.task.attempt)
        answer = self._call(
            ctx, "conversations.history", channel=self._current(ctx, channel), oldest=walk.oldest,
            latest=walk.upper, cursor=walk.cursor, limit=size,
        )  # fmt: skip
        found = [one for one in answer.items("messages") if messages.is_message(one)]
        has_more, is_limited = (
            answer.data.get(name) is True for name in ("has_more", "is_limited")
        )
        has_more = has_more or bool(answer.cursor)
        after = walk.within(ctx.run.id).after(
            [one["ts"] for one in found], answer.cursor, has_more=has_more, is_limited=is_limited
        )
        is_restricted = has_more and len(answer.items("messages")) == RESTRICTED_PAGE < size
        return Page(walk, after, has_more, found, is_restricted)

    def _keep(
        self, ctx: Context, channel: str, page: Page, *, rereads: Collection[str] = ()
    ) -> Kept:
        """Return rows for new and changed messages, and tasks for changed threads.

        A walk through the complete history takes every message as new. So after a resync, names and
        files are current.

        Args:
          ctx: The task's context.
          channel: The channel's id.
          page: The page.
          rereads: The first messages of the threads to read again although they have not changed.
        """
        kept, changed = Kept(), list[Message]()
        known = ctx.fingerprints([f"{channel}:{one['ts']}" for one in page.messages])
        whole, threads = page.walk.is_whole, dict[str, Task]()
        # The lookback requests these threads again, and not for ever.
        waiting = owed_versions(ctx, channel) if page.walk.mode == "reconcile" else {}
        versions = {one["ts"]: messages.own_version(one) for one in page.messages}
        same = {
            ts
            for ts, own in versions.items()
            if not whole and own == Version.parse(known.get(f"{channel}:{ts}")).own
        }
        place = self._place(ctx, channel, kept, [m for m in page.messages if m["ts"] not in same])
        edited = {
            ts
            for ts, own in versions.items()
            if Version.parse(known.get(f"{channel}:{ts}")).is_other(own)
        }
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
                    kept.threads.setdefault(root, UNKNOWN)
                continue
            if is_same:
                kept.seen.append(id)
            else:
                changed.append(one)
                own = settled_own(one, own, kept)
                kept.output.append(messages.row(one, place, str(replace(before, own=own))))
            thread = messages.thread_version(one)
            again = bool(before.thread) and (whole or ctx.run.complete)
            if waiting.get(ts) == thread:
                continue
            if again or messages.thread_changed(before.thread, thread):
                threads[ts] = self._thread_task(
                    channel, ts, "" if again else before.thread, thread, whole=whole
                )
                kept.threads[ts] = thread
            elif ts in rereads:
                threads[ts] = self._thread_task(channel, ts, "", thread, whole=False)
        kept.tasks += threads.values()
        if page.is_restricted:
            kept.state[RESTRICTED] = Restricted(noticed_at=ctx.now)
        kept.state |= with_threads(ctx, channel, kept.threads)
        self._add_files(ctx, kept, place, changed, edited)
        return kept
