"""The command drain."""

from __future__ import annotations

import socket
import time
from typing import Annotated

import typer

from core.cli.output import fail, note, say
from core.cli.session import backend, busy
from core.service.formatting import counted


def drain(
    everywhere: Annotated[
        bool, typer.Option("--all", help="Drain the workers on all hosts, not only this one.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Stop waiting after this time, and exit with 4."
        ),
    ] = 300,
) -> None:
    """Drain workers before a deploy: they finish their tasks and take no new ones.

    The command returns when all running tasks have finished. Drained workers are idle until you
    stop them. Workers that start later take tasks as usual.

    \b
    Example:
      polling drain && systemctl restart "polling-worker@*"
    """
    from core.service.fleet import drain

    host = None if everywhere else socket.gethostname()
    deadline = time.monotonic() + timeout
    with backend() as engine, engine.database.connection() as conn:
        workers = drain.request_drain(conn, host)
        if not workers:
            note(
                "No worker is running"
                + ("." if everywhere else " on this host. Drain all hosts: polling drain --all")
            )
            return
        with busy(f"Waiting for {counted(workers, 'worker')} …"):
            while busy_workers := drain.busy_processes(conn, host):
                if time.monotonic() >= deadline:
                    tasks = max(row["alone"] for row in busy_workers)
                    fail(
                        f"timed out: {len(busy_workers)} workers have not finished; tasks left:"
                        f" {tasks}",
                        "Wait longer: polling drain --timeout 600",
                    )
                    raise typer.Exit(4)
                time.sleep(0.5)
    say(f"Drained {counted(workers, 'worker')}.")
