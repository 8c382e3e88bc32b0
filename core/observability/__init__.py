"""Send errors to Sentry and traces to OpenTelemetry.

Their standard environment variables enable them. Disabled, they cost nothing.

    errors    reports of tasks that fail permanently, and of errors that the processes log
    traces    spans of tasks, saves and requests

Both need an extra, and their packages are imported only if they are enabled. Reports contain no
secrets and no content: no local variables and no bodies. The only exception texts in them are those
that the ledger stores, with the same redaction. A plugin may use the packages directly: its events,
and its attributes of spans, are redacted before they are sent (`core.known_secrets`).
"""

from __future__ import annotations

from core.observability import errors, traces


def start(part: str) -> None:
    """Enable reports and traces in this process, if the environment configures them.

    Args:
      part: The kind of process: `worker`, `dispatcher`, `scheduler` or `api`.
    """
    errors.start(part)
    traces.start(part)


def stop() -> None:
    """Send the remaining reports and spans, and wait for them for a few seconds at most."""
    traces.stop()
    errors.stop()
