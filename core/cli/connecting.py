"""Connecting accounts, and changing their credentials and config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import given
from core.cli.output import dump, say, short
from core.cli.session import backend, busy, registry
from core.cli.types import Config, Credentials, Id, Interval, Sets

if TYPE_CHECKING:
    from uuid import UUID

    from core.api.backend import Backend
    from core.integration.base import Integration


def connect(
    domain: Annotated[
        str, typer.Argument(metavar="DOMAIN", help="Which integration; see: polling integrations.")
    ],
    user_id: Annotated[str, typer.Option(help="Whose account it is, in your product.")] = "default",
    name: Annotated[
        str | None, typer.Option(help="What you call it. Default: as the provider does.")
    ] = None,
    set_: Sets = None,
    config: Config = None,
    credentials: Credentials = None,
    interval: Interval = None,
    json: Annotated[bool, typer.Option("--json", help='Print {"id": …}.')] = False,
) -> None:
    """Check an account with its provider and store it. On a terminal, what is missing is asked for.

    Connecting the same account of the same user again gives it this config and these credentials.

    Examples:

    \b
      polling connect hello-world --name hello --set pages=5
      polling connect ftp --set host=ftp.example.org --credentials @login.json
    """
    from core.api import accounts

    integration = registry().get(domain)
    values, secrets = asked(integration, set_ or [], config, credentials)
    with backend() as opened, busy(f"Asking {integration.manifest.name} …"):
        made = accounts.connect(
            opened,
            domain,
            config=values,
            credentials=secrets,
            user_id=user_id,
            name=name,
            interval_minutes=interval,
        )
        opened.wake()
    if json:
        dump({"id": str(made.id)})
        return
    say(
        f"{'Connected' if made.is_new else 'Connected again'}: {made.name} ({made.identity.id}),"
        f" account {made.id}"
    )
    say(f"Next: polling sync {short(made.id)} --wait")


def asked(
    integration: Integration, sets: list[str], config: str | None, credentials: str | None
) -> tuple[Any, Any]:
    """Config and credentials as given, and the rest as a person on the terminal says."""
    from core.cli import asking

    secrets = given.credentials(integration, credentials)
    values = given.config(integration, sets, config, {})
    if asking.can_ask():
        values = asking.config(integration.config_model, values) if config is None else values
        secrets = asking.credentials(integration.credentials_model) if secrets is None else secrets
    return values, {} if secrets is None else secrets


def reconnect(id: Id, credentials: Credentials = None) -> None:
    """Give an account new credentials; it goes on where it stopped.

    Examples:

    \b
      polling reconnect hello
      polling reconnect 3f2a --credentials @login.json
    """
    from core.api import accounts
    from core.cli import asking

    with backend() as opened:
        found, integration, _ = _load(opened, id)
        secrets = given.credentials(integration, credentials)
        if secrets is None and asking.can_ask() and integration.credentials_model.model_fields:
            secrets = asking.credentials(integration.credentials_model)
        with busy(f"Asking {integration.manifest.name} …"):
            identity = accounts.reconnect(opened, found, credentials=secrets)
    say(f"Reconnected: {identity.name} ({identity.id}). Its next run is due now.")


def configure(
    id: Id,
    set_: Sets = None,
    config: Config = None,
    name: Annotated[str | None, typer.Option(help="Call it so from now on.")] = None,
    interval: Interval = None,
    json: Annotated[bool, typer.Option("--json", help="Print the config alone.")] = False,
) -> None:
    """Change an account's config, name or interval; without options, print its config.

    Examples:

    \b
      polling config hello --set pages=10
      polling config hello --interval 60 --name greetings
    """
    from core.api import accounts

    with backend() as opened:
        found, integration, before = _load(opened, id)
        if set_ or config is not None:
            values = given.config(integration, set_ or [], config, before)
        elif name is None and interval is None:
            dump(before)
            return
        else:
            values = None
        with busy(f"Asking {integration.manifest.name} …"):
            resync = accounts.configure(
                opened, found, config=values, name=name, interval_minutes=interval
            )
        after = _load(opened, str(found))[2]
    if json:
        dump(after)
    else:
        say(
            "Changed."
            + (" Everything is listed again with its next run, which is due now." if resync else "")
        )


def _load(opened: Backend, text: str) -> tuple[UUID, Integration, dict[str, Any]]:
    from core.accounts import store
    from core.api import lookup

    with opened.database.connection() as conn:
        account = store.load(conn, lookup.account_id(conn, text))
    return account.id, opened.registry.get(account.integration_domain), account.config
