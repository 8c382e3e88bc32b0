"""`polling`: the command line.

    running    one call of it, and how it ends
    app        every command, and where it stands
    session    settings, servers and the backend
    output     tables, JSON, and harmless text
    given      --set, --config and --credentials
    asking     the same, field by field on a terminal

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
