"""The entry point of `dramatiq core.actors` and `periodiq core.actors`.

Importing this module sets up the broker, the middleware and the actors.

```
    poll_due ──> ledger: runs and root tasks
                    │
                    v
                dispatcher ──> Redis ──> run_task ──> result
                                                        │
       ┌────────────────────────────────────────────────┤
       │ This process serves the queue of save_output   │ It does not (dramatiq core.actors
       │ (the default): the result stays in memory.     │ -Q gmail): the result is a message.
       v                                                v
     saver                                            save_output in another process ──> its saver
       │                                                                                    │
       └────────────────────────────────────────────────────────────────────────────────────┤
                                                                                            v
                                                ledger: content, follow-ups, state, task done
```

Without DATABASE_URL and REDIS_URL, this module joins or starts the embedded servers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import dramatiq
from dramatiq.middleware import SkipMessage
from periodiq import PeriodiqMiddleware, cron

from core import dispatcher, observability
from core.broker import PollingBroker
from core.environment import get_environment
from core.errors import PollingError
from core.ledger import scheduling
from core.ledger.outcomes import Dispatch
from core.logs import configure
from core.middleware.admission import AdmissionCheck
from core.middleware.dedup import Dedup
from core.middleware.leases import Leases
from core.middleware.lifecycle import Lifecycle
from core.middleware.log_context import LogContext
from core.middleware.rate_limit import RateLimit
from core.middleware.retries import Retries
from core.middleware.time_limit import TimeLimit
from core.middleware.tracing import Tracing
from core.observability import traces
from core.plugins import get_registry
from core.results.decisions import RetryPolicy
from core.settings import get_settings
from core.transport.messages import (
    DELIVER,
    DELIVER_QUEUE,
    POLL_QUEUE,
    RUN_TASK,
    SAVE_OUTPUT,
    SAVE_QUEUE,
)
from core.transport.queues import Queues
from core.worker.process import WorkerProcess
from core.worker.result_messages import unpack

try:
    settings = get_settings()
    environment = get_environment()
    configure(settings.log_level, settings.log_format)
    queues = Queues(environment.redis_url, settings.redis_namespace)
    # The process opens later, so the scheduler and commands that import this module do not connect.
    process = WorkerProcess(settings, environment, queues, get_registry())
except PollingError as error:
    sys.exit(f"error: {error}\n{error.next_step('cli')}")

observability.start("scheduler" if Path(sys.argv[0]).name == "periodiq" else "worker")
inflight, hand_over = process.inflight, process.hand_over
time_limit = TimeLimit(inflight, process.registry, settings.task_timeout_seconds, process.stopping)

# `before_` hooks run from the first to the last, `after_` hooks from the last to the first.
MIDDLEWARE: list[dramatiq.Middleware] = [
    # Accepts ticks of any age, because their age includes the difference between two clocks.
    PeriodiqMiddleware(skip_delay=float("inf")),
    # Opens and closes the process.
    Lifecycle(process, dispatcher.main, dispatcher.in_thread),
    # Names the task in each log line.
    LogContext(inflight),
    # Opens a span for each run of a task, if traces are on.
    *([Tracing(inflight)] if traces.wanted() else []),
    # Starts each dispatch once, even if Redis delivers it twice.
    Dedup(inflight, time_limit),
    # Starts no task of a stopped account or a paused integration.
    AdmissionCheck(inflight, process.admission, hand_over, process.return_to_redis),
    # Runs one suspect at a time, and tracks the threads of tasks.
    Leases(inflight, process.database, hand_over),
    # Takes units last, so that no later middleware can skip the task and waste them.
    RateLimit(
        inflight,
        process.registry,
        process.accounts,
        process.budgets,
        process.counters,
        hand_over,
    ),
    # Decides the outcome of a task that raised.
    Retries(
        inflight,
        process.runner,
        process.accounts,
        hand_over,
        process.registry,
        RetryPolicy(settings.max_attempts, settings.give_up_after_days * 86_400),
    ),
    # Interrupts tasks that run too long; `run_task` calls the plugin through it.
    time_limit,
]

broker = PollingBroker(
    queues,
    MIDDLEWARE,
    inflight=inflight,
    accepting=process.accepting,
    recognizes=process.recognizes,
    held_back=process.work_queue.held_back,
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=POLL_QUEUE, actor_name="poll_due", periodic=cron(settings.cron_schedule))
def poll_due() -> None:
    """Open runs for all accounts that are due."""
    with process.database.connection() as conn:
        conn.execute(scheduling.TICK)
        made = scheduling.poll(conn, settings.batch_size)
    if made:
        queues.wake()


# Declared on a queue that exists anyway; its messages arrive on the queues of their domains.
@dramatiq.actor(queue_name=POLL_QUEUE, actor_name=RUN_TASK, throws=BaseException)
def run_task(dispatch: Dispatch) -> None:
    """Run one dispatch of a task, and hand its outcome to the saver."""
    outcomes = []
    try:
        time_limit.call(dispatch, lambda: outcomes.append(process.runner.run(dispatch)))
    except SkipMessage as error:
        # The plugin raised it. Dramatiq would treat the message as skipped, and the task would stay
        # in flight forever, without an outcome.
        raise RuntimeError(f"the plugin raised Dramatiq's SkipMessage: {error}") from error
    inflight.finish(dispatch)
    hand_over(outcomes[0])


@dramatiq.actor(queue_name=SAVE_QUEUE, actor_name=SAVE_OUTPUT)
def save_output(**fields: Any) -> None:
    """Save the result of a task that ran in a process without this queue."""
    process.saver.hand_over(unpack(fields, process.blobs, inflight, process.stopping))


@dramatiq.actor(queue_name=DELIVER_QUEUE, actor_name=DELIVER)
def deliver(subscription: str, token: int, **_: Any) -> None:
    """Deliver to the receiver of a subscription, if its lease has this token."""
    process.deliverer.deliver(UUID(subscription), token)


for domain in process.registry.integrations:
    broker.declare_queue(domain)
