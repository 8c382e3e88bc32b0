"""Files of messages: their rows, and the download of their bytes.

Source: https://docs.slack.dev/messaging/working-with-files
"""

from __future__ import annotations

import contextlib
import string
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import Request

from pydantic import BaseModel, SecretStr

from core import (
    Blob,
    BlobWriter,
    PermanentError,
    RateLimited,
    SkipItem,
    TaskOutput,
    TransientError,
    Unavailable,
)
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.api import TIMEOUT_SECONDS, opener
from integration_polling_slack.errors import seconds

LIMIT = "files"
"""The name of the limit of downloads. They come from other hosts than the methods do."""

BLOCK = 256 * 1024
MAX_REDIRECTS = 5
LONGEST = 1_000
"""The maximum number of characters of a name or URL."""

WITH_BYTES = ("", "hosted", "snippet", "email")
"""The modes of files that can be downloaded."""

HIDDEN = "hidden_by_limit"
"""The mode of files that the workspace's plan hides: the message has only their id."""

_SHOWN = ("id", "title", "mimetype", "filetype", "mode", "permalink", "user", "size")


class Refused(PermanentError):
    """The response is a web page instead of the file: the token may not read it."""


class Gone(SkipItem):
    """The file does not exist any more."""


class TooLarge(SkipItem):
    """The file exceeds the account's maximum size."""


class File(BaseModel):
    """The description of a file; also the payload of its task.

    Attributes:
      id: The file's id.
      message: The id of the message's row.
      url: The address of its bytes.
      size: The size in bytes; None if unknown.
      created: The time of the upload, in Unix seconds; None if unknown.
    """

    id: str
    message: str
    name: str = ""
    title: str = ""
    mimetype: str = ""
    filetype: str = ""
    mode: str = ""
    permalink: str = ""
    user: str = ""
    url: str = ""
    size: int | None = None
    created: int | None = None

    @classmethod
    def of(cls, message: str, data: Mapping[str, Any]) -> Self:
        """Return the description in Slack's file object; fields of another type are left out."""
        texts = {
            key: data[key][:LONGEST] for key in cls.model_fields if isinstance(data.get(key), str)
        }
        address = data.get("url_private_download") or data.get("url_private")
        numbers = {
            key: data[key]
            for key in ("size", "created")
            if type(data.get(key)) is int and 0 <= data[key] < 2**40
        }
        url = address if isinstance(address, str) else ""
        return cls.model_validate(
            {**texts, "id": data["id"], "message": message, "url": url, **numbers}
        )

    @property
    def key(self) -> str:
        """The id of the file's row. A file of several messages has a row for each."""
        return f"{self.message}:{self.id}"

    def version(self, content: str) -> str:
        """Return the row's fingerprint.

        Args:
          content: `content` if the row has the file's content, otherwise the reason why it does
            not.
        """
        return f"{self.id}:{self.size}:{self.created}:{content}"

    def row(self, content: Blob | None = None, *, without: str = "") -> TaskOutput:
        """Return the file's row.

        Args:
          content: The file's bytes. Default: none.
          without: The reason why the content is missing. Default: empty, which means that it is
            present or not wanted.
        """
        shown = {key: value for key in _SHOWN if (value := getattr(self, key)) not in ("", None)}
        metadata = {**shown, "skipped": without} if without else shown
        created = self.created
        return TaskOutput(
            self.key, content, kind="file", parent=self.message,
            name=self.name or self.title or self.id,
            timestamp=datetime.fromtimestamp(created, UTC) if created is not None else None,
            content_type=self.mimetype or None, metadata=metadata,
            fingerprint=self.version("content" if content is not None else without),
        )  # fmt: skip


def obstacle(file: File, settings: SlackSettings, most_bytes: int) -> str:
    """Return the reason why a file's content cannot be fetched; empty if it can."""
    if file.mode == HIDDEN:
        return "hidden by the workspace's plan"
    if file.mode not in WITH_BYTES and file.mode != "external":
        return "no downloadable content"  # canvases, lists and posts are pages
    if file.mode == "external" or not _takes_token(settings, file.url):
        return "stored outside Slack"
    return too_large(most_bytes) if (file.size or 0) > most_bytes else ""


def too_large(most_bytes: int) -> str:
    """Return the reason for a file that exceeds this size."""
    return f"larger than {most_bytes // 1_000_000} MB"


