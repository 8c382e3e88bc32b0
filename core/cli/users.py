"""The command users: the use of the fleet by user, and quotas."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.listing import PAGE
from core.cli.output import clean, dump_all, note, say, table
from core.cli.session import backend, busy
from core.cli.types import EraseUser, Json, Now, Yes
from core.errors import InvalidInput
from core.service.formatting import counted, number, size
from core.states import Quota

if TYPE_CHECKING:
    from core.db.rows import Row
    from core.service.quotas import Change

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1_000**power for power, prefix in enumerate("kmgtp", 1)},
    **{f"{prefix}ib": 1_024**power for power, prefix in enumerate("kmgtp", 1)},
}
"""The bytes of each unit of a size."""


def users(
    user_id: Annotated[
        str | None, typer.Argument(metavar="USER", help="Show this user by day.")
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=400,
            help="Number of days (UTC), today included. Default: 1; with USER, 30.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=500,
            help="Maximum number of users. Default: 50; with --quotas and --json, all.",
        ),
    ] = None,
    shows_quotas: Annotated[
        bool, typer.Option("--quotas", help="Show quotas, and how much is used.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--quota",
            metavar="NAME=MOST",
            help="Set a quota of USER. NAME is accounts, bytes, or runs (on a day, UTC). MOST is a"
            " number, none (no bound) or default; for bytes also a size such as 10GiB. Can be"
            " repeated.",
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="USER",
            help="With --quotas: show the next page, after this user. Each page ends with the user"
            " to use here.",
        ),
    ] = None,
    erase: EraseUser = False,
    now: Now = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Show the use of the fleet by user: polls, tasks, thread-seconds and bytes; set quotas, erase.

    The user with the most thread-seconds comes first. The numbers are some seconds old. BYTES IN is
    the content that tasks returned, and BYTES KEPT the part of it that was new or had changed.

    With --quotas, the list has the users with accounts or quotas of their own, in the order of
    their IDs. RUNS are counted only while a quota bounds them.

    --erase hides all accounts of USER immediately. They are deleted POLLING_ERASE_AFTER_MINUTES
    (60) later, with the tokens. Until then, polling reconnect restores an account.

    \b
    Examples:
      polling users
      polling users ann --days 7
      polling users --quotas --after ann
      polling users ann --quotas
      polling users ann --quota accounts=20 --quota runs=default
      polling users ann --erase --yes
    """
    if (now or yes) and not erase:
        raise typer.BadParameter("--now and --yes need --erase")
    if erase:
        _erase(user_id, now=now, yes=yes)
    elif changes or shows_quotas:
        _quotas(user_id, changes or [], limit, after, json=json)
    elif after is not None:
        raise typer.BadParameter("--after needs --quotas")
    else:
        _use(user_id, days, limit or PAGE, json=json)


def _use(user_id: str | None, days: int | None, limit: int, *, json: bool) -> None:
    from core.service import use

    with backend() as engine, engine.database.connection() as conn:
        if user_id is None:
            rows, first = use.of_users(conn, days=days or 1, limit=limit).rows, "user_id"
        else:
            rows, first = use.by_day(conn, user_id, days or 30), "day"
    if json:
        dump_all(rows)
    elif not rows:
        say("No use in these days." if user_id is None else f"No use of {clean(user_id)}.")
    else:
        heading = "USER" if user_id is None else "DAY"
        columns = (heading, "POLLS", "TASKS", "THREAD SECONDS", "BYTES IN", "BYTES KEPT")
        table(columns, (_cells(row, first) for row in rows), wide=heading)


def _erase(user_id: str | None, *, now: bool, yes: bool) -> None:
    from core.cli import prompts
    from core.service.accounts import erase as account_erase

    if user_id is None:
        raise typer.BadParameter("--erase needs USER")
    prompts.require_yes("--erase", yes=yes)
    if not yes:
        prompts.confirm(f"Erase all data of {user_id}?")
    with backend() as engine, busy("Erasing the user …"):
        erase = account_erase.erase_user if now else account_erase.hide_user
        hidden = erase(engine, user_id).hidden
        minutes = engine.settings.erase_after_minutes
    if hidden:
        say(
            f"{counted(hidden, 'account')} disconnected and hidden. All data of the user are"
            f" deleted in {minutes:g} min. Until then, restore an account: polling reconnect ID"
        )
    else:
        say("Erased. All data of the user were deleted.")


def _quotas(
    user_id: str | None,
    changes: Sequence[str],
    limit: int | None,
    after: str | None,
    *,
    json: bool,
) -> None:
    from core.service import quotas

    if changes and user_id is None:
        raise InvalidInput("quota-without-user")
    if after is not None and user_id is not None:
        raise typer.BadParameter("--after needs the list of users, without USER")
    named = dict(parse_quota(change) for change in changes)
    following: str | None = None
    with backend() as engine:
        if user_id is not None and named:
            rows: Iterable[Row] = [quotas.change(engine, user_id, named)]
        else:
            with engine.database.connection() as conn:
                if user_id is not None:
                    rows = [quotas.of_user(conn, user_id)]
                elif json and limit is None and after is None:
                    dump_all(quotas.of_all(conn))
                    return
                else:
                    rows, following = quotas.page(conn, after or "", limit or PAGE)
    if json:
        dump_all(rows)
    elif not rows:
        say("No users." if after is None else "No more users.")
    else:
        columns = ("USER", *(name.upper() for name in Quota))
        table(columns, (_of_quotas(row) for row in rows), wide="USER")
    if following is not None:
        note(f"Next page: repeat the command with --after {shlex.quote(following)}")


def _of_quotas(row: Row) -> tuple[str, ...]:
    cells = [row["user_id"]]
    for name in Quota:
        shown = size if name is Quota.BYTES else number
        used, most = row[name]["used"], row[name]["most"]
        if most is not None:
            cells.append(f"{shown(used)} of {shown(most)}")
        else:
            cells.append("-" if name is Quota.RUNS else shown(used))
    return tuple(cells)


def parse_quota(text: str) -> tuple[Quota, Change]:
    """Return the name and the number of `NAME=MOST`; None: no bound.

    Raises:
      InvalidInput: The name or the number is not valid.
    """
    from core.ledger.quotas import MAX_QUOTA

    name, _, most = text.partition("=")
    if name not in list(Quota):
        raise InvalidInput("quota-invalid", text=text)
    if most in ("none", "default"):
        return Quota(name), None if most == "none" else "default"
    match = re.fullmatch(r"([0-9]{1,18})(?:\.([0-9]{1,3}))? ?([A-Za-z]*)", most)
    units = _UNITS if name == Quota.BYTES else {"": 1}
    factor = units.get(match[3].lower()) if match else None
    if match is None or factor is None or (match[2] and factor == 1):
        raise InvalidInput("quota-invalid", text=text)
    bound = int(Decimal(f"{match[1]}.{match[2] or 0}") * factor)
    if bound > MAX_QUOTA:
        raise InvalidInput("quota-invalid", text=text)
    return Quota(name), bound


def _cells(row: Row, first: str) -> tuple[object, ...]:
    return (
        row[first],
        row["polls"],
        row["tasks"],
        round(row["thread_seconds"], 1),
        size(row["bytes_in"]),
        size(row["bytes_kept"]),
    )
