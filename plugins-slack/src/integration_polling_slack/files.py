"""Files that messages carry: what is kept of them, and fetching their bytes.

Facts: https://docs.slack.dev/messaging/working-with-files
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

from core import Blob, BlobWriter, PermanentError, RateLimited, SkipItem, TaskOutput, TransientError
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.api import TIMEOUT_SECONDS, opener
from integration_polling_slack.errors import seconds

LIMIT = "files"
"""The limit that a refused download blocks."""

BLOCK = 256 * 1024
MAX_REDIRECTS = 5
LONGEST = 1_000
"""Characters of a name or an address."""

WITH_BYTES = ("", "hosted", "snippet", "email")
"""Modes of files that can be downloaded as they are."""

HIDDEN = "hidden_by_limit"
"""The mode of files that the workspace's plan hides: only their id is left."""

_SHOWN = ("id", "title", "mimetype", "filetype", "mode", "permalink", "user", "size")


class Refused(PermanentError):
    """A web page came instead of the file: the token may not read it."""


class Gone(SkipItem):
    """It is no longer there."""


class TooLarge(SkipItem):
    """It has more bytes than the account keeps."""


class File(BaseModel):
    """What a task has to know of a file."""

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
        """From Slack's file object; what has another type than it should is left out."""
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
        """One file may hang on several messages, and is a row for each."""
        return f"{self.message}:{self.id}"

    def version(self, content: str) -> str:
        """The row's fingerprint: what it is, and whether its content is kept, or why not."""
        return f"{self.id}:{self.size}:{self.created}:{content}"

    def row(self, content: Blob | None = None, *, without: str = "") -> TaskOutput:
        """The file as it is kept.

        Parameters:
          without: Why its content is not; empty if it is, or is not wanted.
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
    """Why a file's content cannot be fetched; empty if it can."""
    if file.mode == HIDDEN:
        return "hidden by the workspace's plan"
    if file.mode not in WITH_BYTES and file.mode != "external":
        return "it has no bytes of its own"  # canvases, lists and posts are pages
    if file.mode == "external" or not _takes_token(settings, file.url):
        return "it lies outside Slack"
    return too_large(most_bytes) if (file.size or 0) > most_bytes else ""


def too_large(most_bytes: int) -> str:
    return f"larger than {most_bytes // 1_000_000} MB"


def fetch(
    settings: SlackSettings, token: SecretStr, file: File, blob: BlobWriter, most_bytes: int
) -> None:
    """Write the file's bytes, going on where an earlier attempt broke off.

    Raises:
      Gone, TooLarge: It is no longer there, or larger than allowed.
      Refused: A web page came instead: the token may not read it, or has expired.
      TransientError: It was cut short.
      RateLimited: Too many downloads.
    """
    with _opened(settings, token, file, blob.tell()) as response:
        _begin(response, file, blob)
        if response.headers.get_content_type() == "text/html" and file.mimetype != "text/html":
            raise Refused(
                f"a web page came instead of the file {file.id}: does the token have the scope"
                " files:read?"
            )
        while data := response.read(BLOCK):
            if blob.tell() + len(data) > most_bytes:
                raise TooLarge(too_large(most_bytes))
            blob.write(data)
    if file.size is not None and blob.tell() != file.size:
        length = blob.tell()
        if length > file.size or file.mimetype == "text/html":
            blob.restart()
        raise TransientError(f"{length} of {file.size} bytes of the file {file.id} came")


def _begin(response: HTTPResponse, file: File, blob: BlobWriter) -> None:
    """Go on where the answer begins, which may be the very beginning.

    Raises:
      TransientError: It begins somewhere else.
    """
    if response.status != 206:
        blob.restart()
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {blob.tell()}-"):
        blob.restart()
        raise TransientError(f"another part of the file {file.id} came than was asked for")


@contextlib.contextmanager
def _opened(
    settings: SlackSettings, token: SecretStr, file: File, offset: int
) -> Iterator[HTTPResponse]:
    """The response, behind redirects that are followed by hand: the token goes to Slack alone."""
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
        raise PermanentError(f"the file {file.id} is redirected in circles")
    except (URLError, HTTPException, OSError) as error:
        raise TransientError(f"the file {file.id} does not come: {type(error).__name__}") from None


def _redirected(url: str, error: HTTPError, file: File) -> str:
    """Where a redirect leads.

    Raises:
      IntegrationError: It is another answer, or leads where nobody may follow.
    """
    text = f"the file {file.id}: HTTP {error.code}"
    if error.code in (301, 302, 303, 307, 308) and (to := error.headers.get("Location")):
        try:
            target = quote(urljoin(url, to), safe=string.punctuation)
            scheme = urlsplit(target).scheme
        except ValueError:
            raise PermanentError(
                f"the file {file.id} is redirected to an address that is none"
            ) from None
        if scheme not in ("https", urlsplit(url).scheme) or scheme not in ("http", "https"):
            raise PermanentError(
                f"the file {file.id} is redirected to an address that is not secure"
            )
        return target
    if error.code == 429:
        raise RateLimited(text, retry_after=seconds(error.headers.get("Retry-After")), limit=LIMIT)
    if error.code in (404, 410):
        raise Gone(text)
    raise Refused(text) if error.code in (401, 403) else TransientError(text)


def _takes_token(settings: SlackSettings, url: str) -> bool:
    """Return whether this address belongs to Slack.

    It is the operator's `SLACK_API_URL`, or a host of Slack's with TLS.
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
