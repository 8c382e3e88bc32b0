"""PostgreSQL and Valkey from wheels, for a machine without servers.

They are the same programs as in production.

    with Servers(get_settings()) as urls:
        ...  # urls.database_url, urls.redis_url

The folder `embedded` under the home folder contains all data. Several processes share the servers:
each command starts them or joins them, and the last process to leave stops them.
"""

from __future__ import annotations

from core.embedded.keys import secret_keys
from core.embedded.servers import Servers, Urls

__all__ = ["Servers", "Urls", "secret_keys"]
