"""Gmail: keeps a current copy of a mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core import BaseIntegration, hookimpl
from integration_polling_gmail.account import Config, Credentials
from integration_polling_gmail.integration import Gmail

__all__ = ["Config", "Credentials", "Gmail", "integrations"]


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    """Return the integrations of this plugin."""
    return [Gmail]
