"""Clients of a Redis whose master Sentinels name.

Each new connection asks the Sentinels for the present master. After a failover, a replica that
lacks the last second is the master. The ledger replaces what is missing, as after a flush.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.sentinel import Sentinel

from core import sentinel_url


def open_master(url: str, **options: Any) -> redis.Redis:
    """Open a client of the master that the Sentinels name.

    Args:
      url: A URL of the form of `core.sentinel_url`.
      options: Options of the connections to Redis. Sentinels have the same timeouts and keepalives.

    Raises:
      ValueError: The URL is not valid.
    """
    parsed = sentinel_url.parse(url)
    timeouts = {name: value for name, value in options.items() if name.startswith("socket_")}
    manager = Sentinel(  # type: ignore[no-untyped-call]
        parsed.sentinels, sentinel_kwargs=timeouts | parsed.sentinel_options
    )
    client: redis.Redis = manager.master_for(  # type: ignore[no-untyped-call]
        parsed.name, **options | parsed.options
    )
    return client


def pools(client: redis.Redis) -> list[redis.ConnectionPool]:
    """Return the connection pool of a client, and the pools to the Sentinels that it asks."""
    pool = client.connection_pool
    manager = getattr(pool, "sentinel_manager", None)
    return [pool, *(each.connection_pool for each in getattr(manager, "sentinels", ()))]
