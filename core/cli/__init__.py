"""`polling`: the command line.

Modules with several commands; every other command has a module of its own name:

    accounts      accounts, check, pause, resume, disconnect
    connect       connect, reconnect, config
    development   new, dry-run
    processes     up, worker, scheduler, demo
    servers       migrate, env, psql
    sync          sync, resync, reread

Modules that run a command:

    app           the list of commands
    entry         one call and its exit code
    session       settings, servers and the backend

Modules of `up`:

    launcher      the services that it starts
    plugin_code   changes of the code of plugins while it runs

Modules that read options:

    types         options that several commands share
    inputs        parsing of --set, --config and --credentials
    prompts       questions for missing fields

Modules that print:

    output        tables, JSON, and escaping of text from outside
    listing       pages of a listing
    progress      the progress bar of a run

Commands import the engine inside their functions, so that `polling --help` starts quickly.
"""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code; the entry point `polling`."""
    from core.cli.entry import run

    code = run(sys.argv[1:])
    # The command has ended; a Ctrl-C while Python ends would replace its exit code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)
