"""The Redis commands of the engine, and which of them a Redis user may not run."""

from __future__ import annotations

import redis

_COMMANDS = (
    ("PING",),
    ("INFO", "server"),
    ("TIME",),
    ("SET", "{text}", "1", "PX", "1000"),
    ("GET", "{text}"),
    ("HSET", "{hash}", "a", "1"),
    ("HSETNX", "{hash}", "b", "1"),
    ("HGET", "{hash}", "a"),
    ("HMGET", "{hash}", "a"),
    ("HKEYS", "{hash}"),
    ("HLEN", "{hash}"),
    ("HSCAN", "{hash}", "0"),
    ("HDEL", "{hash}", "a"),
    ("RPUSH", "{list}", "1"),
    ("LPUSH", "{list}", "1"),
    ("LTRIM", "{list}", "0", "1"),
    ("LRANGE", "{list}", "0", "-1"),
    ("LLEN", "{list}"),
    ("LREM", "{list}", "-1", "1"),
    ("LPOP", "{list}"),
    ("BLMOVE", "{list}", "{list}", "LEFT", "LEFT", "0.01"),
    ("BLPOP", "{list}", "0.01"),
    ("SCRIPT LOAD", "return 1"),
    ("EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"),
    ("MULTI",),
    ("DEL", "{text}", "{hash}", "{list}"),
)
"""Every command that the engine runs, also in its scripts, on keys that this module deletes.

The keys have the namespace of the engine, because a user may be bound to a pattern of keys.
"""


def forbidden(client: redis.Redis, prefix: str) -> list[str]:
    """Return the commands that the client's user may not run.

    Args:
      client: A client. No other thread uses its connection.
      prefix: The prefix of the keys.

    Raises:
      redis.ConnectionError, redis.TimeoutError: The server does not answer.
    """
    keys = {name: f"{prefix}:permissions-{name}" for name in ("text", "hash", "list")}
    found = []
    for name, *arguments in _COMMANDS:
        try:
            if name == "MULTI":
                with client.pipeline(transaction=True) as pipe:
                    pipe.ping()
                    pipe.execute()
            else:
                words = (argument.format(**keys) for argument in arguments)
                client.execute_command(name, *words)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoPermissionError:
            found.append(name)
        except redis.ResponseError:
            continue  # out of memory, read-only, or an unknown script: the user may run it
    return found
