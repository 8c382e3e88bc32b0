"""Commands for subscriptions: add one, list them, pause, resume, test, replay and remove one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from core.cli.output import describe, dump, dump_all, note, say, short, table
from core.cli.session import backend, busy
from core.cli.types import Json, JsonObject
from core.service.formatting import counted
from core.states import SubscriptionChannel, SubscriptionKind

if TYPE_CHECKING:
    from core.db.pool import Conn

TEST_SECONDS = 30.0
"""Seconds to wait for the outcome of a test."""

LOOK_SECONDS = 0.25
"""Seconds between two looks for it."""

app = typer.Typer()

Subscription = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The subscription's UUID, a prefix of the UUID, or its name."
    ),
]


@app.callback(invoke_without_command=True)
def list_subscriptions(context: typer.Context, json: Json = False) -> None:
    """List subscriptions; add, show, pause, resume, test, replay or remove one.

    A subscription delivers content, or conditions of the engine, to a receiver.

    \b
    Examples:
      polling subscriptions
      polling subscriptions add https://example.com/hooks
      polling subscriptions test example.com
    """
    if context.invoked_subcommand is not None:
        return
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR

    with backend() as engine, engine.database.connection() as conn:
        rows = subscriptions.page(conn, LOCAL_OPERATOR, limit=1_000).rows
    if json:
        dump_all(rows)
    elif not rows:
        say("No subscriptions. Add one: polling subscriptions add URL")
    else:
        cells = (
            (
                short(row["id"]),
                row["name"],
                row["kind"],
                "all (operator)" if row["user_id"] is None else row["user_id"],
                row["state"],
                subscriptions.sentence(row),
            )
            for row in rows
        )
        table(("ID", "NAME", "KIND", "USER", "STATE", "DELIVERIES"), cells, wide="DELIVERIES")


@app.command("add")
def add(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="The receiver, such as the URL of a webhook.")
    ],
    kind: Annotated[
        SubscriptionKind,
        typer.Option(
            help="content: the state of items. operations: conditions of the engine (none yet)."
        ),
    ] = SubscriptionKind.CONTENT,
    channel: Annotated[
        SubscriptionChannel, typer.Option(help="The way to the receiver.")
    ] = SubscriptionChannel.WEBHOOK,
    name: Annotated[str, typer.Option(help="A label. Default: the host of the receiver.")] = "",
    user_id: Annotated[
        str | None,
        typer.Option(
            "--user-id",
            help="Deliver only what concerns this user, to hosts on the public internet."
            " Default: all users.",
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Only this account: its name, its UUID, or a prefix of the UUID."
        ),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Only this integration, such as gmail.")
    ] = None,
    only_kind: Annotated[
        str | None, typer.Option("--only-kind", help="Only this kind of items or of conditions.")
    ] = None,
    from_now: Annotated[
        bool,
        typer.Option(
            "--from-now", help="Leave out the items that are kept now, until they change."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help='Print {"id": …, "secret": …}.')] = False,
) -> None:
    """Add a subscription, and print its signing secret.

    Copy the secret now: it is not shown again. The receiver checks the signature of each request
    with it.

    \b
    Examples:
      polling subscriptions add https://example.com/hooks
      polling subscriptions add https://example.com/hooks --user-id ann --only-kind message
    """
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR
    from core.service.lookup import account_id

    with backend() as engine:
        with engine.database.connection() as conn:
            only_account = None if account is None else account_id(conn, account)
        id, secret = subscriptions.add(
            engine,
            LOCAL_OPERATOR,
            subscriptions.NewSubscription(
                kind,
                channel,
                address,
                name=name,
                user_id=user_id,
                account=only_account,
                domain=domain,
                only_kind=only_kind,
                start="now" if from_now else "beginning",
            ),
        )
    if json:
        dump({"id": str(id), "secret": secret})
        return
    if secret is not None:
        say(secret)
    note(f"Added. Send a test message: polling subscriptions test {short(id)}")


@app.command("show")
def show(subscription: Subscription, json: JsonObject = False) -> None:
    """Show a subscription, with the messages that wait or have failed.

    \b
    Example:
      polling subscriptions show example.com
    """
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR

    with backend() as engine, engine.database.connection() as conn:
        row = subscriptions.one(conn, LOCAL_OPERATOR, subscriptions.find(conn, subscription))
    if json:
        dump(row)
        return
    describe({name: value for name, value in row.items() if name != "deliveries"})
    note(subscriptions.sentence(row))
    if messages := subscriptions.waiting(row):
        note(messages)


@app.command("pause")
def pause(subscription: Subscription) -> None:
    """Deliver nothing until the subscription is resumed. Content and messages wait.

    \b
    Example:
      polling subscriptions pause example.com
    """
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR

    with backend() as engine, engine.database.connection() as conn:
        subscriptions.pause(conn, LOCAL_OPERATOR, subscriptions.find(conn, subscription))
    say("Paused. Resume it: polling subscriptions resume " + subscription)


@app.command("resume")
def resume(subscription: Subscription) -> None:
    """Deliver again, immediately, also after failures.

    \b
    Example:
      polling subscriptions resume example.com
    """
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR

    with backend() as engine, engine.database.connection() as conn:
        subscriptions.resume(conn, LOCAL_OPERATOR, subscriptions.find(conn, subscription))
    say("Resumed.")


@app.command("remove")
def remove(subscription: Subscription) -> None:
    """Delete a subscription, with its messages and its place in the change feed.

    \b
    Example:
      polling subscriptions remove example.com
    """
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR

    with backend() as engine, engine.database.connection() as conn:
        subscriptions.remove(conn, LOCAL_OPERATOR, subscriptions.find(conn, subscription))
    say("Removed.")


@app.command("test")
def test(subscription: Subscription) -> None:
    """Send a test message to the receiver, and wait for its outcome.

    A worker process sends it. The exit status is 1 if it failed, and 4 if it still waits.

    \b
    Example:
      polling subscriptions test example.com
    """
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR

    with backend() as engine, engine.database.connection() as conn:
        id: UUID = subscriptions.find(conn, subscription)
        message = subscriptions.test(conn, LOCAL_OPERATOR, id)
        with busy("Waiting for a worker process …"):
            waits, error = _outcome(conn, message)
    if waits:
        note("The message still waits. Does a worker process run? polling doctor")
        raise typer.Exit(4)
    if error is not None:
        note(f"The receiver did not accept the message: {error}")
        raise typer.Exit(1)
    say("Delivered.")


def _outcome(conn: Conn, message: int) -> tuple[bool, str | None]:
    from core.service import subscriptions

    until = time.monotonic() + TEST_SECONDS
    while True:
        waits, error = subscriptions.outcome(conn, message)
        if not waits or time.monotonic() > until:
            return waits, error
        time.sleep(LOOK_SECONDS)


@app.command("replay")
def replay(subscription: Subscription) -> None:
    """Deliver the failed messages of a subscription again.

    \b
    Example:
      polling subscriptions replay example.com
    """
    from core.service import subscriptions
    from core.service.authorization import LOCAL_OPERATOR

    with backend() as engine, engine.database.connection() as conn:
        id = subscriptions.find(conn, subscription)
        number = subscriptions.replay(conn, LOCAL_OPERATOR, id)
    say(f"{counted(number, 'message')} will be delivered again.")
