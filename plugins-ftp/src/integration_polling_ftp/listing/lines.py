"""The lines of a listing. FTP ends them with CR LF (RFC 959, section 3.1.1.1).

vsftpd and ProFTPD send a line break within a name as a bare LF. So where most lines end with CR LF,
a bare LF belongs to a name. Other servers end every line with a bare LF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

DECIDING_BYTES = 16 * 1024
"""The size of the beginning of a listing that decides on the line ends."""


def line_end(beginning: bytes) -> bytes:
    """Return the end of most lines: CR LF, or LF."""
    return b"\r\n" if 2 * beginning.count(b"\r\n") >= beginning.count(b"\n") else b"\n"


def unjoined(line: str, is_entry: Callable[[str], bool]) -> Iterator[str]:
    """Yield the lines that a bare LF separates, unless the LF belongs to a name.

    Args:
      line: A line that ended with CR LF.
      is_entry: Returns True for a line with a name. A line before the LF that has no place for one,
        such as a total, cannot end with a part of a name.
    """
    while "\n" in line:
        head, _, rest = line.partition("\n")
        if is_entry(f"{head}x"):  # a name may begin with the LF
            break
        yield head
        line = rest
    yield line
