"""The users of a Google Workspace, whose mailboxes one service account reads.

Sources: https://developers.google.com/workspace/admin/directory/reference/rest/v1/users/list and
https://support.google.com/a/answer/162106 (domain-wide delegation). The service account acts for an
administrator, because Google lists users only to people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import httpx2
from pydantic import BaseModel, ValidationError

from core import (
    ConfigurationError,
    Member,
    PermanentError,
    TransientError,
    Unavailable,
    retry_after,
)
from integration_polling_gmail import refusals, tokens
from integration_polling_gmail.account import ServiceAccount
from integration_polling_gmail.answers import next_page
from integration_polling_gmail.api import beginning, new_client
from integration_polling_gmail.api import listed as objects
from integration_polling_gmail.errors import meaning
from integration_polling_gmail.settings import GmailSettings
from integration_polling_gmail.streaming import read_json

SCOPE = "https://www.googleapis.com/auth/admin.directory.user.readonly"
PAGE_SIZE = 500
FIELDS = "kind,nextPageToken,users(id,primaryEmail,suspended,archived,isMailboxSetup)"
KIND = "admin#directory#users"


class Key(BaseModel, extra="ignore"):
    """The part of an organization's credentials that lists its users."""

    service_account: ServiceAccount
    subject: str = ""


def members(
    settings: GmailSettings, credentials: Mapping[str, Any], listed: Sequence[str] | None
) -> Iterator[Member]:
    """Yield the users of the Workspace, or those that a person has named.

    A user without a mailbox is left out. A suspended or archived one is not active.

    Raises:
      ConfigurationError, CredentialsInvalid: Google refuses the listing, with a remedy.
      TransientError: Google does not answer now.
    """
    try:
        key = Key.model_validate(credentials)
    except ValidationError:
        raise refusals.no_key(credentials).error() from None
    group = tokens.project_of(key.service_account)
    if listed is not None:
        for address in dict.fromkeys(each.strip().lower() for each in listed):
            yield Member(address, address, credentials={"subject": address}, group=group)
        return
    if not key.subject:
        raise refusals.NO_SUBJECT.error()
    with closing(new_client()) as http:
        for user in _users(http, settings, key):
            if user.get("isMailboxSetup") is not False:
                yield _member(user, group)


def _member(user: Mapping[str, Any], group: str) -> Member:
    id, address = user.get("id"), user.get("primaryEmail")
    if not isinstance(id, str) or not isinstance(address, str):
        raise TransientError("the Directory API returned a user without id or address")
    address = address.lower()
    is_active = not (user.get("suspended") or user.get("archived"))
    return Member(id, address, "", {"subject": address}, group, is_active)


def _users(http: httpx2.Client, settings: GmailSettings, key: Key) -> Iterator[dict[str, Any]]:
    try:
        token, _ = tokens.of_service_account(
            http, settings, key.service_account, SCOPE, key.subject
        )
    except ConfigurationError as error:
        if error.reason.startswith(refusals.NOT_DELEGATED.text):
            raise refusals.DIRECTORY_NOT_DELEGATED.error() from None
        raise
    page: str | None = None
    while True:
        answer = _page(http, settings, token, page)
        if "users" not in answer and answer.get("kind") != KIND:
            raise Unavailable("another server, such as a proxy, answered for the Directory API")
        yield from objects(answer, "users")
        if (page := next_page(answer, page)) is None:
            return


def _page(
    http: httpx2.Client, settings: GmailSettings, token: str, page: str | None
) -> dict[str, Any]:
    params: dict[str, str | int] = {
        "customer": "my_customer", "maxResults": PAGE_SIZE, "orderBy": "email", "fields": FIELDS,
    }  # fmt: skip
    if page is not None:
        params["pageToken"] = page
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{settings.google_directory_url}/admin/directory/v1/users"
    try:
        with http.stream("GET", url, params=params, headers=headers) as response:
            if response.status_code == 200:
                return read_json(response.iter_bytes())
            body = beginning(response)
            status, received = response.status_code, response.headers
    except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
        raise Unavailable(f"cannot reach the Directory API: {type(error).__name__}") from None
    if b"accessNotConfigured" in body or b"SERVICE_DISABLED" in body:
        raise refusals.DIRECTORY_DISABLED.error()
    if status == 403 and isinstance(meaning(status, body, received), PermanentError):
        raise refusals.NOT_AN_ADMINISTRATOR.error()
    raise Unavailable(f"the Directory API answered {status}", retry_after=retry_after(received))
