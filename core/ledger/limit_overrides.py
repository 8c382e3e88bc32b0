"""The operator's figures of limits: those of `POLLING_LIMITS`, replaced by rows of the database.

The leader and the workers read the rows every few seconds, so a change needs no restart.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.db.clocks import recent
from core.db.pool import Conn
from core.limits.keys import exhausted
from core.settings import LimitOverride
from core.states import TaskState

Overrides = Mapping[str, Mapping[str, LimitOverride]]
"""The figures, by the integration's domain and the limit's name."""

# The table has one row for each limit that an operator has changed. A limit that was reset has no
# figures.
LOAD_FIGURES = "SELECT domain, name, figures FROM limit_override"
SET_FIGURES = """
INSERT INTO limit_override (domain, name, figures) VALUES (%s, %s, %s::jsonb)
ON CONFLICT (domain, name) DO UPDATE SET figures = excluded.figures, changed_at = clock_timestamp()
"""
IS_SETTLED = f"""
SELECT NOT EXISTS (SELECT FROM limit_override WHERE {recent("limit_override.changed_at")})
"""

# Tasks that wait for units of a limit, and the blocks of its budgets. A refusal of
# the provider has another reason. `sync_task_by_time` serves it.
RELEASE_LIMITED = f"""
WITH waiting AS MATERIALIZED (
    SELECT id FROM sync_task WHERE state = '{TaskState.READY}' AND dispatch_no >= 0
      AND integration_domain = %(domain)s AND available_at > now() AND reason = %(reason)s
    ORDER BY id FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM limit_block WHERE reason = %(reason)s AND (key ^@ ('group/' || %(domain)s || '/')
        OR key ^@ ('integration/' || %(domain)s || '/')
        OR key ^@ 'account/' AND EXISTS (SELECT FROM user_integration a
            WHERE a.id = split_part(key, '/', 2)::uuid AND a.integration_domain = %(domain)s))
)
UPDATE sync_task SET available_at = clock_timestamp() WHERE id = ANY (ARRAY(SELECT id FROM waiting))
"""


def changed(conn: Conn) -> dict[tuple[str, str], LimitOverride]:
    """Return the figures of the rows, by domain and name."""
    rows = conn.execute(LOAD_FIGURES).fetchall()
    return {
        (domain, name): LimitOverride.model_validate(figures)
        for domain, name, figures in rows
        if figures
    }


def effective(conn: Conn, settings: Overrides) -> Overrides:
    """Return the figures that apply now.

    Args:
      conn: A connection.
      settings: The figures of `POLLING_LIMITS`. A row replaces each figure that it names.
    """
    found = {domain: dict(limits) for domain, limits in settings.items()}
    for (domain, name), figures in changed(conn).items():
        limits = found.setdefault(domain, {})
        base = limits.get(name, LimitOverride())
        limits[name] = base.model_copy(update=figures.model_dump(exclude_none=True))
    return found


def settled(conn: Conn, settings: Overrides, present: Overrides) -> Overrides:
    """Return the figures for the leader, and release the tasks that wait for changed limits.

    Args:
      conn: A connection.
      settings: The figures of `POLLING_LIMITS`.
      present: The figures that the leader uses now. They stay until all workers know the new ones.
    """
    ((is_settled,),) = conn.execute(IS_SETTLED)
    if not is_settled or (found := effective(conn, settings)) == present:
        return present
    for domain in found.keys() | present.keys():
        new, old = found.get(domain, {}), present.get(domain, {})
        for name in new.keys() | old.keys():
            if new.get(name) != old.get(name):
                conn.execute(RELEASE_LIMITED, {"domain": domain, "reason": exhausted(name)})
    return found


def change(conn: Conn, domain: str, name: str, figures: LimitOverride) -> None:
    """Replace the figures of one limit. Empty figures restore the settings."""
    conn.execute(SET_FIGURES, (domain, name, figures.model_dump_json(exclude_none=True)))
