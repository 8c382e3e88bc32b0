"""`polling`: the command line.

    entry      one call of the command line, and its exit code
    app        all commands, and their places in the help
    session    settings, servers and the backend
    output     tables, JSON lines and escaped text
    inputs     the options --set, --config and --credentials
    prompts    the same, prompted field by field on a terminal

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
