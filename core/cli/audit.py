"""The command audit: who did what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.listing import PAGE
from core.cli.output import clean, dump_all, note, say, short, table
from core.cli.session import backend
from core.cli.types import Json
from core.service.formatting import ago
from core.states import Act

if TYPE_CHECKING:
    from core.db.pool import Conn
    from core.db.rows import Row
    from core.service.audit import AuditFilter
    from core.service.query_timeout import QuerySlots


def audit(
    user_id: Annotated[
        str | None, typer.Option("--user-id", help="Only acts on the data of this user.")
    ] = None,
    act: Annotated[Act | None, typer.Option(help="Only acts of this kind.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of acts. Default: 50; with --json, all."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(help="With --json: start after this cursor. With `latest`: after now."),
    ] = None,
    json: Json = False,
) -> None:
    """Show the audit trail: acts with their authors, the newest first.

    With --json, the oldest act is first. The command then also prints a cursor, from which a later
    command continues.

    \b
    Examples:
      polling audit
      polling audit --act account.erase
      polling audit --json --after CURSOR
    """
    from core.service.audit import AuditFilter

    if after is not None and not json:
        raise typer.BadParameter("--after needs --json")
    audit_filter = AuditFilter(of_user=user_id, act=act)
    with backend() as engine, engine.database.connection() as conn:
        if json:
            dump_all(_following(conn, engine.query_slots, audit_filter, after, limit))
            return
        rows = _newest(conn, engine.query_slots, audit_filter, limit or PAGE)
    if not rows:
        named = [
            f"{name} {clean(value)}" for name, value in (("user", user_id), ("act", act)) if value
        ]
        say(f"No acts with {', '.join(named)}." if named else "No acts.")
        return
    table(("TIME", "ACT", "OBJECT", "USER", "BY", "FROM"), map(_cells, rows), wide="OBJECT")


def _newest(conn: Conn, slots: QuerySlots, audit_filter: AuditFilter, limit: int) -> list[Row]:
    from core.service.audit import page

    rows: list[Row] = []
    after: str | None = None
    while True:
        found = page(conn, slots, audit_filter, limit=limit - len(rows), after=after)
        rows += found.rows
        after = found.cursor
        if after is None or len(rows) >= limit:
            return rows


def _following(
    conn: Conn,
    slots: QuerySlots,
    audit_filter: AuditFilter,
    after: str | None,
    limit: int | None,
) -> list[Row]:
    """Return the acts after a cursor, and print the next cursor."""
    from core.service.audit import read

    rows: list[Row] = []
    while True:
        left = None if limit is None else limit - len(rows)
        found = read(conn, slots, audit_filter, after=after, limit=min(left or 1_000, 1_000))
        rows += found.rows
        after = found.cursor
        if not found.more or (limit is not None and len(rows) >= limit):
            note(f"Next acts: repeat the command with --after {after}")
            return rows


def _cells(row: Row) -> tuple[Any, ...]:
    return (
        ago(row["at"]),
        row["act"],
        f"{row['target_type']} {row['detail'].get('name') or short(row['target_id'])}",
        row["user_id"] or "",
        row["actor_user_id"] or row["actor"] or ("" if row["channel"] == "browser" else "operator"),
        row["address"] or row["channel"] or "",
    )
