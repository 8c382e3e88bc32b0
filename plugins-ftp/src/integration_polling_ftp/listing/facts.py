"""Listings for programs: MLSD and MLST (RFC 3659, section 7), and EPLF (cr.yp.to/ftp/list)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from integration_polling_ftp.listing.dates import Clock, epoch
from integration_polling_ftp.listing.entry import IGNORED, Entry, Kind, size_of

_FACTS = re.compile(r"[ \t]*(?P<facts>(?:[^\s=;]+=[^;]*;)+)[ \t](?P<name>.+)", re.ASCII | re.DOTALL)
_BARE = re.compile(
    r"[ \t]*(?P<facts>[^\s=;]+=[^; ]*(?:;[^\s=;]+=[^; ]*)*) (?P<name>.+)", re.ASCII | re.DOTALL
)
_ONE_WORD = ("size", "modify", "type", "unique", "perm", "unix.mode")
_KINDS: dict[str, Kind] = {"file": "file", "dir": "directory"}
_LINKS = ("link", "junction", "reparse")
_TIME = re.compile(r"\d{14}(?:\.\d{1,9})?", re.ASCII)
_AFTER_1999 = re.compile(r"19(1\d\d)(\d{10})", re.ASCII)


def parse_facts(line: str) -> Entry | None:
    """Parse a line of MLSD or MLST: facts, one space, the name.

    The facts end at the first `; `: some servers give groups with blanks. Servers that follow old
    drafts omit the last semicolon.

    Args:
      line: The line, decoded as latin-1.

    Returns:
      The entry; None if the line has no type or no name.
    """
    match = _FACTS.fullmatch(line)
    if match is None or _has_blank(match["facts"]):
        match = _BARE.fullmatch(line)
    if match is None:
        return None
    values = _values(match["facts"].split(";"))
    if "type" not in values:
        return None
    kind, target = _kind(values["type"])
    size = values.get("size", "").strip(" ")
    number = size_of(size) if re.fullmatch(r"\d+", size, re.ASCII) else None
    return Entry(
        match["name"],
        kind,
        number,
        _modified(values.get("modify", "")),
        values.get("unique"),
        target,
    )


def parse_eplf(line: str, _clock: Clock) -> Entry | None:
    """Parse a line of EPLF: `+`, facts with commas, a tab, the name."""
    head, tab, name = line.partition("\t")
    if not head.startswith("+") or not tab or not name:
        return None
    facts = head[1:].split(",")
    size = next((fact[1:] for fact in facts if re.fullmatch(r"s\d+", fact, re.ASCII)), None)
    time = next((fact[1:] for fact in facts if re.fullmatch(r"m\d+", fact, re.ASCII)), None)
    kind: Kind = "directory" if "/" in facts else "file" if "r" in facts else "other"
    return Entry(name, kind, size_of(size) if size else None, epoch(time) if time else "")


def _values(facts: Iterable[str]) -> dict[str, str]:
    return {key.lower(): value for key, _, value in (fact.partition("=") for fact in facts)}


def _has_blank(facts: str) -> bool:
    """Return True if the last fact is one that has no blank: its end belongs to the name."""
    key, _, value = facts.rstrip(";").rpartition(";")[2].partition("=")
    return key.lower() in _ONE_WORD and " " in value.strip(" ")


def _kind(value: str) -> tuple[Kind, str]:
    lower = value.lower()
    if lower in ("file", "dir"):
        return _KINDS[lower], ""
    system, _, rest = lower.rpartition("=")
    word = (rest if system else lower).partition(":")[0]
    if any(link in word for link in _LINKS) or (system or lower).partition(":")[0].endswith(
        "slink"
    ):
        return "link", value.partition(":")[2]
    return _KINDS.get(word, "other"), ""


def _modified(value: str) -> str:
    """Return the time. Servers with a known bug write the year 2000 as `19100`."""
    if wrong := _AFTER_1999.fullmatch(value):
        return f"{1900 + int(wrong[1])}{wrong[2]}"
    return value if _TIME.fullmatch(value) else ""


__all__ = ["IGNORED", "parse_eplf", "parse_facts"]
