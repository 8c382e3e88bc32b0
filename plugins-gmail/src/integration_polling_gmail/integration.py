"""The integration: one listing, then the history. Each message is fetched by a task of its own.

begin ── get_email_list (the first one in the background) ──> download_email
get_history ──> download_email, update_labels, get_labels
                get_email_list, if the config has a query
                begin or get_email_list, if the history has expired

A run of hints reads the history too. Such a run never sweeps, so it leaves to the next poll what
only a sweep can finish.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from core import (
    Concurrency,
    Context,
    Listing,
    Manifest,
    OAuth,
    Rate,
    Reader,
    StoredItem,
    Task,
    TaskOutput,
    TaskResult,
    TransientError,
    task,
)
from core.mail import Write
from integration_polling_gmail import tokens
from integration_polling_gmail.answers import is_over, message_id, next_page
from integration_polling_gmail.api import (
    GET_UNITS,
    HISTORY_UNITS,
    LABELS_UNITS,
    LIST_UNITS,
    PROFILE_UNITS,
    listed,
)
from integration_polling_gmail.changes import Change, read_changes
from integration_polling_gmail.comparison import COMPARING, Comparing
from integration_polling_gmail.errors import PROJECT, QUOTA, USER, BadRequest, Missing
from integration_polling_gmail.fingerprint import Fingerprint
from integration_polling_gmail.full import mail_of
from integration_polling_gmail.message import Envelope, Message, MessageReader
from integration_polling_gmail.push import GmailPush
from integration_polling_gmail.reread import READER_VERSION, reread
from integration_polling_gmail.scope import (
    HIDDEN,
    HISTORY,
    LABELS,
    History,
    in_scope,
    label_rows,
    may_be_in_scope,
    resolved,
)
from integration_polling_gmail.settings import GmailSettings

MAX_RESTARTS = 3
MAX_CHANGED_IDS = 1_000
"""The maximum number of ids that a history passes to a listing; the backfill fetches the rest."""

ASK_AGAIN_SECONDS = 150.0
"""The time until the second request for a message that Gmail has named and not found."""

EXPIRES_AGAIN = timedelta(hours=1)
"""A history that expires again within this time is not followed by another complete listing."""

LISTING_EVERY = timedelta(days=1)
"""The time between two listings of ids while the history expires again and again."""

LABELS_EVERY = timedelta(hours=1)
"""The time after which labels are listed although the history has no news."""

RELATIVE = re.compile(r"\b(?:older|newer)_than:", re.IGNORECASE)
"""Searches whose matches change without a change in the mailbox."""


def _units(units: int) -> Mapping[str, int]:
    return {QUOTA: units, PROJECT: units}


class Gmail(GmailPush):
    """The Gmail integration: it keeps messages by id, with their sources and attachments."""

    manifest = Manifest(
        "gmail",
        "Gmail",
        limits=[
            Rate(QUOTA, 6_000, 60),
            Rate(PROJECT, 1_200_000, 60, by="group"),
            Concurrency(USER, 8),
        ],
        oauth=OAuth(
            "{GOOGLE_AUTHORIZE_URL}",
            "{GOOGLE_TOKEN_URL}",
            [tokens.SCOPE],
            "GMAIL_CLIENT_ID",
            "GMAIL_CLIENT_SECRET",
            {"access_type": "offline", "prompt": "consent"},
            loopback=True,
        ),
        docs="docs/how-to/gmail.md",
        settings=GmailSettings,
        reader=Reader(READER_VERSION, ["message"], ["source"]),
    )

    def start(self, ctx: Context) -> TaskResult:
        """Read the history if there is a finished listing; otherwise list the mailbox.

        After a change of `since`, a listing follows the history. It fetches only what is not kept.
        """
        history = None if ctx.run.complete else ctx.state(HISTORY, History)
        watch = self.watching(ctx)
        if history is None or (history.is_listing and not _is_of_hints(ctx)):
            return TaskResult(tasks=[self.begin.task(run=ctx.run.id), *watch])
        if _is_of_hints(ctx):
            following = self.get_history.task(since=history.id, run=ctx.run.id)
            return TaskResult(tasks=[following, *watch])
        listing = history.since not in (None, self._since)
        following = self.get_history.task(since=history.id, listing=listing, run=ctx.run.id)
        comparison, state = self.comparison(ctx, history)
        return TaskResult(tasks=[following, *comparison, *watch], state=state)

    @property
    def _since(self) -> str:
        """The config's `since`, as the history keeps it."""
        return "" if self.config.since is None else self.config.since.isoformat()

    # The listing

    @task(cost=_units(PROFILE_UNITS + LABELS_UNITS))
    def begin(self, ctx: Context, run: str = "", expired: datetime | None = None) -> TaskResult:
        """Record the current history id, before the first page is listed.

        A message that arrives in between is in both, and is kept once.

        The first listing runs in the background. A later one stays in the live run. It marks items
        as deleted that this run has not seen since it began, and a background run may have begun
        much earlier.

        Args:
          ctx: The task's context.
          run: The id of the run that the task belongs to; a later run ignores the task. Default:
            any run.
          expired: The time at which the history expired. Default: it did not.
        """
        if _is_carried(ctx, run):
            return TaskResult()
        now = _history_id(self._asked(ctx, self.api.profile))
        found = self._asked(ctx, self.api.labels)
        rows = label_rows(found)
        again = bool(ctx.fingerprints(row.id for row in rows))
        # Without changes in between, two listings have the same history id.
        generation, moment = f"{now[-20:]}-{ctx.run.id[:8]}", datetime.now(UTC)
        history = History(
            id=now, generation=generation, labels=resolved(self.config, found), is_listing=again,
            since=self._since, expired=expired, listed=moment, labels_listed=moment,
        )  # fmt: skip
        listing = self.get_email_list.task(generation=generation, run=ctx.run.id if again else "")
        return TaskResult(
            rows,
            [replace(listing, background=not again)],
            {HISTORY: history, COMPARING: Comparing(at=moment)},
            listed=[Listing(LABELS)],
        )

    @task(cost=_units(LIST_UNITS))
    def get_email_list(
        self,
        ctx: Context,
        generation: str,
        page: str | None = None,
        label: int = 0,
        changed: tuple[str, ...] = (),
        restarts: int = 0,
        run: str = "",
        only: Literal["newest", "ids"] | None = None,
    ) -> TaskResult:
        """List a page of the mailbox; with labels in the config, the pages of each label in turn.

        Args:
          ctx: The task's context.
          generation: The generation of the listing.
          page: The token of the page. Default: the first page.
          label: The index of the label in the config. Default: 0.
          changed: Ids from the history that no page has listed so far. They are fetched in this
            run, others in the background. Ids that no page lists are marked deleted. Default: none.
          restarts: The number of restarts after Gmail rejected a page token. Default: 0.
          run: The id of the run that the task belongs to. A later run ignores the task and lists
            the mailbox again, because it cannot tell which items are missing. Default: any run.
          only: `newest` to end at the first page without unknown messages, and to mark nothing as
            deleted; `ids` to request no labels of kept messages. Default: neither.
        """
        history = ctx.state(HISTORY, History)
        if history is None or history.generation != generation or _is_carried(ctx, run):
            return TaskResult()  # a newer listing has begun
        labels = history.labels or (None,)
        try:
            answer = self._asked(ctx, lambda: self._page(labels[label], page))
        except BadRequest:
            if page is None or restarts >= MAX_RESTARTS:
                raise
            ctx.log.info("Gmail rejected the page token; restarting the listing")
            return TaskResult(
                tasks=[
                    self.get_email_list.task(generation, None, 0, changed, restarts + 1, run, only)
                ]
            )
        token = next_page(answer, page)
        ids = [message_id(entry) for entry in listed(answer, "messages")]
        known = ctx.fingerprints(ids)
        if only == "newest" and len(known) == len(set(ids)):
            token = None
        found = set(ids)
        missing = tuple(id for id in changed if id not in found)
        following: list[Task] = []
        if token is not None or label + 1 < len(labels):
            place = label if token is not None else label + 1
            following = [
                self.get_email_list.task(generation, token, place, missing, restarts, run, only)
            ]
        # Pages run before downloads, which take hours, because page tokens expire.
        following = [replace(task, priority=1) for task in following]
        now = frozenset(ids if only == "newest" else changed)
        tasks = [*following, *self._fetched(ctx, ids, known, history, now, only)]
        if following:
            return TaskResult(tasks=tasks, seen=ids)
        # After a listing in a run of hints, the next poll lists again.
        state = (
            {HISTORY: history.model_copy(update={"is_listing": False})}
            if history.is_listing and not _is_of_hints(ctx)
            else {}
        )
        if only == "newest":
            return TaskResult(tasks=tasks, state=state, seen=ids)
        # This run updated their labels, so a sweep would not delete them.
        gone = [TaskOutput.gone(id) for id in ctx.fingerprints(missing)]
        return TaskResult(gone, tasks, state, seen=ids, listed=[Listing()])

    def _fetched(
        self,
        ctx: Context,
        ids: list[str],
        known: Mapping[str, str | None],
        history: History,
        changed: frozenset[str],
        only: str | None,
    ) -> Iterator[Task]:
        """Yield the tasks for a page of a listing: downloads and updates of labels."""
        generation, is_background = history.generation, ctx.run.lane == "backfill"
        for id in ids:
            fingerprint = Fingerprint.read(known[id]) if id in known else None
            if fingerprint is None:
                background = not is_background and id not in changed
                yield replace(
                    self.download_email.task(id, generation),
                    key=f"{id}@{generation}",
                    background=background,
                )
            elif (
                only is None
                and (is_background or history.is_listing)
                and fingerprint.generation != generation
            ):
                yield replace(self.update_labels.task(id, generation), background=not is_background)

    # The history

    @task(cost=_units(HISTORY_UNITS))
    def get_history(
        self,
        ctx: Context,
        since: str,
        page: str | None = None,
        changed: tuple[str, ...] = (),
        listing: bool = False,
        run: str = "",
    ) -> TaskResult:
        """Read a page of the history. The last page moves the cursor.

        Args:
          ctx: The task's context.
          since: The history id of the cursor, the same for all pages.
          page: The token of the page. Default: the first page.
          changed: Ids from earlier pages, for a listing at the end. Default: none.
          listing: True if earlier pages, or a change of the config, require a listing. Default:
            False.
          run: The id of the run that the task belongs to. A later run ignores the task and starts
            at the first page, because pages must be applied in order. Default: any run.
        """
        history = ctx.state(HISTORY, History)
        if history is None or history.id != since or _is_carried(ctx, run):
            return TaskResult()  # another run has continued from there
        try:
            answer = self._asked(ctx, lambda: self.api.history(since, page))
        except Missing:
            return self._history_expired(ctx, history)
        changes = read_changes(listed(answer, "history"))
        output, tasks = self._applied(ctx, changes, history)
        moved_on: dict[str, Any] = {"id": _history_id(answer)}
        moment = datetime.now(UTC)
        if changes or moved_on["id"] != since or is_over(history.labels_listed, LABELS_EVERY):
            tasks.append(self.get_labels.task())
            # A run of hints deletes neither labels nor messages that are too old.
            moved_on |= {} if _is_of_hints(ctx) else {"labels_listed": moment}
        moved_on |= {} if _is_of_hints(ctx) else {"since": self._since}
        if self.config.query:
            moved = [id for id, change in changes.items() if not change.is_deleted]
            changed = (*changed, *moved)[:MAX_CHANGED_IDS]
            listing = listing or bool(moved)
        if (token := next_page(answer, page)) is not None:
            following = self.get_history.task(since, token, changed, listing, run)
            return TaskResult(output, [following, *tasks])
        if listing or RELATIVE.search(self.config.query):
            tasks.append(self._listing_again(history.generation, _history_id(answer), changed))
        return TaskResult(output, tasks, {HISTORY: history.model_copy(update=moved_on)})

    def _history_expired(self, ctx: Context, history: History) -> TaskResult:
        """Continue without the history since the cursor, which Gmail no longer has.

        If the mailbox has not changed, nothing is missing. Otherwise this run lists the mailbox
        again. If the history expires again and again, it does not request the labels of kept
        messages each time. The newest pages show new mail. A listing of all ids, once a day, shows
        deletions.
        """
        ctx.charge(QUOTA, PROFILE_UNITS)
        now = _history_id(self._asked(ctx, self.api.profile))
        if now == history.id:
            return TaskResult()
        moment = datetime.now(UTC)
        if _is_of_hints(ctx):
            # The newest pages show new mail. The next poll lists all.
            moved: dict[str, Any] = {"id": now, "is_listing": True}
            return self._listing_after(ctx, history, moved, "newest")
        if is_over(history.expired, EXPIRES_AGAIN):
            ctx.log.info("Gmail no longer has the history since the last sync; listing again")
            return TaskResult(tasks=[self.begin.task(run=ctx.run.id, expired=moment)])
        is_complete = is_over(history.listed, LISTING_EVERY)
        # A run that does not reach the last page is followed by a complete listing.
        moved = {"id": now, "expired": moment, "is_listing": True}
        if is_complete:
            moved["listed"] = moment
        return self._listing_after(ctx, history, moved, "ids" if is_complete else "newest")

    def _listing_after(
        self,
        ctx: Context,
        history: History,
        moved: Mapping[str, Any],
        only: Literal["newest", "ids"],
    ) -> TaskResult:
        """List ids after an expired history, and move the cursor."""
        listing = self.get_email_list.task(generation=history.generation, run=ctx.run.id, only=only)
        listing = replace(listing, key=f"listing@{moved['id']}")
        return TaskResult(tasks=[listing], state={HISTORY: history.model_copy(update=moved)})

    def _listing_again(self, generation: str, now: str, changed: tuple[str, ...]) -> Task:
        """Return a task that repeats the search, at 5 units for 500 matches.

        The history does not support searches.
        """
        return replace(
            self.get_email_list.task(generation=generation, changed=changed), key=f"listing@{now}"
        )

    def _applied(
        self, ctx: Context, changes: Mapping[str, Change], history: History
    ) -> tuple[list[TaskOutput], list[Task]]:
        known = ctx.fingerprints(changes)
        output: list[TaskOutput] = []
        tasks: list[Task] = []
        for id, change in changes.items():
            if change.is_deleted:
                # This includes messages that are not kept: a download may be in progress.
                output.append(TaskOutput.gone(id))
            elif id not in known:
                if not self.config.query and may_be_in_scope(self.config, history, change):
                    download = self.download_email.task(id, history.generation)
                    tasks.append(replace(download, key=f"{id}@{change.last}"))
                elif any(is_added and label in HIDDEN for is_added, label in change.steps):
                    # A download in progress may have seen the labels before this change.
                    output.append(TaskOutput.gone(id))
            elif change.steps:
                self._relabelled(id, change, Fingerprint.read(known[id]), history, output, tasks)
        return output, tasks

    def _relabelled(
        self,
        id: str,
        change: Change,
        fingerprint: Fingerprint | None,
        history: History,
        output: list[TaskOutput],
        tasks: list[Task],
    ) -> None:
        """Update the labels of a kept message, from its fingerprint or from Gmail.

        A fingerprint of another generation is not current.
        """
        if fingerprint is None or fingerprint.generation != history.generation:
            asked = self.update_labels.task(id, history.generation)
            tasks.append(replace(asked, key=f"labels of {id}@{change.last}"))
            return
        labels = change.applied(set(fingerprint.labels))
        if not in_scope(self.config, history, labels):
            output.append(TaskOutput.gone(id))
        elif labels != set(fingerprint.labels):
            output.append(_update(id, fingerprint.with_labels(labels)))

    # Messages

    @task(cost=_units(GET_UNITS), time_limit=900)
    def download_email(
        self, ctx: Context, id: str, generation: str, again: bool = False
    ) -> TaskResult:
        """Fetch a message with its source and attachments, in one call.

        Args:
          ctx: The task's context.
          id: The message's id.
          generation: The generation of the listing that returned the task.
          again: True if Gmail did not find the message minutes ago. Default: False.
        """
        history = ctx.state(HISTORY, History)
        if history is None or (self.config.query and history.generation != generation):
            return TaskResult()  # a newer listing decides
        if ctx.run.lane == "backfill" and self._is_kept(ctx, id, history.generation):
            return TaskResult(seen=[id])
        reader = MessageReader(ctx, self.config, id)
        try:
            with reader:
                resource = self._asked(ctx, lambda: self.api.raw(id, reader.write))
                reader.finish()
        except Missing:
            return self._not_found(id, self.download_email.task(id, generation, again=True), again)
        if (now := ctx.state(HISTORY, History)) is None or now.generation != history.generation:
            # A newer listing began during the download. It would treat this older result as newer
            # than itself.
            return TaskResult()
        message = reader.message(Envelope.of_resource(resource))
        if message.has_no_source:
            message = self._from_payload(ctx, id)
        if not self._is_wanted(history, message):
            return TaskResult([TaskOutput.gone(id)])
        fingerprint = Fingerprint(history.generation, self.config.policy, tuple(message.labels))
        return TaskResult(self._rows(ctx, message, fingerprint))

    def _not_found(self, id: str, task: Task, again: bool) -> TaskResult:
        """Ask once more, minutes later, before a message is gone: something has just named it."""
        if again:
            return TaskResult([TaskOutput.gone(id)])
        key = f"{task.type} again: {id}"
        return TaskResult(tasks=[replace(task, key=key, delay=ASK_AGAIN_SECONDS)], seen=[id])

    def _from_payload(self, ctx: Context, id: str) -> Message:
        """Read a message without a source, such as a chat, from Gmail's own description of it."""
        ctx.charge(QUOTA, GET_UNITS)
        resource = self._asked(ctx, lambda: self.api.full(id))

        def fetch(attachment: str, write: Write) -> None:
            ctx.charge(QUOTA, GET_UNITS)
            self._asked(ctx, lambda: self.api.attachment(id, attachment, write))

        payload = resource.get("payload")
        reader = MessageReader(ctx, self.config, id, keeps_source=False)
        with reader:
            for piece in mail_of(payload if isinstance(payload, dict) else {}, fetch):
                reader.write(piece)
            reader.finish()
        return reader.message(Envelope.of_resource(resource))

    def _is_kept(self, ctx: Context, id: str, generation: str) -> bool:
        """Return True if a live run has already fetched the message."""
        fingerprint = Fingerprint.read(ctx.fingerprints([id]).get(id))
        return fingerprint is not None and fingerprint.generation == generation

    def _is_wanted(self, history: History, message: Message) -> bool:
        when = message.envelope.accepted
        if self.config.since is not None and when is not None and when.date() < self.config.since:
            return False
        return in_scope(self.config, history, set(message.labels))

    def _rows(self, ctx: Context, message: Message, fingerprint: Fingerprint) -> list[TaskOutput]:
        rows = list(message.outputs(fingerprint))
        if self.config.attachments != "none":
            return rows
        ids = [captured.attachment.external_id(message.id) for captured in message.attachments]
        dropped = [TaskOutput.gone(id) for id in ctx.fingerprints(ids)]
        return [*(row for row in rows if row.kind != "attachment"), *dropped]

    def reread(self, item: StoredItem) -> TaskResult:
        """Read a kept message again from its source; see `reread.reread`."""
        return reread(item, self.config)

    @task
    def download_attachment(
        self, ctx: Context, message: str, attachment: dict[str, Any], internal_date: str = ""
    ) -> TaskResult:
        """Return nothing: earlier versions fetched large attachments in tasks of their own.

        Their tasks may still be open. The reread after the upgrade takes the attachment from the
        kept source.
        """
        return TaskResult()

    @task(cost=_units(GET_UNITS))
    def update_labels(
        self, ctx: Context, id: str, generation: str, again: bool = False
    ) -> TaskResult:
        """Fetch only the labels of a message that was kept in another generation.

        Args:
          ctx: The task's context.
          id: The message's id.
          generation: The generation of the listing that returned the task.
          again: True if Gmail did not find the message minutes ago. Default: False.
        """
        history = ctx.state(HISTORY, History)
        if history is None or history.generation != generation:
            return TaskResult()  # a newer listing requests the labels again
        try:
            labels = set(self._asked(ctx, lambda: self.api.label_ids(id)))
        except Missing:
            return self._not_found(id, self.update_labels.task(id, generation, again=True), again)
        if not in_scope(self.config, history, labels):
            return TaskResult([TaskOutput.gone(id)])
        fingerprint = Fingerprint.read(ctx.fingerprints([id]).get(id))
        if fingerprint is None or set(fingerprint.labels) == labels:
            return TaskResult(seen=[id])
        return TaskResult([_update(id, fingerprint.with_labels(labels, generation))])

    @task(cost=_units(LABELS_UNITS))
    def get_labels(self, ctx: Context) -> TaskResult:
        """Keep the names of all labels: created, renamed and deleted ones."""
        return TaskResult(label_rows(self._asked(ctx, self.api.labels)), listed=[Listing(LABELS)])


def _is_carried(ctx: Context, run: str) -> bool:
    """Return True if a later run continues a task of another run."""
    return bool(run) and run != ctx.run.id


def _is_of_hints(ctx: Context) -> bool:
    """Return True in a live run of hints, which never sweeps."""
    return ctx.run.trigger == "hint" and ctx.run.lane == "live"


def _history_id(answer: Mapping[str, Any]) -> str:
    id = str(answer.get("historyId", ""))
    if not re.fullmatch(r"[0-9]{1,1000}", id):
        raise TransientError("unexpected response from Gmail: no valid historyId")
    return id


def _update(id: str, fingerprint: Fingerprint) -> TaskOutput:
    return TaskOutput.update(
        id, metadata={LABELS: [*fingerprint.labels]}, fingerprint=fingerprint.text
    )
