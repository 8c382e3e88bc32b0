"""The config decides which mail is kept."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from support.gmail import FakeGmail, mail
from syncing import Costs, connect, messages, synced

from core import ConfigurationError


def test_a_query_decides_what_is_kept(gmail: FakeGmail, costs: Costs) -> None:
    wanted = gmail.mailbox.add(mail("Invoice 1"))
    gmail.mailbox.fill(5)
    harness = connect(gmail, query="subject:invoice")
    synced(harness)
    assert set(messages(harness)) == {wanted}
    costs()
    synced(harness)
    assert costs() == {"history": 1}, "without changes, the search is not repeated"
    also = gmail.mailbox.add(mail("Invoice 2"))
    gmail.mailbox.add(mail("Something else"))
    result = synced(harness)
    assert costs() == {"history": 1, "labels": 1, "messages": 1, "message": 1}, (
        "5 units for a search, 20 for the message"
    )
    assert set(messages(harness)) == {wanted, also}
    assert {run.lane for run in result.runs} == {"live"}, "new mail must not wait for a backfill"


def test_a_message_that_the_query_no_longer_matches_is_marked_deleted(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(5)
    harness = connect(gmail, query="is:unread")
    synced(harness)
    gmail.mailbox.label(ids[0], remove=["UNREAD"])
    synced(harness)
    assert set(messages(harness)) == set(ids[1:])
    gmail.mailbox.label(ids[0], add=["UNREAD"])
    synced(harness)
    assert set(messages(harness)) == set(ids)


def test_a_query_with_relative_dates_is_repeated_at_each_poll(
    gmail: FakeGmail, costs: Costs
) -> None:
    gmail.mailbox.fill(2)
    harness = connect(gmail, query="newer_than:7d")
    synced(harness)
    costs()
    synced(harness)
    assert costs() == {"history": 1, "messages": 1}


def test_mail_with_any_of_the_labels_is_kept_by_name_or_id(gmail: FakeGmail, costs: Costs) -> None:
    work, home = gmail.mailbox.create_label("Work"), gmail.mailbox.create_label("Home")
    at_work, at_home = gmail.mailbox.add(mail(), [work]), gmail.mailbox.add(mail(), [home, "INBOX"])
    other = gmail.mailbox.add(mail(), ["INBOX"])
    harness = connect(gmail, labels=["work", home])
    synced(harness)
    assert set(messages(harness)) == {at_work, at_home}
    gmail.mailbox.add(mail(), ["INBOX"])
    costs()
    synced(harness)
    assert costs() == {"history": 1, "labels": 1}, "mail with other labels is not fetched"
    gmail.mailbox.label(other, add=[work])
    gmail.mailbox.label(at_work, remove=[work])
    synced(harness)
    assert set(messages(harness)) == {at_home, other}


def test_an_unknown_label_is_a_configuration_error(gmail: FakeGmail) -> None:
    with pytest.raises(ConfigurationError, match="no label 'Nowhere'"):
        connect(gmail, labels=["Nowhere"]).check()


def test_only_mail_since_the_day_is_kept(gmail: FakeGmail) -> None:
    day = datetime(2026, 1, 5, tzinfo=UTC)
    first = int(day.timestamp() * 1000)
    gmail.mailbox.add(mail("Too old"), date=first - 1)
    at, after = (
        gmail.mailbox.add(mail(), date=first),
        gmail.mailbox.add(mail(), date=first + 86_400_000),
    )
    harness = connect(gmail, since="2026-01-05")
    synced(harness)
    assert set(messages(harness)) == {at, after}
    gmail.mailbox.add(mail("Imported, and too old"), date=first - 5000)
    synced(harness)
    assert set(messages(harness)) == {at, after}


def test_a_day_before_all_mail_keeps_all_mail(gmail: FakeGmail) -> None:
    ids = gmail.mailbox.fill(2)
    harness = connect(gmail, since="1969-01-01")
    synced(harness)
    assert set(messages(harness)) == set(ids)
    assert not [call for call in gmail.calls if "after:-" in str(call.params)]


def test_another_day_fetches_only_what_is_not_kept(gmail: FakeGmail, costs: Costs) -> None:
    day = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp() * 1000)
    old, new = (gmail.mailbox.add(mail(), date=when) for when in (day - 1, day))
    harness = connect(gmail, since="2026-01-05", max_attachment_mb=1)
    synced(harness)
    assert set(messages(harness)) == {new}
    costs()
    harness.config.since = date(2025, 1, 1)  # type: ignore[attr-defined]
    synced(harness)
    assert set(messages(harness)) == {old, new}
    assert costs() == {"history": 1, "messages": 1, "message": 1}
    synced(harness)
    assert costs() == {"history": 1}
    harness.config.since = date(2026, 1, 5)  # type: ignore[attr-defined]
    synced(harness)
    assert (set(messages(harness)), costs()) == ({new}, {"history": 1, "messages": 1})


def test_an_account_of_an_earlier_version_is_not_listed_again(
    gmail: FakeGmail, costs: Costs
) -> None:
    gmail.mailbox.add(mail())
    harness = connect(gmail, since="2020-01-05")
    synced(harness)
    del harness.state["history"]["since"]  # type: ignore[union-attr, arg-type, index]
    costs()
    synced(harness)
    synced(harness)
    assert costs() == {"history": 2}
