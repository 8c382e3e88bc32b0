"""One entry of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Surface = Literal["cli", "rest", "dashboard"]


@dataclass(frozen=True, slots=True)
class Steps:
    """What a person does next, worded for each surface.

    Attributes:
      step: For every surface that has no words of its own below.
      cli, rest, dashboard: For one surface. Only `cli` may name a command or an option.
    """

    step: str = ""
    cli: str = ""
    rest: str = ""
    dashboard: str = ""

    def on(self, surface: Surface) -> str:
        """The template for this surface."""
        own: str = getattr(self, surface)
        return own or self.step


@dataclass(frozen=True, slots=True)
class Entry:
    """What one code means.

    Attributes:
      status: The HTTP status of REST and of the dashboard.
      message: The problem: one line, lower case, without a full stop. `{name}` is a field.
      steps: What to do next; may name fields too.
    """

    status: int
    message: str
    steps: Steps


Catalog = Mapping[str, Entry]


def entry(
    status: int, message: str, step: str = "", *, cli: str = "", rest: str = "", dashboard: str = ""
) -> Entry:
    """An entry of the catalogue; the parameters are those of `Entry` and `Steps`."""
    return Entry(status, message, Steps(step, cli, rest, dashboard))
