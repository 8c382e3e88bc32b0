"""The part of a rehearsal that people see: bounded, in plain lines, and without secrets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from core.integration.rehearsal import Bound, Rehearsal, RehearsalSection, Sample

MAX_SECTIONS = 20
MAX_FACTS = 50
MAX_SAMPLE = 100
MAX_WARNINGS = 20
MAX_TEXT_CHARS = 500
MAX_LEVEL = 10

Redact = Callable[[str], str]


def shown(rehearsal: Rehearsal, redact: Redact) -> Rehearsal:
    """Return the part of a rehearsal that surfaces show.

    Args:
      rehearsal: The rehearsal of a plugin. Its texts come from a provider, and may be hostile.
      redact: Replaces secrets in a text.

    Raises:
      TypeError: The plugin returned something else, or a value of another type.
    """
    if not isinstance(rehearsal, Rehearsal):
        raise TypeError("rehearse() did not return a Rehearsal")
    return Rehearsal(
        [_section(section, redact) for section in islice(rehearsal.sections, MAX_SECTIONS)],
        [_line(text, redact) for text in islice(_listed(rehearsal.warnings), MAX_WARNINGS)],
        None if rehearsal.refusal is None else _line(rehearsal.refusal, redact).rstrip("."),
        None if rehearsal.bound is None else _bound(rehearsal.bound, redact),
    )


def _bound(bound: Bound, redact: Redact) -> Bound:
    if not isinstance(bound, Bound):
        raise TypeError("the bound of a rehearsal is a Bound")
    cost = {str(name): float(units) for name, units in islice(bound.cost.items(), MAX_FACTS)}
    items = min(max(0, int(bound.items)), 2**53)
    return Bound(items, _line(bound.noun, redact), cost, bool(bound.background))


def _section(section: RehearsalSection, redact: Redact) -> RehearsalSection:
    if not isinstance(section, RehearsalSection):
        raise TypeError("a section of a rehearsal is a RehearsalSection")
    facts = islice(section.facts.items(), MAX_FACTS)
    sample = [_sample(each, redact) for each in islice(section.sample, MAX_SAMPLE)]
    hidden = max(0, len(section.sample) - MAX_SAMPLE)
    return RehearsalSection(
        _line(section.title, redact),
        {_line(label, redact): _value(value, redact) for label, value in facts},
        sample,
        max(0, int(section.omitted)) + hidden,
    )


def _sample(sample: Sample, redact: Redact) -> Sample:
    if not isinstance(sample, Sample):
        raise TypeError("a line of a sample is a Sample")
    return Sample(_line(sample.name, redact), min(max(0, int(sample.level)), MAX_LEVEL))


def _value(value: str | int, redact: Redact) -> str | int:
    return value if type(value) is int and abs(value) < 2**63 else _line(value, redact)


def _line(text: object, redact: Redact) -> str:
    """Return a text as one line. Control characters and marks of direction become spaces."""
    if not isinstance(text, str | int):
        raise TypeError(f"a text of a rehearsal is a str, not {type(text).__name__}")
    clean = redact(str(text)[: MAX_TEXT_CHARS * 4])
    plain = "".join(char if char.isprintable() else " " for char in clean[: MAX_TEXT_CHARS * 2])
    line = " ".join(plain.split())
    return line if len(line) <= MAX_TEXT_CHARS else f"{line[: MAX_TEXT_CHARS - 1]}…"


def _listed(warnings: object) -> tuple[str, ...]:
    if isinstance(warnings, str):
        raise TypeError("the warnings of a rehearsal are a sequence of texts")
    return tuple(warnings)  # type: ignore[arg-type]
