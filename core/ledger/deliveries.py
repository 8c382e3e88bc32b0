"""Single messages to the receivers of subscriptions.

A message is a row in `delivery`, written in the transaction of the event that it reports. So a
process that is killed loses none, and reports nothing that did not happen. The row is deleted after
the receiver has accepted it. It is retried for a day, then kept as failed until a person replays
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.states import DeliveryState, SubscriptionKind

MAX_WAITING = 10_000
"""The number of messages that may wait for a subscription. Further ones are not stored."""

# `subscription_user` and `delivery_of_subscription` serve it. A subscription that is paused keeps
# its messages. The order of the ids is the order of the subscriptions' locks (foreign key).
NOTIFY = f"""
INSERT INTO delivery (subscription_id, type, data)
SELECT s.id, %(type)s, %(data)s FROM subscription s
WHERE s.kind = '{SubscriptionKind.OPERATIONS}'
  AND (s.user_id IS NULL OR s.user_id = %(user)s)
  AND (s.user_integration_id IS NULL OR s.user_integration_id = %(account)s)
  AND (s.integration_domain IS NULL OR s.integration_domain = %(domain)s)
  AND (s.only_kind IS NULL OR s.only_kind = %(kind)s)
  AND (SELECT count(*) FROM (SELECT FROM delivery d
    WHERE d.subscription_id = s.id AND d.state = '{DeliveryState.WAITING}'
    LIMIT {MAX_WAITING}) waiting) < {MAX_WAITING}
ORDER BY s.id
"""


@dataclass(frozen=True, slots=True)
class Notification:
    """A message about a condition.

    Attributes:
      type: The type of the message, such as `condition.began`.
      kind: The kind of the condition, such as `account_stopped`. Subscriptions filter by it.
      data: The body of the message, as JSON, without secrets.
      account: The account that it concerns. Default: none.
      domain: The integration that it concerns. Default: none.
      user_id: The user whose subscriptions receive it, besides those of operators. Default: only
        those of operators.
    """

    type: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    account: UUID | None = None
    domain: str | None = None
    user_id: str | None = None


def notify(conn: Conn, notification: Notification) -> int:
    """Store a message for each matching subscription of the kind `operations`.

    Call it in the transaction that records the condition. The leader dispatches the messages within
    a second of the commit.

    Returns:
      The number of messages.
    """
    params = {
        "type": notification.type,
        "kind": notification.kind,
        "data": json.dumps(notification.data),
        "account": notification.account,
        "domain": notification.domain,
        "user": notification.user_id,
    }
    return conn.execute(NOTIFY, params).rowcount
