"""`/v1/subscriptions`: content and conditions, delivered to receivers."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from core.rest.routes import problems
from core.rest.schemas.common import Page
from core.rest.schemas.subscriptions import (
    AddedSubscription,
    NewSubscription,
    Replayed,
    Subscription,
    SubscriptionWithDeliveries,
    Tested,
)
from core.service import subscriptions
from core.web.dependencies import After, Engine, Limit
from core.web.permissions import FleetOperator, still_valid

router = APIRouter(prefix="/v1/subscriptions", tags=["subscriptions"])

SubscriptionId = Annotated[
    UUID, Path(alias="subscription_id", description="The ID of the subscription")
]


@router.get("", responses=problems(401, 403, 422))
def list_subscriptions(
    engine: Engine, principal: FleetOperator, limit: Limit = 50, after: After = None
) -> Page[Subscription]:
    """List subscriptions, the oldest first. With a user's token, these are that user's."""
    with engine.database.connection() as conn:
        page = subscriptions.page(conn, principal, limit=limit, after=after)
    return Page[Subscription].model_validate({"items": page.rows, "cursor": page.cursor})


@router.post("", status_code=201, responses=problems(401, 403, 404, 413, 422, 429))
def add_subscription(
    engine: Engine, principal: FleetOperator, new: NewSubscription
) -> AddedSubscription:
    """Add a subscription. The response contains its signing secret; it cannot be shown again.

    A subscription to content also needs the scope `content:read`. It stays when the token ends.
    """
    id, secret = subscriptions.add(
        engine,
        principal,
        subscriptions.NewSubscription(
            new.kind,
            new.channel,
            new.address,
            name=new.name or "",
            user_id=new.user_id,
            account=new.user_integration_id,
            domain=new.integration_domain,
            only_kind=new.only_kind,
            start=new.start,
        ),
        authorize=still_valid(principal),
    )
    return AddedSubscription(id=id, secret=secret)


@router.get("/{subscription_id}", responses=problems(401, 403, 404, 422))
def get_subscription(
    engine: Engine, principal: FleetOperator, subscription: SubscriptionId
) -> SubscriptionWithDeliveries:
    """Return a subscription, with the messages that wait or have failed."""
    with engine.database.connection() as conn:
        row = subscriptions.one(conn, principal, subscription)
    return SubscriptionWithDeliveries.model_validate(row)


@router.delete("/{subscription_id}", status_code=204, responses=problems(401, 403, 404, 422))
def remove_subscription(
    engine: Engine, principal: FleetOperator, subscription: SubscriptionId
) -> Response:
    """Remove a subscription. A delivery in progress may still arrive."""
    with engine.database.connection() as conn:
        subscriptions.remove(conn, principal, subscription)
    return Response(status_code=204)


@router.post("/{subscription_id}/pause", responses=problems(401, 403, 404, 422))
def pause_subscription(
    engine: Engine, principal: FleetOperator, subscription: SubscriptionId
) -> SubscriptionWithDeliveries:
    """Deliver nothing until the subscription is resumed. Content and messages wait."""
    with engine.database.connection() as conn:
        subscriptions.pause(conn, principal, subscription)
    return get_subscription(engine, principal, subscription)


@router.post("/{subscription_id}/resume", responses=problems(401, 403, 404, 422))
def resume_subscription(
    engine: Engine, principal: FleetOperator, subscription: SubscriptionId
) -> SubscriptionWithDeliveries:
    """Deliver again, immediately, also after failures."""
    with engine.database.connection() as conn:
        subscriptions.resume(conn, principal, subscription)
    return get_subscription(engine, principal, subscription)


@router.post(
    "/{subscription_id}/test", status_code=202, responses=problems(401, 403, 404, 409, 422)
)
def test_subscription(
    engine: Engine, principal: FleetOperator, subscription: SubscriptionId
) -> Tested:
    """Send a message of the type `test` to the receiver, soon.

    After its delivery, `delivered_at` of the subscription is new. If it fails, the message is
    `failed`, with its error, in the deliveries of the subscription.
    """
    with engine.database.connection() as conn:
        return Tested(delivery_id=subscriptions.test(conn, principal, subscription))


@router.post("/{subscription_id}/replay", responses=problems(401, 403, 404, 409, 422))
def replay_subscription(
    engine: Engine, principal: FleetOperator, subscription: SubscriptionId
) -> Replayed:
    """Deliver the failed messages again."""
    with engine.database.connection() as conn:
        return Replayed(messages=subscriptions.replay(conn, principal, subscription))
