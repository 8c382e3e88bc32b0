"""FTP: keeps a copy of the files of an FTP server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core import BaseIntegration, hookimpl
from integration_polling_ftp.account import Config, Credentials
from integration_polling_ftp.integration import Ftp

__all__ = ["Config", "Credentials", "Ftp", "integrations"]


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    """Return the integrations of this plugin."""
    return [Ftp]
