"""The command completion."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

VARIABLE = "_POLLING_COMPLETE"
"""The variable with which the script of a shell asks the program for words."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")],
) -> None:
    """Print a script with which a shell completes the words of this command line.

    \b
    Examples:
      polling completion bash > ~/.local/share/bash-completion/completions/polling
      polling completion zsh > ~/.zfunc/_polling
      polling completion fish > ~/.config/fish/completions/polling.fish
    """
    # Typer documents the scripts, and does not list the function that returns them.
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    # The script has raw line ends in quotes, so it is not escaped.
    typer.echo(get_completion_script(prog_name="polling", complete_var=VARIABLE, shell=shell))


def answer_shell() -> None:
    """Let the program answer a shell that asks for words."""
    if VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # as above

        completion_init()
