"""The types of the catalogue's entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Surface = Literal["cli", "rest", "dashboard"]


@dataclass(frozen=True, slots=True)
class Steps:
    """The next step for a person, worded for each surface.

    Attributes:
      step: The text for every surface without a text of its own.
      cli: The text for the command line. Only this text may name a command or an option.
      rest: The text for the REST API.
      dashboard: The text for the dashboard.
    """

    step: str = ""
    cli: str = ""
    rest: str = ""
    dashboard: str = ""

    def on(self, surface: Surface) -> str:
        """Return the template for this surface."""
        own: str = getattr(self, surface)
        return own or self.step


@dataclass(frozen=True, slots=True)
class Entry:
    """The status, message and next step of one code.

    Attributes:
      status: The HTTP status of REST and of the dashboard.
      message: The problem: one line, lower case, without a full stop. `{name}` is a field.
      steps: The next step. It may also name fields.
    """

    status: int
    message: str
    steps: Steps


Catalog = Mapping[str, Entry]


def entry(
    status: int, message: str, step: str = "", *, cli: str = "", rest: str = "", dashboard: str = ""
) -> Entry:
    """Return an entry; the parameters are the attributes of `Entry` and `Steps`."""
    return Entry(status, message, Steps(step, cli, rest, dashboard))
