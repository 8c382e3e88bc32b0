"""Files of messages: their rows, and the download of their bytes.

Source: https://docs.slack.dev/messaging/working-with-files
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import string
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import Request

from pydantic import BaseModel, JsonValue, SecretStr

from core import (
    Blob,
    BlobWriter,
    IntegrationError,
    PermanentError,
    RateLimited,
    SkipItem,
    TaskOutput,
    TransientError,
    Unavailable,
    retry_after,
)
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.api import TIMEOUT_SECONDS, opener
from integration_polling_slack.mrkdwn import unescaped

LIMIT = "files"
"""The name of the limit of downloads. They come from other hosts than the methods do."""

BLOCK = 256 * 1024
MAX_REDIRECTS = 5
LONGEST = 1_000
"""The maximum number of characters of a name or URL."""

PAGES = ("quip", "canvas", "space", "post", "docs")
"""The modes of canvases and posts. Their content is HTML."""

WITH_BYTES = ("", "hosted", "snippet", "email", *PAGES)
"""The modes of files that can be downloaded."""

HIDDEN = "hidden_by_limit"
"""The mode of files that the workspace's plan hides: the message has only their id."""

CANVASES = "canvases"
"""The parent of the rows of channels' own canvases."""

DELETED = "deleted"
"""The reason for a file that its owner deleted."""

_REFUSALS = {
    "missing_scope": "the token lacks the scope files:read",
    "file_not_found": "not found, or not visible to the token",
    "file_deleted": DELETED,
    "access_denied": "access denied",
    "no_permission": "access denied",
    "not_visible": "access denied",
    "not_allowed": "access denied",
    "restricted_action": "access denied",
    "ekm_access_denied": "access denied: the organization withdrew its key",
    "team_access_not_granted": "access denied: the organization did not grant access",
    "slack_connect_file_upload_sharing_blocked": "access denied: blocked for Slack Connect",
}
"""The reasons for the error codes of `files.info` and of `file_access`."""

_LOGIN = re.compile(rb"(?i)<title>[^<]{0,200}sign ?in|<body>\s*sign in to |signin_form|[?&]redir=")
_LOGIN_BYTES = 64 * 1024

_SHOWN = ("id", "title", "mimetype", "filetype", "mode", "permalink", "user", "size")


class Refused(PermanentError):
    """The response is a web page instead of the file: the token may not read it."""


class Gone(SkipItem):
    """The file does not exist any more."""


class Unusable(SkipItem):
    """The row stays without content; the text of the error is the reason."""


class File(BaseModel):
    """The description of a file; also the payload of its task.

    Attributes:
      id: The file's id.
      message: The id of the message's row.
      url: The address of its bytes.
      size: The size in bytes; None if unknown.
      created: The time of the upload, in Unix seconds; None if unknown.
      edited: The version of a snippet, post or canvas. Default: empty.
      access: Slack's `file_access`, if the file is not visible. Default: empty.
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
    edited: str = ""
    access: str = ""

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
            {
                **texts,
                **{key: unescaped(texts[key]) for key in ("name", "title") if key in texts},
                "id": data["id"], "message": message, "url": url, **numbers,
                "edited": _edited(data), "access": _access(data),
            }
        )  # fmt: skip

    @property
    def is_page(self) -> bool:
        """True if the content is HTML that Slack makes of a canvas or post."""
        return self.mode in PAGES

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
        shown = json.dumps([self.name, self.title, self.mimetype]).encode()
        names = hashlib.blake2b(shown, digest_size=6).hexdigest()
        return f"{self.id}:{self.size}:{self.created}:{self.edited}:{content}|{names}"

    def has_content(self, known: str) -> bool:
        """Return True if a row with this fingerprint has the file's present content."""
        return known.partition("|")[0] == self.version("content").partition("|")[0]

    def update(self) -> TaskOutput:
        """Return an update of the row's metadata. It keeps the content."""
        return TaskOutput.update(
            self.key,
            metadata={"name": self.name, **self._shown},
            fingerprint=self.version("content"),
        )

    @property
    def _shown(self) -> dict[str, JsonValue]:
        return {key: value for key in _SHOWN if (value := getattr(self, key)) not in ("", None)}

    def row(self, content: Blob | None = None, *, without: str = "") -> TaskOutput:
        """Return the file's row.

        Args:
          content: The file's bytes. Default: none.
          without: The reason why the content is missing. Default: empty, which means that it is
            present or not wanted.
        """
        metadata = {**self._shown, "skipped": without} if without else self._shown
        created, is_canvas = self.created, ":" not in self.message
        media = "text/html" if self.is_page and content is not None else self.mimetype
        if is_canvas:
            metadata["channel"] = self.message
        return TaskOutput(
            self.key, content, kind="file", parent=CANVASES if is_canvas else self.message,
            name=self.name or self.title or self.id,
            timestamp=datetime.fromtimestamp(created, UTC) if created is not None else None,
            content_type=media or None, metadata=metadata,
            fingerprint=self.version("content" if content is not None else without),
        )  # fmt: skip


