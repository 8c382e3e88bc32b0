"""Commands for the tokens of the REST API and the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from core.cli.output import dump, dump_all, note, say, short, table
from core.cli.session import backend
from core.cli.types import Json
from core.scopes import ALL, DEFAULT, MAX_TOKEN_DAYS, Role, Scope, scopes_of
from core.service.formatting import ago

app = typer.Typer(
    help="Create, list and revoke tokens. A token signs in to the dashboard and to the REST API.",
    no_args_is_help=True,
)


@app.command("create")
def create(
    user_id: Annotated[
        str | None,
        typer.Option("--user-id", help="Create a token for the data of this user only."),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Create an operator's token, for the data of all users.")
    ] = False,
    name: Annotated[str, typer.Option(help="A name for the token, for example its purpose.")] = "",
    days: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=MAX_TOKEN_DAYS,
            help="Days until it expires, up to 100 years. Default: never.",
        ),
    ] = None,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="A scope of the token. Can be repeated. Default: all scopes; with --user-id, all"
            " except audit:read and tokens:admin."
        ),
    ] = None,
    role: Annotated[
        Role | None,
        typer.Option(
            help="A role: its scopes, besides those of --scope. admin: all scopes; operator: all"
            " except content, tokens and the audit trail; viewer: metrics:read."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help='Print {"id": …, "token": …}.')] = False,
) -> None:
    """Create a token and print it.

    Copy the token now: it is not shown again. Its permissions are called scopes: content:read,
    accounts:connect, fleet:operate, metrics:read, audit:read and tokens:admin.

    \b
    Examples:
      polling tokens create --user-id me
      polling tokens create --admin --role viewer --days 90
      polling tokens create --admin --scope content:read --scope accounts:connect
    """
    from core.service import tokens

    if admin == (user_id is not None):
        raise typer.BadParameter("use either --user-id U or --admin")
    with backend() as engine, engine.database.connection() as conn:
        granted = [*(scope or ()), *scopes_of(role)] or (ALL if admin else DEFAULT)
        token = tokens.create(conn, user_id=user_id, name=name, days=days, scopes=granted)
    if json:
        dump({"id": str(token.id), "token": token.secret})
        return
    say(token.secret)
    note(
        "Send it in the header `Authorization: Bearer TOKEN`. Revoke it: polling tokens revoke"
        f" {short(token.id)}"
    )


@app.command("list")
def list_tokens(json: Json = False) -> None:
    """List tokens. Secrets are not shown.

    \b
    Example:
      polling tokens list
    """
    from core.service import tokens

    with backend() as engine, engine.database.connection() as conn:
        rows = tokens.token_rows(conn)
    if json:
        dump_all(rows)
    elif not rows:
        say("No tokens. Create one: polling tokens create --admin")
    else:
        cells = (
            (
                short(row["id"]),
                row["name"],
                "all (operator)" if row["user_id"] is None else row["user_id"],
                _listed(row["scopes"]),
                ago(row["last_used_at"]),
                "revoked" if row["revoked_at"] else ago(row["expires_at"]),
            )
            for row in rows
        )
        table(("ID", "NAME", "USER", "SCOPES", "LAST USED", "EXPIRES"), cells, wide="NAME")


def _listed(scopes: Sequence[str]) -> str:
    return "all" if set(scopes) >= set(ALL) else ", ".join(scopes)


@app.command("revoke")
def revoke(
    id: Annotated[
        str, typer.Argument(metavar="ID", help="The token's ID, or a unique prefix of it.")
    ],
) -> None:
    """Revoke a token immediately, and end its dashboard sessions.

    \b
    Example:
      polling tokens revoke 3f2a
    """
    from core.service import tokens

    with backend() as engine, engine.database.connection() as conn:
        tokens.revoke(conn, tokens.find_token(conn, id))
    say("Revoked. Requests with this token are now refused.")
