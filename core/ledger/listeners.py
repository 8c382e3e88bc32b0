"""Listeners: their accounts, and the process of the fleet that holds each of them.

A plugin names its listeners. One process at a time reads them (`claim_naming`, `name_listeners`).
A listener has one holder, by a lease of `LISTEN_SECONDS`; every process that serves the integration
tries to take free ones. A holder that lives renews its leases in the same statement.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from pydantic import ValidationError

from core.db.clocks import HOUR, LISTEN_SECONDS, lasts, passed
from core.db.pool import Conn
from core.db.rows import fetch
from core.integration.listening import EVENTS, EventDelivery, ListenableAccount, Listener
from core.results.text import sanitize
from core.states import AccountState

NAMING_SECONDS = 15.0
"""The pause between two calls of `listeners`. It grows with the time that a call takes."""

NAMING_FACTOR = 50
"""A call of `listeners` takes at most this part of a process's time."""

PORTION = 1_000
"""The number of accounts that one statement reads or hints."""

MAX_PER_PROCESS = 100
"""The number of listeners that one process holds. Each has a thread."""

CLAIM_NAMING = f"""
UPDATE integration SET listeners_due_at = clock_timestamp() + {NAMING_SECONDS}
    * interval '1 second'
WHERE domain = %s AND (listeners_due_at IS NULL OR {passed("integration.listeners_due_at")})
RETURNING 1
"""
NAME_LATER = f"""
UPDATE integration SET listeners_due_at = clock_timestamp()
    + least(%s, {HOUR}) * interval '1 second'
WHERE domain = %s
"""
# Served by `user_integration_reader`.
ACTIVE_ACCOUNTS = f"""
SELECT id::text, user_id, identity, limit_group AS "group", config FROM user_integration
WHERE integration_domain = %s AND sync_status = '{AccountState.ACTIVE}'
"""
LISTENED_ACCOUNTS = (
    "SELECT user_integration_id::text, key, address FROM listener_account WHERE domain = %s"
)

ADD_LISTENERS = """
INSERT INTO listener (domain, key, listens)
SELECT %(domain)s, key, listens
FROM unnest(%(keys)s::text[], %(listens)s::boolean[]) AS n(key, listens) ORDER BY key
ON CONFLICT (domain, key) DO UPDATE SET listens = excluded.listens
    WHERE listener.listens <> excluded.listens
"""
DROP_LISTENERS = "DELETE FROM listener WHERE domain = %(domain)s AND key <> ALL (%(keys)s::text[])"
DROP_ACCOUNTS = "DELETE FROM listener_account WHERE user_integration_id = ANY(%s::uuid[])"
# An account may be erased in the meantime.
SET_ACCOUNTS = """
INSERT INTO listener_account (user_integration_id, domain, key, address)
SELECT a.id, %(domain)s, n.key, n.address
FROM unnest(%(ids)s::uuid[], %(keys)s::text[], %(addresses)s::text[]) AS n(id, key, address)
JOIN user_integration a ON a.id = n.id ORDER BY a.id
ON CONFLICT (user_integration_id) DO UPDATE SET
    domain = excluded.domain, key = excluded.key, address = excluded.address
"""

