"""`polling`: the command line.

    entry      one call of it, and its exit code
    app        every command, and its place in the help
    session    settings, servers and the backend
    output     tables, JSON, and text without terminal commands
    inputs     --set, --config and --credentials
    prompts    the same, field by field on a terminal
    listing    pages as tables, or as JSON lines
    progress   the progress bar of a run
    types      options that many commands have

Each other module holds some commands. They import the engine where they need it, so that `polling
--help` is quick.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """The entry point `polling`."""
    from core.cli.entry import run

    sys.exit(run(sys.argv[1:]))
