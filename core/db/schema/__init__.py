"""The tables, which `docs/reference/tables.md` explains.

Each module has its own statements on them.

The hot tables (`sync_task`, `sync_state`, `sync_seen`, `user_integration_content`) have no foreign
keys. With them, every insert would lock its run or account row `FOR KEY SHARE`, and many writers of
one run would wait for that row (ADR 0003).
"""

from __future__ import annotations

from core.db.schema import access, accounts, content, fleet, runs, subscriptions
from core.db.schema.columns import metadata

__all__ = ["access", "accounts", "content", "fleet", "metadata", "runs", "subscriptions"]