def obstacle(file: File, settings: SlackSettings, most_bytes: int) -> str:
    """Return the reason why a file's content cannot be fetched; empty if it can."""
    if file.mode == HIDDEN:
        return "hidden by the workspace's plan"
    if file.access:
        return _REFUSALS.get(file.access, file.access)
    if file.mode not in WITH_BYTES and file.mode != "external":
        return "no downloadable content"  # such as lists
    if not file.url and file.mode != "external":
        return "no address"
    if file.mode == "external" or not _takes_token(settings, file.url):
        return "stored outside Slack"
    return too_large(most_bytes) if (file.size or 0) > most_bytes else ""


def refusal(error: IntegrationError) -> str | None:
    """Return the reason in an error of `files.info`; None if it is not about the file."""
    code = re.match(r"files\.info: ([a-z_]+)", str(error))
    return _REFUSALS.get(code[1]) if code else None


def _edited(data: Mapping[str, Any]) -> str:
    """Return the version of a file that can be edited; empty for others."""
    stamps = [data.get("edit_timestamp")]
    stamps += [data.get("updated")] if data.get("mode") in PAGES else []
    return next((str(one)[:40] for one in stamps if type(one) in (int, str) and one), "")


def _access(data: Mapping[str, Any]) -> str:
    access = data.get("file_access")
    is_visible = access in (None, "", "visible", "check_file_info")
    return "" if is_visible or not isinstance(access, str) else access[:100]


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
      Unusable: The file exceeds the maximum size, or has another size than Slack says.
      Refused: The response is a web page: the token may not read the file, or has expired.
      TransientError: The response is truncated.
      Unavailable: The host of the file does not answer, or answers with a server error.
      RateLimited: There were too many downloads.
    """
    with _opened(settings, token, file, blob.tell()) as response:
        _begin(response, file, blob)
        is_web = response.headers.get_content_type() == "text/html"
        if is_web and file.mimetype != "text/html" and not file.is_page:
            raise _login_page(file)
        left, head = response.length, b""
        while data := response.read(BLOCK):
            if blob.tell() + len(data) > most_bytes:
                raise Unusable(too_large(most_bytes))
            head = head or data[:_LOGIN_BYTES]
            blob.write(data)
            left = None if left is None else left - len(data)
    length = blob.tell()
    if left:
        raise TransientError(f"received {length} of {length + left} bytes of file {file.id}")
    if (file.is_page or length != file.size) and is_web and _LOGIN.search(head):
        blob.restart()
        raise _login_page(file)
    if not file.is_page and file.size not in (None, length):
        raise Unusable(f"Slack sent {length} bytes, but names a size of {file.size}")


def _login_page(file: File) -> Refused:
    return Refused(
        f"received a web page instead of file {file.id}; the token may lack the scope files:read"
    )


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
    pause = retry_after(error.headers)
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
