"""Commands to connect accounts and to change their credentials and config."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import inputs
from core.cli.output import dump, note, say, short
from core.cli.session import backend, busy, registry
from core.cli.types import (
    Config,
    Credentials,
    DeletionsOption,
    Headless,
    Id,
    Interval,
    NewDeletionsOption,
    NewInterval,
    Port,
    Sets,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from core.accounts.store import Account
    from core.integration.base import Integration
    from core.integration.rehearsal import Rehearsal
    from core.service.accounts.check import CheckResult
    from core.service.backend import Backend


def connect(
    domain: Annotated[
        str,
        typer.Argument(
            metavar="DOMAIN",
            help="The integration, such as ftp. List all integrations: polling integrations.",
        ),
    ],
    user_id: Annotated[
        str,
        typer.Option(
            "--user-id",
            help="The account's owner: the user's ID in your product. Default: the user"
            ' "default".',
            show_default=False,
        ),
    ] = "default",
    name: Annotated[
        str | None, typer.Option(help="The account's name. Default: its name at the provider.")
    ] = None,
    set_: Sets = None,
    config: Config = None,
    credentials: Credentials = None,
    interval: NewInterval = None,
    deletions: NewDeletionsOption = None,
    headless: Headless = False,
    port: Port = 0,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check the account, show which content its copy would have, and store nothing.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Connect despite warnings, without a question.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help='Print {"id": …, "rehearsal": …}.')] = False,
) -> None:
    """Connect an account: check it with the provider, and store it.

    Some integrations first show which content the copy would have. On a terminal, the command then
    asks you to confirm warnings.

    On a terminal, the command prompts for missing fields. For some integrations, such as gmail, it
    opens the provider's sign-in page in the browser, unless you give --credentials. If the user of
    --user-id already has this account, the new config and credentials replace the old ones.

    \b
    Examples:
      polling connect hello-world --name hello --set pages=5
      polling connect ftp --set host=ftp.example.org --credentials @login.json
      polling connect gmail --headless
      polling connect ftp --set host=ftp.example.org --credentials @login.json --dry-run
    """
    from core.service.accounts import actions as account_actions

    integration = registry().get(domain)
    values, secrets = collect_inputs(
        integration, set_ or [], config, credentials, headless=headless, port=port
    )
    with backend() as engine, busy(f"Contacting {integration.manifest.name} …") as spinner:
        if dry_run:
            checked = account_actions.identify(engine, domain, config=values, credentials=secrets)
        else:
            connection = account_actions.connect(
                engine,
                domain,
                config=values,
                credentials=secrets,
                user_id=user_id,
                name=name,
                interval_minutes=interval,
                deletions=deletions,
                accept=lambda checked: _accept(checked.rehearsal, spinner, yes=yes, json=json),
            )
            engine.wake()
    if dry_run:
        _show_check(integration, checked, json=json)
        return
    if json:
        dump({"id": str(connection.id)} | _rehearsal_json(connection.rehearsal))
        return
    say(
        f"{'Connected' if connection.is_new else 'Updated'}: account {connection.id},"
        f" name {connection.name}, provider account {connection.identity.id}"
    )
    if connection.identity.notice:
        note(connection.identity.notice)
    say(f"Next: polling sync {short(connection.id)} --wait")


def _accept(rehearsal: Rehearsal, spinner: Any, *, yes: bool, json: bool) -> None:
    """Show the rehearsal, and ask a person on a terminal whether its warnings are acceptable."""
    from core.cli import prompts

    if spinner is not None:
        spinner.stop()
    if not json:
        _show_rehearsal(rehearsal, note)
    if rehearsal.warnings and rehearsal.refusal is None and not yes and prompts.can_ask():
        for warning in rehearsal.warnings if json else ():
            note(f"warning: {warning}")
        if not typer.confirm("Connect the account?", err=True):
            note("Nothing was stored.")
            raise typer.Exit(1)
    if spinner is not None:
        spinner.start()


def _show_check(integration: Integration, checked: CheckResult, *, json: bool) -> None:
    from core.service.accounts.check import require_accepted

    identity = checked.identity
    if json:
        provider = {"id": identity.id, "name": identity.name}
        dump({"identity": provider} | _rehearsal_json(checked.rehearsal))
    else:
        _show_rehearsal(checked.rehearsal, say)
    require_accepted(integration, checked.rehearsal)
    if not json:
        if identity.notice:
            note(identity.notice)
        say(f"Nothing was stored: provider account {identity.id} ({identity.name}) works.")


def _rehearsal_json(rehearsal: Rehearsal) -> dict[str, Any]:
    return {"rehearsal": asdict(rehearsal)} if rehearsal or rehearsal.bound else {}


def _show_rehearsal(rehearsal: Rehearsal, tell: Callable[[str], None]) -> None:
    from core.service.accounts.check import bound_sentence

    for section in rehearsal.sections:
        tell(section.title)
        for label, value in section.facts.items():
            tell(f"  {label}: {value:,}" if isinstance(value, int) else f"  {label}: {value}")
        for line in section.sample:
            tell(f"  {'  ' * line.level}- {line.name}")
        if section.omitted:
            tell(f"  … and {section.omitted:,} more")
    if rehearsal.bound is not None:
        tell(bound_sentence(rehearsal.bound))
    for warning in rehearsal.warnings:
        tell(f"warning: {warning}")


def collect_inputs(
    integration: Integration,
    sets: list[str],
    config: str | None,
    credentials: str | None,
    *,
    headless: bool = False,
    port: int = 0,
) -> tuple[Any, Any]:
    """Return config and credentials from the options.

    A person signs in through the browser if the integration supports it, and otherwise answers
    prompts on a terminal.
    """
    from core.cli import prompts

    secrets = inputs.credentials(integration, credentials)
    values = inputs.config(integration, sets, config, {})
    if prompts.can_ask():
        values = prompts.config(integration.config_model, values) if config is None else values
    if secrets is None:
        secrets = new_credentials(integration, headless=headless, port=port)
    return values, {} if secrets is None else secrets


def new_credentials(integration: Integration, *, headless: bool, port: int) -> Any:
    """Ask a person for the credentials; return None if nobody can answer.

    Raises:
      InvalidInput: `headless` for an integration without a browser sign-in.
      SettingsError: `headless`, and the operator has set no OAuth client.
    """
    from core.cli import prompts
    from core.service.accounts import loopback
    from core.service.accounts.oauth_client import missing_client

    if headless or loopback.is_offered(integration):
        from core.cli.sign_in import sign_in

        return sign_in(integration, headless=headless, port=port)
    oauth = integration.manifest.oauth
    if oauth is not None and oauth.loopback:
        names = " and ".join(missing_client(oauth))
        where = "" if Path(".env").exists() else " (this folder has no file .env)"
        note(f"To sign in through the browser, set {names}{where}.")
    if prompts.can_ask() and integration.credentials_model.model_fields:
        return prompts.credentials(integration.credentials_model)
    return None


def reconnect(
    id: Id, credentials: Credentials = None, headless: Headless = False, port: Port = 0
) -> None:
    """Replace an account's credentials. The account then resumes where it stopped.

    For some integrations, such as gmail, the command opens the provider's sign-in page in the
    browser, unless you give --credentials.

    \b
    Examples:
      polling reconnect hello
      polling reconnect 3f2a --credentials @login.json
    """
    from core.service.accounts import actions as account_actions

    with backend() as engine:
        account, integration = _load(engine, id)
        secrets = inputs.credentials(integration, credentials)
        if secrets is None:
            secrets = new_credentials(integration, headless=headless, port=port)
        with busy(f"Contacting {integration.manifest.name} …"):
            identity = account_actions.reconnect(engine, account.id, credentials=secrets)
    if identity.notice:
        note(identity.notice)
    say(f"Reconnected: {identity.name} ({identity.id}). The next run is due now.")


def config(
    id: Id,
    set_: Sets = None,
    config: Config = None,
    name: Annotated[str | None, typer.Option(help="The account's new name.")] = None,
    interval: Interval = None,
    deletions: DeletionsOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the config as JSON, also after a change.")
    ] = False,
) -> None:
    """Change an account: config, name, poll interval, and whether items that disappear are kept.

    Without options, the command prints the account's config as JSON.

    \b
    Examples:
      polling config hello --set pages=10
      polling config hello --interval 60 --name greetings
      polling config hello --deletions keep
    """
    from core.service.accounts import actions as account_actions

    with backend() as engine:
        account, integration = _load(engine, id)
        if set_ or config is not None:
            values = inputs.config(integration, set_ or [], config, account.config)
        elif name is None and interval is None and deletions is None:
            dump(account.config)
            return
        else:
            values = None
        with busy(f"Contacting {integration.manifest.name} …"):
            resync = account_actions.configure(
                engine,
                account.id,
                config=values,
                name=name,
                interval_minutes=interval,
                deletions=deletions,
            )
        account, _ = _load(engine, str(account.id))
    if json:
        dump(account.config)
    else:
        say(
            f"Config of {account.name} updated."
            + (" The next run lists everything again; it is due now." if resync else "")
        )


def _load(engine: Backend, text: str) -> tuple[Account, Integration]:
    from core.accounts import store
    from core.service import lookup

    with engine.database.connection() as conn:
        account = store.load(conn, lookup.account_id(conn, text))
    return account, engine.registry.get(account.integration_domain)
