"""Receivers of subscriptions get the latest state of each item, and never an older one later."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from support import receiver as manners
from support.receiver import TABLE, Receiver, receiving
from support.waiting import until

from core import TaskOutput
from core.accounts.vault import Vault
from core.content import removal
from core.db.pool import Conn, Database
from core.egress import Egress
from core.ledger import deliveries, erasure, processes, subscriptions
from core.ledger.deliveries import Notification
from core.rest.schemas.content import ChangedContent
from core.service import subscriptions as service
from core.service.accounts import disconnect
from core.service.authorization import LOCAL_OPERATOR, Principal
from core.service.backend import Backend
from core.service.subscriptions import NewSubscription
from core.states import SubscriptionChannel, SubscriptionKind
from core.transport.messages import DELIVER_QUEUE, OWN_THREADS
from core.worker.deliveries import batches, deliverer, sender, webhook
from core.worker.deliveries.channels import LeaseLost, Message

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "receive-content.md"
THREADS = OWN_THREADS[DELIVER_QUEUE]


@dataclass
class Courier:
    """Does manually the work of the leader and of a worker process."""

    conn: Conn
    deliverer: deliverer.Deliverer

    def lease(self) -> list[tuple[UUID, int]]:
        return subscriptions.lease_due(self.conn, DELIVER_QUEUE, THREADS)

    def round(self) -> int:
        """Deliver what is due, one subscription after the other; return their number."""
        leased = self.lease()
        for id, token in leased:
            self.deliverer.deliver(id, token)
        return len(leased)

    def retry(self) -> int:
        """Deliver everything, as if all pauses had passed."""
        self.conn.execute("UPDATE subscription SET due_at = now()")
        self.conn.execute("UPDATE delivery SET due_at = now()")
        return self.round()


@pytest.fixture
def dispatcher(desk: Any) -> None:
    """Register a worker process that delivers."""
    process = processes.Process(uuid4(), "worker", "host", 17, [DELIVER_QUEUE], 8)
    processes.heartbeat(desk.conn, process, datetime.now(UTC))


@pytest.fixture
def make_courier(
    database: Database, vault: Vault, egress: Egress, conn: Conn, dispatcher: None
) -> Iterator[Callable[..., Courier]]:
    made: list[sender.Sender] = []

    def make(deadline: float = 5.0) -> Courier:
        made.append(sender.Sender(egress, deadline))
        return Courier(conn, deliverer.Deliverer(database, vault, made[-1], lambda: False))

    yield make
    for each in made:
        each.close()


@pytest.fixture
def courier(make_courier: Callable[..., Courier]) -> Courier:
    return make_courier()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made
        assert made.wrong == []
        assert made.backwards == []


@pytest.fixture
def subscribe(backend: Backend) -> Callable[..., UUID]:
    def subscribe(receiver: Receiver, **more: Any) -> UUID:
        values: dict[str, Any] = {
            "kind": SubscriptionKind.CONTENT, "channel": SubscriptionChannel.WEBHOOK,
            "address": receiver.url,
        }  # fmt: skip
        id, receiver.secret = service.add(backend, LOCAL_OPERATOR, NewSubscription(**values | more))
        return id

    return subscribe


def state(desk: Any, id: UUID) -> tuple[Any, ...]:
    return desk.rows("SELECT state, reason FROM subscription WHERE id = %s", id)[0]


def test_a_receiver_has_the_latest_state_of_each_item(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a", "one"), TaskOutput("b", "two", metadata={"x": 1}))
    desk.keep(account, TaskOutput("a", "newer"))
    subscribe(receiver)
    courier.round()
    assert receiver.has(desk.rows(TABLE))
    (_, type, data), *others = receiver.messages
    assert (type, others) == ("content.changed", [])
    names = {event["content"]["external_id"]: event for event in data["events"]}
    assert names["b"]["content"].keys() == ChangedContent.model_fields.keys()
    assert names["b"]["content"]["metadata"] == {"x": 1}
    xid = desk.value("SELECT changed_xid FROM user_integration_content WHERE external_id = 'b'")
    item = names["b"]["content"]["id"]
    assert (names["b"]["id"], names["b"]["number"]) == (f"{item}-{xid}", xid)
    # Nothing is sent twice, and nothing is due.
    assert courier.round() == 0
    desk.keep(account, TaskOutput.gone("a"), TaskOutput("c", "three"))
    assert courier.round() == 1
    assert receiver.has(desk.rows(TABLE))
    assert receiver.items[(str(account), "a")][2]
    assert len(receiver.messages) == 2


def test_an_erased_account_is_erased_at_the_receiver(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    account, other = desk.account("a"), desk.account("b")
    desk.keep(account, TaskOutput("a", "one"))
    desk.keep(other, TaskOutput("a", "two"))
    subscribe(receiver)
    with receiving() as narrow:
        subscribe(narrow, account=account)
        courier.round()
        courier.round()
        assert len(narrow.items) == 1
        disconnect.hide(desk.conn, account, erases_account=True, now=True)
        list(erasure.erase(desk.conn, account))
        assert erasure.finish(desk.conn, account)
        courier.round()
        courier.round()
        assert narrow.items == {}
    assert receiver.has(desk.rows(TABLE))
    (erased,) = [event for event in receiver.events() if event["change"] == "erased"]
    assert (erased["user_integration_id"], erased["content"]) == (str(account), None)


def test_a_subscription_has_filters(
    desk: Any, courier: Courier, subscribe: Any, make_courier: Any
) -> None:
    ann = desk.account("of ann", user_id="ann")
    second = desk.account("also of ann", user_id="ann")
    bob = desk.account("of bob", user_id="bob")
    outputs = (TaskOutput("1", "x", kind="message"), TaskOutput("2", "y", kind="file"))
    for account in (ann, second):
        desk.keep(account, *outputs)
    desk.keep(bob, *outputs)
    desk.conn.execute(
        "UPDATE user_integration_content SET integration_domain = 'locked'"
        " WHERE user_integration_id = %s",
        (bob,),
    )
    cases = {
        "user": {"user_id": "ann"}, "account": {"account": ann}, "domain": {"domain": "locked"},
        "kind": {"only_kind": "file"}, "both": {"account": second, "only_kind": "message"},
    }  # fmt: skip
    expected = {
        "user": {(ann, "1"), (ann, "2"), (second, "1"), (second, "2")},
        "account": {(ann, "1"), (ann, "2")}, "domain": {(bob, "1"), (bob, "2")},
        "kind": {(ann, "2"), (second, "2"), (bob, "2")}, "both": {(second, "1")},
    }  # fmt: skip
    for name, filters in cases.items():
        with receiving() as receiver:
            id = subscribe(receiver, **{n: v for n, v in filters.items() if n != "user_id"})
            desk.conn.execute(
                "UPDATE subscription SET user_id = %s WHERE id = %s", (filters.get("user_id"), id)
            )
            batch = None
            for _ in range(3):
                courier.lease()
                row = desk.rows("SELECT lease_token FROM subscription WHERE id = %s", id)[0]
                found = subscriptions.start(desk.conn, id, row[0])
                assert found is not None
                batch = batches.read(desk.conn, found)
                if batch.message is not None:
                    break
                subscriptions.move_cursor(desk.conn, found, batch.cursor)
            assert batch is not None
            assert batch.message is not None
            items = {
                (event["user_integration_id"], event["content"]["external_id"])
                for event in batch.message.data["events"]
            }
            assert items == expected[name], name
            desk.conn.execute("DELETE FROM subscription")


def test_a_subscription_from_now_leaves_out_what_is_kept(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("old", "one"))
    subscribe(receiver, start="now")
    courier.round()
    assert receiver.messages == []
    desk.keep(account, TaskOutput("new", "two"))
    courier.round()
    assert [event["content"]["external_id"] for event in receiver.events()] == ["new"]


def test_batches_are_bounded(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any, monkeypatch: Any
) -> None:
    account = desk.account()
    desk.keep(account, *(TaskOutput(str(n), "x" * 200_000) for n in range(30)))
    desk.keep(account, *(TaskOutput(f"small-{n}", "x") for n in range(250)))
    subscribe(receiver)
    courier.round()
    courier.round()
    assert len(receiver.items) == 280
    sizes = [len(data["events"]) for _, _, data in receiver.messages]
    assert max(sizes) == batches.MAX_EVENTS
    large = [event for event in receiver.events() if len(event["content"]["text"]) > 1]
    assert {len(event["content"]["text"]) for event in large} == {batches.MAX_TEXT_CHARS}
    assert all(event["content"]["truncated"] for event in large)
    assert sizes[0] <= batches.MAX_BATCH_BYTES // batches.MAX_TEXT_CHARS + 1


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        (manners.fail, "HTTP 500"),
        (manners.lie, "HTTP 503"),
        (manners.reset, "failed"),
        (manners.hang, "in time"),
        (manners.drip, "in time"),
    ],
    ids=["fail", "lie", "reset", "hang", "drip"],
)
def test_a_receiver_that_fails_ends_with_the_state_of_the_table(
    desk: Any, make_courier: Any, receiver: Receiver, subscribe: Any, manner: Any, reason: str
) -> None:
    courier, account = make_courier(deadline=0.7), desk.account()
    desk.keep(account, TaskOutput("a", "one"), TaskOutput("b", "two"))
    id = subscribe(receiver)
    receiver.manner = manner
    began = time.monotonic()
    courier.round()
    assert time.monotonic() - began < 2.5  # within its deadline
    assert courier.round() == 0  # it waits
    state_then, why = state(desk, id)
    assert state_then == "failing"
    assert reason in why
    assert receiver.url not in why
    courier.retry()
    assert len(set(receiver.ids)) == 1  # the same batch has the same id
    desk.keep(account, TaskOutput("a", "newer"))
    receiver.manner = manners.accept
    courier.retry()
    assert receiver.has(desk.rows(TABLE))
    assert len(set(receiver.ids)) == 2  # another batch has another id
    assert state(desk, id) == ("active", None)
    assert receiver.backwards == []


def test_pauses_grow_and_end_after_a_success(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    desk.keep(desk.account(), TaskOutput("a", "one"))
    subscribe(receiver)
    receiver.manner = manners.fail
    pauses = []
    for _ in range(10):
        courier.retry()
        pauses.append(
            desk.value("SELECT extract(epoch FROM due_at - clock_timestamp()) FROM subscription")
        )
    assert 3 < pauses[0] <= 5
    assert pauses[0] < pauses[2] < pauses[5]
    assert 700 < pauses[9] <= 900
    receiver.manner = manners.accept
    courier.retry()
    assert desk.value("SELECT failures FROM subscription") == 0


def test_a_redirect_is_not_followed(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    desk.keep(desk.account(), TaskOutput("a", "one"))
    id = subscribe(receiver)
    with receiving() as other:
        receiver.manner = manners.redirect(other.url)
        courier.round()
        assert other.ids == []
    assert "redirect" in state(desk, id)[1]


def test_the_body_of_an_answer_is_not_read(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    desk.keep(desk.account(), TaskOutput("a", "one"))
    subscribe(receiver)
    receiver.manner = manners.flood
    began = time.monotonic()
    courier.round()
    assert time.monotonic() - began < 4
    assert receiver.has(desk.rows(TABLE))
    assert courier.retry() == 0


def test_a_receiver_that_is_gone_pauses_its_subscription(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    desk.keep(desk.account(), TaskOutput("a", "one"))
    id = subscribe(receiver)
    receiver.manner = manners.gone
    courier.round()
    assert state(desk, id) == ("paused", "it answered HTTP 410")
    assert courier.retry() == 0
    receiver.manner = manners.accept
    service.resume(desk.conn, LOCAL_OPERATOR, id)
    courier.round()
    assert receiver.has(desk.rows(TABLE))


def test_one_users_hanging_receiver_delays_nobody_else(
    desk: Any, make_courier: Any, receiver: Receiver, subscribe: Any
) -> None:
    courier = make_courier(deadline=5.0)
    desk.keep(desk.account(), TaskOutput("a", "one"))
    with receiving(manner=manners.hang) as hanging:
        bad = [subscribe(hanging) for _ in range(10)]
        good = subscribe(receiver)
        desk.conn.execute("UPDATE subscription SET due_at = now() - interval '1 minute'")
        # The egress rules of users would refuse the loopback.
        leased = dict(courier.lease())
        assert len(leased) == 1  # one of four threads works for operators
        desk.conn.execute("UPDATE subscription SET lease_until = NULL, lease_token = NULL")
        desk.conn.execute("UPDATE subscription SET user_id = 'bad' WHERE id = ANY(%s)", (bad,))
        leased = dict(courier.lease())
        assert good in leased
        assert len(leased) == 2
        assert courier.lease() == []  # no further one of the same users while these are in flight
        [(id, token)] = [one for one in leased.items() if one[0] != good]
        # The loopback is refused to users.
        desk.conn.execute("UPDATE subscription SET user_id = NULL WHERE id = %s", (id,))
        thread = threading.Thread(target=courier.deliverer.deliver, args=(id, token))
        thread.start()
        until(lambda: hanging.ids, "it hangs")
        courier.deliverer.deliver(good, leased[good])
        assert thread.is_alive()
        hanging.closing.set()
        thread.join()
    assert receiver.has(desk.rows(TABLE))


def test_no_more_are_leased_than_there_are_threads(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    ids = [subscribe(receiver) for _ in range(12)]
    for number, id in enumerate(ids):
        desk.conn.execute(
            "UPDATE subscription SET user_id = %s WHERE id = %s", (f"user {number}", id)
        )
    assert len(courier.lease()) == THREADS
    assert courier.lease() == []
    desk.conn.execute("DELETE FROM process")
    desk.conn.execute("UPDATE subscription SET lease_until = NULL")
    assert courier.lease() == []


def test_a_subscription_has_one_delivery_in_flight(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    desk.keep(desk.account(), TaskOutput("a", "one"))
    id = subscribe(receiver)
    ((_, token),) = courier.lease()
    # A message that is delivered again, late, or with another token has no effect.
    courier.deliverer.deliver(id, token + 1)
    assert receiver.ids == []
    in_time: list[int] = []

    def deliver_again(handler: Any) -> bool:
        courier.deliverer.deliver(id, token)
        in_time.append(len(receiver.ids))
        return manners.accept(handler)

    receiver.manner = deliver_again
    courier.deliverer.deliver(id, token)
    courier.deliverer.deliver(id, token)
    assert in_time == [1]
    assert len(receiver.ids) == 1
    receiver.manner = manners.accept
    desk.keep(desk.account("b"), TaskOutput("b", "two"))
    ((_, token),) = courier.lease()
    desk.conn.execute("UPDATE subscription SET lease_until = now() - interval '1 s'")
    courier.deliverer.deliver(id, token)
    assert len(receiver.ids) == 1
    ((_, newer),) = courier.lease()
    courier.deliverer.deliver(id, token)
    assert len(receiver.ids) == 1
    courier.deliverer.deliver(id, newer)
    assert receiver.has(desk.rows(TABLE))


def test_a_process_that_was_stopped_sends_nothing_after_its_lease(
    desk: Any, egress: Egress, receiver: Receiver, subscribe: Any, make_courier: Any
) -> None:
    """A stopped process resumes while another one has delivered a newer state."""
    subscribe(receiver)
    sending = sender.Sender(egress)
    message = Message("msg_1", "content.changed", datetime.now(UTC), {"events": []})
    target = {"url": receiver.url, "secret": receiver.secret}
    channel = SubscriptionChannel.WEBHOOK
    with pytest.raises(LeaseLost):
        sending.send(channel, target, message, public_only=False, leased_at=time.monotonic() - 19)
    assert receiver.ids == []
    sending.send(channel, target, message, public_only=False, leased_at=time.monotonic())
    assert receiver.ids == ["msg_1"]
    sending.close()


def test_the_cursor_moves_only_with_the_lease(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    desk.keep(desk.account(), TaskOutput("a", "one"))
    id = subscribe(receiver)

    def lose_the_lease(handler: Any) -> bool:
        desk.conn.execute("UPDATE subscription SET lease_token = 1 WHERE id = %s", (id,))
        return manners.accept(handler)

    receiver.manner = lose_the_lease
    courier.round()
    before = desk.rows("SELECT cursor_xid, delivered_at FROM subscription")
    assert before == [(-1, None)]
    desk.conn.execute("UPDATE subscription SET lease_until = NULL")
    receiver.manner = manners.accept
    courier.round()
    assert len(receiver.ids) == 2
    assert len(set(receiver.ids)) == 1


# New beginnings
# --------------------------------------------------------------------------------------------------


def test_a_receiver_that_may_have_missed_a_deletion_starts_again(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a", "one"), TaskOutput("b", "two"))
    subscribe(receiver)
    courier.round()
    service.pause(desk.conn, LOCAL_OPERATOR, (id := desk.value("SELECT id FROM subscription")))
    desk.keep(account, TaskOutput.gone("a"))
    horizon = desk.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert removal.remove(desk.conn, horizon, datetime.now(UTC) + timedelta(hours=1), 5.0)
    service.resume(desk.conn, LOCAL_OPERATOR, id)
    courier.round()
    assert receiver.types() == ["content.changed", "restart", "content.changed"]
    assert receiver.has(desk.rows(TABLE))


def test_after_a_promotion_a_receiver_gets_one_rewound_message(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a", "one"))
    subscribe(receiver)
    courier.round()
    source = desk.value("SELECT cursor_source FROM subscription")
    cluster, timeline, epoch = source.split(".")
    earlier = f"{cluster}.{int(timeline) - 1}.{epoch}"
    desk.conn.execute("UPDATE subscription SET cursor_source = %s", (earlier,))
    desk.keep(account, TaskOutput("b", "two"))
    courier.round()
    courier.round()
    assert receiver.types() == ["content.changed", "rewound", "content.changed"]
    assert [event["content"]["external_id"] for event in receiver.events()] == ["a", "b"]
    assert desk.value("SELECT cursor_source FROM subscription") == source
    # A dump that was restored into its cluster begins a new epoch of the ledger.
    desk.conn.execute("UPDATE engine_state SET epoch = epoch + 1")
    courier.round()
    assert receiver.types()[3:] == ["rewound"]


def test_in_another_cluster_a_receiver_starts_again(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("a", "one"))
    subscribe(receiver)
    courier.round()
    desk.conn.execute("UPDATE subscription SET cursor_source = '1.1.1', cursor_xid = 2^60")
    receiver.manner = manners.fail
    courier.round()
    assert desk.rows("SELECT type, attempts FROM delivery") == [("restart", 1)]
    receiver.manner = manners.accept
    courier.retry()
    assert receiver.types() == ["content.changed", "restart", "content.changed"]
    assert receiver.has(desk.rows(TABLE))


# Messages
# --------------------------------------------------------------------------------------------------


def operations(subscribe: Any, receiver: Receiver, **more: Any) -> UUID:
    id: UUID = subscribe(receiver, kind=SubscriptionKind.OPERATIONS, **more)
    return id


def test_a_notification_reaches_the_subscriptions_that_match(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    account = desk.account(user_id="ann")
    matching = [
        operations(subscribe, receiver),
        operations(subscribe, receiver, account=account),
        operations(subscribe, receiver, only_kind="account_stopped"),
        operations(subscribe, receiver, domain="shop"),
    ]
    operations(subscribe, receiver, only_kind="outage")
    operations(subscribe, receiver, account=desk.account("other"))
    operations(subscribe, receiver, domain="ftp")
    subscribe(receiver)
    desk.conn.execute(
        "UPDATE subscription SET user_id = 'bob' WHERE id = %s",
        (operations(subscribe, receiver),),
    )
    own = operations(subscribe, receiver)
    desk.conn.execute("UPDATE subscription SET user_id = 'ann' WHERE id = %s", (own,))
    event = Notification("condition.began", "account_stopped", {"n": 1}, account, "shop", "ann")
    with desk.conn.transaction():
        assert deliveries.notify(desk.conn, event) == 5
        assert deliveries.notify(desk.conn, replace(event, kind="x", account=None)) == 3
    found = {id for (id,) in desk.rows("SELECT DISTINCT subscription_id FROM delivery")}
    assert found == {*matching, own}


def test_a_notification_is_lost_with_its_transaction_only(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    operations(subscribe, receiver)
    event = Notification("condition.began", "outage", {"n": 1})
    with desk.conn.transaction(force_rollback=True):
        deliveries.notify(desk.conn, event)
    assert courier.round() == 0
    deliveries.notify(desk.conn, event)
    deliveries.notify(desk.conn, replace(event, type="condition.ended"))
    receiver.manner = manners.fail
    courier.round()
    receiver.manner = manners.accept
    courier.retry()
    courier.retry()
    assert receiver.types() == ["condition.began", "condition.ended"]
    assert receiver.ids[0] == receiver.ids[1]
    assert desk.rows("SELECT * FROM delivery") == []
    assert courier.retry() == 0


def test_one_message_that_is_refused_delays_no_other(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    operations(subscribe, receiver)
    for number in range(3):
        deliveries.notify(desk.conn, Notification("condition.began", "outage", {"n": number}))

    def refuse_the_first(handler: Any) -> bool:
        return (manners.fail if b'"n":0' in handler.body else manners.accept)(handler)

    receiver.manner = refuse_the_first
    courier.round()
    desk.conn.execute("UPDATE subscription SET due_at = now()")
    courier.round()
    assert [data["n"] for _, _, data in receiver.messages] == [1, 2]


def test_a_message_is_given_up_after_a_day_and_replayed(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    id = operations(subscribe, receiver)
    deliveries.notify(desk.conn, Notification("condition.began", "outage", {"n": 1}))
    receiver.manner = manners.fail
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert subscriptions.give_up(desk.conn, later, later) == 0  # it was not tried yet
    courier.round()
    assert subscriptions.give_up(desk.conn, None, None) == 0
    assert subscriptions.give_up(desk.conn, later, later) == 1
    assert courier.retry() == 0
    (kept,) = service.one(desk.conn, LOCAL_OPERATOR, id)["deliveries"]
    assert (kept["state"], kept["attempts"], kept["error"]) == ("failed", 1, "it answered HTTP 500")
    receiver.manner = manners.accept
    assert service.replay(desk.conn, LOCAL_OPERATOR, id) == 1
    courier.round()
    assert receiver.types() == ["condition.began"]
    assert receiver.ids[0] == receiver.ids[-1]
    assert subscriptions.prune_failed(desk.conn, later)


def test_a_receiver_of_content_that_fails_for_days_is_paused(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    desk.keep(desk.account(), TaskOutput("a", "one"))
    id = subscribe(receiver)
    receiver.manner = manners.fail
    courier.round()
    assert subscriptions.give_up(desk.conn, None, datetime.now(UTC) + timedelta(minutes=1)) == 1
    assert state(desk, id) == ("paused", "paused after days of failures: it answered HTTP 500")
    assert courier.retry() == 0


def test_a_test_is_tried_once(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any
) -> None:
    id = subscribe(receiver)
    courier.round()
    receiver.manner = manners.fail
    message = service.test(desk.conn, LOCAL_OPERATOR, id)
    assert service.outcome(desk.conn, message) == (True, None)
    courier.round()
    assert service.outcome(desk.conn, message) == (False, "it answered HTTP 500")
    receiver.manner = manners.accept
    message = service.test(desk.conn, LOCAL_OPERATOR, id)  # its pause does not matter
    courier.round()
    assert service.outcome(desk.conn, message) == (False, None)
    assert receiver.types() == ["test"]
    assert service.replay(desk.conn, LOCAL_OPERATOR, id) == 0


# Addresses and signatures
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_user_reaches_a_private_address(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any, host: str
) -> None:
    """The address is checked at each connection, so a name may resolve to anything."""
    desk.keep(desk.account(user_id="ann"), TaskOutput("a", "one"))
    id = subscribe(receiver, address=receiver.url.replace("127.0.0.1", host))
    desk.conn.execute("UPDATE subscription SET user_id = 'ann'")
    courier.round()
    assert receiver.ids == []
    assert state(desk, id) == (
        "failing", "its address cannot be reached, or is not on the public internet"
    )  # fmt: skip
    desk.conn.execute("UPDATE subscription SET user_id = NULL")
    courier.retry()
    assert receiver.has(desk.rows(TABLE))


def test_an_operator_may_allow_private_addresses(
    desk: Any,
    database: Database,
    vault: Vault,
    dispatcher: None,
    receiver: Receiver,
    subscribe: Any,
) -> None:
    desk.keep(desk.account(user_id="ann"), TaskOutput("a", "one"))
    subscribe(receiver)
    desk.conn.execute("UPDATE subscription SET user_id = 'ann'")
    sending = sender.Sender(Egress(allow_private_hosts=True))
    Courier(desk.conn, deliverer.Deliverer(database, vault, sending, lambda: False)).round()
    assert receiver.has(desk.rows(TABLE))
    sending.close()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com/", "subscription-url-invalid"),
        ("ftp://example.com/", "subscription-url-invalid"),
        ("https://ann:secret@example.com/", "subscription-url-invalid"),
        ("https://example.com/#x", "subscription-url-invalid"),
        ("https://example.com/\n", "subscription-url-invalid"),
        ("https://example.com:x/", "subscription-url-invalid"),
        ("https:///x", "subscription-url-invalid"),
        ("https://" + "x" * 2_000, "subscription-url-invalid"),
        ("https://localhost/", "subscription-host-private"),
        ("https://10.0.0.1/", "subscription-host-private"),
        ("https://[::1]/", "subscription-host-private"),
        ("https://169.254.169.254/", "subscription-host-private"),
    ],
)
def test_a_users_url_is_checked(backend: Backend, url: str, code: str) -> None:
    ann = Principal(None, "ann", LOCAL_OPERATOR.scopes)
    new = NewSubscription(SubscriptionKind.CONTENT, SubscriptionChannel.WEBHOOK, url)
    with pytest.raises(Exception, match=r".") as caught:
        service.add(backend, ann, new)
    assert caught.value.code == code  # type: ignore[attr-defined]


def test_a_signature_is_refused_if_anything_has_changed() -> None:
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = webhook.body_of(Message("msg_1", "test", datetime.now(UTC), {"text": "Grüße"}))
    headers = webhook.signed(secret, "msg_1", body)
    check = Webhook(secret)
    assert check.verify(body, headers)["type"] == "test"
    later = str(int(headers["webhook-timestamp"]) + 1)
    wrong = [
        (bytes([body[0] ^ 1]) + body[1:], headers),
        (body[:-1] + bytes([body[-1] ^ 1]), headers),
        (body + b" ", headers),
        (body, headers | {"webhook-id": "msg_2"}),
        (body, headers | {"webhook-timestamp": later}),
    ]
    for changed, given in wrong:
        with pytest.raises(WebhookVerificationError):
            check.verify(changed, given)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(body, headers)


def test_secrets_are_sealed_and_neither_shown_nor_logged(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any, caplog: Any
) -> None:
    caplog.set_level("DEBUG")
    desk.keep(desk.account(), TaskOutput("a", "one"))
    id = subscribe(receiver, address=receiver.url + "?key=hunter2")
    courier.round()
    receiver.manner = manners.fail
    desk.keep(desk.account("b"), TaskOutput("a", "one"))
    courier.round()
    assert len(receiver.ids) == 2
    assert receiver.secret is not None
    shown = str(service.one(desk.conn, LOCAL_OPERATOR, id))
    stored = str(desk.rows("SELECT * FROM subscription")) + str(desk.rows("SELECT * FROM audit"))
    for secret in ("hunter2", receiver.secret):
        assert secret not in shown + stored + caplog.text


# The how-to
# --------------------------------------------------------------------------------------------------


def test_the_receiver_of_the_how_to_keeps_a_copy(
    desk: Any, courier: Courier, receiver: Receiver, subscribe: Any, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    id = subscribe(receiver, address=f"http://127.0.0.1:{port}/hooks")
    [program] = re.findall(r"```python\n(.*?)```", HOW_TO.read_text("utf-8"), re.DOTALL)
    assert receiver.secret is not None
    running = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL,
        env=os.environ | {"SECRET": receiver.secret, "PORT": str(port)},
    )  # fmt: skip
    try:
        until(lambda: is_open(port), "it listens")
        account = desk.account()
        desk.keep(account, TaskOutput("a", "one"), TaskOutput("b", "two"))
        courier.round()
        desk.keep(account, TaskOutput("a", "newer"), TaskOutput.gone("b"), TaskOutput("c", "three"))
        courier.round()
        assert state(desk, id) == ("active", None)
        assert copied(tmp_path) == {"a": "newer", "c": "three"}
        answer = httpx2.post(f"http://127.0.0.1:{port}/", content=b"{}", trust_env=False)
        assert answer.status_code == 401
        disconnect.hide(desk.conn, account, erases_account=True, now=True)
        list(erasure.erase(desk.conn, account))
        courier.round()
        assert copied(tmp_path) == {}
    finally:
        running.kill()
        running.wait()


def is_open(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def copied(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / "copy.db")) as copy:
        rows = copy.execute("SELECT id, content FROM item").fetchall()
    return {id: json.loads(content)["text"] for id, content in rows}
