"""Start the services of `polling up`: workers, scheduler, API and dashboard."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

from core.cli import plugin_code, serve
from core.cli.output import clean
from core.db.pool import DATABASE_UNAVAILABLE, open_connection
from core.ledger import leadership
from core.programs import command, worker_command
from core.service.fleet import liveness
from core.service.formatting import counted
from core.supervisor import Program, Supervisor, print_line
from core.transport.queues import Queues

if TYPE_CHECKING:
    from uuid import UUID

    from core.db.pool import Conn
    from core.environment import Environment
    from core.settings import Settings

COMMAND = "from core.cli import main; main()"


def run(
    settings: Settings,
    environment: Environment,
    processes: int,
    threads: int,
    port: int | None = None,
) -> int:
    """Migrate the database, start all services, and return when all have ended.

    Args:
      settings: The settings of this process.
      environment: The URLs and keys that the services get.
      processes: The number of worker processes.
      threads: The number of threads in each worker process.
      port: The port of the API. Default: 8080, or any free port if 8080 is taken.

    Returns:
      The exit code.

    Raises:
      ServerUnavailable: A configured server does not answer.
      SettingsError: The port is taken.
    """
    from core.db.migrate import migrate

    with serve.listening(port) if serve.installed() else nullcontext() as listener:
        migrate(environment.database_url)
        return _supervise(settings, environment, processes, threads, listener)


def _supervise(
    settings: Settings,
    environment: Environment,
    processes: int,
    threads: int,
    listener: socket.socket | None,
) -> int:
    port = listener.getsockname()[1] if listener is not None else None
    queues = Queues(environment.redis_url, settings.redis_namespace)
    queues.require()
    queues.close()
    before, ended = _running_workers(environment), threading.Event()
    if before:
        print_line("up", _beside(len(before)))
    announcer = threading.Thread(
        target=_announce,
        args=(settings, environment, processes, port, before, ended),
    )
    watcher = threading.Thread(
        target=plugin_code.watch, args=(settings.plugins, _report_change, ended)
    )
    try:
        announcer.start()
        watcher.start()
        return Supervisor(_programs(settings, environment, processes, threads, listener)).run()
    finally:
        # A signal may end the block before its threads have begun.
        ended.set()
        for thread in (announcer, watcher):
            if thread.ident is not None:
                thread.join()


def _beside(workers: int) -> str:
    """Return the report of a second `up` about the workers that run already."""
    others = counted(workers, "worker process", "worker processes")
    return (
        f"Another `polling up`, or other workers, already run with this database: {others}."
        " This `polling up` starts more beside them. Either may be stopped with Ctrl-C."
    )


def _report_change(plugin: str) -> None:
    print_line("plugins", clean(f"the code of {plugin} changed; to use it, restart polling up"))


def _programs(
    settings: Settings,
    environment: Environment,
    processes: int,
    threads: int,
    listener: socket.socket | None,
) -> list[Program]:
    """Return the programs to supervise; all use the same servers and keys.

    Each worker process is a separate program. If several shared one Dramatiq master, the death of
    one would stop the others: the master ends them and waits for their tasks.
    """
    env = {
        "DATABASE_URL": environment.database_url,
        "REDIS_URL": environment.redis_url,
        "POLLING_SECRET_KEYS": ",".join(environment.secret_keys),
        "POLLING_HOME": str(settings.home.absolute()),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.log_format == "auto" and os.isatty(2):
        env["POLLING_LOG_FORMAT"] = "text"  # a person reads their output through the supervisor
    worker = worker_command(1, threads)
    # `-P`: another package in the current folder may have the name `core`.
    api = [sys.executable, "-P", "-c", COMMAND, "serve", "--fd"]
    fds = () if listener is None else (listener.fileno(),)
    return [
        *(Program(f"worker {number}", worker, env) for number in range(1, processes + 1)),
        Program("scheduler", command("scheduler"), env),
        *(Program("api", [*api, str(fd)], env, (fd,)) for fd in fds),
    ]


def _running_workers(environment: Environment) -> set[UUID]:
    """Return the live workers that were started elsewhere."""
    with open_connection(environment.database_url) as conn:
        return liveness.live_workers(conn)


def _announce(
    settings: Settings,
    environment: Environment,
    processes: int,
    port: int | None,
    before: set[UUID],
    ended: threading.Event,
) -> None:
    """Print the welcome text once all workers are alive and a dispatcher leads."""
    while not ended.wait(0.2):
        try:
            with open_connection(environment.database_url) as conn:
                if _is_up(conn, processes, before) and (port is None or serve.is_answering(port)):
                    _print_welcome(settings, environment, conn, port)
                    return
        except DATABASE_UNAVAILABLE:
            continue  # the services report it


def _is_up(conn: Conn, processes: int, before: set[UUID]) -> bool:
    ours = liveness.live_workers(conn) - before
    return len(ours) >= processes and leadership.status(conn).leads


def _print_welcome(
    settings: Settings, environment: Environment, conn: Conn, port: int | None
) -> None:
    connected = conn.execute("SELECT EXISTS (SELECT FROM user_integration)").fetchone()
    place = (
        f"Data directory: {settings.home.absolute()}"
        if environment.embedded
        else f"Database: {conn.info.dbname} on {conn.info.host}"
    )
    next_step = (
        "polling accounts"
        if connected and connected[0]
        else "polling connect hello-world --name hello"
    )
    lines = ["All services are running. Press Ctrl-C to stop.", f"  {place}"]
    if port is not None:
        lines += [
            f"  {serve.address(serve.HOST, port)}",
            "  To sign in, create a token: polling tokens create --admin",
        ]
    lines.append(f"  Next, in another terminal: {next_step}")
    sys.stdout.write("\n" + "\n".join(map(clean, lines)) + "\n\n")
    sys.stdout.flush()
