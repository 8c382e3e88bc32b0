"""Announcing runs that have ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from core.ledger.completion import Run
from core.plugins import Registry

log = logging.getLogger(__name__)


def announce(registry: Registry, ended: Iterable[Run]) -> None:
    """Log each run, and call the hook `run_finished` with it."""
    for run in ended:
        log.info(
            "run %s of account %s ended: %s", run["id"], run["user_integration_id"], run["state"]
        )
        registry.observe("run_finished", run=run)
