"""The queues in Redis.

They contain a small window of the ledger. Losing all of them costs some seconds.

`<namespace>:<queue>` is a list of message ids, and `<namespace>:<queue>.msgs` a hash of their
bodies, with Dramatiq's names. An id stays in the list until a consumer fetches it, and in the hash
until its message is acknowledged. The queues have no ack sets: the tasks of a killed process are
requeued when their leases expire.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from core.accounts.redaction import describe_redis
from core.egress import any_host
from core.errors import ServerUnavailable
from core.sentinel_url import is_sentinel
from core.transport import permissions, sentinel

REDIS_UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)
"""The errors of a command while Redis is unavailable, loading, read-only or out of memory."""

DEMOTED = ("NOREPLICAS", "UNBLOCKED")
"""Error replies of a master that was demoted or cut off, besides `READONLY`."""

MINIMUM_VERSION = (6, 2)

NONCE_SECONDS = 10.0
"""Seconds after its last renewal in which a leader's nonce keeps other fleets from Redis."""

DISK_FULL_SECONDS = 10.0
"""Seconds for which Redis remembers that a statement has failed on PostgreSQL's full disk."""

OCCUPY = """
-- Renews the nonce, unless another one is here. Returns that one.
local other = redis.call('GET', KEYS[1])
for i = 2, #ARGV do
    if other == ARGV[i] then other = false end
end
if other then return other end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
return false
"""

FETCH = """
-- Returns the nonce of another fleet, if there is one.
local nonce = redis.call('GET', KEYS[3])
if nonce and nonce ~= ARGV[3] then return nonce end
-- Beyond `sure`, fetches at most half of the waiting messages.
local most, sure = tonumber(ARGV[1]), tonumber(ARGV[2])
if most > sure then
    most = math.max(sure, math.min(most, math.ceil(redis.call('LLEN', KEYS[1]) / 2)))
end
local ids = redis.call('LPOP', KEYS[1], most)
if not ids then return {} end
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
"""

TAKE_BACK = """
-- Deletes messages that no consumer has fetched. Returns their ids.
local taken = {}
for _, id in ipairs(ARGV) do
    if redis.call('LREM', KEYS[1], -1, id) > 0 then
        redis.call('HDEL', KEYS[2], id)
        taken[#taken + 1] = id
    end
end
return taken
"""

MAX_FETCHED_MESSAGES = 500
"""The maximum number of ids in one fetch, because Lua unpacks them onto its stack."""


KEEPALIVE_OPTIONS = {
    getattr(socket, name): value
    for name, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 3),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 20_000),
    )
    if hasattr(socket, name)
}
"""The options of every TCP connection to Redis, as far as the system has them.

A host that vanished silently is noticed within 20 s. The deadline of a reply is shorter; it also
notices a proxy or a firewall that acknowledges what it does not forward.
"""


def open_client(url: str, *, timeout: float = 5.0, retries: int = 2) -> redis.Redis:
    """Open a client that repeats a command after a broken connection.

    Every command of the engine may be repeated without harm.

    Args:
      url: `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.
      timeout: Seconds to wait for a reply. Default: 5.
      retries: The number of repetitions. Default: 2.
    """
    retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), retries)
    client = (sentinel.open_master if is_sentinel(url) else redis.Redis.from_url)(
        url,
        socket_timeout=timeout,
        retry=retry,
        health_check_interval=30,
        **({} if url.startswith("unix:") else _tcp_options(timeout)),
    )
    for pool in sentinel.pools(client):
        pool.connection_class = _to_any_master(pool.connection_class)
    return client


def _tcp_options(timeout: float) -> dict[str, Any]:
    return {
        "socket_connect_timeout": min(timeout, 5.0),
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE_OPTIONS,
    }


DATA_ID = "@data"
"""The field of the hash of budgets with the id under which its server replicates its data."""