# A process that takes a listener over has not connected it yet.
HOLD_LISTENER = f"""
UPDATE listener l SET holder = %(me)s,
    holder_until = clock_timestamp() + {LISTEN_SECONDS} * interval '1 second',
    connected_at = CASE WHEN l.holder = %(me)s THEN l.connected_at END,
    down_at = CASE WHEN l.holder = %(me)s OR l.connected_at IS NULL THEN l.down_at
        ELSE l.holder_until END
FROM (SELECT domain, key FROM listener
    WHERE domain = ANY(%(domains)s) AND listens
      AND (domain, key) NOT IN (
          SELECT * FROM unnest(%(stuck_domains)s::text[], %(stuck_keys)s::text[]))
      AND (holder = %(me)s OR holder IS NULL OR {passed("listener.holder_until")})
    ORDER BY holder IS DISTINCT FROM %(me)s, domain, key
    LIMIT {MAX_PER_PROCESS} FOR UPDATE SKIP LOCKED) free
WHERE l.domain = free.domain AND l.key = free.key
RETURNING l.domain, l.key
"""
RELEASE_LISTENERS = """
UPDATE listener SET holder = NULL, holder_until = NULL, connected_at = NULL,
    down_at = CASE WHEN connected_at IS NULL THEN down_at ELSE clock_timestamp() END
WHERE holder = %(me)s AND (%(domain)s::text IS NULL OR (domain, key) = (%(domain)s, %(key)s))
"""
CONNECTED = """
UPDATE listener SET connected_at = clock_timestamp(), down_at = NULL, error = NULL, failures = 0
WHERE domain = %(domain)s AND key = %(key)s AND holder = %(me)s
RETURNING 1
"""
FAILED = """
UPDATE listener SET connected_at = NULL, error = %(error)s, failures = failures + 1,
    down_at = coalesce(down_at, clock_timestamp())
WHERE domain = %(domain)s AND key = %(key)s AND holder = %(me)s
RETURNING failures
"""
OF_LISTENER = """
SELECT l.user_integration_id::text, l.address, a.public_hosts_only
FROM listener_account l JOIN user_integration a ON a.id = l.user_integration_id
WHERE l.domain = %s AND l.key = %s
"""
# Served by `listener_account_accounts`.
ACCOUNTS_OF_LISTENER = f"""
SELECT user_integration_id FROM listener_account
WHERE domain = %(domain)s AND key = %(key)s
  AND (%(after)s::uuid IS NULL OR user_integration_id > %(after)s::uuid)
ORDER BY user_integration_id LIMIT {PORTION}
"""
# Served by `listener_account_address`.
ADDRESSED = """
SELECT user_integration_id FROM listener_account WHERE domain = %s AND address = %s
ORDER BY user_integration_id LIMIT %s
"""
LISTENERS_OF_ACCOUNT = f"""
SELECT l.key, l.listens, coalesce({lasts("listener.holder_until", "l.holder_until")}, false)
        AND l.connected_at IS NOT NULL AS connected,
    l.connected_at, coalesce(l.down_at, l.holder_until) AS down_at, l.error,
    h.hinted_at AS event_at, s.value AS delivery, s.updated_at AS delivery_at
FROM listener_account a JOIN listener l ON l.domain = a.domain AND l.key = a.key
LEFT JOIN hint h ON h.user_integration_id = a.user_integration_id
LEFT JOIN sync_state s ON s.user_integration_id = a.user_integration_id
    AND s.partition = %(events)s
WHERE a.user_integration_id = %(account)s
"""

MAX_PROBLEM_CHARS = 500
DELIVERY_ENDED = "the provider has stopped sending the events of this account"


@dataclass(frozen=True, slots=True)
class AccountListener:
    """The listener of an account.

    Attributes:
      key: The listener's key.
      listens: False if its events arrive at the webhook only, so that nothing is connected.
      connected: True if a process receives its events.
      connected_at: Since when; None while it does not.
      down_at: Since when it has been down; None if it is connected or never was.
      error: The error of the latest failure, for operators; None after a connection.
      event_at: The time of the latest hint for the account; None before the first.
      problem: Why the provider sends no events of this account alone; None if it does.
    """

    key: str
    listens: bool
    connected: bool
    connected_at: datetime | None
    down_at: datetime | None
    error: str | None
    event_at: datetime | None
    problem: str | None = None

    def reason(self, *, in_full: bool) -> str | None:
        """Return why no events arrive, as far as it is known.

        Args:
          in_full: True to return the listener's error too, for an operator.
        """
        return self.problem or (self.error if in_full else None)


def claim_naming(conn: Conn, domain: str) -> bool:
    """Return True if it is this process's turn to call `listeners` of an integration."""
    return conn.execute(CLAIM_NAMING, (domain,)).fetchone() is not None


def name_later(conn: Conn, domain: str, took: float) -> None:
    """Set the time of the next call of `listeners`, after one that took this long."""
    conn.execute(NAME_LATER, (max(NAMING_SECONDS, took * NAMING_FACTOR), domain))


def accounts(conn: Conn, domain: str) -> Generator[ListenableAccount]:
    """Yield the active accounts of an integration."""
    with (
        conn.transaction(),
        conn.cursor(name="listenable", row_factory=class_row(ListenableAccount)) as cursor,
    ):
        cursor.itersize = PORTION
        yield from cursor.execute(ACTIVE_ACCOUNTS, (domain,))


