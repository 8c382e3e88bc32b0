"""Ready markers: files that say that others are complete."""

from __future__ import annotations

from integration_polling_ftp import names
from integration_polling_ftp.connection import Connection
from integration_polling_ftp.directory import Directory


class Markers:
    """Decides which files of a directory are ready.

    Args:
      marker: The name of the marker; `*` stands for the name of the file. Empty: all are ready.
      session: The connection.
      found: The directory, before the selection.
    """

    def __init__(self, marker: str, session: Connection, found: Directory) -> None:
        self._marker = marker
        self._session = session
        self._found = found
        self._known = {names.base_name(path): True for path in found.files} if marker else {}

    def is_ready(self, name: str) -> bool:
        """Return True if a file has its marker, or is a marker itself."""
        if not self._marker or self._is_marker(name):
            return True
        return self._exists(self._marker.replace("*", name))

    def _is_marker(self, name: str) -> bool:
        before, star, after = self._marker.partition("*")
        if not star:
            return name == self._marker
        is_alike = name.startswith(before) and name.endswith(after)
        return is_alike and len(name) > len(before) + len(after)

    def _exists(self, marker: str) -> bool:
        """Look for a marker. It may stand in another portion of a large directory."""
        if marker not in self._known:
            elsewhere = self._found.is_portion and (
                "*" not in self._marker or marker > self._found.after
            )
            path = names.join(self._found.path, marker)
            self._known[marker] = elsewhere and self._session.follow(path).size is not None
        return self._known[marker]
