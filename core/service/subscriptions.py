"""Subscriptions: add one, list them, pause, resume, test and replay one, and remove it."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

from core.content.feed import ERASED, FEED_HORIZON, LAST_ID
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput, NotFound, Refused, TooManyRequests, WrongState
from core.ledger import audit
from core.ledger.subscriptions import PASSED, SOURCE_OF_CURSORS, TEST
from core.public_addresses import is_loopback_name, is_public
from core.results.text import is_storable
from core.scopes import Scope
from core.service.accounts.actions import require_text
from core.service.authorization import Authorize, Principal, always, require
from core.service.backend import Backend
from core.service.formatting import ago, counted
from core.service.pagination import Keyset, Page, PagedQuery
from core.states import (
    Act,
    AuditTarget,
    DeliveryState,
    SubscriptionChannel,
    SubscriptionKind,
    SubscriptionState,
)

MAX_PER_USER = 20
"""The number of subscriptions of a user."""

MAX_URL_CHARS = 2_000
MAX_SHOWN_DELIVERIES = 100

Start = Literal["beginning", "now"]

SHOWN = """id, name, kind, channel, user_id, user_integration_id, integration_domain, only_kind,
    address, state, reason, state_since, failing_since, delivered_at, created_at"""

listed = PagedQuery(
    SHOWN,
    "subscription",
    Keyset({"created_at": "timestamptz", "id": "uuid"}),
    filters={"user_id": "text"},
)
# The primary key serves these statements, with the filter on the reader's user.
_OF_READER = "id = %(id)s AND (%(user)s::text IS NULL OR user_id = %(user)s)"
ONE_SUBSCRIPTION = f"SELECT {SHOWN} FROM subscription WHERE {_OF_READER}"
FIND_SUBSCRIPTION = """
SELECT id FROM subscription WHERE name = %(text)s OR id::text LIKE %(prefix)s
ORDER BY created_at, id LIMIT 2
"""
# `delivery_of_subscription` serves it.
UNDELIVERED = f"""
SELECT id, type, data, state, attempts, error, created_at, due_at, failed_at FROM delivery
WHERE subscription_id = %(id)s ORDER BY state, id LIMIT {MAX_SHOWN_DELIVERIES}
"""
COUNT_SUBSCRIPTIONS = "SELECT count(*) FROM subscription WHERE user_id = %s"
LOCK_SUBSCRIBER = "SELECT pg_advisory_xact_lock(hashtextextended('subscription ' || %s, 0))"
ADD_SUBSCRIPTION = """
INSERT INTO subscription (id, name, kind, channel, user_id, user_integration_id,
    integration_domain, only_kind, address, sealed)
VALUES (%(id)s, %(name)s, %(kind)s, %(channel)s, %(user)s, %(account)s, %(domain)s, %(only_kind)s,
    %(address)s, %(sealed)s)
"""
START_NOW = """
UPDATE subscription SET cursor_source = %(source)s, cursor_xid = %(xid)s, cursor_kind = %(kind)s,
    cursor_id = %(entry)s, cursor_began = %(began)s WHERE id = %(id)s
"""
PAUSE_SUBSCRIPTION = f"""
UPDATE subscription SET state = '{SubscriptionState.PAUSED}', reason = NULL,
    state_since = clock_timestamp()
WHERE {_OF_READER} AND state <> '{SubscriptionState.PAUSED}'
"""
# It is due immediately, also if it fails.
RESUME_SUBSCRIPTION = f"""
UPDATE subscription SET state = '{SubscriptionState.ACTIVE}', reason = NULL, failures = 0,
    failing_since = NULL, state_since = clock_timestamp(), due_at = clock_timestamp()
WHERE {_OF_READER}
"""
REMOVE_SUBSCRIPTION = f"DELETE FROM subscription WHERE {_OF_READER} RETURNING user_id, name"
DUE_NOW = f"UPDATE subscription SET due_at = clock_timestamp() WHERE {_OF_READER} RETURNING state"
ADD_TEST = f"""
INSERT INTO delivery (subscription_id, type, data) VALUES (%(id)s, '{TEST}', '{{}}') RETURNING id
"""
REPLAY_FAILED = f"""
UPDATE delivery SET state = '{DeliveryState.WAITING}', attempts = 0, error = NULL,
    created_at = clock_timestamp(), due_at = clock_timestamp(), failed_at = NULL
