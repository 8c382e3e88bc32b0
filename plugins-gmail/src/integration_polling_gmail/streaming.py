"""A streaming decoder for one large string of a JSON response.

A message of 50 MB is never in memory at one time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from core import PermanentError, TransientError
from core.mail import Base64Decoder

MAX_JSON_BYTES = 32 * 1024 * 1024
"""The maximum size in bytes of a response without its large string."""

MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""The maximum decoded size in bytes of the large string. Gmail accepts mail of up to 50 MB."""

_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PARTIAL_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")


class LargeString:
    """Extracts the string of one key from a JSON text that arrives in pieces.

    Within a JSON string, every quotation mark is escaped. So the quoted key with a colon can only
    be the key itself.

    Args:
      key: The key whose value is base64.
      write: Takes the decoded bytes.

    Attributes:
      size: The decoded size in bytes so far.
    """

    def __init__(self, key: str, write: Callable[[bytes], object]) -> None:
        self._start = re.compile(rb'"%s"\s*:\s*"' % key.encode())
        self._longest_start = len(key) + 64
        self._write = write
        self._decoder = Base64Decoder()
        self._rest = bytearray()
        self._carry = b""
        self._inside = self._done = False
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
          PermanentError: The response is larger than the limits.
        """
        if self._inside:
            self._take(data)
        elif self._done:
            self._keep(data)
        else:
            searched = max(len(self._rest) - self._longest_start, 0)
            self._keep(data)
            if found := self._start.search(self._rest, searched):
                string = bytes(self._rest[found.end() :])
                del self._rest[found.end() :]
                self._inside = True
                self._take(string)

    def finish(self) -> dict[str, Any]:
        """Return the rest of the response, with an empty string in place of the large one.

        Raises:
          TransientError: The response is truncated, or not a JSON object.
        """
        try:
            answer = json.loads(self._rest)
        except (ValueError, RecursionError):
            raise TransientError("the response from Gmail is truncated, or not JSON") from None
        if not isinstance(answer, dict):
            raise TransientError("the response from Gmail is not a JSON object")
        return answer

    def _keep(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) > MAX_JSON_BYTES:
            raise PermanentError(f"the response from Gmail is over {MAX_JSON_BYTES:,} bytes")

    def _take(self, data: bytes) -> None:
        string, mark, after = (self._carry + data).partition(b'"')
        self._carry = b""
        if not mark and (partial := _PARTIAL_ESCAPE.search(string)):
            self._carry, string = string[partial.start() :], string[: partial.start()]
        self._emit(
            self._decoder.feed(_ESCAPE.sub(_unescaped, string) if b"\\" in string else string)
        )
        if mark:
            self._emit(self._decoder.finish())
            self._inside, self._done = False, True
            self._keep(mark + after)

    def _emit(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > MAX_ANSWER_BYTES:
            raise PermanentError(f"the item is larger than {MAX_ANSWER_BYTES:,} bytes")
        if data:
            self._write(data)


def _unescaped(escape: re.Match[bytes]) -> bytes:
    r"""Decode JSON escapes in base64, such as `\u003d` for `=`; drop escapes of white space."""
    if escape[0] == b"\\/":
        return b"/"
    return (
        chr(int(escape[0][2:].decode(), base=16)).encode("ascii", "ignore")
        if len(escape[0]) == 6
        else b""
    )


def read_json(pieces: Iterable[bytes]) -> dict[str, Any]:
    """Parse a small response.

    Raises:
      PermanentError: It is larger than the limit.
      TransientError: It is truncated, or not a JSON object.
    """
    reader = LargeString("\0", len)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()
