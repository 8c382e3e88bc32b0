"""The calls of the Gmail API, with their cost in quota units.

Sources: https://developers.google.com/workspace/gmail/api/reference/rest and
https://developers.google.com/workspace/gmail/api/reference/quota.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx2

from core import TransientError, Unavailable
from integration_polling_gmail.errors import BadRequest, Missing, Unauthorized, meaning
from integration_polling_gmail.settings import GmailSettings
from integration_polling_gmail.streaming import LargeString, read_json

PAGE_SIZE = 500
"""The maximum page size of the API, for messages and for history."""

MARKS_OF_LISTINGS = frozenset({"messages", "nextPageToken", "resultSizeEstimate"})
"""Keys of which each listing of messages has one. Without messages, Gmail sends the last one.

The JSON of another server would otherwise be an empty mailbox, and delete all mail.
"""

PROFILE_UNITS, LABELS_UNITS, HISTORY_UNITS, LIST_UNITS, GET_UNITS = 1, 1, 2, 5, 20
WATCH_UNITS = 100

MAX_ERROR_BYTES = 64 * 1024
TIMEOUT = httpx2.Timeout(60, connect=10)
HISTORY_TYPES = ("messageAdded", "messageDeleted", "labelAdded", "labelRemoved")

OTHER_WATCH = "only one user push notification client"
"""Part of the message if the mailbox has a watch for another topic."""

Params = Mapping[str, str | int | bool | Sequence[str] | None]
NO_PARAMS: Params = MappingProxyType({})


@lru_cache(maxsize=1)
def _trust() -> Any:
    """Return the TLS context of this process.

    Loading the certificates costs more than everything else that a client needs.
    """
    return httpx2.create_ssl_context()


def new_client() -> httpx2.Client:
    """Return a new HTTP client for an instance.

    It does not follow redirects: they would send the token to another host.
    """
    logger = logging.getLogger("httpx2")
    if logger.level == logging.NOTSET:
        # At INFO, it logs the URL of each request, which contains the user's search.
        logger.setLevel(logging.WARNING)
    headers = {"User-Agent": "integration-polling-gmail (gzip)"}
    return httpx2.Client(verify=_trust(), timeout=TIMEOUT, headers=headers, follow_redirects=False)


class GmailApi:
    """The calls for one mailbox.

    Args:
      http: The client of the instance that owns this object.
      settings: The operator's settings, for the address of the API.
      token: Returns the access token for each request.
    """

    def __init__(
        self, http: httpx2.Client, settings: GmailSettings, token: Callable[[], str]
    ) -> None:
        self._http = http
        self._base = f"{settings.gmail_api_url}/gmail/v1/users/me"
        self._token = token

    def profile(self) -> dict[str, Any]:
        """Return the mailbox's address and current history id."""
        return self._json("profile")

    def labels(self) -> list[dict[str, Any]]:
        """Return the labels of the mailbox."""
        answer = self._json("labels")
        _require("labels" in answer)
        return listed(answer, "labels")

    def label_total(self, label: str) -> int | None:
        """Return the number of messages with a label; None if Gmail does not know it."""
        try:
            total = self._json(f"labels/{quote(label, safe='')}").get("messagesTotal")
        except Missing:
            return None
        return total if type(total) is int else None

    def messages(
        self,
        *,
        q: str,
        label: str | None,
        spam_trash: bool,
        page: str | None,
        size: int = PAGE_SIZE,
    ) -> dict[str, Any]:
        """Return a page of message ids.

        Args:
          q: A Gmail search; empty for all mail.
          label: The id of a label, or None.
          spam_trash: True to include spam and trash.
          page: The token of the page; None for the first one.
          size: The maximum number of ids. Default: 500.
        """
        params: Params = {
            "maxResults": size,
            "q": q or None,
            "labelIds": label,
            "includeSpamTrash": "true" if spam_trash else None,
            "pageToken": page,
        }
        answer = self._json("messages", params)
        _require(not MARKS_OF_LISTINGS.isdisjoint(answer))
        return answer

    def history(self, since: str, page: str | None) -> dict[str, Any]:
        """Return a page of the history after an id, at most 500 records.

        Args:
          since: A history id.
          page: The token of the page; None for the first one.

        Raises:
          Missing: Gmail no longer has the history since this id.
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

    def watch(self, topic: str) -> datetime:
        """Let Gmail publish the mailbox's changes to a topic of Pub/Sub.

        Gmail sends the first event immediately. A watch ends after seven days, and a newer one
        replaces it.

        Source: https://developers.google.com/workspace/gmail/api/guides/push

        Args:
          topic: The topic, as `projects/PROJECT/topics/NAME`.

        Returns:
          The time at which the watch ends.
        """
        try:
            answer = self._watched(topic)
        except BadRequest as error:
            # A watch of the same project for another topic has to end first.
            if OTHER_WATCH not in str(error).lower():
                raise
            with self._request("POST", "stop"):
                pass
            answer = self._watched(topic)
        expiration = str(answer.get("expiration", ""))
        _require(re.fullmatch(r"[0-9]{10,14}", expiration, re.ASCII) is not None)  # up to 5138
        return datetime.fromtimestamp(int(expiration) / 1000, UTC)

    def _watched(self, topic: str) -> dict[str, Any]:
        with self._request("POST", "watch", body={"topicName": topic}) as pieces:
            return read_json(pieces)

    def label_ids(self, message: str) -> list[str]:
        """Return the ids of the labels that a message has now."""
        found = self._json(
            f"messages/{quote(message, safe='')}", {"format": "minimal", "fields": "id,labelIds"}
        )
        _require(found.get("id") == message)
        return strings(found.get("labelIds"))

    def raw(self, message: str, write: Callable[[bytes], object]) -> dict[str, Any]:
        """Return a message, and write its decoded source to `write` in pieces.

        Chats have no source.
        """
        found = self._large(f"messages/{quote(message, safe='')}", {"format": "raw"}, "raw", write)
        _require(found.get("id") == message)
        return found

    def may_read(self, message: str) -> None:
        """Request a message's source without its bytes. Raise the error of a refusal."""
        self._json(f"messages/{quote(message, safe='')}", {"format": "raw", "fields": "id"})

    def full(self, message: str) -> dict[str, Any]:
        """Return a message as Gmail has parsed it: `payload` has headers and parts."""
        found = self._json(f"messages/{quote(message, safe='')}", {"format": "full"})
        _require(found.get("id") == message)
        return found

    def attachment(self, message: str, id: str, write: Callable[[bytes], object]) -> None:
        """Write the decoded bytes of an attachment that a `full` response names to `write`."""
        path = f"messages/{quote(message, safe='')}/attachments/{quote(id, safe='')}"
        self._large(path, {}, "data", write)

    def _json(self, path: str, params: Params | None = None) -> dict[str, Any]:
        with self._request("GET", path, params or {}) as pieces:
            return read_json(pieces)

    def _large(
        self, path: str, params: Params, key: str, write: Callable[[bytes], object]
    ) -> dict[str, Any]:
        reader = LargeString(key, write)
        with self._request("GET", path, params) as pieces:
            for piece in pieces:
                reader.feed(piece)
        return reader.finish()

    @contextmanager
    def _request(
        self, method: str, path: str, params: Params = NO_PARAMS, body: Any = None
    ) -> Iterator[Iterator[bytes]]:
        given = {name: value for name, value in params.items() if value is not None}
        token = self._token()
        if not token or not token.isascii() or not token.isprintable():
            # A header cannot carry them, and the library's error would show the token.
            raise Unauthorized("the access token contains invalid characters")
        headers = {"Authorization": f"Bearer {token}"}
        try:
            with self._http.stream(
                method, f"{self._base}/{path}", params=given, headers=headers, json=body
            ) as response:
                if response.status_code not in (200, 204):
                    raise meaning(response.status_code, beginning(response), response.headers)
                yield response.iter_bytes()
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL) as error:
            raise Unavailable(f"cannot reach Gmail: {type(error).__name__}") from None


def beginning(response: httpx2.Response) -> bytes:
    """Return the first bytes of the body of an error."""
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > MAX_ERROR_BYTES:
            break
    return bytes(body[:MAX_ERROR_BYTES])


def _require(is_asked_for: bool) -> None:
    if not is_asked_for:
        raise TransientError("unexpected response from Gmail: not the requested item")


def listed(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects of a listing; an empty list if the response has no such key.

    Raises:
      TransientError: The value is not a list of objects. An empty list would mark mail as deleted.
    """
    value = answer.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise TransientError(f"unexpected response from Gmail: {key} is not a list of objects")
    return value


def dicts(value: object) -> list[dict[str, Any]]:
    """Return the objects in a value that should be a list of objects."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def strings(value: object) -> list[str]:
    """Return the strings in a value that should be a list of strings."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
