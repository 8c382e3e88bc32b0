"""The comparison of Gmail's messages and labels with the kept ones.

compare (each page of ids) ──> download_email, compare_labels ──> compare_label ──> update_labels

The history says what has changed, and a comparison shows whether all of it has arrived here. It
runs in the background, every six hours, with at most 2 % of the user's quota.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic import AwareDatetime, BaseModel

from core import COMPARISON, Comparison, Context, Listing, Task, TaskResult, task
from integration_polling_gmail.answers import is_over, message_id, next_page
from integration_polling_gmail.api import LABELS_UNITS, LIST_UNITS, listed
from integration_polling_gmail.errors import PROJECT, QUOTA, BadRequest
from integration_polling_gmail.fingerprint import Fingerprint
from integration_polling_gmail.scope import HIDDEN, HISTORY, History
from integration_polling_gmail.session import GmailSession

COMPARE_EVERY = timedelta(hours=6)

UNITS_PER_SECOND = 2.0
"""2 % of the user's quota of 6,000 units a minute."""

COMPARING = "comparing"
"""The state partition with the beginning of the latest comparison."""

MAX_RESTARTS = 3
MAX_MISSING = 500
"""The maximum number of missing ids that a comparison remembers."""

MAX_LABELS = 500
"""The maximum number of labels that are compared."""

LABELS_AT_ONCE = 20
MAX_LABEL_IDS = 100_000
"""The maximum number of messages of a label that are compared by id, in one task."""


class Comparing(BaseModel):
    """The beginning of the latest comparison."""

    at: AwareDatetime


class Compared(Comparison):
    """The latest complete comparison.

    Attributes:
      missing: Ids that Gmail listed and that were not kept. They were requested once; the next
        comparison does not request them again, because they are parked, or out of scope.
      explained: Differences of label counts that no message explains: Gmail also counts spam and
        trash.
    """

    missing: tuple[str, ...] = ()
    explained: dict[str, int] = {}


