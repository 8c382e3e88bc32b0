"""Options that many commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, with full ids.")]
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="The UUID, a unique beginning of it, or the account's name."),
]
RunId = Annotated[
    str, typer.Argument(metavar="ID", help="The run's UUID, or a unique beginning of it.")
]
AccountFilter = Annotated[
    str | None,
    typer.Option(
        "--account", metavar="ID", help="Only of this account: its UUID, a beginning, or its name."
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="At most so many. Default: 50; with --json all.")
]
After = Annotated[
    str | None, typer.Option(metavar="CURSOR", help="Go on where an earlier page ended.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One field of the config; may be repeated. KEY.SUB reaches deeper.",
    ),
]
Config = Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="The whole config.")]
Credentials = Annotated[
    str | None,
    typer.Option(metavar="@FILE|-", help="The credentials as JSON: a file, or standard input."),
]
Interval = Annotated[
    int | None, typer.Option(min=1, metavar="MINUTES", help="Between two runs. Default: 15.")
]
