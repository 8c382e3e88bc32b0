"""Slack: keeps a copy of a workspace's messages, threads and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core import BaseIntegration, hookimpl
from integration_polling_slack.account import Config, Credentials
from integration_polling_slack.integration import Slack

__all__ = ["Config", "Credentials", "Slack", "integrations"]


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    """Return the integrations of this plugin."""
    return [Slack]
