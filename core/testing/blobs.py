"""Large content in memory: what `Context.blob` writes and what comes of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from core.errors import ResultInvalid


@dataclass(frozen=True, slots=True)
class MemoryBlob:
    """A finished blob."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class MemoryWriter:
    """Write to a buffer that the spool keeps by key, so that the next attempt finds it."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._open = True

    def write(self, data: bytes, /) -> int:
        if not self._open:
            raise ValueError("the blob is finished already")
        self._buffer += data
        return len(data)

    def tell(self) -> int:
        return len(self._buffer)

    def restart(self) -> None:
        self._buffer.clear()

    @property
    def blob(self) -> MemoryBlob:
        if self._open:
            raise ResultInvalid("a blob is finished when its `with` block has ended")
        return MemoryBlob(bytes(self._buffer))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._open = False


class Spool:
    """The buffers of an account, by key."""

    def __init__(self) -> None:
        self._buffers: dict[str, bytearray] = {}

    def writer(self, key: str | None) -> MemoryWriter:
        return MemoryWriter(
            bytearray() if key is None else self._buffers.setdefault(key, bytearray())
        )

    def forget(self, key: str) -> None:
        """Its content is committed now."""
        self._buffers.pop(key, None)
