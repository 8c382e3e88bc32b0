"""Errors to Sentry, traces to OpenTelemetry.

Their usual environment variables enable them; disabled, they cost nothing.

    errors    what is reported: tasks that fail for good, and what our processes log as errors
    traces    spans of tasks, saves and requests

Both are extras. We import nothing of them where they are off. What leaves here has no secrets and
no content: no local variables, no bodies, no texts of exceptions but those that the ledger keeps,
redacted as it keeps them.
"""

from __future__ import annotations

from collections.abc import Callable

from core.observability import errors, traces
from core.observability.errors import Redactor


def start(part: str, make_redactor: Callable[[], Redactor]) -> None:
    """Switch on what the environment asks for, in this process.

    Args:
      part: Which of our processes this is: `worker`, `dispatcher`, `scheduler`, `api`.
      make_redactor: Returns a function that redacts every secret that this process knows. It is
        called only if it is needed.
    """
    errors.start(part, make_redactor)
    traces.start(part, make_redactor)


def stop() -> None:
    """Send what is left; waits for some seconds at most."""
    traces.stop()
    errors.stop()
