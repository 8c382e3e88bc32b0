"""The dispatcher: one leader in the fleet moves tasks from the ledger to Redis.

It also requeues tasks that were lost.

    allocation   who gets how much of a free window
    loop         leading, dispatching, waiting for work
    chores       what the leader does every few seconds
"""

from __future__ import annotations

import logging
import threading

from core import observing
from core.accounts.redaction import operator_redactor
from core.dispatcher.loop import Dispatcher
from core.environment import get_environment, leave_environment
from core.logs import configure
from core.plugins import get_registry
from core.settings import get_settings

log = logging.getLogger(__name__)


def main() -> int:
    """What the fork of `dramatiq core.actors` runs until it is told to end."""
    settings = get_settings()
    configure(settings.log_level, settings.log_format)
    observing.begin("dispatcher", lambda: operator_redactor(get_environment(), get_registry()))
    dispatcher = Dispatcher(settings, get_environment(), threading.Event())
    try:
        dispatcher.run()
    finally:
        dispatcher.close()
        observing.end()
        leave_environment()
    return 0


def in_thread(stop: threading.Event) -> None:
    """The same in a thread of a worker process, for when nobody else leads."""
    dispatcher = Dispatcher(get_settings(), get_environment(), stop)
    try:
        dispatcher.run()
    finally:
        dispatcher.close()
