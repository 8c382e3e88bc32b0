"""Keys: making one, and sealing all credentials with the newest."""

from __future__ import annotations

import typer

from core.cli.output import note, say, stderr
from core.cli.session import backend

app = typer.Typer(
    help="Make a key, or seal all credentials with the newest one.", no_args_is_help=True
)


@app.command("new")
def new() -> None:
    """Print a new key for POLLING_SECRET_KEYS.

    Example:

    \b
      export POLLING_SECRET_KEYS=$(polling keys new)
    """
    from core.accounts.vault import new_key

    say(new_key())


@app.command("rotate")
def rotate() -> None:
    """Seal all credentials with the first key of POLLING_SECRET_KEYS.

    Afterwards the old keys may go.

    Example:

    \b
      POLLING_SECRET_KEYS=NEW,OLD polling keys rotate
    """
    from rich.progress import Progress

    from core.service.accounts import key_rotation

    with backend() as engine:
        with engine.database.connection() as conn:
            total = key_rotation.count_sealed(conn)
        done = 0
        with Progress(console=stderr(), transient=True, disable=not stderr().is_terminal) as bar:
            task = bar.add_task("Sealing", total=total)
            for count in key_rotation.rotate(engine):
                done += count
                bar.advance(task, count)
    say(f"Sealed the credentials of {done} accounts with the first key.")
    note(
        "Restart the workers with this key first in POLLING_SECRET_KEYS before you drop the old"
        " ones."
    )
