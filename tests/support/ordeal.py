"""A run with a fault in its middle, and the checks of its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from integration_polling_hello_world import HelloWorld

from support import oracle
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import Fleet
from support.servers import Server

ATTEMPTS = "SELECT coalesce(max(attempts), 0) FROM sync_task"


@contextmanager
def in_a_run(
    fleet: Fleet,
    deployment: Deployment,
    config: Mapping[str, int] = oracle.LARGE,
    *,
    after: int = 300,
    quiet: float = 60,
) -> Iterator[None]:
    """Execute the block in the middle of a run, and check that the run then ends correctly.

    The run must resume by itself, in the same processes.

    Args:
      fleet: The processes of the test.
      deployment: The deployment.
      config: The config of the account.
      after: The number of tasks that are done before the block. With 0, the block precedes the run.
        Default: 300.
      quiet: The time limit for the rest of the run in seconds. Default: 60.
    """
    fleet.workers()
    fleet.ready()
    pids = fleet.worker_pids()
    account = connect(deployment, HelloWorld, config)
    if after:
        sync(deployment, account)
        oracle.wait_for_progress(fleet, after)
        yield
    else:
        yield
        sync(deployment, account)
    oracle.wait_for_quiet(fleet, quiet, replace=False)
    oracle.assert_synced(fleet, account, config)
    oracle.assert_nobody_convicted(deployment)
    assert deployment.value(ATTEMPTS) == 0, (
        "an outage of the engine's servers was counted as a failure of the plugin"
    )
    assert fleet.worker_pids() == pids


def begin_without(server: Server, fleet: Fleet, deployment: Deployment) -> None:
    """Assert that workers that start while a server is down wait for it."""
    config = {"pages": 30}
    account = connect(deployment, HelloWorld, config)
    sync(deployment, account)
    server.stop()
    try:
        workers = fleet.workers(processes=1)
        fleet.until(
            lambda: fleet.says().count("is ready for action") == 2,
            "the worker and the dispatcher have begun",
        )
    finally:
        server.start()
    oracle.wait_for_quiet(fleet, replace=False)
    oracle.assert_synced(fleet, account, config)
    assert workers.exit_code is None
