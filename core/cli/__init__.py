"""`polling`: the command line.

Modules with commands:

    accounts      accounts, check, pause, resume, disconnect
    connect       connect, reconnect, config
    content       content
    development   new, dry-run
    doctor        doctor
    drain         drain
    integrations  integrations
    keys          keys
    processes     up, demo
    runs          runs
    serve         serve
    servers       migrate, env, psql
    sync          sync, resync
    tasks         tasks
    tokens        tokens

Modules without a command:

    app           the list of commands, and their place in the help
    entry         one call of the command line, and its exit code
    inputs        parsing of --set, --config and --credentials
    launcher      the services that `up` starts
    listing       pages of a listing, as tables or JSON lines
    output        tables, JSON, and escaping of text from outside
    progress      the progress bar of a run
    prompts       questions for missing config and credentials
    session       settings, servers and the backend
    types         options that several commands share

Commands import the engine inside their functions, so that `polling --help` starts quickly.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code; the entry point `polling`."""
    from core.cli.entry import run

    sys.exit(run(sys.argv[1:]))
