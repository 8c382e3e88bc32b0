"""The calls of the Gmail API, each with what Google charges for it.

https://developers.google.com/workspace/gmail/api/reference/rest and …/reference/quota.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import httpx2

from core import TransientError
from integration_polling_gmail.errors import Unauthorized, meaning
from integration_polling_gmail.settings import GmailSettings
from integration_polling_gmail.streaming import LargeString, read_json

PAGE_SIZE = 500
"""The most that the API allows, for messages and for history."""

PROFILE_UNITS, LABELS_UNITS, HISTORY_UNITS, LIST_UNITS, GET_UNITS, ATTACHMENT_UNITS = (
    1,
    1,
    2,
    5,
    20,
    20,
)

MAX_ERROR_BYTES = 64 * 1024
TIMEOUT = httpx2.Timeout(60, connect=10)
HISTORY_TYPES = ("messageAdded", "messageDeleted", "labelAdded", "labelRemoved")

Params = Mapping[str, str | int | bool | Sequence[str] | None]


@lru_cache(maxsize=1)
def _trust() -> Any:
    """Loading the certificates costs more than all else of a client: once for a process."""
    return httpx2.create_ssl_context()


def new_client() -> httpx2.Client:
    """A client of its own for an instance.

    Redirects are not followed: they would carry the token elsewhere.
    """
    logger = logging.getLogger("httpx2")
    if logger.level == logging.NOTSET:
        # It tells of each request at INFO, with the person's search in its address.
        logger.setLevel(logging.WARNING)
    headers = {"User-Agent": "integration-polling-gmail (gzip)"}
    return httpx2.Client(verify=_trust(), timeout=TIMEOUT, headers=headers, follow_redirects=False)


class GmailApi:
    """One mailbox.

    Parameters:
      http: Of the instance that owns it.
      token: Gives the access token for each request.
    """

    def __init__(
        self, http: httpx2.Client, settings: GmailSettings, token: Callable[[], str]
    ) -> None:
        self._http = http
        self._base = f"{settings.gmail_api_url}/gmail/v1/users/me"
        self._token = token

    def profile(self) -> dict[str, Any]:
        """Address and current history id."""
        return self._json("profile")

    def labels(self) -> list[dict[str, Any]]:
        return listed(self._json("labels"), "labels")

    def messages(
        self, *, q: str, label: str | None, spam_trash: bool, page: str | None
    ) -> dict[str, Any]:
        """A page of ids."""
        params: Params = {
            "maxResults": PAGE_SIZE,
            "q": q or None,
            "labelIds": label,
            "includeSpamTrash": "true" if spam_trash else None,
            "pageToken": page,
        }
        return self._json("messages", params)

    def history(self, since: str, page: str | None) -> dict[str, Any]:
        """A page of what has happened after `since`.

        Raises:
          Missing: That is too long ago.
        """
        return self._json(
            "history",
            {
                "startHistoryId": since,
                "maxResults": PAGE_SIZE,
                "historyTypes": HISTORY_TYPES,
                "pageToken": page,
            },
        )

    def label_ids(self, message: str) -> list[str]:
        """The labels that a message has now."""
        found = self._json(
            f"messages/{quote(message, safe='')}", {"format": "minimal", "fields": "id,labelIds"}
        )
        _require(found.get("id") == message)
        return strings(found.get("labelIds"))

    def raw(self, message: str, write: Callable[[bytes], object]) -> dict[str, Any]:
        """A message: its source goes to `write` as it comes, the rest is returned."""
        found = self._large(f"messages/{quote(message, safe='')}", {"format": "raw"}, "raw", write)
        _require(found.get("id") == message and "raw" in found)
        return found

    def payload(self, message: str) -> dict[str, Any]:
        """A message as Gmail parsed it, with a short-lived id for each attachment."""
        found = self._json(
            f"messages/{quote(message, safe='')}", {"format": "full", "fields": "id,payload"}
        )
        payload = found.get("payload")
        return payload if isinstance(payload, dict) else {}

    def attachment(
        self, message: str, attachment: str, write: Callable[[bytes], object]
    ) -> dict[str, Any]:
        """An attachment: its bytes go to `write` as they come."""
        path = f"messages/{quote(message, safe='')}/attachments/{quote(attachment, safe='')}"
        found = self._large(path, {}, "data", write)
        _require("data" in found)
        return found

    def _json(self, path: str, params: Params | None = None) -> dict[str, Any]:
        with self._get(path, params or {}) as pieces:
            return read_json(pieces)

    def _large(
        self, path: str, params: Params, key: str, write: Callable[[bytes], object]
    ) -> dict[str, Any]:
        reader = LargeString(key, write)
        with self._get(path, params) as pieces:
            for piece in pieces:
                reader.feed(piece)
        return reader.finish()

    @contextmanager
    def _get(self, path: str, params: Params) -> Iterator[Iterator[bytes]]:
        given = {name: value for name, value in params.items() if value is not None}
        token = self._token()
        if not token or not token.isascii() or not token.isprintable():
            # A word processor's dots; the header cannot carry them, and the error about it would
            # show them.
            raise Unauthorized("the access token has characters that no token has")
        headers = {"Authorization": f"Bearer {token}"}
        try:
            with self._http.stream(
                "GET", f"{self._base}/{path}", params=given, headers=headers
            ) as response:
                if response.status_code != 200:
                    raise meaning(response.status_code, _beginning(response), response.headers)
                yield response.iter_bytes()
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
            raise TransientError(f"Gmail cannot be reached: {type(error).__name__}") from None


def _beginning(response: httpx2.Response) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > MAX_ERROR_BYTES:
            break
    return bytes(body[:MAX_ERROR_BYTES])


def _require(is_asked_for: bool) -> None:
    if not is_asked_for:
        raise TransientError("Gmail's answer is not what was asked for")


def listed(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of a listing; none where it has no such key, as Gmail says it.

    Raises:
      TransientError: Something else stands there. Read as nothing, it would be taken for mail that
        is gone.
    """
    value = answer.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise TransientError(f"Gmail's answer has no list of {key}")
    return value


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects in what should be a list of them."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def strings(value: object) -> list[str]:
    """The strings in what should be a list of them."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