def _to_any_master(kind: type[Any]) -> type[Any]:
    """Return a subclass of a connection that `core.egress` always lets connect.

    The connection ends if the server takes no more writes, because another one may be the master.
    A new connection resolves the name again, or asks the Sentinels.
    """

    class Connection(kind):  # type: ignore[misc]
        first_script: tuple[str, str] | None = None
        compared: socket.socket | None = None

        def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
            with any_host():
                super().connect_check_health(*args, **kwargs)
            # The client calls this method before each command, also while it is connected.
            if self.first_script is not None and self.compared is not self._sock:
                self._run_first(*self.first_script)

        def _run_first(self, script: str, key: str) -> None:
            # If the server is loading or refuses a command, compare again before the next command.
            with suppress(redis.ResponseError):
                if self._has_other_data(key):
                    self.send_command("SCRIPT", "LOAD", script)
                    sha = self.read_response()
                    self.send_command("EVALSHA", sha, 1, key)
                    self.read_response()
                self.compared = self._sock

        def _has_other_data(self, key: str) -> bool:
            """Return True if the hash exists and lacks the id of the server's data.

            This only reads, because a server that is full or paused refuses writes.
            """
            self.send_command("INFO", "replication")
            found = re.search(rb"master_replid:(\w+)", self.read_response())
            self.send_command("HMGET", key, "", DATA_ID)
            mark, known = self.read_response()
            return found is not None and mark is not None and known != found[1]

        def read_response(self, *args: Any, disconnect_on_error: bool = True, **kwargs: Any) -> Any:
            # Sentinel's class has another default. An interrupt would leave a reply unread.
            try:
                return super().read_response(
                    *args, disconnect_on_error=disconnect_on_error, **kwargs
                )
            except redis.ResponseError as error:
                if not isinstance(error, redis.ReadOnlyError) and not str(error).startswith(
                    DEMOTED
                ):
                    raise
                self.disconnect()
                raise redis.ConnectionError(str(error)) from None

    return Connection


class OtherFleet(Exception):
    """The leader of an unknown term has marked Redis as its own.

    Attributes:
      nonce: The nonce of that term.
    """

    def __init__(self, nonce: int) -> None:
        super().__init__("another fleet uses this Redis")
        self.nonce = nonce


