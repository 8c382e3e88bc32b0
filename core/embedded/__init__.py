"""PostgreSQL and Valkey from wheels, for a machine that has no servers.

They are the same programs as in production.

    with Servers(get_settings()) as urls:
        ...  # urls.database_url, urls.redis_url

All data lie in `embedded` under the home folder. The servers belong to no process: each command
joins them or starts them, and the last one to leave stops them.
"""

from __future__ import annotations

from core.embedded.keys import secret_keys
from core.embedded.servers import Servers, Urls

__all__ = ["Servers", "Urls", "secret_keys"]
