"""The selection: which of the listed files and directories an account keeps."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from datetime import UTC, datetime, time

from integration_polling_ftp import names
from integration_polling_ftp.account import Config
from integration_polling_ftp.directory import Directory
from integration_polling_ftp.listing import Entry, timestamp

BY_PATTERN = "left out by include or exclude"
BY_DEPTH = "left out by max_depth"
BY_NAME = "left out by hidden"
BY_SUFFIX = "left out by unfinished_suffixes"
BY_LINK = "left out by follow_links"
BY_SIZE = "left out by min_bytes or max_bytes"
BY_TIME = "left out by modified_after"
"""The reasons for counting."""


class Pattern:
    """A glob for paths below the root.

    Args:
      text: The glob. `*`, `?` and `[…]` match within a name, `**` matches any number of names. A
        glob without a slash matches at every level. A slash at the end limits it to directories.
        With a directory, everything below it matches.
    """

    def __init__(self, text: str) -> None:
        self._only_directories = text.endswith("/")
        parts = [part for part in text.split("/") if part]
        if len(parts) == 1 and not text.startswith("/"):
            parts.insert(0, "**")
        self._parts = [
            None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts
        ]

    def matches(self, path: Sequence[str], *, is_directory: bool) -> bool:
        """Return True if a path, or a directory above it, matches."""
        end = len(self._parts)
        states = self._closed({0})
        for index, name in enumerate(path):
            states = self._after(states, name)
            is_last = index == len(path) - 1
            if end in states and (is_directory or not is_last or not self._only_directories):
                return True
        return False

    def may_match_below(self, path: Sequence[str]) -> bool:
        """Return True if something below a directory may match."""
        states = self._closed({0})
        for name in path:
            states = self._after(states, name)
        return bool(states)

    def _after(self, states: set[int], name: str) -> set[int]:
        """Return the numbers of parts that can have matched, with one more name."""
        following = set()
        for state in states:
            if state == len(self._parts):
                continue
            part = self._parts[state]
            if part is None:
                following.add(state)
            elif part.match(name):
                following.add(state + 1)
        return self._closed(following)

    def _closed(self, states: set[int]) -> set[int]:
        """Add the states after each `**`, which may match no name."""
        for state, part in enumerate(self._parts):
            if part is None and state in states:
                states.add(state + 1)
        return states


class Selection:
    """Decides what an account keeps.

    Args:
      config: The account's config.
      root: The path of the root as it is stored.
    """

    def __init__(self, config: Config, root: str) -> None:
        self._config = config
        self._prefix = len(root.rstrip("/")) + 1
        self._include = [Pattern(each) for each in config.include]
        self._exclude = [Pattern(each) for each in config.exclude]
        since = config.modified_after
        self._since = datetime.combine(since, time.min, UTC) if since else None

    def apply(self, found: Directory) -> None:
        """Remove from a listing what is not selected, and count it by reason."""
        for path in list(found.directories):
            if reason := self._unselected_directory(path):
                del found.directories[path]
                found.skipped[reason] += 1
        for path, entry in list(found.files.items()):
            if reason := self._unselected_file(path, entry, is_link=path in found.links):
                del found.files[path]
                found.links.discard(path)
                found.skipped[reason] += 1

    def _unselected_directory(self, path: str) -> str:
        """Return the reason why a directory is not entered; empty if it is."""
        parts = self._parts(path)
        if self._is_hidden(path):
            return BY_NAME
        depth = self._config.max_depth
        if depth is not None and len(parts) > depth:
            return BY_DEPTH
        if any(each.matches(parts, is_directory=True) for each in self._exclude):
            return BY_PATTERN
        if self._include and not any(
            each.matches(parts, is_directory=True) or each.may_match_below(parts)
            for each in self._include
        ):
            return BY_PATTERN
        return ""

    def _unselected_file(self, path: str, entry: Entry, *, is_link: bool) -> str:
        """Return the reason why a file is not kept; empty if it is."""
        parts = self._parts(path)
        if self._is_hidden(path):
            return BY_NAME
        if is_link and not self._config.follow_links:
            return BY_LINK
        if parts[-1].endswith(self._config.unfinished_suffixes):
            return BY_SUFFIX
        if any(each.matches(parts, is_directory=False) for each in self._exclude):
            return BY_PATTERN
        if self._include and not any(
            each.matches(parts, is_directory=False) for each in self._include
        ):
            return BY_PATTERN
        return self._by_facts(entry)

    def _by_facts(self, entry: Entry) -> str:
        """Judge by size and time, as far as the server gives them."""
        most = self._config.max_bytes
        if entry.size is not None and (
            entry.size < self._config.min_bytes or (most is not None and entry.size > most)
        ):
            return BY_SIZE
        if self._since is not None:
            modified = timestamp(entry.modified)
            if modified is not None and modified < self._since:
                return BY_TIME
        return ""

    def _is_hidden(self, path: str) -> bool:
        return not self._config.hidden and names.base_name(path).startswith(".")

    def _parts(self, path: str) -> list[str]:
        return path[self._prefix :].split("/")
