"""Commands for the sessions of people who signed in to the dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from core.cli.output import dump_all, say, table
from core.cli.session import backend
from core.cli.types import Json
from core.service.formatting import ago, counted

app = typer.Typer(
    help="List and end the sessions of people who signed in with the identity provider.",
    no_args_is_help=True,
)


@app.command("list")
def list_sessions(json: Json = False) -> None:
    """List the people with open sessions.

    \b
    Example:
      polling sessions list
    """
    from core.service import sessions

    with backend() as engine, engine.database.connection() as conn:
        rows = sessions.people(conn)
    if json:
        dump_all(rows)
    elif not rows:
        say("No sessions of people. The sessions of a token end with it: polling tokens revoke ID")
    else:
        cells = ((row["name"], row["role"], row["sessions"], ago(row["ends_at"])) for row in rows)
        table(("PERSON", "ROLE", "SESSIONS", "LAST ONE ENDS"), cells, wide="PERSON")


@app.command("end")
def end(
    person: Annotated[
        str, typer.Argument(metavar="PERSON", help="The person's name, as the list shows it.")
    ],
) -> None:
    """End all sessions of a person immediately.

    The person can sign in again, if the identity provider still gives a role. The role is then the
    present one.

    \b
    Example:
      polling sessions end ann@example.org
    """
    from core.service import sessions

    with backend() as engine, engine.database.connection() as conn:
        ended = sessions.end_sessions_named(conn, person)
    say(f"Ended {counted(ended, 'session', 'sessions')}.")
