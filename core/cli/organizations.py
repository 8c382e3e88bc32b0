"""Commands for organizations: connect one, list them, list the members of one, disconnect it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli import inputs
from core.cli.output import describe, dump, dump_all, note, say, short, table
from core.cli.session import backend, busy, registry
from core.cli.types import Config, Json, JsonObject, NewInterval, Sets
from core.service.formatting import counted

if TYPE_CHECKING:
    from core.db.rows import Row

app = typer.Typer()

Organization = Annotated[
    str,
    typer.Argument(
        metavar="ORGANIZATION", help="The organization's name, its UUID, or a prefix of the UUID."
    ),
]
Members = Annotated[
    list[str] | None,
    typer.Option(
        "--member",
        metavar="ADDRESS",
        help="Connect only this member. Can be repeated. Default: the provider lists the members.",
    ),
]
Excluded = Annotated[
    list[str] | None,
    typer.Option("--except", metavar="ADDRESS", help="Leave out this member. Can be repeated."),
]


@app.callback(invoke_without_command=True)
def list_organizations(context: typer.Context, json: Json = False) -> None:
    """List organizations; show, connect, sync or disconnect one.

    An organization connects the accounts of all its members with one set of credentials. The engine
    lists the members each hour. It adds an account for each new member, and pauses the account of a
    member who has left.

    \b
    Examples:
      polling organizations
      polling organizations connect gmail --name example.com --credentials @key.json
      polling organizations sync example.com
    """
    if context.invoked_subcommand is not None:
        return
    from core.service import organizations

    with backend() as engine, engine.database.connection() as conn:
        rows = organizations.listing(conn)
    if json:
        dump_all(rows)
    elif not rows:
        say("No organizations.")
    else:
        columns = ("ID", "INTEGRATION", "NAME", "ACCOUNTS", "ERRORS", "MEMBERS")
        table(columns, map(_cells, rows), wide="MEMBERS")


def _cells(row: Row) -> tuple[object, ...]:
    from core.service import organizations

    return (
        short(row["id"]),
        row["integration_domain"],
        row["name"],
        row["accounts"],
        row["in_error"],
        organizations.sentence(row),
    )


@app.command("show")
def show(organization: Organization, json: JsonObject = False) -> None:
    """Show an organization, with the numbers of its accounts.

    \b
    Example:
      polling organizations show example.com
    """
    from core.service import organizations

    with backend() as engine, engine.database.connection() as conn:
        row = organizations.one(conn, organizations.find(conn, organization))
    if json:
        dump(row)
        return
    describe(row)
    note(organizations.sentence(row))


@app.command("connect")
def connect(
    domain: Annotated[
        str, typer.Argument(metavar="DOMAIN", help="The integration, such as gmail.")
    ],
    name: Annotated[str, typer.Option(help="The organization's name, such as its domain.")],
    credentials: Annotated[
        str,
        typer.Option(
            metavar="@FILE|-",
            help="Read the credentials of the organization as JSON from a file, or stdin (-).",
        ),
    ],
    member: Members = None,
    excluded: Excluded = None,
    user_id: Annotated[
        str,
        typer.Option(
            "--user-id",
            help="The owner of the accounts: the user's ID in your product. {member} stands for the"
            " address of each member.",
        ),
    ] = "default",
    set_: Sets = None,
    config: Config = None,
    interval: NewInterval = None,
    json: Annotated[bool, typer.Option("--json", help='Print {"id": …}.')] = False,
) -> None:
    """Connect all members of an organization with one set of credentials.

    The command lists the members, checks the account of one of them, and stores an account for
    each. To replace the credentials of an organization, or its lists of members, connect it again
    with the same name. Give all options again: those that you leave out return to their defaults.

    \b
    Examples:
      polling organizations connect gmail --name example.com --credentials @key.json
      polling organizations connect gmail --name example.com --credentials @key.json \\
        --member ann@example.com --member bob@example.com
    """
    from core.service import organizations

    integration = registry().get(domain)
    values = inputs.config(integration, set_ or [], config, {})
    secrets = inputs.credentials(integration, credentials)
    with backend() as engine, busy(f"Contacting {integration.manifest.name} …"):
        connected = organizations.connect(
            engine,
            domain,
            name=name,
            credentials=secrets or {},
            config=values,
            user_id=user_id,
            listed=member,
            excluded=excluded or [],
            interval_minutes=interval or 15,
        )
    if json:
        dump({"id": str(connected.id)})
        return
    verb = "Connected" if connected.is_new else "Updated"
    say(f"{verb}: organization {connected.name}. {organizations.summary(connected.changes)}")
    if connected.changes.problem:
        note(connected.changes.problem)
    say(f"Next: polling organizations show {short(connected.id)}")


@app.command("sync")
def sync(organization: Organization) -> None:
    """List the members of an organization now, and add, pause and resume accounts.

    \b
    Example:
      polling organizations sync example.com
    """
    from core.service import organizations

    with backend() as engine:
        with engine.database.connection() as conn:
            id = organizations.find(conn, organization)
        with busy("Listing the members …"):
            changes = organizations.sync(engine, id)
    say(organizations.summary(changes))
    if changes.problem:
        note(changes.problem)


@app.command("disconnect")
def disconnect(
    organization: Organization,
    keep_content: Annotated[
        bool, typer.Option("--keep-content", help="Keep the content. This is the default.")
    ] = False,
    delete_content: Annotated[
        bool, typer.Option("--delete-content", help="Delete the content, after a delay.")
    ] = False,
    erase: Annotated[
        bool,
        typer.Option("--erase", help="Delete the accounts with all their data, after a delay."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete content without a confirmation prompt.")
    ] = False,
) -> None:
    """Delete an organization's credentials, and disconnect its accounts.

    No run of the accounts begins any more. The engine disconnects one account after the other.

    Content is hidden with its account, and deleted POLLING_ERASE_AFTER_MINUTES (60) later. Until
    then, connect the organization again to restore it.

    \b
    Examples:
      polling organizations disconnect example.com
      polling organizations disconnect example.com --delete-content --yes
    """
    from core.service import organizations

    if keep_content + delete_content + erase > 1:
        raise typer.BadParameter("use one of --keep-content, --delete-content and --erase")
    hides = delete_content or erase
    if hides and not yes and not sys.stdin.isatty():
        option = "--erase" if erase else "--delete-content"
        raise typer.BadParameter(f"without a terminal, {option} needs --yes")
    with backend() as engine:
        with engine.database.connection() as conn:
            id = organizations.find(conn, organization)
            row = organizations.one(conn, id)
        if hides and not yes:
            _confirm(row)
        number = organizations.disconnect(
            engine, id, hides_content=delete_content, erases_accounts=erase
        )
    accounts = counted(number, "account")
    say(f"Disconnecting {accounts} of {row['name']}. The credentials were deleted.")
    note("The engine does this in the background: polling organizations")


def _confirm(row: Row) -> None:
    """Ask for confirmation on the terminal."""
    accounts = counted(row["accounts"], "account")
    if not typer.confirm(f"Disconnect {accounts}, and delete their content?", err=True):
        note("Nothing was changed.")
        raise typer.Exit(1)
