"""Cases of mail with their correct values: reads them, and compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.mail import read

CASES = Path(__file__).parents[2] / "plugins-gmail/tests/cases"


def value(source: bytes) -> dict[str, Any]:
    """Return the values that the reader finds, by the names that the cases use."""
    files: list[tuple[Any, bytearray]] = []

    def opened(part: Any) -> Any:
        files.append((part, bytearray()))
        return files[-1][1].extend

    mail = read(source, opened)
    when = mail.date[0]
    people = {
        name: [[p.name, p.address] for p in mail.people(name)] for name in ("from", "to", "cc")
    }
    return {
        "text": mail.text, "subject": mail.subject, "from_": people["from"], "cc": people["cc"],
        "to": people["to"], "date": when.isoformat() if when else None,
        "filenames": [part.filename for part, _ in files], "attachments": len(files),
        "attachment_bytes": [bytes(data) for _, data in files],
    }  # fmt: skip


def wrong(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of the values that are not as expected."""
    return [
        name
        for name, correct in expected.items()
        if name != "any_result" and not _is_right(found, name, correct)
    ]


def _has(text: str, words: list[str]) -> set[bool]:
    return {each in text for each in words}


def _is_right(found: dict[str, Any], name: str, correct: Any) -> bool:
    match name:
        case "text_has" | "text_lacks":
            return _has(found["text"], correct) == {name == "text_has"}
        case "subject_contains" | "text_contains":
            return correct in (found[name.split("_", maxsplit=1)[0]] or "")
        case "cc_addresses" | "from_addresses" | "to_addresses":
            field = name.split("_", maxsplit=1)[0].replace("from", "from_")
            return [address for _, address in found[field]] == correct
        case "cc_len" | "to_len":
            return len(found[name.split("_", maxsplit=1)[0]]) == correct
        case "date_prefix":
            return (found["date"] or "").startswith(correct)
        case "text_any":
            return found["text"] in correct
        case "text_len_below":
            return len(found["text"]) < correct
        case "filename_not_none":
            return all(found["filenames"])
        case "attachment_bytes":
            return correct.encode() in found["attachment_bytes"]
    return bool(found[name] == correct)


def cases(folder: Path = CASES) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return name, source and correct values of each case."""
    return [
        (path.stem, path.with_suffix(".eml").read_bytes(), json.loads(path.read_text())["expected"])
        for path in sorted(folder.glob("*.json"))
        if path.with_suffix(".eml").exists()
    ]


def relatives(path: Path = CASES / "relatives.jsonl") -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return name, source and correct values of each relative: the same faults, other inputs.

    A line of the file is a case; its source is a text with a character for each byte.
    """
    found = map(json.loads, path.read_text().splitlines())
    return [(each["name"], each["source"].encode("latin-1"), each["expected"]) for each in found]
