"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from core.accounts import MAX_POLL_INTERVAL_MINUTES
from core.states import Deletions

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
JsonObject = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="The account's UUID, a unique prefix of it, or its name."),
]
RunId = Annotated[
    str, typer.Argument(metavar="ID", help="The run's UUID, or a unique prefix of it.")
]
AccountFilter = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ID",
        help="Show only this account: its name, its UUID, or a unique prefix of the UUID.",
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Maximum number of rows. Default: 50; with --json, all.")
]
After = Annotated[
    str | None,
    typer.Option(
        metavar="CURSOR",
        help="Show the next page, after this cursor. Each page ends with the cursor to use here.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set one field of the config. Can be repeated. KEY.SUB sets a nested field. List the"
        " fields: polling integrations show DOMAIN.",
    ),
]
Config = Annotated[
    str | None,
    typer.Option(metavar="JSON|@FILE", help="The complete config: JSON, or a file with JSON."),
]
Credentials = Annotated[
    str | None,
    typer.Option(metavar="@FILE|-", help="Read the credentials as JSON from a file, or stdin (-)."),
]


def _interval(default: str = "") -> Any:
    return typer.Option(
        min=1,
        max=MAX_POLL_INTERVAL_MINUTES,
        metavar="MINUTES",
        help="Minutes from the end of one run to the start of the next; at most one year."
        + default,
    )


def _deletions(default: str = "") -> Any:
    return typer.Option(
        "--deletions",
        help="Mark items that disappear at the source as deleted, or keep them." + default,
    )


def _erase(data: str) -> Any:
    return typer.Option("--erase", help=f"Delete {data}, after a delay.")


Interval = Annotated[int | None, _interval()]
NewInterval = Annotated[
    int | None,
    _interval(" Default: 15. If the account was connected before, it keeps its interval."),
]
DeletionsOption = Annotated[Deletions | None, _deletions()]
NewDeletionsOption = Annotated[
    Deletions | None,
    _deletions(" Default: mark. If the account was connected before, it keeps its choice."),
]
EraseAccount = Annotated[bool, _erase("the account with all its data")]
EraseUser = Annotated[bool, _erase("all data of USER")]
Now = Annotated[bool, typer.Option("--now", help="Delete immediately. Nothing restores the data.")]
Yes = Annotated[bool, typer.Option("--yes", help="Delete without a confirmation prompt.")]
Headless = Annotated[
    bool,
    typer.Option(
        "--headless",
        help="Print the sign-in address instead of opening a browser. Open it in any browser and"
        " sign in. Then copy the address of the last page, and paste it here.",
    ),
]
Port = Annotated[
    int,
    typer.Option(
        min=0,
        max=65_535,
        help="Port on 127.0.0.1 to which the provider redirects the browser. Default: a free port.",
        show_default=False,
    ),
]
