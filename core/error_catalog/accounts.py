"""Errors about accounts and their providers: state, config, credentials and sign-in."""

from __future__ import annotations

from core.error_catalog.entry import Catalog, entry

AUTHOR = "Report this to the plugin's author"
NEW_CREDENTIALS = "Send new credentials: PATCH /v1/user-integrations/{account}"
FIELDS = "Read the fields: GET /v1/integrations/{domain}"

ENTRIES: Catalog = {
    "account-not-found": entry(
        404,
        "account {account} not found",
        cli="List accounts: polling accounts",
        rest="List accounts: GET /v1/user-integrations",
        dashboard="Choose one from the list of accounts",
    ),
    "account-ambiguous": entry(
        422,
        "{text!r} matches several accounts: {matches}",
        "Use the UUID, or more of it",
    ),
    "reread-unsupported": entry(
        409,
        "the integration {domain} cannot read stored items again",
        cli="Fetch everything again: polling resync {account}",
        rest="Fetch everything again: POST /v1/user-integrations/{account}/resync",
        dashboard="Press Resync on the account's page to fetch everything again",
    ),
    "account-active": entry(409, "the account is active", "It does not need to be resumed"),
    "account-paused": entry(
        409,
        "the account is paused",
        cli="Resume it: polling resume {account}",
        rest="Resume it: POST /v1/user-integrations/{account}/resume",
        dashboard="Press Resume on the account's page",
    ),
    "account-stopped-credentials": entry(
        409,
        "the engine stopped the account because its credentials do not work: {detail}",
        cli="Give it new credentials: polling reconnect {account}",
        rest=NEW_CREDENTIALS,
        dashboard="Reconnect it on the account's page",
    ),
    "account-stopped-configuration": entry(
        409,
        "the engine stopped the account because its configuration is invalid: {detail}",
        cli="Correct the config: polling config {account}",
        rest="Send a corrected config: PATCH /v1/user-integrations/{account}",
        dashboard="Correct the settings on the account's page",
    ),
    "account-stopped": entry(
        409,
        "the engine stopped the account because of an error",
        "Look at the account's status to see why",
        cli="See why: polling accounts show {account}",
        rest="See why: GET /v1/user-integrations/{account}",
    ),
    "account-disconnected": entry(
        409,
        "the account is disconnected",
        cli="Reconnect it: polling reconnect {account}",
        rest=NEW_CREDENTIALS,
        dashboard="Reconnect it on the account's page",
    ),
    "account-erasing": entry(
        409,
        "the account is disconnected, and its content is hidden until it is deleted",
        cli="Restore it: polling reconnect {account}",
        rest="Restore it with new credentials: PATCH /v1/user-integrations/{account}",
        dashboard="Reconnect it on the account's page to restore it",
    ),
    "account-erasure-begun": entry(
        409,
        "the engine deletes the content of this account",
        "Wait until the account is disconnected or deleted, and connect it again",
    ),
    "account-has-no-credentials": entry(
        409,
        "the account has no stored credentials",
        cli="Give it credentials: polling reconnect {account}",
        rest=NEW_CREDENTIALS,
        dashboard="Reconnect it on the account's page",
    ),
    "account-identity-mismatch": entry(
        422,
        "these credentials belong to another account: {identity!r} instead of {expected!r}",
        cli="Connect it as a separate account: polling connect {domain}",
        rest="Connect it as a separate account: POST /v1/user-integrations",
        dashboard="Connect it as a separate account",
    ),
    "account-changed-by-others": entry(
        412,
        "the account has changed since you read it",
        "Read the account again, and decide again whether to change it",
    ),
    "config-changed-by-others": entry(
        409,
        "someone else has changed the config since it was read",
        "Read the account again, then repeat the change",
    ),
    "text-invalid": entry(422, "{field}: use 1 to 500 characters", "Choose another value"),
    "user-id-missing": entry(
        422,
        "user_id is missing: an operator's token does not belong to a user",
        "Send the user_id of the account's owner",
    ),
    "config-invalid": entry(
        422,
        "config: {problem}",
        cli="See its fields: polling integrations show {domain}",
        rest=FIELDS,
        dashboard="Correct the field and try again",
    ),
    "credentials-invalid": entry(
        422,
        "credentials: {problem}",
        cli="See their fields: polling integrations show {domain}",
        rest=FIELDS,
        dashboard="Correct the field and try again",
    ),
    "destination-changed": entry(
        422,
        "config: {problem}",
        "Send the credentials together with the config",
        cli="Give --credentials together with the config",
    ),
    "value-not-storable": entry(
        422,
        "{part}: contains a NUL byte or an unpaired surrogate",
        "Remove these characters",
    ),
    "value-not-finite": entry(
        422, "{part}: contains a number that is infinite or NaN", "Use a finite number"
    ),
    "values-too-large": entry(
        422, "{part}: larger than {most} KiB of JSON in ASCII", "Shorten the longest values"
    ),
    "config-holds-secret": entry(
        422,
        "the config of {domain} contains a secret, and configs are stored in clear text",
        "Ask the plugin's author to move the field to the credentials",
    ),
    "credentials-missing": entry(
        422,
        "credentials are missing",
        cli="Give them with --credentials @FILE, or - for standard input",
        rest="Send them as `credentials`",
        dashboard="Fill in the credentials",
    ),
    "credentials-rejected": entry(
        422, "{integration} rejects the credentials: {reason}", "{remedy}"
    ),
    "config-rejected": entry(422, "the config does not work: {reason}", "{remedy}"),
    "provider-unavailable": entry(
        502,
        "{integration} is not available: {reason}",
        "{remedy}",
    ),
    "check-failed": entry(
        502,
        "the check of {integration} failed: {reason}",
        "Try again; if it fails again, report this to the plugin's author",
    ),
    "check-timed-out": entry(
        502,
        "{integration} did not finish its check within {seconds} seconds",
        "If you entered a host and port, check them, or try again later",
    ),
    "rehearsal-refused": entry(
        422,
        "{integration} refuses this account: {reason}",
        "Correct the account's config, then try again",
    ),
    "rehearsal-failed": entry(
        502,
        "the rehearsal of {integration} failed, so nothing was stored: {reason}",
        "Try again; if it fails again, report this to the plugin's author",
    ),
    "rehearsal-timed-out": entry(
        502,
        "{integration} did not finish its rehearsal within {seconds} seconds, so nothing was"
        " stored",
        "Try again later; if it fails again, report this to the plugin's author",
    ),
    "host-unreachable": entry(
        422,
        "the host cannot be reached, or is not on the public internet",
        "If you entered a host and port, check them: users connect only to public hosts."
        " Otherwise try again later",
    ),
    "check-without-identity": entry(
        502, "check() of {domain} did not return the account's identity", AUTHOR
    ),
    "redirect-not-allowed": entry(
        422,
        "redirect_to is not an allowed address",
        "Ask the operator to add the address to POLLING_REDIRECT_URLS",
    ),
    "redirect-shadows-result": entry(
        422,
        "the query of redirect_to has a parameter that the engine adds itself",
        "Remove parameters with these names: {names}",
    ),
    "connect-code-invalid": entry(
        422,
        "this connect_code is invalid, already used, or expired",
        "Start the connection again",
    ),
    "connect-code-of-another-user": entry(
        403,
        "this connection was started for another user, so nothing was stored",
        "Start the connection again, for the user who is signed in to your product",
    ),
    "sign-in-of-another-browser": entry(
        403,
        "this sign-in was started in another browser or session, so nothing was stored",
        "Open the dashboard at its public address, and connect the account there",
    ),
    "sign-in-link-invalid": entry(
        422,
        "this sign-in link is invalid, already used, or expired",
        "Start the sign-in again",
    ),
    "sign-in-not-decrypted": entry(
        409, "could not decrypt the pending sign-in", "Start the sign-in again"
    ),
    "sign-in-refused": entry(422, "the provider did not issue a token: {reason}", "{remedy}"),
    "sign-in-timed-out": entry(
        422,
        "nobody signed in within {minutes} minutes",
        "Start the sign-in again",
        cli="Start again. Without a browser on this machine, use --headless",
    ),
    "sign-in-not-pasted": entry(
        422,
        "the address at which the browser ended did not arrive within {minutes} minutes",
        "Start the sign-in again",
        cli="Start again. After the sign-in, paste the address at which the browser ends",
    ),
    "sign-in-address-wrong": entry(
        422,
        "this is not the address at which the browser ended: {problem}",
        "Copy the complete address from the browser; it begins with {address}",
    ),
    "sign-in-without-loopback": entry(
        422,
        "{domain} accounts cannot be connected in a browser from the command line",
        "Give the credentials instead",
        cli="Give the credentials with --credentials",
    ),
    "sign-in-failed": entry(
        502, "could not request a token from the provider: {reason}", "Try again later"
    ),
    "sign-in-answer-unreadable": entry(
        502, "{integration} could not read the provider's response: {reason}", AUTHOR
    ),
    "sign-in-not-offered": entry(
        422, "{domain} accounts cannot be connected in a browser", "Enter the credentials instead"
    ),
    "sign-in-address-invalid": entry(
        404,
        "{integration} has no sign-in address that a browser can open",
        "Ask the operator to correct the endpoints of this integration",
    ),
    "integration-takes-no-credentials": entry(
        422,
        "{integration} takes no credentials",
        "Leave the credentials out",
        cli="Leave --credentials out",
    ),
    "account-takes-no-credentials": entry(
        404, "{integration} takes no credentials", "Go back to the account's page"
    ),
    "integration-not-found": entry(
        404,
        "integration {domain!r} is not installed; installed: {installed}{suggestion}",
        "Ask the operator to install its plugin",
        cli="{quarantined}How to install a plugin: docs/how-to/install-plugins.md",
    ),
    "organization-not-found": entry(
        404,
        "organization {organization} not found",
        cli="List organizations: polling organizations",
        rest="List organizations: GET /v1/organizations",
        dashboard="Choose one from the list of organizations",
    ),
    "organization-ending": entry(
        409,
        "the organization is being disconnected",
        "Wait until it is gone, and connect it again",
        cli="Wait until it is gone: polling organizations",
    ),
    "organization-ambiguous": entry(
        422,
        "{text!r} matches several organizations",
        "Use the UUID, or more of it",
    ),
    "organization-unsupported": entry(
        422,
        "{integration} cannot connect an organization",
        "Connect each account",
        cli="Connect each account: polling connect DOMAIN",
    ),
    "organization-credentials-invalid": entry(
        422,
        "the credentials of an organization must be a JSON object of at most 64 KiB",
        'Give an object, such as {{"service_account": …}}',
    ),
    "organization-members-invalid": entry(
        422,
        "a list of members has at most {most:,} addresses, and no empty one",
        "Correct the addresses",
    ),
    "organization-empty": entry(
        422,
        "the organization has no active member",
        "Name other members, or let the provider list them",
    ),
    "integration-not-paused": entry(
        409,
        "integration {domain!r} is not paused",
        "Reload the list of integrations",
        cli="List integrations: polling integrations",
    ),
    "pause-in-the-past": entry(
        422,
        "the pause would end in the past, at {until}",
        "Give a later time",
        cli="Give a later time, or a span such as --until 2h",
    ),
    "time-invalid": entry(
        422,
        "{text!r} is not a time",
        "Give a time in ISO 8601, or a span such as 2h",
        cli="Give a time such as 2026-01-31T08:00, or a span such as 2h or 3d",
    ),
    "span-invalid": entry(
        422, "{text!r} is not a span of time", "Give a span such as 30s, 10min or 2h"
    ),
    "integration-quarantined": entry(
        404,
        "integration {domain!r} cannot be loaded ({reason})",
        "Ask the operator to repair or reinstall its package",
        cli="Repair or reinstall its package",
    ),
}
