"""`polling drain`: let workers finish before a deploy."""

from __future__ import annotations

import socket
import time
from typing import Annotated

import typer

from core.cli.output import fail, note, say
from core.cli.session import backend, busy


def drain(
    everywhere: Annotated[
        bool, typer.Option("--all", help="The workers of all hosts, not of this one alone.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Wait no longer; exit with 4.")
    ] = 300,
) -> None:
    """Tell workers to take no more tasks, and wait until they have finished those they hold.

    They stay until they are stopped; workers that start afterwards take tasks again.

    Example:

    \b
      polling drain && systemctl restart polling-worker
    """
    from core.service.fleet import drain

    host = None if everywhere else socket.gethostname()
    deadline = time.monotonic() + timeout
    with backend() as engine, engine.database.connection() as conn:
        workers = drain.request_drain(conn, host)
        if not workers:
            note(
                "No worker runs "
                + ("anywhere." if everywhere else "on this host. All hosts: polling drain --all")
            )
            return
        with busy(f"Waiting for {workers} workers …"):
            while busy_workers := drain.busy_processes(conn, host):
                if time.monotonic() >= deadline:
                    tasks = max(row["alone"] for row in busy_workers)
                    fail(
                        f"{len(busy_workers)} workers have not finished, {tasks} tasks are left",
                        "Wait longer: --timeout 600",
                    )
                    raise typer.Exit(4)
                time.sleep(0.5)
    say(f"{workers} workers have finished what they held.")
