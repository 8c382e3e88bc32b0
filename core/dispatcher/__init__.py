"""The dispatcher: one leader in the fleet moves tasks from the ledger to Redis.

It also recovers lost messages and expired leases.

loop         leads, dispatches, waits        allocation     shares of users
domain       the state of a domain           rations        shares of scarce rate limits
maintenance  periodic jobs of the leader

rate_headroom  units left in rate limits     rate_use       the latest use of rate limits
ages           ages of dispatches
"""

from __future__ import annotations

import logging
import threading

from core import observability
from core.accounts.redaction import remember_operator
from core.dispatcher.loop import Dispatcher
from core.environment import get_environment, leave_environment
from core.logs import configure
from core.plugins import get_registry
from core.settings import get_settings
from core.worker.garbage import exclude_loaded

log = logging.getLogger(__name__)


def main() -> int:
    """Run the dispatcher in a fork of `dramatiq core.actors`, until a signal arrives."""
    settings = get_settings()
    configure(settings.log_level, settings.log_format)
    remember_operator(get_environment(), get_registry())
    observability.start("dispatcher")
    dispatcher = Dispatcher(settings, get_environment(), threading.Event())
    exclude_loaded()
    try:
        dispatcher.run()
    finally:
        dispatcher.close()
        observability.stop()
        leave_environment()
    return 0


def in_thread(stop: threading.Event) -> None:
    """Run the dispatcher in a thread of a worker process, while no other process leads."""
    dispatcher = Dispatcher(get_settings(), get_environment(), stop)
    try:
        dispatcher.run()
    finally:
        dispatcher.close()
