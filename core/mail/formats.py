"""Words of text that is neither plain nor HTML, and plain text that is flowed."""

from __future__ import annotations

import re

_ENRICHED = re.compile(r"<(/?)([A-Za-z0-9-]{1,60})>|<<", re.IGNORECASE)
_LINES = (
    "SUMMARY",
    "DTSTART",
    "DTEND",
    "LOCATION",
    "ORGANIZER",
    "ATTENDEE",
    "DESCRIPTION",
    "COMMENT",
)
_LABELS = {"SUMMARY": "", "DTSTART": "Start: ", "DTEND": "End: ", "LOCATION": "Location: ",
    "ORGANIZER": "Organizer: ", "ATTENDEE": "Attendee: ", "DESCRIPTION": "",
    "COMMENT": ""}  # fmt: skip
MAX_ATTENDEES = 100
_TIME = re.compile(
    r"^(?:.{0,200}:)?(\d{4})-?(\d\d)-?(\d\d)(?:[Tt](\d\d):?(\d\d)(?::?\d\d(?:\.\d{1,9})?)?)?"
    r"([Zz]|[+-]\d\d:?\d\d)?\Z"
)
"""A time of a calendar, also with separators, or behind a time zone that has a colon."""


def unflowed(text: str, *, delsp: bool = False) -> str:
    """Join the lines of `format=flowed` text (RFC 3676, section 4.2).

    Args:
      text: The text, with LF as line end.
      delsp: True if the blank at the end of a soft line break is not part of the text. Default:
        False.
    """
    found: list[str] = []
    open_depth: int | None = None
    parts: list[str] = []
    for line in text.split("\n"):
        bare = line.lstrip(">")
        depth = len(line) - len(bare)
        bare = bare.removeprefix(" ")
        if open_depth is not None and (depth != open_depth or bare in ("-- ", "--")):
            found.append(_quoted(open_depth, parts))
            open_depth, parts = None, []
        is_soft = bare.endswith(" ") and bare != "-- "
        parts.append(bare[:-1] if is_soft and delsp else bare)
        if is_soft:
            open_depth = depth
        else:
            found.append(_quoted(depth, parts))
            open_depth, parts = None, []
    if parts:
        found.append(_quoted(open_depth or 0, parts))
    return "\n".join(found)


def _quoted(depth: int, parts: list[str]) -> str:
    text = "".join(parts)
    return f"{'>' * depth} {text}" if depth else text


def text_of_enriched(text: str) -> str:
    """Return the words of text/enriched (RFC 1896) or text/richtext (RFC 1341)."""
    found: list[str] = []
    end = params = fill = 0
    for mark in _ENRICHED.finditer(text):
        if not params:
            found.append(_filled(text[end : mark.start()], fill))
        end = mark.end()
        if mark[0] == "<<":
            found.append("<")
            continue
        name, step = mark[2].lower(), -1 if mark[1] else 1
        if name in ("param", "comment"):
            params = max(params + step, 0)
        elif name in ("nofill", "verbatim"):
            fill = max(fill + step, 0)
        elif name in ("nl", "np", "paragraph") and not mark[1]:
            found.append("\n")
        elif name == "lt":
            found.append("<")
    if not params:
        found.append(_filled(text[end:], fill))
    return "".join(found)


def _filled(text: str, keep: int) -> str:
    if keep:
        return text
    return re.sub(r"\n+", lambda run: " " if len(run[0]) == 1 else "\n" * (len(run[0]) - 1), text)


def text_of_calendar(text: str) -> str:
    """Return the words of a text/calendar part (RFC 5545): what, when, where and with whom."""
    unfolded = re.sub(r"\n[ \t]", "", text)
    found: list[str] = []
    attendees = 0
    depth: list[str] = []
    for line in unfolded.split("\n"):
        name, _, value = _property(line)
        if name == "BEGIN":
            depth.append(value.strip().upper())
        elif name == "END" and depth:
            depth.pop()
        if name not in _LINES or (depth and depth[-1] in ("VALARM", "STANDARD", "DAYLIGHT")):
            continue
        attendees += name == "ATTENDEE"
        if attendees > MAX_ATTENDEES and name == "ATTENDEE":
            continue
        words = re.sub(r"\\([nN,;\\])", lambda e: "\n" if e[1] in "nN" else e[1], value.strip())
        if name in ("ORGANIZER", "ATTENDEE"):
            words = re.sub(r"^mailto:", "", words, flags=re.IGNORECASE)
            if common := re.search(r";CN=(?:\"([^\"]*)\"|([^;:]*))", line, re.IGNORECASE):
                words = f"{common[1] or common[2]} <{words}>"
        if name.startswith("DT"):
            words = _TIME.sub(_when, words)
        if words:
            found.append(_LABELS[name] + words)
    return "\n".join(found)


def _property(line: str) -> tuple[str, str, str]:
    found = re.match(r"([A-Za-z-]{1,60})((?:;[^:;=\"]{1,100}=(?:\"[^\"]*+\"|[^:;\"]*+))*+):", line)
    return (found[1].upper(), found[2], line[found.end() :]) if found else ("", "", "")


def _when(found: re.Match[str]) -> str:
    day = f"{found[1]}-{found[2]}-{found[3]}"
    zone = " UTC" if found[6] in ("Z", "z") else f" {found[6] or ''}".rstrip()
    return f"{day} {found[4]}:{found[5]}{zone}" if found[4] else day
