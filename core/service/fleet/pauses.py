"""Pause and resume an integration: all of its accounts stop, and continue."""

from __future__ import annotations

from datetime import UTC, datetime

from core.db.pool import Conn
from core.errors import InvalidInput, WrongState
from core.ledger import pauses
from core.ledger.looks import wait_until_seen
from core.ledger.pauses import Pause
from core.plugins import catalog_entry
from core.service.backend import Backend
from core.service.formatting import moment


def pause(backend: Backend, domain: str, until: datetime | None = None) -> Pause:
    """Pause an integration, or change the end of its pause.

    Returns when every live process has seen the pause, or after 3 s. After that, no task of its
    accounts starts. Running tasks end, and their results are saved. The accounts keep their state.

    Args:
      backend: The backend.
      domain: The integration's domain.
      until: The time at which the pause ends by itself. Default: never.

    Raises:
      NotFound: The integration is not installed.
      InvalidInput: `until` is in the past.
    """
    backend.registry.get(domain)
    if until is not None and until <= datetime.now(UTC):
        raise InvalidInput("pause-in-the-past", until=moment(until))
    with backend.database.connection() as conn:
        pauses.pause(conn, catalog_entry(backend.registry, domain), until)
        made = pauses.lasting(conn)[domain]
    wait_until_seen(backend.database)
    return made


def resume(backend: Backend, domain: str) -> None:
    """End the pause of an integration. Its accounts become due, spread over their intervals.

    Raises:
      WrongState: The integration is not paused.
    """
    with backend.database.connection() as conn:
        if not pauses.resume(conn, domain):
            raise WrongState("integration-not-paused", domain=domain)
    backend.wake()


def lasting(conn: Conn) -> dict[str, Pause]:
    """Return the pauses that last, by domain."""
    return pauses.lasting(conn)


def end_of(pause: Pause) -> str:
    """Return the end of a pause as part of a sentence, such as "until 2026-11-28 23:00:00 UTC"."""
    return "until an operator resumes it" if pause.until is None else f"until {moment(pause.until)}"