def name_listeners(conn: Conn, domain: str, named: Mapping[str, Listener]) -> list[UUID]:
    """Store the listeners of an integration, and the addresses of their accounts.

    Args:
      conn: A connection in autocommit mode.
      domain: The domain of the integration.
      named: The listeners, by their keys.

    Returns:
      The accounts that are new in a listener.
    """
    wanted = {
        id: (key, address)
        for key, listener in named.items()
        for id, address in listener.accounts.items()
    }
    params = {
        "domain": domain,
        "keys": list(named),
        "listens": [listener.listens for listener in named.values()],
    }
    conn.execute(ADD_LISTENERS, params)
    conn.execute(DROP_LISTENERS, params)
    known = {id: (key, address) for id, key, address in conn.execute(LISTENED_ACCOUNTS, (domain,))}
    if gone := sorted(known.keys() - wanted.keys()):
        conn.execute(DROP_ACCOUNTS, (gone,))
    changed = sorted(id for id, place in wanted.items() if known.get(id) != place)
    for number in range(0, len(changed), PORTION):
        ids = changed[number : number + PORTION]
        places = {
            "ids": ids,
            "keys": [wanted[id][0] for id in ids],
            "addresses": [wanted[id][1] for id in ids],
        }
        conn.execute(SET_ACCOUNTS, {"domain": domain, **places})
    return [UUID(id) for id in changed]


def hold(
    conn: Conn, me: UUID, domains: Sequence[str], stuck: Sequence[tuple[str, str]] = ()
) -> set[tuple[str, str]]:
    """Renew the leases of this process, and take free listeners.

    Args:
      conn: A connection in autocommit mode.
      me: The id of this process.
      domains: The integrations whose plugins this process serves.
      stuck: Listeners whose earlier thread in this process has not ended.

    Returns:
      The domain and key of every listener that this process holds now.
    """
    params = {
        "me": me,
        "domains": list(domains),
        "stuck_domains": [domain for domain, _ in stuck],
        "stuck_keys": [key for _, key in stuck],
    }
    return {(domain, key) for domain, key in conn.execute(HOLD_LISTENER, params)}


def release(conn: Conn, me: UUID, listener: tuple[str, str] | None = None) -> None:
    """Release one listener of this process, or all, so that another process takes it."""
    domain, key = listener or (None, None)
    conn.execute(RELEASE_LISTENERS, {"me": me, "domain": domain, "key": key})


def connected(conn: Conn, me: UUID, domain: str, key: str) -> bool:
    """Record that events arrive. Returns False if another process holds the listener."""
    params = {"me": me, "domain": domain, "key": key}
    return conn.execute(CONNECTED, params).fetchone() is not None


def failed(conn: Conn, me: UUID, domain: str, key: str, error: str) -> int:
    """Record that events are missed. Returns the number of failures since the last connection."""
    params = {"me": me, "domain": domain, "key": key, "error": error}
    row = conn.execute(FAILED, params).fetchone()
    return row[0] if row is not None else 0


def of_listener(conn: Conn, domain: str, key: str) -> tuple[dict[str, str], bool]:
    """Return the accounts of a listener.

    Returns:
      The address of each account by its id, and True if one of them is limited to public hosts.
    """
    rows = conn.execute(OF_LISTENER, (domain, key)).fetchall()
    return {id: address for id, address, _ in rows}, any(limited for *_, limited in rows)


def pages(conn: Conn, domain: str, key: str) -> Iterator[list[UUID]]:
    """Yield the accounts of a listener, a portion at a time."""
    after: UUID | None = None
    while True:
        params = {"domain": domain, "key": key, "after": after}
        ids = [id for (id,) in conn.execute(ACCOUNTS_OF_LISTENER, params)]
        if ids:
            yield ids
        if len(ids) < PORTION:
            return
        after = ids[-1]


def addressed(conn: Conn, domain: str, address: str, most: int) -> list[UUID]:
    """Return at most `most` accounts with this address in the provider's events."""
    return [id for (id,) in conn.execute(ADDRESSED, (domain, address, most))]


def of_account(conn: Conn, account: UUID) -> AccountListener | None:
    """Return the listener of an account; None without one."""
    rows = fetch(conn, LISTENERS_OF_ACCOUNT, {"account": account, "events": EVENTS})
    if not rows:
        return None
    delivery, changed_at = rows[0].pop("delivery"), rows[0].pop("delivery_at")
    listening = AccountListener(**rows[0])
    down = _down(delivery, changed_at) if listening.connected else None
    if down is None:
        return listening
    at, problem = down
    return replace(listening, connected=False, connected_at=None, down_at=at, problem=problem)


def _down(delivery: Any, changed_at: datetime) -> tuple[datetime, str] | None:
    """Return since when, and why, an account alone gets no events; None if it gets them."""
    try:
        found = None if delivery is None else EventDelivery.model_validate(delivery)
    except ValidationError:
        return None
    if found is None:
        return None
    if found.problem:
        return changed_at, " ".join((sanitize(found.problem) or "").split())[:MAX_PROBLEM_CHARS]
    is_over = found.until is not None and found.until <= datetime.now(UTC)
    return (found.until, DELIVERY_ENDED) if found.until and is_over else None