WHERE subscription_id = %(id)s AND state = '{DeliveryState.FAILED}' AND type <> '{TEST}'
"""
MESSAGE_OUTCOME = "SELECT state, error FROM delivery WHERE id = %(id)s"


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """A subscription to add.

    Attributes:
      address: The receiver, such as a URL.
      user_id: The user whose accounts it covers. None: all users.
      account, domain, only_kind: Only items or conditions of these. None: of all.
      start: `beginning` delivers all kept items first, `now` only later changes.
    """

    kind: SubscriptionKind
    channel: SubscriptionChannel
    address: str
    name: str = ""
    user_id: str | None = None
    account: UUID | None = None
    domain: str | None = None
    only_kind: str | None = None
    start: Start = "beginning"


@dataclass(frozen=True, slots=True)
class Receiver:
    """The receiver of a subscription.

    Attributes:
      shown: The address for people, without secrets.
      sealed: The fields that are encrypted.
      secret: The secret to show once; None if the channel has none.
    """

    shown: str
    sealed: Mapping[str, Any]
    secret: str | None = None


def webhook(address: str, *, public_only: bool) -> Receiver:
    """Return the receiver at a URL, with a new secret.

    Raises:
      InvalidInput: The URL is invalid, or a user may not use it.
    """
    require_url(address, public_only=public_only)
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    parts = urlsplit(address)
    shown = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return Receiver(shown, {"url": address, "secret": secret}, secret)


RECEIVERS: Mapping[SubscriptionChannel, Callable[..., Receiver]] = {
    SubscriptionChannel.WEBHOOK: webhook
}
"""The functions that check an address, by channel."""


def require_url(url: str, *, public_only: bool) -> None:
    """Check the URL of a receiver. Whether it may be reached is decided at each connection.

    Args:
      url: The URL.
      public_only: True if only HTTPS and hosts on the public internet are allowed.

    Raises:
      InvalidInput: It is not valid or not allowed.
    """
    schemes = ("https",) if public_only else ("https", "http")
    invalid = InvalidInput(
        "subscription-url-invalid",
        schemes=" or ".join(f"{scheme}://" for scheme in schemes),
        most=MAX_URL_CHARS,
    )
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable():
        raise invalid
    if any(sign in url for sign in ' \\"<>@#'):
        raise invalid
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise invalid from None
    if parts.scheme not in schemes or not host:
        raise invalid
    if public_only and (is_loopback_name(host) or (_is_address(host) and not is_public(host))):
        raise InvalidInput("subscription-host-private")


def add(
    backend: Backend,
    principal: Principal,
    new: NewSubscription,
    *,
    authorize: Authorize = always,
) -> tuple[UUID, str | None]:
    """Add a subscription.

    Returns:
      Its id, and its signing secret, which is not shown again. None if its channel has no secret.

    Raises:
      Refused: The principal may not read its content, or names another user.
      NotFound: The account does not exist, or belongs to another user.
      InvalidInput: The address or another value is invalid.
      TooManyRequests: The user has `MAX_PER_USER` subscriptions.
    """
    user = principal.user_id if new.user_id is None else new.user_id
    _require_allowed(principal, new, user)
    receiver = RECEIVERS[new.channel](
        new.address,
        public_only=user is not None and not backend.settings.allow_private_hosts,
    )
    id = uuid4()
    params = {
        "id": id,
        "name": new.name or urlsplit(receiver.shown).hostname or receiver.shown,
        "kind": new.kind,
        "channel": new.channel,
        "user": user,
        "account": new.account,
        "domain": new.domain,
        "only_kind": new.only_kind,
        "address": receiver.shown,
        "sealed": backend.vault.seal_json(receiver.sealed),
    }
    with backend.database.connection() as conn, conn.transaction():
        authorize(conn)
        if new.account is not None:
            require(conn, Principal(None, user), "account", new.account)
        if user is not None:
            _require_room(conn, user)
        conn.execute(ADD_SUBSCRIPTION, params)
        if new.start == "now":
            _start_now(conn, id)
        audit.record(
            conn,
            Act.SUBSCRIPTION_ADD,
            AuditTarget.SUBSCRIPTION,
            id,
            user_id=user,
            name=params["name"],
            kind=new.kind,
            channel=new.channel,
            address=receiver.shown,
        )
    return id, receiver.secret


def page(conn: Conn, principal: Principal, *, limit: int = 50, after: str | None = None) -> Page:
    """List the subscriptions that a principal sees, the oldest first."""
    return listed.page(conn, limit=limit, after=after, user_id=principal.user_id)


def one(conn: Conn, principal: Principal, id: UUID) -> Row:
    """Return a subscription, with the messages that wait or have failed.

    Raises:
      NotFound: It does not exist, or belongs to another user.
    """
    params = _params(principal, id)
    rows = fetch(conn, ONE_SUBSCRIPTION, params)
    if not rows:
        raise _not_found(id)
    return rows[0] | {"deliveries": fetch(conn, UNDELIVERED, params)}


def find(conn: Conn, text: str) -> UUID:
    """Return the id of a subscription by its name, its UUID, or a prefix of its UUID.

    Raises:
      NotFound: No subscription matches.
      InvalidInput: Several match.
    """
    prefix = text.lower() if is_storable(text) and len(text) >= 4 else ""
    is_id = bool(prefix) and set(prefix) <= set("0123456789abcdef-")
    params = {"text": text if is_storable(text) else "", "prefix": f"{prefix}%" if is_id else ""}
    rows = fetch(conn, FIND_SUBSCRIPTION, params)
    if not rows:
        raise _not_found(text)
    if len(rows) > 1:
        raise InvalidInput("subscription-ambiguous", text=text)
    return UUID(str(rows[0]["id"]))


def pause(conn: Conn, principal: Principal, id: UUID) -> None:
    """Deliver nothing until `resume`. Content and messages wait.

    Raises:
      NotFound: It does not exist, or belongs to another user.
    """
    if conn.execute(PAUSE_SUBSCRIPTION, _params(principal, id)).rowcount == 0:
        one(conn, principal, id)


def resume(conn: Conn, principal: Principal, id: UUID) -> None:
    """Deliver again, immediately, also after failures.

    Raises:
      NotFound: It does not exist, or belongs to another user.
    """
    if conn.execute(RESUME_SUBSCRIPTION, _params(principal, id)).rowcount == 0:
        raise _not_found(id)


def remove(conn: Conn, principal: Principal, id: UUID) -> None:
    """Delete a subscription, with its messages and its place in the feed.

    Raises:
      NotFound: It does not exist, or belongs to another user.
    """
    with conn.transaction():
        row = conn.execute(REMOVE_SUBSCRIPTION, _params(principal, id)).fetchone()
        if row is None:
            raise _not_found(id)
        user, name = row
        audit.record(
            conn, Act.SUBSCRIPTION_REMOVE, AuditTarget.SUBSCRIPTION, id, user_id=user, name=name
        )


def test(conn: Conn, principal: Principal, id: UUID) -> int:
    """Send a message of the type `test` through the channel. Return its id for `outcome`.

    Raises:
      NotFound: It does not exist, or belongs to another user.
      WrongState: It is paused.
    """
    with conn.transaction():
        _due_now(conn, principal, id)
        row = conn.execute(ADD_TEST, {"id": id}).fetchone()
        assert row is not None
        return int(row[0])


def outcome(conn: Conn, message: int) -> tuple[bool, str | None]:
    """Return True if a message still waits, and the reason for which it failed."""
    row = conn.execute(MESSAGE_OUTCOME, {"id": message}).fetchone()
    if row is None:
        return False, None
    return row[0] == DeliveryState.WAITING, row[1]


def replay(conn: Conn, principal: Principal, id: UUID) -> int:
    """Deliver failed messages again. Return their number.

    Raises:
      NotFound: It does not exist, or belongs to another user.
      WrongState: It is paused.
    """
    with conn.transaction():
        _due_now(conn, principal, id)
        return conn.execute(REPLAY_FAILED, {"id": id}).rowcount


def sentence(row: Row) -> str:
    """Describe the state of a subscription."""
    if row["state"] == SubscriptionState.PAUSED:
        return f"Paused {ago(row['state_since'])}" + (f": {row['reason']}" if row["reason"] else "")
    if row["state"] == SubscriptionState.FAILING:
        return f"Failing, first {ago(row['failing_since'])}: {row['reason']}"
    if row["delivered_at"] is None:
        return "Nothing was delivered yet"
    return f"Delivered {ago(row['delivered_at'])}"


def waiting(row: Row) -> str:
    """Describe the messages of a subscription that were not delivered."""
    states = [delivery["state"] for delivery in row["deliveries"]]
    return ", ".join(
        f"{counted(states.count(state), 'message')} {state}"
        for state in DeliveryState
        if state in states
    )


def _require_allowed(principal: Principal, new: NewSubscription, user: str | None) -> None:
    if user is not None and not principal.owns(user):
        raise Refused("token-of-another-user")
    if new.kind == SubscriptionKind.CONTENT and not principal.may(Scope.CONTENT_READ):
        raise Refused("scope-missing", scopes=Scope.CONTENT_READ)
    is_webhook = new.channel == SubscriptionChannel.WEBHOOK
    if new.channel not in RECEIVERS or (new.kind == SubscriptionKind.CONTENT and not is_webhook):
        raise InvalidInput("subscription-channel-unsupported", channel=new.channel, kind=new.kind)
    texts = {"name": new.name, "domain": new.domain, "kind": new.only_kind, "user_id": user}
    require_text(**{name: text for name, text in texts.items() if text})


def _require_room(conn: Conn, user: str) -> None:
    conn.execute(LOCK_SUBSCRIBER, (user,))
    row = conn.execute(COUNT_SUBSCRIPTIONS, (user,)).fetchone()
    if row is not None and row[0] >= MAX_PER_USER:
        raise TooManyRequests("subscriptions-exhausted", most=MAX_PER_USER)


def _start_now(conn: Conn, id: UUID) -> None:
    horizon = fetch(conn, FEED_HORIZON, {})[0]["changed_xid"]
    source = fetch(conn, SOURCE_OF_CURSORS, {})[0]["source"]
    params = {"id": id, "source": source, "xid": horizon - 1, "kind": ERASED, "entry": LAST_ID}
    conn.execute(START_NOW, params | {"began": PASSED})


def _due_now(conn: Conn, principal: Principal, id: UUID) -> None:
    row = conn.execute(DUE_NOW, _params(principal, id)).fetchone()
    if row is None:
        raise _not_found(id)
    if row[0] == SubscriptionState.PAUSED:
        raise WrongState("subscription-paused")


def _params(principal: Principal, id: UUID) -> dict[str, Any]:
    return {"id": id, "user": principal.user_id}


def _not_found(subscription: object) -> NotFound:
    return NotFound("subscription-not-found", subscription=subscription)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
