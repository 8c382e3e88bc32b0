"""Commands for the keys that encrypt credentials: keys new and keys rotate."""

from __future__ import annotations

import typer

from core.cli.output import note, say, stderr
from core.cli.session import backend
from core.service.formatting import counted

app = typer.Typer(
    help="Create a key, or re-encrypt all credentials with the first key of POLLING_SECRET_KEYS.",
    no_args_is_help=True,
)


@app.command("new")
def new() -> None:
    """Create a key for POLLING_SECRET_KEYS and print it.

    \b
    Example:
      export POLLING_SECRET_KEYS=$(polling keys new)
    """
    from core.accounts.vault import new_key

    say(new_key())


@app.command("rotate")
def rotate() -> None:
    """Encrypt all credentials with the first key of POLLING_SECRET_KEYS.

    Before you run it, set POLLING_SECRET_KEYS to NEW,OLD for all processes, and restart them. The
    command refuses to start if a running process does not have the new key in the first place.
    Remove the old key when polling doctor reports that nothing is encrypted with it.

    \b
    Example:
      POLLING_SECRET_KEYS=NEW,OLD polling keys rotate
    """
    from rich.progress import Progress

    from core.service.accounts import key_rotation

    done = 0
    with backend() as engine:
        with engine.database.connection() as conn:
            total = key_rotation.count_sealed(conn)
        with Progress(console=stderr(), transient=True, disable=not stderr().is_terminal) as bar:
            task = bar.add_task("Encrypting", total=total)
            for rotation in key_rotation.rotate(engine):
                done = rotation.done
                bar.update(task, completed=done)
    say(
        f"Encrypted the credentials of {counted(done, 'account')}"
        " with the first key of POLLING_SECRET_KEYS."
    )
    note("Before you remove an old key, check that it is unused: polling doctor")
