"""Receivers end with exactly the state of the table, and never see an item go backwards."""

from __future__ import annotations

import signal
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from uuid import UUID, uuid4

import psycopg
import pytest
from support import receiver as manners
from support.accounts import connect
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.metered import Metered
from support.receiver import TABLE, Handler, Receiver, receiving
from support.waiting import until

from core.transport.messages import DELIVER_QUEUE

USERS = 4

WRITE = """
INSERT INTO user_integration_content AS c (user_integration_id, integration_domain, external_id,
    kind, content_text, size, digest, content_seq, metadata_seq, deleted_at)
VALUES (%(account)s, 'metered', %(item)s, 'item', %(text)s, 1, '', 1, 1, %(deleted)s)
ON CONFLICT (user_integration_id, external_id) DO UPDATE SET content_text = excluded.content_text,
    deleted_at = excluded.deleted_at, updated_at = clock_timestamp(),
    changed_xid = pg_current_xact_id()::text::bigint, synced_xid = NULL
"""
SUBSCRIBE = """
INSERT INTO subscription (id, name, kind, channel, user_id, address, sealed)
VALUES (%s, 'x', 'content', 'webhook', %s, 'x', %s)
"""


def subscribe(deployment: Deployment, receiver: Receiver, user: str | None) -> UUID:
    id = uuid4()
    receiver.secret = f"whsec_{b64encode(id.bytes).decode()}"
    sealed = deployment.vault.seal_json({"url": receiver.url, "secret": receiver.secret})
    deployment.rows(SUBSCRIBE, id, user, sealed)
    return id


def moody(random: Random) -> Callable[[Handler], bool]:
    """Return a manner that differs from request to request, in a way that the seed decides."""
    choices = [manners.accept] * 4 + [manners.fail, manners.lie, manners.reset, slow]
    return lambda handler: random.choice(choices)(handler)


def slow(handler: Handler) -> bool:
    handler.receiver.closing.wait(1.0)
    return manners.accept(handler)


@contextmanager
def changing(deployment: Deployment, accounts: list[UUID], random: Random) -> Iterator[None]:
    """Change items in the meantime, in transactions that overlap and end in another order."""
    stopping = threading.Event()

    def change(seed: int) -> None:
        own = Random(seed)
        while not stopping.is_set():
            with (
                suppress(psycopg.OperationalError),
                deployment.connection() as conn,
                conn.transaction(),
            ):
                account = own.choice(accounts)
                for item in sorted({str(own.randint(1, 60)) for _ in range(3)}):
                    params = {"account": account, "item": item, "text": str(own.random())}
                    is_gone = own.random() < 0.2
                    conn.execute(WRITE, params | {"deleted": "now" if is_gone else None})
                stopping.wait(own.random() * 0.2)

    def hurry() -> None:
        """Let the pauses after failures pass."""
        while not stopping.wait(0.5):
            with suppress(psycopg.OperationalError):
                deployment.rows("UPDATE subscription SET due_at = now()")

    threads = [threading.Thread(target=change, args=(random.random(),)) for _ in range(3)]
    threads.append(threading.Thread(target=hurry))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def kill_a_worker(fleet: Fleet, random: Random) -> None:
    with suppress(ProcessLookupError):
        send(signal.SIGKILL, random.choice(fleet.until(fleet.worker_pids, "one", replace=True)))


def kill_a_program(fleet: Fleet, random: Random) -> None:
    random.choice(fleet.programs).kill()
    fleet.let_the_lead_run_out()


def stop_a_worker(fleet: Fleet, random: Random) -> None:
    """Stop a worker for longer than a lease, and continue it."""
    pid = random.choice(fleet.until(fleet.worker_pids, "one", replace=True))
    with suppress(ProcessLookupError):
        send(signal.SIGSTOP, pid)
        time.sleep(22)  # a lease
        send(signal.SIGCONT, pid)


def flush(fleet: Fleet, random: Random) -> None:
    fleet.deployment.queues.client.flushall()


def repeat_messages(fleet: Fleet, random: Random) -> None:
    """Deliver messages three times: immediately, and when their dispatches are over."""
    queues = fleet.deployment.queues
    sent: dict[str, bytes] = {}

    def some() -> bool:
        found = queues.client.hgetall(f"{queues.namespace}:{DELIVER_QUEUE}.msgs")
        new = {id.decode(): body for id, body in found.items() if id.decode() not in sent}
        queues.send(DELIVER_QUEUE, new)
        sent.update(new)
        return len(sent) >= 5

    fleet.until(some, "messages were sent", 60, replace=True)
    queues.send(DELIVER_QUEUE, sent)


