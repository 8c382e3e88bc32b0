"""Large content in memory: the writer behind `Context.blob`, and the store that keeps blobs."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import Self

from core.integration.results import MAX_INLINE_BYTES
from core.results.rows import StoredBlob


class MemoryStore:
    """The blob store of an account, in memory."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Store bytes, and return their key."""
        key = hashlib.sha256(data).hexdigest()
        self._kept[key] = data
        return key

    def get(self, key: str) -> bytes:
        """Return the content of a blob."""
        return self._kept[key]


class MemoryWriter:
    """The harness's `core.BlobWriter`: it writes to a buffer that the spool keeps by key.

    The next attempt finds the bytes of this one there. Content over 1 MiB goes to the store, as in
    the engine.
    """

    def __init__(self, buffer: bytearray, store: MemoryStore) -> None:
        self._buffer = buffer
        self._store = store
        self._open = False
        self._blob: StoredBlob | None = None

    def _opened(self) -> bytearray:
        if not self._open:
            raise ValueError("a blob writer is a context manager: with ctx.blob() as writer")
        return self._buffer

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes, and return their number."""
        self._opened().extend(data)
        return len(data)

    def tell(self) -> int:
        """Return the number of bytes written so far, those of earlier attempts included."""
        return len(self._opened())

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes written so far."""
        return hashlib.sha256(self._opened()).hexdigest()

    def restart(self) -> None:
        """Discard the bytes written so far.

        Raises:
          ValueError: `blob` was read.
        """
        if self._blob is not None:
            raise ValueError("the content is finished: restart before `blob` is read")
        self._opened().clear()

    @property
    def blob(self) -> StoredBlob:
        """The finished blob."""
        if self._blob is None:
            data = bytes(self._opened())
            inline = len(data) <= MAX_INLINE_BYTES
            self._blob = StoredBlob(
                len(data),
                hashlib.sha256(data).hexdigest(),
                key=None if inline else self._store.put(data),
                data=data if inline else None,
            )
        return self._blob

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        if error is None:
            _ = self.blob
        self._open = False


class Spool:
    """The buffers of an account, by key."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._buffers: dict[str, bytearray] = {}

    def writer(self, key: str | None) -> MemoryWriter:
        """Return a writer to the buffer of this key; for None, to a new buffer."""
        buffer = bytearray() if key is None else self._buffers.setdefault(key, bytearray())
        return MemoryWriter(buffer, self._store)

    def delete(self, key: str) -> None:
        """Delete the buffer of a key, whose content is committed."""
        self._buffers.pop(key, None)
