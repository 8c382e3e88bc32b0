"""Errors about HTTP requests to the REST API or the dashboard."""

from __future__ import annotations

from core.error_catalog.entry import Catalog, entry

RELOAD = "Load the page again and repeat the action"

ENTRIES: Catalog = {
    "webhook-not-offered": entry(
        404,
        "the integration {domain} receives no events",
        "Leave its address out of the provider's settings",
    ),
    "webhook-too-fast": entry(
        429, "too many events for this integration", "Send the event again later"
    ),
    "webhook-timed-out": entry(
        503, "{domain} did not answer this event in time", "Send the event again later"
    ),
    "webhooks-busy": entry(503, "{domain} answers other events now", "Send the event again later"),
    "webhook-failed": entry(
        500, "{domain} could not read this event", "See the server's log for the reason"
    ),
    "bad-request": entry(400, "the request is malformed", "Correct the request"),
    "token-missing": entry(
        401, "the request has no token", "Send one: Authorization: Bearer …", dashboard="Sign in"
    ),
    "token-invalid": entry(
        401, "this token is unknown, expired or revoked", "Ask the operator for a new token"
    ),
    "operator-only": entry(
        403,
        "this needs an operator's token",
        "Use an operator's token",
        dashboard="Sign in with an operator's token",
    ),
    "token-of-another-user": entry(
        403, "this token belongs to another user", "Use this user's token"
    ),
    "scope-missing": entry(
        403,
        "this token or role lacks a scope; one of these allows the request: {scopes}",
        "Use a token with one of these scopes",
        dashboard="Sign in with a token or a role that has one of these scopes",
    ),
    "sign-on-not-offered": entry(
        404, "this server has no identity provider", "Sign in with a token"
    ),
    "sign-on-outdated": entry(
        422,
        "this sign-in began in another browser, at another address, or too long ago",
        "Open the dashboard at its public address, and sign in again",
    ),
    "sign-on-refused": entry(
        403, "the identity provider refused the sign-in: {reason}", "Sign in again"
    ),
    "sign-on-answer-invalid": entry(
        403,
        "the answer of the identity provider is not valid for this sign-in: {reason}",
        "Sign in again. If it fails again, ask the operator of this server",
    ),
    "sign-on-without-role": entry(
        403, "{name} has no role on this server", "Ask the operator of this server for a role"
    ),
    "sign-on-unavailable": entry(
        502,
        "the identity provider is not available: {reason}",
        "Sign in with a token, or try again later",
    ),
    "sign-on-busy": entry(503, "too many sign-ins are in progress", "Try again in a moment"),
    "wrong-tokens-too-many": entry(
        429,
        "this address has sent too many invalid tokens",
        "Send a valid token: the server accepts it at any time",
        dashboard="Wait a minute, then sign in with a valid token",
    ),
    "scope-not-chosen": entry(422, "a token needs at least one scope", "Choose a scope"),
    "scope-not-yours": entry(
        403,
        "you can create only tokens with scopes that you have yourself; asked for: {scopes}",
        "Choose fewer scopes",
    ),
    "token-for-another-user": entry(
        403,
        "a user's token can create tokens of this user only",
        "Leave out the user, or use an operator's token",
    ),
    "form-from-another-site": entry(403, "this form was sent from another site", RELOAD),
    "form-of-another-session": entry(403, "this form belongs to another session", RELOAD),
    "form-invalid": entry(422, "this form is malformed", RELOAD),
    "no-account-selected": entry(422, "no account is selected", "Select accounts first"),
    "no-task-selected": entry(422, "no task is selected", "Select tasks first"),
    "address-not-found": entry(
        404,
        "this address does not exist",
        rest="See the addresses: GET /openapi.json",
        dashboard="Go back to the overview",
        cli="Correct the address",
    ),
    "method-not-allowed": entry(
        405,
        "this address does not support this method",
        "See the methods: GET /openapi.json",
        dashboard="Go back to the overview",
    ),
    "acts-exhausted": entry(
        429,
        "this user has reached the maximum of {most} acts within an hour",
        "Send the request again in an hour",
    ),
    "range-not-satisfiable": entry(
        416,
        "the item has no such bytes",
        "Send a range within the size, which `Content-Range` names",
    ),
    "request-timeout": entry(
        408, "the request's body did not arrive in time", "Send it again, on a faster connection"
    ),
    "too-large": entry(
        413, "the request's body is too large", "Send at most 1 MiB, and at most 20,000 values"
    ),
    "invalid-request": entry(
        422, "the request does not match its schema", "Correct the fields named in `errors`"
    ),
    "idempotency-key-in-use": entry(
        409,
        "the first request with this Idempotency-Key is still in progress",
        "Send it again later",
    ),
    "idempotency-key-misused": entry(
        422,
        "this Idempotency-Key was used for another request",
        "Use a new key for each request",
    ),
    "host-not-served": entry(
        421,
        "this server does not serve the host that the request names",
        "Ask the operator to add the host to POLLING_ALLOWED_HOSTS",
    ),
    "address-busy": entry(
        429, "too many requests from this address are in progress", "Try again in a few seconds"
    ),
    "token-busy": entry(
        429, "too many requests with this token are in progress", "Send fewer at the same time"
    ),
    "user-busy": entry(
        429,
        "too many requests of this user are in progress",
        "Send fewer at the same time, or try again in a few seconds",
    ),
    "address-too-fast": entry(
        429,
        "too many requests per second without a valid token from this address",
        "Wait a second, or ask the operator to raise POLLING_MAX_REQUESTS_PER_SECOND_PER_ADDRESS",
    ),
    "user-too-fast": entry(
        429,
        "too many requests per second of this user",
        "Wait a second, or ask the operator to raise POLLING_MAX_REQUESTS_PER_SECOND_PER_USER",
    ),
    "proxy-too-fast": entry(
        429,
        "too many requests per second without a valid token reach the server through one proxy",
        "Wait a second",
    ),
    "readers-busy": entry(
        429,
        "too many requests of this user or token wait for changes",
        "Wait for one of them to end, or read without `wait`",
    ),
    "server-busy": entry(503, "the server is busy", "Try again in a few seconds"),
    "checks-busy": entry(503, "too many accounts are being checked", "Try again in a few seconds"),
    "connections-busy": entry(
        503,
        "runs of this account use all its connections",
        "Try again when the run has ended, or pause the account first",
    ),
    "user-checks-busy": entry(
        429,
        "two accounts of this user are being checked already",
        "Wait until these checks have ended",
    ),
    "checks-exhausted": entry(
        429, "this user had {most} checks of accounts in this hour", "Try again in an hour"
    ),
    "sign-ins-exhausted": entry(
        429,
        "this user has started {most} sign-ins at providers in this hour",
        "Try again in an hour",
    ),
    "tokens-exhausted": entry(
        429,
        "this user has created {most} tokens on one day, or has as many valid ones",
        "Revoke tokens that are not used, or use an operator's token",
    ),
    "accounts-exhausted": entry(
        429,
        "this user has {most} accounts, or more",
        "Erase accounts that are not used, or use an operator's token",
    ),
    "runs-exhausted": entry(
        429, "this user has requested {most} runs in this hour", "Try again in an hour"
    ),
    "accounts-quota-reached": entry(
        409,
        "user {user} has {number} accounts; the quota is {most}",
        "Erase an account that is not used, or ask the operator for a larger quota",
        cli="Erase an account: polling disconnect ID --erase --now. Or raise the quota:"
        " polling users USER --quota accounts=NUMBER",
    ),
    "bytes-quota-reached": entry(
        409,
        "the content of user {user} has {kept:,} bytes; the quota is {most:,}",
        "Erase content that is not needed, or ask the operator for a larger quota",
        cli="Erase an account: polling disconnect ID --delete-content --now. Or raise the quota:"
        " polling users USER --quota bytes=SIZE",
    ),
    "runs-quota-reached": entry(
        429,
        "user {user} has begun {begun} of {most} runs of this day (UTC)",
        "Wait for the next day, or ask the operator for a larger quota",
        cli="Wait for the next day, or raise the quota: polling users USER --quota runs=NUMBER",
    ),
    "idempotency-keys-exhausted": entry(
        429,
        "this user has used {most} values of Idempotency-Key in 24 hours",
        "Send the request without the header, or use an operator's token",
    ),
    "previews-busy": entry(
        503, "too many previews are being prepared", "Load the page again in a few seconds"
    ),
    "database-busy": entry(503, "the database does not answer", "Try again in a few seconds"),
    "internal-error": entry(
        500,
        "internal server error",
        "Ask the operator to look at the server's log",
        cli="See the server's log",
    ),
}
