"""A small subclass of Dramatiq's Redis broker.

It has blocking fetches and late acknowledgements, but no delay queues and no ack sets.

The ledger replaces these. It records which tasks were sent, so the leader sends lost messages
again. The tasks of a killed process are requeued when their leases expire.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import uuid4

import redis
from dramatiq import Message, Middleware
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import DecodeError, QueueJoinTimeout
from dramatiq.middleware import MiddlewareError

from core.accounts.redaction import describe_redis
from core.transport.messages import OWN_THREADS, RUN_TASK, SAVE_OUTPUT, TaskMessage
from core.transport.queues import REDIS_UNAVAILABLE, OtherFleet, Queues
from core.worker.inflight import InflightTasks
from core.worker.result_messages import dispatch_of_result

log = logging.getLogger(__name__)

FAST_SECONDS = 0.1
FAST_TIMES = 4
"""The factor by which a process fetches more messages while they finish within `FAST_SECONDS`.

That saves round trips to Redis.
"""

SLOW_SECONDS = 0.25
"""The average time above which a process fetches only as many messages as it has threads.

The other messages are left to other processes.
"""

BUSY_SECONDS = 1.0
"""The time in seconds after which a thread that runs one task counts as busy."""

ROOM_SECONDS = 0.1
"""Seconds between two checks for room: a task of another queue may have freed a thread."""

MAX_HELD_BACK = 2
"""Messages that wait beside a reserved thread while the process fetches further ones."""

OTHER_FLEET_SECONDS = 1.0
"""Seconds between two attempts to fetch while another fleet uses Redis."""

MAX_UNREADABLE_IDS = 1_000
"""The number of unreadable messages whose ids a consumer keeps, to log each of them once."""


class PollingBroker(RedisBroker):
    """A Dramatiq broker on the engine's queues.

    Args:
      queues: The queues in Redis.
      middleware: The middleware, in its order.
      inflight: The in-flight tasks, to which received tasks and results are added.
      accepting: Returns True while consumers may receive messages.
      recognizes: Returns True if a nonce in Redis is one of this fleet. Default: never called in a
        namespace without a leader.
      held_back: Returns the number of messages of a queue that wait in this process beside a
        reserved thread. Default: none waits.
    """

    def __init__(
        self,
        queues: Queues,
        middleware: list[Middleware],
        *,
        inflight: InflightTasks,
        accepting: Callable[[], bool],
        recognizes: Callable[[int], bool] = lambda _: True,
        held_back: Callable[[str], int] = lambda _: 0,
    ) -> None:
        self._hooks: dict[str, Sequence[Callable[..., None]]] = {}
        super().__init__(client=queues.client, middleware=middleware, namespace=queues.namespace)  # type: ignore[no-untyped-call]
        self.polling_queues = queues
        self.inflight = inflight
        self.accepting = accepting
        self.recognizes = recognizes
        self.held_back = held_back

    @property
    def consumer_class(self) -> type[Consumer]:
        """The class of the consumers."""
        return BlockingConsumer

    def add_middleware(self, middleware: Middleware, **place: Any) -> None:
        """Add a middleware, as Dramatiq does."""
        super().add_middleware(middleware, **place)
        self._hooks.clear()

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks before a signal, from the first middleware to the last.

        Dramatiq would also call the empty hooks of all other middleware, four for each message.
        """
        for hook in self._defined(f"before_{signal}"):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                log.critical("unexpected failure in %r", hook, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the hooks after a signal, from the last middleware to the first."""
        for hook in reversed(self._defined(f"after_{signal}")):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                log.critical("unexpected failure in %r", hook, exc_info=True)

    def _defined(self, name: str) -> Sequence[Callable[..., None]]:
        """Return the hooks of this name that middleware define, in their order."""
        hooks = self._hooks.get(name)
        if hooks is None:
            empty = getattr(Middleware, name, None)
            hooks = [
                getattr(middleware, name)
                for middleware in self.middleware
                if getattr(type(middleware), name, None) is not empty
            ]
            self._hooks[name] = hooks
        return hooks

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, without a delay queue."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Send one message. An id in its options is kept.

        Raises:
          ValueError: A delay was given. The ledger keeps tasks that start later.
        """
        if delay is not None:
            raise ValueError(
                "this broker has no delay queues; the ledger keeps tasks that start later"
            )
        id = message.options.get("redis_message_id") or str(uuid4())
        message = message.copy(options={"redis_message_id": id})
        self.emit_before("enqueue", message, delay)
        self.polling_queues.send(message.queue_name, {id: message.encode()})
        self.emit_after("enqueue", message, delay)
        return message

    def flush(self, queue_name: str) -> None:
        """Delete all messages of a queue."""
        self.polling_queues.purge(queue_name)

    def join(self, queue_name: str, *, interval: int = 100, timeout: int | None = None) -> None:
        """Wait until all messages of a queue are acknowledged; for tests.

        Args:
          queue_name: The queue.
          interval: Milliseconds between two checks. Default: 100.
          timeout: The maximum number of milliseconds. Default: no maximum.

        Raises:
          QueueJoinTimeout: The timeout has passed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while self.polling_queues.length(queue_name):
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]
            time.sleep(interval / 1000)


class BlockingConsumer(Consumer):
    """A consumer that fetches the messages of one queue in portions.

    It waits in Redis while the queue is empty, and on a condition while the process has enough
    messages.

    Args:
      broker: The broker.
      queue_name: The queue.
      prefetch: The maximum number of messages in this process: twice its threads.
      timeout: The maximum wait for room, in milliseconds.
    """

    def __init__(self, broker: PollingBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.queues = broker.polling_queues
        self._inflight = broker.inflight
        self._accepting = broker.accepting
        self._recognizes = broker.recognizes
        self._held_back = broker.held_back
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout / 1000
        self._taken: deque[tuple[str, bytes | None]] = deque()
        self._here: dict[str, float] = {}
        self._unreadable: deque[str] = deque(maxlen=MAX_UNREADABLE_IDS)
        self._average = 0.0
        self._changed = threading.Condition()
        self._away = False

    def __next__(self) -> MessageProxy | None:
        """Return the next message; None if there is none yet."""
        while True:
            if self._taken:
                id, body = self._taken.popleft()
                proxy = self._decoded(id, body)
                if proxy is not None:
                    return proxy
                continue
            try:
                if not self._take():
                    return None
                self._away = False
            except OtherFleet as error:
                if not self._recognizes(error.nonce):
                    time.sleep(OTHER_FLEET_SECONDS)
                    return None
                self.queues.nonce = error.nonce
            except REDIS_UNAVAILABLE as error:
                self._wait_out(error)
                return None

    def _take(self) -> bool:
        """Fetch as many messages as there is room for.

        Returns:
          False, after a wait, if it fetched no message.
        """
        if not self._accepting():
            time.sleep(0.1)
            return False
        room = self._room()
        if room <= 0:
            with self._changed:
                self._changed.wait_for(lambda: self._room() > 0, min(self.timeout, ROOM_SECONDS))
            room = self._room()
            if room <= 0:
                return False
        # Beyond the normal prefetch, fetch at most half of the waiting messages: the next tasks may
        # be slow, and other processes idle.
        sure = max(self.prefetch - len(self._here), 1)
        fetched = self.queues.fetch(self.queue_name, room, sure)
        if not fetched and self.queues.wait(self.queue_name) and self._accepting():
            fetched = self.queues.fetch(self.queue_name, room, sure)
        self._taken.extend(fetched)
        return bool(fetched)

    def _room(self) -> int:
        """Return the number of messages to fetch; 0 until half of the places are free.

        Slow tasks are fetched one by one, all others in portions. Messages are fetched only for
        threads that are not busy. Otherwise a process would fetch again what it has just returned.
        """
        if self.queue_name in OWN_THREADS:
            return OWN_THREADS[self.queue_name] - len(self._here)
        slow = self._average > SLOW_SECONDS
        fast = 0 < self._average < FAST_SECONDS
        threads = max(self.prefetch // 2, 1)
        places = threads if slow else self.prefetch * (FAST_TIMES if fast else 1)
        mine, others = self._inflight.busy(self.queue_name, BUSY_SECONDS)
        places = places * max(threads - mine - others, 0) // threads
        if not self._here and mine + others < threads:
            places = max(places, 1)  # in line for the next thread, also behind other queues
        free = places - (len(self._here) - mine)
        if free <= 0 and 0 < self._held_back(self.queue_name) <= MAX_HELD_BACK:
            return 1  # the reserved thread serves another user, whose message may be next
        return free if slow or free * 2 >= places else 0

    def _decoded(self, id: str, body: bytes | None) -> MessageProxy | None:
        """Return a message; None if it is acknowledged, unreadable, or already in this process."""
        if body is None:
            return None
        try:
            message: Message[Any] = Message.decode(body)
            message.options["redis_message_id"] = id
            proxy = (
                TaskMessage(message) if message.actor_name == RUN_TASK else MessageProxy(message)
            )
            if isinstance(proxy, TaskMessage) and not self._inflight.receive(proxy.dispatch):
                return None
            if (
                message.actor_name == SAVE_OUTPUT
                and (dispatch := dispatch_of_result(message.kwargs)) is not None
            ):
                self._inflight.receive(dispatch, started=True)
        except (DecodeError, TypeError) as error:
            self._drop(id, error)
            return None
        with self._changed:
            self._here[id] = time.monotonic()
        return proxy

    def _drop(self, id: str, error: Exception) -> None:
        """Drop a message that this version of the engine cannot read, and log it once.

        If it belongs to a queued task, the leader sends it again and again.
        """
        if id not in self._unreadable:
            self._unreadable.append(id)
            why = error if isinstance(error, TypeError) else type(error).__name__
            log.error("dropping the unreadable message %s on %r: %s", id, self.queue_name, why)
        self.queues.ack({self.queue_name: [id]})

    def _wait_out(self, error: redis.RedisError) -> None:
        if not self._away:
            log.warning(
                "Redis is unavailable; the consumer of %r retries: %s",
                self.queue_name,
                describe_redis(error),
            )
        self._away = True
        time.sleep(0.5)

    def ack(self, message: MessageProxy) -> None:
        """Free the place of a message that a thread has processed.

        The saver acknowledges messages of tasks and results in Redis; others are acknowledged here.
        """
        self._gone(message)
        if message.actor_name not in (RUN_TASK, SAVE_OUTPUT):
            self._acknowledge(message)

    def nack(self, message: MessageProxy) -> None:
        """Drop a message of an actor that this process does not have.

        If it was a task, the leader sends it again.
        """
        self._gone(message)
        self._acknowledge(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Return fetched messages that have not started to the queue, at shutdown.

        Tasks are not returned here: the process releases them in the ledger.
        """
        self._requeue(
            [
                message.options["redis_message_id"]
                for message in messages
                if message.actor_name != RUN_TASK
            ]
        )

    def close(self) -> None:
        """Return fetched messages that no thread has received to their queue."""
        left = [id for id, body in self._taken if body is not None]
        self._taken.clear()
        self._requeue(left)

    def _requeue(self, ids: Sequence[str]) -> None:
        try:
            self.queues.requeue(self.queue_name, ids)
        except REDIS_UNAVAILABLE as error:
            log.warning(
                "could not return %d fetched messages; their tasks are requeued when their leases"
                " expire: %s",
                len(ids),
                describe_redis(error),
            )

    def give_up(self, id: str) -> None:
        """Free the place of a message whose thread was replaced."""
        with self._changed:
            self._here.pop(id, None)
            self._changed.notify()

    def _gone(self, message: MessageProxy) -> None:
        with self._changed:
            since = self._here.pop(message.options["redis_message_id"], None)
            if since is not None:
                self._average += 0.2 * (time.monotonic() - since - self._average)
            if self._room() > 0:
                self._changed.notify()

    def _acknowledge(self, message: MessageProxy) -> None:
        try:
            self.queues.ack({self.queue_name: [message.options["redis_message_id"]]})
        except REDIS_UNAVAILABLE as error:
            log.warning(
                "could not acknowledge a message of %r: %s",
                self.queue_name,
                describe_redis(error),
            )
