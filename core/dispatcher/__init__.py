"""The dispatcher: one leader in the fleet moves tasks from the ledger to Redis, and recovers lost
ones.

loop         leads, dispatches, waits for work       allocation     the share of each account
domain       the state of a domain                   rate_headroom  what rate limits have left
maintenance  the jobs of the leader
"""

from __future__ import annotations

import logging
import threading

from core import observability
from core.accounts.redaction import operator_redactor
from core.dispatcher.loop import Dispatcher
from core.environment import get_environment, leave_environment
from core.logs import configure
from core.plugins import get_registry
from core.settings import get_settings

log = logging.getLogger(__name__)


def main() -> int:
    """The main function of the fork of `dramatiq core.actors`; it runs until a signal."""
    settings = get_settings()
    configure(settings.log_level, settings.log_format)
    observability.start("dispatcher", lambda: operator_redactor(get_environment(), get_registry()))
    dispatcher = Dispatcher(settings, get_environment(), threading.Event())
    try:
        dispatcher.run()
    finally:
        dispatcher.close()
        observability.stop()
        leave_environment()
    return 0


def in_thread(stop: threading.Event) -> None:
    """The same in a thread of a worker process, for when nobody else leads."""
    dispatcher = Dispatcher(get_settings(), get_environment(), stop)
    try:
        dispatcher.run()
    finally:
        dispatcher.close()
