"""Looks at files before and after their transfer, and the outputs that result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from core import TaskOutput
from integration_polling_ftp import names
from integration_polling_ftp.connection import Stat
from integration_polling_ftp.fetching import Verdict
from integration_polling_ftp.versions import GROWING, Version, version_after

UNSTABLE = {
    "short": "fewer bytes than listed",
    "changed": "changed during the download",
}


@dataclass(frozen=True, slots=True)
class After:
    """The server's facts about files after their transfer.

    Attributes:
      stats: Sizes and times, by path, as far as they are known.
      names: The paths of a new and complete listing; None if there is none.
    """

    stats: dict[str, Stat] = field(default_factory=dict)
    names: set[str] | None = None


@dataclass(slots=True)
class Look:
    """What is known about files before they are read.

    Attributes:
      began: The time.
      settled: The seconds since the first look at their listed versions.
      exact: Exact times, by path, as far as the server gives them.
      before: The paths whose exact time is of before the transfer.
    """

    began: datetime
    settled: float
    exact: dict[str, str]
    before: frozenset[str]

    def version(self, path: str, size: int, listed: Stat, now: Stat, verdict: Verdict) -> Version:
        """Return the version of a file that was read.

        Args:
          path: Its path.
          size: The number of bytes received.
          listed: The size and time before the transfer.
          now: The same after it.
          verdict: The verdict about the transfer.
        """
        if verdict == "growing":
            return Version(size, mark=GROWING)
        exact = self.exact.get(path, "")
        decides = exact if path in self.before else ""
        return version_after(listed, now, exact, decides, self.began, self.settled)


def file_output(
    path: str,
    parent: str,
    content: object,
    size: int,
    version: Version,
    source: str,
    content_type: str | None,
    proofs: Mapping[str, str] = MappingProxyType({}),
) -> TaskOutput:
    """Return the output of a file.

    `source` is the command that gave its time. `proofs` has the algorithms that proved its bytes,
    by their field of the metadata: `checksum` for a checksum file, `server_hash` for the server.
    """
    metadata: dict[str, int | bool | str] = {"size": size}
    if version.mark == GROWING:
        metadata["growing"] = True
    elif version.time is not None:
        metadata["time_source"] = "MDTM" if version.exact else source
    metadata |= proofs
    return TaskOutput(
        path, content, kind="file", parent=parent, name=names.base_name(path),  # type: ignore[arg-type]
        metadata=metadata, timestamp=version.time, fingerprint=version.text,
        content_type=content_type,
    )  # fmt: skip
