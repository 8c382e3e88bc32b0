"""What people start: `dramatiq core.actors` and `periodiq core.actors`. Importing this module sets
the broker.

    poll_due ──> ledger: runs and root tasks ──> dispatcher ──> run_task ──> save_output

Without DATABASE_URL and REDIS_URL the embedded servers are joined or started.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.middleware import SkipMessage
from periodiq import PeriodiqMiddleware, cron

from core import dispatcher, observing
from core.broker import PollingBroker
from core.db.pool import open_connection
from core.environment import get_environment
from core.errors import PollingError, TransientError
from core.ledger import scheduling
from core.logs import configure
from core.messages import POLL_QUEUE, RUN_TASK, SAVE_OUTPUT, SAVE_QUEUE, read_dispatch
from core.middleware.dedup import Dedup
from core.middleware.leases import Leases
from core.middleware.lifecycle import Lifecycle
from core.middleware.log_context import LogContext
from core.middleware.rate_limit import RateLimit
from core.middleware.retries import Retries
from core.middleware.time_limit import TimeLimit
from core.middleware.tracing import Tracing
from core.observing import traces
from core.plugins import get_registry
from core.queues import Queues
from core.settings import get_settings
from core.worker.courier import unpack
from core.worker.process import current, striking

try:
    settings = get_settings()
    environment = get_environment()
except PollingError as error:
    sys.exit(f"error: {error}")

configure(settings.log_level, settings.log_format)
observing.begin(
    "scheduler" if Path(sys.argv[0]).name == "periodiq" else "worker",
    lambda: striking(environment, get_registry()),
)
queues = Queues(environment.redis_url, settings.namespace)
time_limit = TimeLimit()

# `before_` hooks run from the first to the last, `after_` hooks the other way round.
MIDDLEWARE: list[dramatiq.Middleware] = [
    PeriodiqMiddleware(
        skip_delay=float("inf")
    ),  # a tick is never too old: its age is the difference of two machines' clocks
    Lifecycle(
        settings, environment, queues, dispatcher.main, dispatcher.in_thread
    ),  # starts and stops what a worker process is made of
    LogContext(),  # which task a line is about
    *([Tracing()] if traces.wanted() else []),  # a span for each run of a task
    Dedup(),  # one delivery of a dispatch, whatever Redis does
    Leases(),  # a suspect runs alone; afterwards the thread is free
    RateLimit(),  # tokens are taken last, so that nothing after it can waste them
    Retries(settings.max_attempts),  # what an exception does
    time_limit,
]

broker = PollingBroker(queues, MIDDLEWARE)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=POLL_QUEUE, actor_name="poll_due", periodic=cron(settings.cron_schedule))
def poll_due() -> None:
    """Make runs for all accounts that are due."""
    with open_connection(environment.database_url) as conn:
        conn.execute(scheduling.TICK)
        if scheduling.poll(conn, settings.batch_size):
            queues.wake()


# Declared on a queue that exists anyway; its messages come on the queues of their domains.
@dramatiq.actor(queue_name=POLL_QUEUE, actor_name=RUN_TASK, throws=BaseException)
def run_task(**fields: Any) -> None:
    """Run one dispatch of a task, and hand over what it came to."""
    dispatch = read_dispatch(fields)
    process = current()
    outcomes = []
    try:
        time_limit.call(dispatch, lambda: outcomes.append(process.runner.run(dispatch)))
    except SkipMessage as error:
        # The plugin's own: Dramatiq would not say that the task failed, and it would be held here,
        # without an outcome, for ever.
        raise TransientError(f"the plugin raised Dramatiq's SkipMessage: {error}") from error
    process.held.ran(dispatch)
    process.hand_over(outcomes[0])


@dramatiq.actor(queue_name=SAVE_QUEUE, actor_name=SAVE_OUTPUT)
def save_output(**fields: Any) -> None:
    """Save the result of a task that ran in a process which only fetches."""
    process = current()
    process.saver.hand_over(unpack(fields, process.blobs, process.held))


for domain in get_registry().integrations:
    broker.declare_queue(domain)
