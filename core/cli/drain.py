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
    undo: Annotated[
        bool, typer.Option("--undo", help="Let drained workers take tasks again.")
    ] = False,
) -> None:
    """Drain workers before a deploy: they finish their tasks and take no new ones.

    The command returns when all running tasks have finished. Drained workers are idle until you
    stop them, or undo it. Workers that start later take tasks as usual.

    \b
    Examples:
      polling drain && systemctl restart "polling-worker@*"
      polling drain --undo
    """
    from core.service.fleet import drain

    host = None if everywhere else socket.gethostname()
    deadline = time.monotonic() + timeout
    elsewhere = "." if everywhere else f" on this host. All hosts: {_command(True, undo)}"
    with backend() as engine, engine.database.connection() as conn:
        if undo:
            workers = drain.undo_drain(conn, host)
            done = f"Undone: {counted(workers, 'worker')} will take tasks again within seconds."
            say(done) if workers else note(f"No worker is draining{elsewhere}")
            return
        workers = drain.request_drain(conn, host)
        if not workers:
            note(f"No worker is running{elsewhere}")
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
    say(f"Drained {counted(workers, 'worker')}. Until the processes end, they take no tasks.")
    note(f"To undo it: {_command(everywhere, True)}")


def _command(everywhere: bool, undo: bool) -> str:
    return " ".join(["polling drain", *["--all"] * everywhere, *["--undo"] * undo])
