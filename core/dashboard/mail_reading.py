"""Sentences about the reading of a mail: its charsets, and replaced, cut or repaired parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.service.formatting import counted

MAX_NOTES = 30
MAX_LABEL_CHARS = 60

_SOURCES = {
    "meta": "as its HTML says",
    "bom": "by its byte order mark",
    "utf-8": "because it is valid UTF-8",
    "detected": "guessed from the bytes",
    "default": "guessed, because nothing else fits",
}
"""The source of a charset that the mail's headers do not declare."""

_CUT = {
    "text": "The text exceeds the maximum length; the source has the rest.",
    "headers": "The mail has too many headers; the source has the rest.",
    "parts": "The mail has too many parts. The reader skipped the last ones.",
    "depth": "Parts are nested too deeply. The reader skipped the innermost ones.",
    "container": "A file that contains other files could not be opened.",
    "encrypted": "The mail is encrypted. Its text cannot be read.",
}
_REPAIRED = {
    "no-boundary": "The header of the mail does not say where its parts begin. The reader found"
    " them by their separators.",
    "other-boundary": "The separator of the parts differs from the one in the header.",
    "encoded-multipart": "All parts were encoded together. The reader decoded them.",
    "opened-container": "Text and files come from a container, such as winmail.dat or a signed"
    " envelope.",
}


def notes(metadata: Mapping[str, Any]) -> list[str]:
    """Return sentences about the reading of a message, the most important first.

    Args:
      metadata: The metadata of an item. Any plugin may write it.
    """
    reading = metadata.get("reading")
    if not isinstance(reading, dict):
        return []
    found = [_CUT.get(name, f"Cut: {name}.") for name in _names(reading.get("cut"))]
    replaced = reading.get("replaced")
    if isinstance(replaced, int) and replaced > 0:
        places = counted(replaced, "place")
        found.append(f"The text could not be decoded in {places}, shown as \ufffd.")
    found += [_REPAIRED.get(name, f"Repaired: {name}.") for name in _names(reading.get("repaired"))]
    charsets = reading.get("charsets")
    for each in charsets if isinstance(charsets, list) else []:
        if isinstance(each, dict) and (note := _charset(each)) not in found:
            found.append(note)
    return found[:MAX_NOTES]


def _charset(reading: Mapping[str, Any]) -> str:
    used, declared = _label(reading.get("used")), _label(reading.get("declared"))
    how = reading.get("how")
    if how == "declared":
        where = f"as the mail declares{_other(declared, used)}"
        return f"Charset: {used}, {where if declared else 'as another part of the mail declares'}."
    declaration = f"the mail declares {declared}" if declared else "the mail declares none"
    return f"Charset: {used}, {_SOURCES.get(str(how), 'guessed')}; {declaration}."


def _other(declared: str, used: str) -> str:
    """Name the declared label if it is another name than that of the charset."""
    return f" ({declared})" if declared and declared != used else ""


def _label(value: Any) -> str:
    label = value[:MAX_LABEL_CHARS].lower().replace("_", "-") if isinstance(value, str) else ""
    return f"windows-{label[2:]}" if label.startswith("cp125") else label


def _names(value: Any) -> list[str]:
    names = value if isinstance(value, list) else []
    return [name[:MAX_LABEL_CHARS] for name in names if isinstance(name, str)]