class GmailComparison(GmailSession):
    """The part of the integration that compares."""

    def comparison(self, ctx: Context, history: History) -> tuple[list[Task], dict[str, Any]]:
        """Return the first task of a comparison and its state, if one is due."""
        begun = ctx.state(COMPARING, Comparing)
        if begun is not None and not is_over(begun.at, COMPARE_EVERY):
            return [], {}
        first = self.compare.task(history.generation)
        moment = Comparing(at=datetime.now(UTC))
        return [replace(first, background=True)], {COMPARING: moment}

    @task(cost={QUOTA: LIST_UNITS, PROJECT: LIST_UNITS})
    def compare(
        self,
        ctx: Context,
        generation: str,
        page: str | None = None,
        label: int = 0,
        at_source: int = 0,
        kept: int = 0,
        missing: tuple[str, ...] = (),
        counts: dict[str, int] | None = None,
        restarts: int = 0,
    ) -> TaskResult:
        """Compare a page of ids with the kept messages, and fetch those that are missing.

        The last page marks kept messages as deleted that Gmail no longer lists. The delete guard
        bounds it.

        Args:
          ctx: The task's context.
          generation: The generation of the listing under which messages are kept.
          page: The token of the page. Default: the first page.
          label: The index of the label in the config. Default: 0.
          at_source: The number of messages on earlier pages. Default: 0.
          kept: The number of these that are kept. Default: 0.
          missing: Ids of these that are not kept, at most 500. Default: none.
          counts: The number of kept messages by label. Default: none.
          restarts: The number of restarts after Gmail rejected a page token. Default: 0.
        """
        history = ctx.state(HISTORY, History)
        if history is None or history.generation != generation or history.is_listing:
            return TaskResult()  # a listing compares, too
        labels = history.labels or (None,)
        try:
            answer = self._asked(ctx, lambda: self._page(labels[label], page))
        except BadRequest:
            if page is None or restarts >= MAX_RESTARTS:
                raise
            return TaskResult(tasks=[self.compare.task(generation, restarts=restarts + 1)])
        token = next_page(answer, page)
        ids = list(dict.fromkeys(message_id(entry) for entry in listed(answer, "messages")))
        known = ctx.fingerprints(ids)
        # A message with several labels of the config is counted with the first of them.
        before = frozenset(history.labels[:label])
        prints = {id: Fingerprint.read(text) for id, text in known.items()}
        counted = [id for id in ids if not before & _labels(prints.get(id))]
        found = Counter(counts or {})
        for id in counted:
            found.update(_labels(prints.get(id)))
        absent = [id for id in counted if id not in known]
        earlier = ctx.state(COMPARISON, Compared)
        requested = frozenset(earlier.missing if earlier is not None else ())
        tasks = [
            Task("download_email", {"id": id, "generation": generation}, key=f"{id}@{generation}")
            for id in absent
            if id not in requested
        ]
        at_source, kept = at_source + len(counted), kept + len(counted) - len(absent)
        missing = (*missing, *absent)[:MAX_MISSING]
        place = label if token is not None else label + 1
        if place < len(labels):
            following = self.compare.task(
                generation, token, place, at_source, kept, missing, dict(found), restarts
            )
            return TaskResult(tasks=[_paced(following, LIST_UNITS), *tasks], seen=ids)
        explained = earlier.explained if earlier is not None else {}
        compared = Compared(
            at_source=at_source, kept=kept, at=datetime.now(UTC), missing=missing,
            explained=explained,
        )  # fmt: skip
        if not history.labels and not self.config.search and len(found) <= MAX_LABELS:
            tasks.append(_paced(self.compare_labels.task(generation, dict(found)), LIST_UNITS))
        return TaskResult(tasks=tasks, state={COMPARISON: compared}, seen=ids, listed=[Listing()])

    @task(cost={QUOTA: LABELS_UNITS * LABELS_AT_ONCE, PROJECT: LABELS_UNITS * LABELS_AT_ONCE})
    def compare_labels(
        self, ctx: Context, generation: str, counts: dict[str, int], at: int = 0
    ) -> TaskResult:
        """Compare Gmail's number of messages of each label with the kept ones.

        Args:
          ctx: The task's context.
          generation: The generation under which the messages are kept.
          counts: The number of kept messages by label.
          at: The number of labels that are already compared. Default: 0.
        """
        compared = ctx.state(COMPARISON, Compared)
        all_labels = sorted(str(each.get("id")) for each in self._asked(ctx, self.api.labels))
        portion = [id for id in all_labels[at : at + LABELS_AT_ONCE] if id not in HIDDEN]
        tasks = []
        for id in portion:
            total = self._asked(ctx, partial(self.api.label_total, id))
            differs = None if total is None else total - counts.get(id, 0)
            known = (compared.explained if compared is not None else {}).get(id, 0)
            if differs is not None and differs != known:
                tasks.append(self.compare_label.task(generation, id, differs))
        if at + LABELS_AT_ONCE < min(len(all_labels), MAX_LABELS):
            following = self.compare_labels.task(generation, counts, at + LABELS_AT_ONCE)
            tasks.append(_paced(following, LABELS_AT_ONCE))
        return TaskResult(tasks=tasks)

    @task(cost={QUOTA: LIST_UNITS, PROJECT: LIST_UNITS}, time_limit=900)
    def compare_label(self, ctx: Context, generation: str, label: str, differs: int) -> TaskResult:
        """Find the messages that have a label in Gmail or here, and not in both.

        Args:
          ctx: The task's context.
          generation: The generation under which the messages are kept.
          label: The id of the label.
          differs: Gmail's number less the number here. If no message differs, it is remembered,
            and the next comparison expects it.
        """
        there: set[str] = set()
        for ids in self._pages(ctx, label):
            there.update(ids)
            if len(there) > MAX_LABEL_IDS:
                ctx.log.info("a label has too many messages to compare them by id")
                return TaskResult()
        tasks = [
            replace(
                Task("update_labels", {"id": id, "generation": generation}),
                key=f"labels of {id}@{ctx.task.id}",
            )
            for ids in self._pages(ctx, None)
            for id, text in ctx.fingerprints(ids).items()
            if (label in _labels(Fingerprint.read(text))) != (id in there)
        ]
        compared = ctx.state(COMPARISON, Compared)
        if tasks or compared is None:
            return TaskResult(tasks=tasks)
        explained = compared.explained | {label: differs}
        return TaskResult(state={COMPARISON: compared.model_copy(update={"explained": explained})})

    def _pages(self, ctx: Context, label: str | None) -> Iterator[list[str]]:
        """Yield the ids of all pages of a label, or of the mailbox."""
        page: str | None = None
        while True:
            answer = self._asked(ctx, partial(self._page, label, page))
            ctx.charge(QUOTA, LIST_UNITS)
            yield [message_id(entry) for entry in listed(answer, "messages")]
            if (page := next_page(answer, page)) is None:
                return

    def _page(self, label: str | None, page: str | None) -> dict[str, Any]:
        spam_trash = self.config.include_spam_trash or label in HIDDEN
        return self.api.messages(
            q=self.config.search, label=label, spam_trash=spam_trash, page=page
        )


def _labels(fingerprint: Fingerprint | None) -> frozenset[str]:
    return frozenset(fingerprint.labels if fingerprint is not None else ())


def _paced(task: Task, units: int) -> Task:
    """Return the task with a delay that keeps the comparison within its share of the quota."""
    return replace(task, delay=units / UNITS_PER_SECOND)