class Queues:
    """Commands that send, fetch and acknowledge messages.

    Args:
      url: `redis://`, `rediss://`, `unix://` or `redis+sentinel://`.
      namespace: The prefix of every key.
    """

    BLOCK_SECONDS = 2.0
    """Seconds that a consumer waits in one command. It may notice a stop that much later."""

    def __init__(self, url: str, namespace: str) -> None:
        self.namespace = namespace
        self.client = open_client(url)
        self._blocking = open_client(url, timeout=self.BLOCK_SECONDS + 5.0)
        self._impatient = open_client(url, timeout=self.HINT_SECONDS, retries=0)
        self._fetch = self.client.register_script(FETCH)
        self._occupy = self.client.register_script(OCCUPY)
        self._take_back = self.client.register_script(TAKE_BACK)
        self._disk_noted = float("-inf")
        self.nonce: int | None = None
        """The nonce of the latest term that this process knows."""

    HINT_SECONDS = 2.0
    """Seconds that `answers`, `can_send` and `wake` wait for a reply."""

    def key(self, name: str) -> str:
        """Return a key in the namespace."""
        return f"{self.namespace}:{name}"

    def run_first(self, script: str, key: str) -> None:
        """Let each new connection of `client` run a script first, if its server has other data.

        After a failover, the first command to the new master comes through a new connection.
        """
        cast(Any, self.client.connection_pool.connection_class).first_script = (script, key)
        self.client.connection_pool.disconnect(inuse_connections=False)

    def _list(self, queue: str) -> str:
        return f"{self.namespace}:{queue}"

    def _hash(self, queue: str) -> str:
        return f"{self.namespace}:{queue}.msgs"

    def send(
        self,
        queue: str,
        messages: Mapping[str, bytes | str],
        marks: Mapping[str, int] | None = None,
    ) -> None:
        """Add messages to a queue, and set the keys `marks`, in one transaction."""
        if not messages:
            return
        with self.client.pipeline(transaction=True) as pipe:
            pipe.hset(self._hash(queue), mapping=cast(Any, dict(messages)))
            pipe.rpush(self._list(queue), *messages)
            for name, value in (marks or {}).items():
                pipe.set(self.key(name), value)
            pipe.execute()

    def restore(self, queue: str, messages: Mapping[str, bytes | str]) -> None:
        """Add messages that a process holds, so that they count until their acknowledgement."""
        if messages:
            self.client.hset(self._hash(queue), mapping=cast(Any, dict(messages)))

    def fetch(
        self, queue: str, most: int, sure: int | None = None
    ) -> list[tuple[str, bytes | None]]:
        """Fetch messages.

        Args:
          queue: The name of the queue.
          most: The maximum number of messages.
          sure: The number of messages to fetch even if none remain for other processes. Beyond it,
            at most half of the waiting messages are fetched. Default: `most`.

        Returns:
          Pairs of (id, body). The body is None if the message was already acknowledged.

        Raises:
          OtherFleet: Redis has a nonce that is not `self.nonce`.
        """
        most = min(most, MAX_FETCHED_MESSAGES)
        args = [most, most if sure is None else sure, "" if self.nonce is None else self.nonce]
        keys = [self._list(queue), self._hash(queue), self.key("nonce")]
        reply = cast(Any, self._fetch(keys=keys, args=args))
        if not reply:
            return []
        if isinstance(reply, bytes):
            raise OtherFleet(int(reply))
        return [(id.decode(), body) for id, body in zip(reply[0], reply[1], strict=True)]

    def wait(self, queue: str) -> bool:
        """Block until the queue has a message, for at most `BLOCK_SECONDS`. Fetch nothing.

        Returns:
          True if the queue has a message.
        """
        key = self._list(queue)
        return (
            self._blocking.blmove(key, key, cast(Any, self.BLOCK_SECONDS), "LEFT", "LEFT")
            is not None
        )

    def ack(self, messages: Mapping[str, Iterable[str]], *, wake: bool = False) -> None:
        """Delete messages, by queue, in one round trip. With `wake`, also wake the dispatcher."""
        if len(messages) == 1 and not wake:
            [(queue, ids)] = messages.items()
            self.client.hdel(self._hash(queue), *ids)
            return
        with self.client.pipeline(transaction=False) as pipe:
            for queue, ids in messages.items():
                pipe.hdel(self._hash(queue), *ids)
            if wake:
                self._add_wake(pipe)
            pipe.execute()

    def _add_wake(self, pipe: Any) -> None:
        pipe.lpush(self.key("wake"), 1)
        pipe.ltrim(self.key("wake"), 0, 0)

    def hand_over(self, id: str, source: str, target: str, body: str) -> None:
        """Move a message to another queue with a new body and the same id, in one transaction."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.hset(self._hash(target), id, body)
            pipe.rpush(self._list(target), id)
            pipe.hdel(self._hash(source), id)
            pipe.execute()

    def requeue(self, queue: str, ids: Sequence[str]) -> None:
        """Return fetched messages to the front of their queue."""
        if ids:
            self.client.lpush(self._list(queue), *reversed(ids))

    def wake(self) -> None:
        """Wake the dispatcher because work was added.

        This is tried once. Without a wake-up, the dispatcher polls a second later.
        """
        with self._impatient.pipeline(transaction=False) as pipe:
            self._add_wake(pipe)
            pipe.execute()

    def wait_for_work(self, seconds: float) -> bool:
        """Block until a wake-up, for at most `seconds`. Returns True if there was one."""
        return (
            self._blocking.blpop([self.key("wake")], timeout=min(seconds, self.BLOCK_SECONDS))
            is not None
        )

    def woken(self) -> bool:
        """Return True if there was a wake-up since the last check. Does not wait."""
        return self.client.lpop(self.key("wake")) is not None

    def length(self, queue: str) -> int:
        """Return the number of messages that wait, or are fetched and not acknowledged."""
        return self.client.hlen(self._hash(queue))

    def backlog(self, queue: str) -> int:
        """Return the number of messages that no consumer has fetched."""
        return self.client.llen(self._list(queue))

    def take_back(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Delete messages unless a consumer has fetched them. Returns the ids of those deleted."""
        if not ids:
            return []
        reply = self._take_back(keys=[self._list(queue), self._hash(queue)], args=list(ids))
        return [id.decode() for id in cast("list[bytes]", reply)]

    def ids(self, *queues: str) -> list[set[str]]:
        """Return the ids that are not acknowledged, by queue, in one snapshot."""
        with self.client.pipeline(transaction=True) as pipe:
            for queue in queues:
                pipe.hkeys(self._hash(queue))
            return [{id.decode() for id in ids} for ids in pipe.execute()]

    def waiting(self, queue: str) -> list[str]:
        """Return the ids that no consumer has fetched."""
        return [
            id.decode() for id in cast("list[bytes]", self.client.lrange(self._list(queue), 0, -1))
        ]

    def occupy(self, nonce: int, known: Iterable[int] = ()) -> int | None:
        """Mark Redis as used by the fleet of this nonce, for `NONCE_SECONDS`.

        Args:
          nonce: The nonce of this leader's term.
          known: Nonces of the same fleet, which this one replaces.

        Returns:
          The nonce of another fleet, which is then not replaced; None if there is none.
        """
        args = [round(NONCE_SECONDS * 1000), nonce, *known]
        other = cast("bytes | None", self._occupy(keys=[self.key("nonce")], args=args))
        return None if other is None else int(other)

    def number(self, name: str) -> int | None:
        """Return the value of a mark that `send` or `mark` has set."""
        value = cast("bytes | None", self.client.get(self.key(name)))
        return None if value is None else int(value)

    def mark(self, name: str, value: int) -> None:
        """Set the value of a mark."""
        self.client.set(self.key(name), value)

    def purge(self, queue: str) -> None:
        """Delete all messages of a queue."""
        self.client.delete(self._list(queue), self._hash(queue))

    def answers(self) -> bool:
        """Return True if the server answers within `HINT_SECONDS`. Tries once."""
        try:
            self._impatient.ping()
        except REDIS_UNAVAILABLE:
            return False
        return True

    def can_send(self) -> bool:
        """Return True if the server accepts a write within `HINT_SECONDS`. Tries once."""
        return self.refusal() is None

    def refusal(self) -> redis.RedisError | None:
        """Return the error of a write; None if the server accepts it in time, as in `can_send`."""
        try:
            self._impatient.set(self.key("can_send"), 1, px=10_000)
        except REDIS_UNAVAILABLE as error:
            return error
        return None

    def note_disk_full(self) -> None:
        """Note that PostgreSQL's disk is full, for `DISK_FULL_SECONDS`. Tries once, once a second.

        PostgreSQL itself may not be able to store this.
        """
        now = time.monotonic()
        if now - self._disk_noted < 1.0:
            return
        self._disk_noted = now
        with suppress(*REDIS_UNAVAILABLE):
            self._impatient.set(self.key("disk_full"), 1, px=round(DISK_FULL_SECONDS * 1000))

    def disk_is_full(self) -> bool:
        """Return True if a process has lately noted that PostgreSQL's disk is full. Tries once."""
        try:
            return bool(self._impatient.exists(self.key("disk_full")))
        except REDIS_UNAVAILABLE:
            return False

    def forbidden(self) -> list[str]:
        """Return the commands of the engine that the user of the URL may not run.

        Raises:
          ServerUnavailable: The server does not answer.
        """
        try:
            return permissions.forbidden(self._impatient, self.namespace)
        except redis.RedisError as error:
            raise ServerUnavailable("redis-unreachable", detail=describe_redis(error)) from None

    def require(self) -> dict[str, Any]:
        """Return the server's INFO.

        Raises:
          ServerUnavailable: The server does not answer, or is older than Redis 6.2.
        """
        try:
            info: dict[str, Any] = self.client.info()
        except redis.RedisError as error:
            raise ServerUnavailable("redis-unreachable", detail=describe_redis(error)) from None
        version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
        if version < MINIMUM_VERSION:
            raise ServerUnavailable("redis-too-old", version=info["redis_version"])
        return info

    def close(self) -> None:
        """Close all connections."""
        self.client.close()
        self._blocking.close()
        self._impatient.close()
