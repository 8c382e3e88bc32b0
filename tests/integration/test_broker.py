"""The broker, on real workers and a real Valkey.

It keeps the promises that Dramatiq's own tests of its Redis broker make.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, Worker
from dramatiq.errors import QueueJoinTimeout

from core.broker import PollingBroker
from core.embedded.valkey import Valkey
from core.ledger.outcomes import Dispatch
from core.transport.messages import (
    RUN_TASK,
    SAVE_OUTPUT,
    SAVE_QUEUE,
    dispatch_message,
    encode,
)
from core.transport.queues import Queues
from core.worker.inflight import InflightTasks
from core.worker.process import WorkerProcess


@pytest.fixture
def broker(queues: Queues, inflight: InflightTasks, process: SimpleNamespace) -> PollingBroker:
    queues.BLOCK_SECONDS = 1.0  # workers stop sooner
    accepting = partial(WorkerProcess.accepting, process)  # type: ignore[arg-type]
    return PollingBroker(queues, [], inflight=inflight, accepting=accepting)


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    logger = logging.getLogger("dramatiq")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def work(broker: PollingBroker) -> Iterator[Callable[[], Worker]]:
    """Return `work()`, which starts a worker of 4 threads."""
    workers: list[Worker] = []

    def start(**given) -> Worker:
        worker = Worker(broker, worker_timeout=50, worker_threads=4, **given)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def process() -> SimpleNamespace:
    """Return a stand-in for the worker process."""
    return SimpleNamespace(
        stopping=threading.Event(),
        draining=threading.Event(),
        admission=SimpleNamespace(cut_off=False),
    )


@pytest.fixture
def inflight() -> InflightTasks:
    """Return the in-flight tasks of that process."""
    return InflightTasks()


def put_actor(broker: PollingBroker, **options) -> tuple[dramatiq.Actor, dict[str, str]]:
    database: dict[str, str] = {}

    @dramatiq.actor(broker=broker, queue_name="q", **options)
    def put(key: str, value: str) -> None:
        database[key] = value

    return put, database


def test_messages_are_processed_and_acknowledged(
    broker: PollingBroker, queues: Queues, work: Callable
) -> None:
    put, database = put_actor(broker)
    for number in range(100):
        put.send(f"key-{number}", f"value-{number}")
    work()
    broker.join("q", timeout=20_000)
    assert database == {f"key-{n}": f"value-{n}" for n in range(100)}
    assert (queues.length("q"), queues.waiting("q")) == (0, [])


def test_a_message_sent_while_the_worker_waits_arrives_immediately(
    broker: PollingBroker, work: Callable
) -> None:
    came = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="q")
    def tell() -> None:
        came.set()

    work()
    for _ in range(5):
        came.clear()
        tell.send()
        assert came.wait(10)


def test_two_workers_share_a_queue_and_repeat_no_message(
    broker: PollingBroker, work: Callable
) -> None:
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="q")
    def do(number: int) -> None:
        done.append(number)

    work()
    work()
    for number in range(300):
        do.send(number)
    broker.join("q", timeout=20_000)
    assert sorted(done) == list(range(300))


def test_the_broker_does_not_retry_an_actor_that_fails(
    broker: PollingBroker, work: Callable
) -> None:
    tried: list[int] = []
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL)

    @dramatiq.actor(broker=broker, queue_name="q")
    def fail() -> None:
        tried.append(1)
        raise ValueError

    fail.send()
    work()
    broker.join("q", timeout=20_000)
    assert tried == [1]


def test_sending_a_message_with_the_same_id_again_adds_none(
    broker: PollingBroker, queues: Queues
) -> None:
    put, _ = put_actor(broker)
    message = put.message("a", "b").copy(options={"redis_message_id": "7-1"})
    broker.enqueue(message)
    broker.enqueue(message)
    assert queues.ids("q") == [{"7-1"}]


def test_a_delayed_message_is_refused_and_there_are_no_delay_queues(broker: PollingBroker) -> None:
    put, _ = put_actor(broker)
    with pytest.raises(ValueError, match="no delay queues"):
        put.send_with_options(args=("a", "b"), delay=100)
    assert broker.get_declared_queues() == {"q"}


def test_joining_times_out_until_the_queue_is_flushed(
    broker: PollingBroker, queues: Queues
) -> None:
    put, _ = put_actor(broker)
    put.send("a", "b")
    with pytest.raises(QueueJoinTimeout):
        broker.join("q", interval=10, timeout=50)
    broker.flush("q")
    broker.join("q", timeout=50)


UNREADABLE = {
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe",
    "no object": b"[1]",
    "a number": b"7",
    "fields missing": b"{}",
    "options that are none": (
        json.dumps(
            {
                "queue_name": "q",
                "actor_name": "put",
                "args": [],
                "kwargs": {},
                "options": None,
                "message_id": "1",
                "message_timestamp": 1,
            }
        ).encode()
    ),
    "a dispatch without named fields": encode("q", RUN_TASK, "1", {}).encode(),
    "a dispatch that lacks some": encode("q", RUN_TASK, "1", {"t": 1, "n": 2, "e": 3}).encode(),
    "a dispatch of nothing": encode("q", RUN_TASK, "1", None).encode(),  # type: ignore[arg-type]
    "a dispatch of a list": encode("q", RUN_TASK, "1", [1]).encode(),  # type: ignore[arg-type]
    "a result of nothing": encode("q", SAVE_OUTPUT, "1", {}).encode(),
    "a result of a list": encode("q", SAVE_OUTPUT, "1", [1]).encode(),  # type: ignore[arg-type]
    "a result of a number": encode("q", SAVE_OUTPUT, "1", {"dispatch": 1}).encode(),
    "empty": b"",
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_message_is_dropped_and_the_next_one_processed(
    broker: PollingBroker, queues: Queues, inflight: InflightTasks, work: Callable, kind: str
) -> None:
    put, database = put_actor(broker)
    put.send("a", "1")
    queues.send("q", {"bad": UNREADABLE[kind]})
    put.send("b", "2")
    worker = work()
    consumer = worker.consumers["q"]
    broker.join("q", timeout=20_000)
    assert database == {"a": "1", "b": "2"}
    assert worker.consumers["q"] is consumer
    assert consumer.is_alive()


def test_a_message_for_an_unknown_actor_is_dropped_and_the_next_processed(
    broker: PollingBroker, queues: Queues, work: Callable
) -> None:
    put, database = put_actor(broker)
    queues.send("q", {"1": encode("q", "unheard-of", "1", {})})
    put.send("a", "1")
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL)
    work()
    broker.join("q", timeout=20_000)
    assert database == {"a": "1"}


def test_a_message_acknowledged_before_it_is_fetched_is_skipped(
    broker: PollingBroker, queues: Queues, work: Callable
) -> None:
    put, database = put_actor(broker)
    gone = put.send("a", "1")
    put.send("b", "2")
    queues.ack({"q": [gone.options["redis_message_id"]]})
    work()
    broker.join("q", timeout=20_000)
    assert database == {"b": "2"}


# Tasks
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def dispatches(desk):
    """Return three queued tasks."""
    root = desk.root(desk.account())
    desk.add(root.run_id, "a", "b")
    return [root, *desk.claim()]


def consume(broker: PollingBroker, count: int, prefetch: int = 8) -> tuple:
    broker.declare_queue("shop")
    consumer = broker.consume("shop", prefetch=prefetch, timeout=50)
    return consumer, [next(consumer) for _ in range(count)]


def test_a_task_is_received_once_and_only_its_saver_acknowledges_it(
    broker: PollingBroker, queues: Queues, inflight: InflightTasks, dispatches
) -> None:
    for _ in range(3):
        queues.send("shop", {dispatch.id: dispatch_message(dispatch) for dispatch in dispatches})
    consumer, messages = consume(broker, 3, prefetch=30)
    assert [message.options["redis_message_id"] for message in messages] == [
        dispatch.id for dispatch in dispatches
    ]
    assert len(inflight) == 3
    for message in messages:
        consumer.ack(message)
    assert queues.length("shop") == 3
    queues.ack({"shop": [dispatch.id for dispatch in dispatches]})
    assert consumer._take() is False or next(consumer) is None
    assert len(inflight) == 3


def test_a_process_receives_no_more_than_its_bound_until_some_are_done(
    broker: PollingBroker, queues: Queues, inflight: InflightTasks, dispatches
) -> None:
    queues.send("shop", {dispatch.id: dispatch_message(dispatch) for dispatch in dispatches})
    consumer, (first, second) = consume(broker, 2, prefetch=2)
    assert next(consumer) is None
    assert len(queues.waiting("shop")) == 1
    consumer.ack(first)
    assert next(consumer).options["redis_message_id"] == dispatches[2].id
    assert second


def test_a_process_with_fast_tasks_receives_more_and_leaves_some_to_others(
    broker: PollingBroker, queues: Queues
) -> None:
    put, _ = put_actor(broker)
    for number in range(24):
        put.send(str(number), "x")
    consumer, sibling = (broker.consume("q", prefetch=4, timeout=50) for _ in range(2))
    consumer._average = sibling._average = 0.01
    assert consumer._take()
    assert len(consumer._taken) == 12
    assert sibling._take()
    assert len(sibling._taken) == 6
    assert broker.consume("q", prefetch=6, timeout=50)._take()
    assert queues.waiting("q") == []


def test_tasks_that_were_not_begun_are_returned_at_shutdown(
    broker: PollingBroker, queues: Queues, inflight: InflightTasks, dispatches
) -> None:
    queues.send("shop", {dispatch.id: dispatch_message(dispatch) for dispatch in dispatches})
    consumer, (first,) = consume(broker, 1)
    consumer.requeue([first])
    consumer.close()
    assert queues.waiting("shop") == [dispatch.id for dispatch in dispatches[1:]]
    assert inflight.withdraw() == [dispatches[0]]


@pytest.fixture
def ran(broker: PollingBroker) -> list[Dispatch]:
    """Return the dispatches that the actor `run_task` has run."""
    dispatches: list[Dispatch] = []

    @dramatiq.actor(broker=broker, queue_name="shop", actor_name=RUN_TASK)
    def run_task(dispatch: Dispatch) -> None:
        dispatches.append(dispatch)

    return dispatches


def of_version(dispatch: Dispatch, change: Callable[[dict[str, Any]], Any]) -> dict[str, str]:
    """Return the message of a dispatch, as another version of the engine writes it."""
    message = json.loads(dispatch_message(dispatch))
    change(message["kwargs"])
    return {dispatch.id: json.dumps(message)}


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an unknown field": lambda fields: fields.update(zz="a token", later={"more": [1]}),
    "without an optional field": lambda fields: fields.pop("f"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_message_of_another_version_runs(
    queues: Queues,
    inflight: InflightTasks,
    work: Callable,
    until: Callable,
    dispatches,
    ran,
    change: str,
) -> None:
    one = replace(dispatches[0], crashes=1)  # the message then has all optional fields
    queues.send("shop", of_version(one, CHANGES[change]))
    work()
    until(lambda: ran)
    assert ran == [one]


def test_a_message_without_a_required_field_is_dropped_each_time_and_logged_once(
    queues: Queues,
    inflight: InflightTasks,
    work: Callable,
    until: Callable,
    dispatches,
    ran,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good, _ = dispatches
    work()
    for _ in range(3):  # the leader sends it again
        queues.send("shop", of_version(bad, lambda fields: fields.pop("p")))
        until(lambda: not queues.length("shop"))
    queues.send("shop", {good.id: dispatch_message(good)})
    until(lambda: ran)
    assert ran == [good]
    lines = [record.getMessage() for record in caplog.records if record.name == "core.broker"]
    assert lines == [
        f"dropping the unreadable message {bad.id} on 'shop': a dispatch lacks payload"
    ]
    assert inflight.active_leases() == [good.lease]


def test_a_result_that_is_being_saved_is_not_returned_at_shutdown(
    desk, broker: PollingBroker, queues: Queues, inflight: InflightTasks, dispatches
) -> None:
    one = dispatches[0]
    body = json.loads(json.dumps(desk.outcome(one).to_json())) | {"of_the_next_version": True}
    queues.send(SAVE_QUEUE, {one.id: encode(SAVE_QUEUE, SAVE_OUTPUT, one.id, body)})
    broker.declare_queue(SAVE_QUEUE)
    consumer = broker.consume(SAVE_QUEUE, prefetch=8, timeout=50)
    message = next(consumer)
    assert (message.actor_name, inflight.active_leases(), inflight.withdraw()) == (
        SAVE_OUTPUT,
        [one.lease],
        [],
    )
    consumer.ack(message)
    assert queues.length(SAVE_QUEUE) == 1  # its saver acknowledges it


@pytest.mark.parametrize("why", ["stopping", "draining"])
def test_a_process_that_stops_or_drains_receives_nothing_more(
    broker: PollingBroker,
    queues: Queues,
    process: SimpleNamespace,
    inflight: InflightTasks,
    dispatches,
    why: str,
) -> None:
    queues.send("shop", {dispatch.id: dispatch_message(dispatch) for dispatch in dispatches})
    getattr(process, why).set()
    consumer, (nothing,) = consume(broker, 1)
    assert nothing is None
    assert (len(queues.waiting("shop")), len(inflight)) == (3, 0)
    getattr(process, why).clear()
    assert next(consumer).options["redis_message_id"] == dispatches[0].id


def test_other_messages_that_were_not_begun_return_to_the_front(
    broker: PollingBroker, queues: Queues
) -> None:
    put, _ = put_actor(broker)
    ids = [put.send(str(n), "x").options["redis_message_id"] for n in range(3)]
    consumer = broker.consume("q", prefetch=8, timeout=50)
    messages = [next(consumer) for _ in range(2)]
    consumer.requeue(messages)
    assert sorted(queues.waiting("q")) == sorted(ids[:2])
    consumer.close()
    assert sorted(queues.waiting("q")) == sorted(ids)


# Redis goes away
# --------------------------------------------------------------------------------------------------


def test_workers_resume_by_themselves_after_a_restart_of_redis(
    tmp_path_factory, until: Callable
) -> None:
    valkey = Valkey(tmp_path_factory.mktemp("v"))
    queues = Queues(valkey.start(), "restart")
    broker = PollingBroker(queues, [], inflight=InflightTasks(), accepting=lambda: True)
    put, database = put_actor(broker)
    worker = Worker(broker, worker_timeout=50, worker_threads=2)
    try:
        put.send("a", "1")
        worker.start()
        until(lambda: database == {"a": "1"})
        valkey.stop()
        valkey.start()
        until(lambda: can_send(put))
        until(lambda: database.get("b") == "2")
    finally:
        worker.stop()
        queues.close()
        valkey.stop()


def can_send(put: dramatiq.Actor) -> bool:
    try:
        return isinstance(put.send("b", "2"), Message)
    except Exception:  # noqa: BLE001  Redis is not back yet
        return False
