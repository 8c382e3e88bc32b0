"""The state of an account's listener, in words."""

from __future__ import annotations

from core.ledger.listeners import AccountListener
from core.service.formatting import ago, counted


def state_of(listening: AccountListener) -> str:
    """Return `webhook`, `connected` or `down`."""
    if not listening.listens:
        return "webhook"
    return "connected" if listening.connected else "down"


def sentence(
    listening: AccountListener, minutes: int, *, in_full: bool = True, shows_texts: bool = True
) -> str:
    """Describe the listener of an account.

    Args:
      listening: The listener.
      minutes: The account's poll interval.
      in_full: True to name the listener's error, for an operator. Default: True.
      shows_texts: False to leave out all errors. Default: True.
    """
    match state_of(listening):
        case "webhook":
            return f"The provider sends events to the webhook ({_latest(listening)})."
        case "connected":
            at = ago(listening.connected_at)
            return (
                f"The engine receives the provider's events (connected {at}; {_latest(listening)})."
            )
    lost = "No events of the provider arrive"
    if listening.down_at is not None:
        lost = f"The provider's events stopped {ago(listening.down_at)}"
    known = listening.reason(in_full=in_full) if shows_texts else None
    reason = f": {known}" if known else ""
    polled = "every minute" if minutes == 1 else f"every {counted(minutes, 'minute')}"
    return f"{lost}{reason}. The engine polls the account {polled}."


def _latest(listening: AccountListener) -> str:
    at = listening.event_at
    return f"latest event {ago(at)}" if at is not None else "no event yet"
