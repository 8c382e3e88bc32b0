"""A ledger with several leaders: each connection sees a leadership of its own.

All dispatchers then lead concurrently, which only a database that breaks its guarantees could
cause. The engine reads and writes `engine_state` as usual, but here it is a view.
"""

from __future__ import annotations

from support.deployment import Deployment

EVERYBODY_LEADS = """
ALTER TABLE engine_state RENAME TO ledger_row;
CREATE TABLE lead (connection int PRIMARY KEY, leader uuid, leader_until timestamptz);
CREATE VIEW engine_state AS SELECT epoch, budgets_started, last_tick_at, stuck,
    nonce, nonce_at, previous_nonce, previous_nonce_at,
    (SELECT leader FROM lead WHERE connection = pg_backend_pid()) AS leader,
    coalesce((SELECT leader_until FROM lead WHERE connection = pg_backend_pid()),
        now() + interval '1 hour') AS leader_until
FROM ledger_row;
CREATE FUNCTION lead_apart() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger_row SET epoch = NEW.epoch, budgets_started = NEW.budgets_started,
        last_tick_at = NEW.last_tick_at, nonce = NEW.nonce, nonce_at = NEW.nonce_at,
        previous_nonce = NEW.previous_nonce, previous_nonce_at = NEW.previous_nonce_at
        WHERE (epoch, budgets_started, last_tick_at, nonce_at) IS DISTINCT
        FROM (NEW.epoch, NEW.budgets_started, NEW.last_tick_at, NEW.nonce_at);
    INSERT INTO lead VALUES (pg_backend_pid(), NEW.leader, NEW.leader_until)
    ON CONFLICT (connection) DO UPDATE
        SET leader = excluded.leader, leader_until = excluded.leader_until;
    RETURN NEW;
END $$;
CREATE TRIGGER lead_apart INSTEAD OF UPDATE ON engine_state
    FOR EACH ROW EXECUTE FUNCTION lead_apart();

CREATE TABLE claim (connection int, at timestamptz);
CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO claim VALUES (pg_backend_pid(), clock_timestamp()); RETURN NULL; END $$;
CREATE TRIGGER note_claim AFTER UPDATE ON sync_task FOR EACH ROW
    WHEN (NEW.state = 'queued' AND OLD.state = 'ready') EXECUTE FUNCTION note_claim();
"""
AT_ONCE = """
SELECT count(*) FROM (SELECT connection, min(at) AS first, max(at) AS last FROM claim GROUP BY 1
    HAVING count(*) >= 20) c
WHERE EXISTS (SELECT FROM claim o WHERE o.connection <> c.connection AND o.at BETWEEN c.first
    AND c.last)
"""


def let_everybody_lead(deployment: Deployment) -> None:
    """Make every dispatcher lead; call this function before the fleet starts."""
    deployment.rows(EVERYBODY_LEADS)


def leaders_at_once(deployment: Deployment) -> int:
    """Return the number of dispatchers that claimed tasks while another one did.

    A dispatcher counts from 20 claimed tasks.
    """
    found: int = deployment.value(AT_ONCE)
    return found