def end_sessions(fleet: Fleet, random: Random) -> None:
    fleet.deployment.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'polling'"
    )


FAULTS = [kill_a_worker, flush, repeat_messages, end_sessions, kill_a_program, kill_a_worker]


@pytest.mark.parametrize(
    "faults",
    [
        FAULTS,
        [stop_a_worker],
        pytest.param(
            [*FAULTS, stop_a_worker] * 8, marks=[pytest.mark.long, pytest.mark.timeout(3600)]
        ),
    ],
    ids=["once", "stopped", "long"],
)
def test_receivers_end_with_the_state_of_the_table(
    faults: list[Callable[[Fleet, Random], None]],
    make_fleet: Callable[..., Fleet],
    deployment: Deployment,
) -> None:
    random = Random(len(faults))
    fleet = make_fleet(POLLING_ALLOW_PRIVATE_HOSTS="true")
    accounts = [connect(deployment, Metered, user=f"user {n}") for n in range(USERS)]
    deployment.rows("UPDATE user_integration SET sync_status = 'paused'")
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(receiving(manner=moody(Random(n)))) for n in range(USERS + 1)
        ]
        for number, receiver in enumerate(receivers[:-1]):
            subscribe(deployment, receiver, f"user {number}")
        subscribe(deployment, receivers[-1], None)
        fleet.workers(processes=2, threads=2)
        fleet.workers(processes=1, threads=2)
        fleet.ready()
        with changing(deployment, accounts, random):
            for fault in faults:
                seen = sum(len(receiver.messages) for receiver in receivers)
                fleet.until(
                    lambda seen=seen: (
                        sum(len(receiver.messages) for receiver in receivers)
                        >= seen + random.randint(5, 30)
                    ),
                    "deliveries continue",
                    60,
                    replace=True,
                )
                fault(fleet, random)
        for receiver in receivers:
            receiver.manner = manners.accept

        def has_all() -> bool:
            deployment.rows("UPDATE subscription SET due_at = now()")
            rows = deployment.rows(TABLE)
            own = [[row for row in rows if row[0] == str(account)] for account in accounts]
            return all(
                receiver.has(expected)
                for receiver, expected in zip(receivers, [*own, rows], strict=True)
            )

        fleet.until(has_all, "all receivers have the table", 90, replace=True)
        for receiver in receivers:
            assert receiver.backwards == []
            assert receiver.wrong == []


def test_a_killed_fleet_loses_no_message(fleet: Fleet, deployment: Deployment) -> None:
    """A worker dies in the middle of a request. Another one repeats it, with the same id."""
    with receiving(manner=manners.hang) as receiver:
        id = subscribe(deployment, receiver, None)
        deployment.rows("UPDATE subscription SET kind = 'operations'")
        deployment.rows(
            "INSERT INTO delivery (subscription_id, type, data) VALUES (%s, 'a', '{}')", id
        )
        fleet.workers(processes=1, threads=2)
        until(lambda: receiver.ids, "the request has arrived")
        fleet.programs[0].kill()
        receiver.manner = manners.accept
        fleet.let_the_lead_run_out()
        fleet.programs[0].start()
        fleet.until(lambda: receiver.messages, "the message is delivered", 60)
        assert len(set(receiver.ids)) == 1
        fleet.until(lambda: deployment.rows("SELECT 1 FROM delivery") == [], "its row is deleted")
        assert len(receiver.messages) == 1


def test_a_hanging_receiver_delays_neither_tasks_nor_other_users(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    fleet = make_fleet(POLLING_ALLOW_PRIVATE_HOSTS="true")
    good = connect(deployment, Metered, user="good")
    bad = connect(deployment, Metered, user="bad")
    deployment.rows("UPDATE user_integration SET sync_status = 'paused'")
    with receiving(manner=manners.hang) as hanging, receiving() as receiver:
        for account in (good, bad):
            params = {"account": account, "item": "1", "text": "x", "deleted": None}
            with deployment.connection() as conn:
                conn.execute(WRITE, params)
        for _ in range(20):
            subscribe(deployment, hanging, "bad")
        fleet.workers(processes=1, threads=2)
        until(lambda: hanging.ids, "a request hangs")
        began = time.monotonic()
        subscribe(deployment, receiver, "good")
        until(lambda: receiver.messages, "the other user's content arrives")
        assert time.monotonic() - began < 8  # less than the deadline of the one that hangs
        assert len(hanging.ids) == 1