def fetch(
    settings: SlackSettings, token: SecretStr, file: File, blob: BlobWriter, most_bytes: int
) -> None:
    """Download a file, resuming an earlier attempt.

    Args:
      settings: The operator's settings, for Slack's address.
      token: The access token.
      file: The file's description.
      blob: Takes the bytes.
      most_bytes: The maximum size in bytes.

    Raises:
      Gone: The file does not exist any more.
      TooLarge: The file exceeds the maximum size.
      Refused: The response is a web page: the token may not read the file, or has expired.
      TransientError: The response is truncated.
      Unavailable: The host of the file does not answer, or answers with a server error.
      RateLimited: There were too many downloads.
    """
    with _opened(settings, token, file, blob.tell()) as response:
        _begin(response, file, blob)
        if response.headers.get_content_type() == "text/html" and file.mimetype != "text/html":
            raise Refused(
                f"received a web page instead of file {file.id}; the token may lack the scope"
                " files:read"
            )
        while data := response.read(BLOCK):
            if blob.tell() + len(data) > most_bytes:
                raise TooLarge(too_large(most_bytes))
            blob.write(data)
    if file.size is not None and blob.tell() != file.size:
        length = blob.tell()
        if length > file.size or file.mimetype == "text/html":
            blob.restart()
        raise TransientError(f"received {length} of {file.size} bytes of file {file.id}")


def _begin(response: HTTPResponse, file: File, blob: BlobWriter) -> None:
    """Continue at the offset at which the response starts, or restart.

    Raises:
      TransientError: The response starts at another offset.
    """
    if response.status != 206:
        blob.restart()
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {blob.tell()}-"):
        blob.restart()
        raise TransientError(f"received another range of file {file.id} than requested")


@contextlib.contextmanager
def _opened(
    settings: SlackSettings, token: SecretStr, file: File, offset: int
) -> Iterator[HTTPResponse]:
    """Open a response, and follow redirects step by step: only Slack gets the token."""
    url, whole = quote(file.url, safe=string.punctuation), offset == 0
    try:
        for _ in range(MAX_REDIRECTS + 1):
            headers = {} if whole else {"Range": f"bytes={offset}-"}
            if _takes_token(settings, url):
                headers["Authorization"] = f"Bearer {token.get_secret_value()}"
            try:
                request = Request(url, headers=headers)  # noqa: S310  checked
                with opener().open(request, timeout=TIMEOUT_SECONDS) as response:
                    yield response
                    return
            except HTTPError as error:
                with error:
                    if error.code == 416 and not whole:
                        whole = True
                        continue
                    url = _redirected(url, error, file)
        raise PermanentError(f"file {file.id} has more than {MAX_REDIRECTS} redirects")
    except (URLError, HTTPException, OSError) as error:
        text = f"cannot download file {file.id}: {type(error).__name__}"
        raise Unavailable(text, limit=LIMIT) from None


def _redirected(url: str, error: HTTPError, file: File) -> str:
    """Return the target of a redirect.

    Raises:
      IntegrationError: The response is not a redirect, or its target is not allowed.
    """
    text = f"file {file.id}: HTTP {error.code}"
    if error.code in (301, 302, 303, 307, 308) and (to := error.headers.get("Location")):
        try:
            target = quote(urljoin(url, to), safe=string.punctuation)
            scheme = urlsplit(target).scheme
        except ValueError:
            raise PermanentError(f"file {file.id} redirects to an invalid address") from None
        if scheme not in ("https", urlsplit(url).scheme) or scheme not in ("http", "https"):
            raise PermanentError(f"file {file.id} redirects to an insecure address")
        return target
    pause = seconds(error.headers.get("Retry-After"))
    if error.code == 429:
        raise RateLimited(text, retry_after=pause, limit=LIMIT)
    if error.code >= 500:
        raise Unavailable(text, retry_after=pause, limit=LIMIT)
    if error.code in (404, 410):
        raise Gone(text)
    raise Refused(text) if error.code in (401, 403) else TransientError(text)


def _takes_token(settings: SlackSettings, url: str) -> bool:
    """Return True if this address belongs to Slack, and so may get the token.

    That is the operator's `SLACK_API_URL`, or one of Slack's hosts with TLS.
    """
    try:
        parts, api = urlsplit(url), urlsplit(settings.api_url)
        host = parts.hostname or ""
        if parts.username:
            return False
        if (parts.scheme, host, parts.port) == (api.scheme, api.hostname, api.port):
            return True
        slack = host in ("slack.com", "slack-files.com") or host.endswith(
            (".slack.com", ".slack-files.com")
        )
        return parts.scheme == "https" and slack and parts.port in (None, 443)
    except ValueError:
        return False
