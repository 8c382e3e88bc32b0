"""Triggers that record every committed change of a state."""

from __future__ import annotations

from core.db.pool import Conn
from core.states import ACCOUNTS, RUNS, TASKS

MACHINES = {machine.table: machine for machine in (ACCOUNTS, RUNS, TASKS)}

Change = tuple[str, str | None, str]
"""A table, the state before (None: the row is inserted), and the state after."""

WATCH = """
CREATE TABLE state_change (id bigint GENERATED ALWAYS AS IDENTITY, "table" text, source text,
    target text);
CREATE FUNCTION note_state() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    source text := CASE TG_OP WHEN 'UPDATE' THEN to_jsonb(OLD)->>TG_ARGV[0] END;
    target text := to_jsonb(NEW)->>TG_ARGV[0];
BEGIN
    IF source IS DISTINCT FROM target THEN
        INSERT INTO state_change ("table", source, target) VALUES (TG_TABLE_NAME, source, target);
    END IF;
    RETURN NULL;
END $$;
"""


def watch(conn: Conn) -> None:
    """Start to record the changes of state in this database."""
    conn.execute(WATCH)
    for machine in MACHINES.values():
        conn.execute(
            f"CREATE TRIGGER note_state AFTER INSERT OR UPDATE ON {machine.table} FOR EACH ROW"
            f" EXECUTE FUNCTION note_state('{machine.column}')"
        )


def noted(conn: Conn) -> list[Change]:
    """Return the recorded changes, and delete them."""
    query = "WITH gone AS (DELETE FROM state_change RETURNING *) SELECT * FROM gone ORDER BY id"
    return [(table, source, target) for _, table, source, target in conn.execute(query)]


def forbidden(changes: list[Change]) -> list[Change]:
    """Return the changes that `core.states` does not allow."""
    return [
        (table, source, target)
        for table, source, target in changes
        if not MACHINES[table].allows(source, target)
    ]
