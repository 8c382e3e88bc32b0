"""Tasks that run after their purpose is gone."""

from __future__ import annotations

from typing import Literal

from integration_polling_gmail import Gmail
from support.gmail import FakeGmail, mail
from support.gmail.mailbox import FIRST_HISTORY_ID
from syncing import Costs, connect, synced

from core import RunInfo, TaskResult
from core.testing import Harness
from core.testing.context import HarnessContext


def late(
    harness: Harness, lane: Literal["live", "backfill"] = "live"
) -> tuple[Gmail, HarnessContext]:
    """Return an instance, and the context of a continued task of an earlier run."""
    context = harness.context()
    context.run = RunInfo("an earlier run", "retry", lane)
    return Gmail(harness.config, harness.credentials), context  # type: ignore[arg-type]


def is_nothing(result: TaskResult) -> bool:
    return not (list(result.output) or list(result.tasks) or result.state or result.listed)


def test_a_late_history_page_is_ignored(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    costs()
    instance, context = late(harness)
    assert is_nothing(
        instance.get_history(context, since=str(FIRST_HISTORY_ID), page="an old token")
    )
    assert costs() == {}
    instance.close()


def test_a_late_page_of_an_older_listing_is_ignored(gmail: FakeGmail, costs: Costs) -> None:
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    costs()
    instance, context = late(harness, "backfill")
    assert is_nothing(instance.get_email_list(context, generation="1", page="an old token"))
    assert costs() == {}
    instance.close()


def test_a_message_that_a_live_run_has_fetched_is_not_fetched_again(
    gmail: FakeGmail, costs: Costs
) -> None:
    id = gmail.mailbox.add(mail())
    harness = connect(gmail)
    synced(harness)
    costs()
    instance, context = late(harness, "backfill")
    generation = harness.state["history"]["generation"]  # type: ignore[index,call-overload]
    assert is_nothing(instance.download_email(context, id, str(generation)))
    assert costs() == {}
    new = gmail.mailbox.add(mail())
    assert not is_nothing(instance.download_email(context, new, str(generation)))
    instance.close()


def test_a_message_of_an_older_search_is_ignored(gmail: FakeGmail, costs: Costs) -> None:
    id = gmail.mailbox.add(mail("Letter"))
    gmail.mailbox.add(mail("Invoice"))
    harness = connect(gmail, query="subject:invoice")
    synced(harness)
    costs()
    instance, context = late(harness, "backfill")
    assert is_nothing(instance.download_email(context, id, "of an older search"))
    del harness.state["history"]
    assert is_nothing(instance.download_email(context, id, "of an older search"))
    assert costs() == {}
    instance.close()


def test_history_pages_continued_by_a_later_run_are_ignored(gmail: FakeGmail, costs: Costs) -> None:
    """A later run starts at the first page again.

    The second page, applied before it, would be overwritten with the labels of the first.
    """
    id, gmail.page_size = gmail.mailbox.fill(1)[0], 1
    harness = connect(gmail)
    synced(harness)
    gmail.mailbox.label(id, add=["STARRED"])
    gmail.mailbox.label(id, remove=["STARRED"])
    instance, context = late(harness)
    [first] = instance.start(context).tasks
    [second] = (
        each for each in instance.run_task(first, context).tasks if each.type == "get_history"
    )
    context.run = RunInfo("a later run", "schedule", "live")
    costs()
    assert is_nothing(instance.run_task(second, context))
    assert is_nothing(instance.run_task(first, context))
    assert costs() == {}
    instance.close()


def test_the_start_of_a_listing_continued_by_a_later_run_is_ignored(
    gmail: FakeGmail, costs: Costs
) -> None:
    instance, context = late(connect(gmail))
    [begin] = instance.start(context).tasks
    context.run = RunInfo("a later run", "schedule", "live")
    assert is_nothing(instance.run_task(begin, context))
    assert costs() == {}
    instance.close()


def test_trash_in_the_history_deletes_a_message_that_is_still_downloading(gmail: FakeGmail) -> None:
    """A download that saw the message in the inbox may be in progress, and must not restore it."""
    gmail.mailbox.fill(3)
    harness = connect(gmail)
    synced(harness)
    id = gmail.mailbox.add(mail())
    instance, context = late(harness)
    [first] = instance.start(context).tasks
    slow = context
    assert not is_nothing(
        instance.download_email(slow, id, str(harness.state["history"]["generation"]))
    )
    gmail.mailbox.trash(id)
    gmail.mailbox.records = gmail.mailbox.records[-2:]
    assert [(row.id, row.code) for row in instance.run_task(first, context).output] == [(id, 410)]
    instance.close()
