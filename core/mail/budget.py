"""The work that all parts of one mail share, so that no mail takes more than its time."""

from __future__ import annotations

from dataclasses import dataclass

MAX_STEPS = 200_000
"""The number of steps of a mail; each takes about three microseconds."""

STEPS_OF_HTML = 2
"""The steps of a tag, or of the text between two tags."""

STEPS_OF_ADDRESSES = 2
"""The steps of a word or mark of an address field."""

STEPS_OF_QUOTED = 8
"""The steps of a quoted name, whose end may be searched for in 300 characters."""

STEPS_OF_GUESS = 200
BYTES_OF_GUESS = 3
"""The detector of charsets takes these steps, and one for each of these bytes."""

STEPS_OF_PARAMETER = 4
"""The steps of a parameter of a media type or disposition."""

UNPACKED_BYTES = 8
"""The number of bytes of decompressed RTF that make a step."""

MAX_INFLATED_BYTES = 8 * 1024 * 1024
"""The maximum number of bytes that compressed S/MIME may have beyond its own size."""


@dataclass(slots=True)
class Budget:
    """The work that is left for the parts of a mail.

    Attributes:
      steps: Steps of readers that go through elements: HTML, RTF, TNEF, S/MIME, addresses,
        parameters, lines of mails within the mail, and the detector of charsets.
      inflated: Bytes of compressed S/MIME.
      is_spent: True if something was not read.
    """

    steps: int = MAX_STEPS
    inflated: int = MAX_INFLATED_BYTES
    is_spent: bool = False

    def take(self, steps: int) -> bool:
        """Take steps; return False if there are not as many any more."""
        if self.steps < steps:
            self.is_spent = True
            return False
        self.steps -= steps
        return True
