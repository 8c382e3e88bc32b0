"""Errors about subscriptions."""

from __future__ import annotations

from core.error_catalog.entry import Catalog, entry

ENTRIES: Catalog = {
    "subscription-not-found": entry(
        404,
        "subscription {subscription} not found",
        cli="List subscriptions: polling subscriptions",
        rest="List subscriptions: GET /v1/subscriptions",
        dashboard="Choose one from the list of subscriptions",
    ),
    "subscription-ambiguous": entry(
        422, "{text!r} matches several subscriptions", "Use the UUID, or more of it"
    ),
    "subscription-url-invalid": entry(
        422,
        "a receiver's URL must begin with {schemes}, and have at most {most:,} characters, and"
        " neither a user nor a fragment",
        "Correct the URL",
    ),
    "subscription-host-private": entry(
        422,
        "a user's webhook reaches only hosts on the public internet",
        "Use a public address, or ask the operator to allow private hosts",
    ),
    "subscription-channel-unsupported": entry(
        422,
        "the channel {channel} cannot deliver {kind}",
        "Use the channel webhook",
    ),
    "subscription-paused": entry(409, "the subscription is paused", "Resume it first"),
    "subscriptions-exhausted": entry(
        429, "a user has at most {most:,} subscriptions", "Remove one first"
    ),
}
