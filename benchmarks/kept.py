"""The steps of a long benchmark, which one call or several calls measure."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

Step = dict[str, Any]


class Kept:
    """The steps measured so far, in a file beside the servers' data."""

    def __init__(self, path: Path, minutes: float | None) -> None:
        self._path, self._minutes, self._begun = path, minutes, time.monotonic()
        self.steps: dict[str, list[Step]] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, name: str, step: Step) -> None:
        """Keep a step."""
        self.steps.setdefault(name, []).append(step)
        self._path.write_text(json.dumps(self.steps))
        print(f"{name}: {step}", file=sys.stderr, flush=True)

    def of(self, name: str) -> list[Step]:
        """Return the steps of this name."""
        return self.steps.get(name, [])

    def may_begin(self, seconds: float) -> bool:
        """Return True if a step of about this many seconds still fits into this call."""
        if self._minutes is None:
            return True
        return time.monotonic() - self._begun + seconds < self._minutes * 60
