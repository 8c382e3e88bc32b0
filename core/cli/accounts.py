"""Commands for accounts: accounts, check, pause, resume and disconnect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.cli import listing
from core.cli.output import describe, dump, fail, note, say, short
from core.cli.progress import why, why_json
from core.cli.session import backend, busy
from core.cli.types import After, EraseAccount, Id, Json, JsonObject, Limit, Now, Yes
from core.service.formatting import ago, counted, size
from core.states import AccountState

if TYPE_CHECKING:
    from core.db.rows import Row
    from core.service.backend import Backend

    UsedState = AccountState
    ResumedState = AccountState
else:
    UsedState = Literal[tuple(state.value for state in AccountState.used())]
    ResumedState = Literal[AccountState.PAUSED.value, AccountState.ERROR.value]

app = typer.Typer()

RESUMED = (AccountState.PAUSED, AccountState.ERROR)
"""The states from which an account can be resumed."""


@app.callback(invoke_without_command=True)
def list_accounts(
    context: typer.Context,
    user_id: Annotated[
        str | None, typer.Option("--user-id", help="Show only this user's accounts.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Show only accounts of this integration.")
    ] = None,
    state: Annotated[
        UsedState | None,
        typer.Option("--state", help="Show only accounts in this state."),
    ] = None,
    limit: Limit = None,
    after: After = None,
    json: Json = False,
) -> None:
    """List accounts, oldest first; show one.

    \b
    Examples:
      polling accounts --state error
      polling accounts --json
    """
    if context.invoked_subcommand is not None:
        return
    from core.service.accounts import queries as account_queries

    with backend() as engine, engine.database.connection() as conn:
        listing.print_page(
            conn,
            account_queries.listed_accounts,
            ("ID", "NAME", "INTEGRATION", "STATE", "LAST SYNC", "COMPLETE AS OF", "NEXT SYNC"),
            _cells,
            nouns="accounts",
            hint="Connect one: polling connect hello-world",
            json=json,
            limit=limit,
            after=after,
            wide="NAME",
            user_id=user_id,
            integration_domain=domain,
            sync_status=state,
        )


def _cells(row: Row) -> tuple[object, ...]:
    from core.service.accounts.owed import completeness
    from core.service.accounts.queries import next_sync

    is_active = row["sync_status"] == AccountState.ACTIVE
    return (
        short(row["id"]),
        row["name"],
        row["integration_domain"],
        row["sync_status"],
        ago(row["last_sync_at"]) if row["last_sync_at"] else "not yet",
        completeness(row),
        next_sync(row).text if is_active else "",
    )


@app.command("show")
def show(id: Id, json: JsonObject = False) -> None:
    """Show an account: its state, its config, the size of its content, and the cause of its wait.

    \b
    Example:
      polling accounts show hello
    """
    from core.accounts import store
    from core.ledger import listeners
    from core.service import lookup
    from core.service.accounts import comparison, partitions, waiting
    from core.service.accounts import queries as account_queries
    from core.service.accounts.listening import sentence, state_of
    from core.service.accounts.owed import owed_by

    with backend() as engine, engine.database.connection() as conn:
        account_id = lookup.account_id(conn, id)
        row = account_queries.shown_accounts.one(conn, "account", account_id)
        totals = account_queries.account_totals(conn, account_id)
        wait = waiting.of_account(engine, conn, store.load(conn, account_id))
        owed = owed_by(conn, account_id)
        complete: dict[str, Any] = {"complete_as_of": owed.complete_as_of}
        compared = comparison.latest(conn, account_id)
        listening = listeners.of_account(conn, account_id)
        notice = partitions.notice(conn, account_id)
        if json:
            owing = {"owed": owed.tasks, "owed_since": owed.since}
            found = compared and {
                "at_source": compared.at_source, "kept": compared.kept, "at": compared.at
            }  # fmt: skip
            heard = listening and {
                "state": state_of(listening),
                "since": listening.connected_at if listening.connected else listening.down_at,
                "error": listening.reason(in_full=True),
                "event_at": listening.event_at,
            }
            found = {"comparison": found, "listener": heard, "notice": notice}
            dump(row | totals | complete | owing | found | why_json(wait))
            return
        if compared is not None:
            integration = engine.registry.integrations.get(row["integration_domain"])
            name = integration.manifest.name if integration else row["integration_domain"]
            complete["comparison"] = comparison.sentence(compared, name)
        held = totals.pop("held")
        shown = account_queries.next_sync(row)
        row["next_sync_at"] = shown.word or shown.at
        row.pop("is_running")
        if row["sync_status"] != AccountState.ERROR:
            row.pop("stopped_at")
            row.pop("stopped_by")
        describe(row | totals | {"bytes": size(totals["bytes"])} | complete)
        if held:
            number = counted(len(held), "held deletion")
            note(f"{number}. Review: polling deletions --account {short(account_id)}")
        if owed.tasks:
            note(owed.sentence)
        if listening is not None:
            note(sentence(listening, row["poll_interval_minutes"]))
        if notice is not None:
            note(notice)
        note(why(wait))


def check(id: Id) -> None:
    """Ask the provider whether an account's credentials still work.

    \b
    Example:
      polling check hello
    """
    from core.service.accounts.actions import check_account

    with backend() as engine:
        identity = check_account(engine, _resolve(engine, id))
    say(f"The credentials work: {identity.name} ({identity.id})")


def pause(id: Id) -> None:
    """Pause an account. No new runs or tasks start until you resume it.

    \b
    Example:
      polling pause hello
    """
    from core.service.accounts import actions as account_actions

    with backend() as engine:
        account_id = _resolve(engine, id)
        account_actions.pause(engine, account_id)
    say(f"Paused. Resume it: polling resume {short(account_id)}")


def resume(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="The accounts' UUIDs, unique prefixes of them, or their names."
        ),
    ] = None,
    state: Annotated[
        ResumedState | None,
        typer.Option(help="Resume all accounts in this state."),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="Resume all accounts of this integration.")
    ] = None,
    user_id: Annotated[
        str | None, typer.Option("--user-id", help="Resume all accounts of this user.")
    ] = None,
) -> None:
    """Resume paused accounts, and accounts in error.

    The engine checks an account in error with its provider first. It resumes if the provider
    accepts it. Name the accounts, or select them with options. The exit code is 1 if an account
    was not resumed.

    \b
    Examples:
      polling resume hello
      polling resume --state error --domain gmail
    """
    chosen = {"sync_status": state, "integration_domain": domain, "user_id": user_id}
    if bool(ids) == any(chosen.values()):
        raise typer.BadParameter("name accounts, or select them with --state, --domain, --user-id")
    with backend() as engine:
        accounts = [_resolve(engine, id) for id in ids or ()] or _stopped(engine, chosen)
        failed = [id for id in accounts if not _resumes(engine, id)]
    done = len(accounts) - len(failed)
    if done or not failed:
        say(f"Resumed {counted(done, 'account')}." if accounts else "No stopped accounts match.")
    if done:
        note("Their next runs are due now.")
    if failed:
        raise typer.Exit(1)


def _stopped(engine: Backend, chosen: dict[str, str | None]) -> list[Any]:
    """Return the ids of the paused accounts and those in error that match."""
    from core.service.accounts import queries as account_queries

    with engine.database.connection() as conn:
        return [
            row["id"]
            for row in account_queries.accounts.pages(conn, **chosen)
            if row["sync_status"] in RESUMED
        ]


def _resumes(engine: Backend, id: Any) -> bool:
    """Resume an account; print the error, and return False, if that is not possible."""
    from core.errors import PollingError
    from core.service.accounts import actions as account_actions

    try:
        account_actions.resume(engine, id)
    except PollingError as error:
        fail(f"account {short(id)}: {error.message}", error.next_step("cli"))
        return False
    return True


def disconnect(
    id: Id,
    keep_content: Annotated[
        bool, typer.Option("--keep-content", help="Keep the account's content.")
    ] = False,
    delete_content: Annotated[
        bool, typer.Option("--delete-content", help="Delete the account's content, after a delay.")
    ] = False,
    erase: EraseAccount = False,
    now: Now = False,
    yes: Yes = False,
) -> None:
    """Disconnect an account: delete its credentials. Its content needs one of three options.

    Use --keep-content, --delete-content or --erase. An account that is not erased is still listed,
    and counts for its user's quota of accounts.

    Content is hidden immediately, and deleted POLLING_ERASE_AFTER_MINUTES (60) later. Until then,
    polling reconnect restores the account.

    \b
    Examples:
      polling disconnect hello --keep-content
      polling disconnect hello --delete-content --yes
      polling disconnect hello --erase --now --yes
    """
    from core.cli import prompts
    from core.service.accounts import disconnect as account_disconnect
    from core.service.accounts import erase as account_erase

    if keep_content + delete_content + erase != 1:
        raise typer.BadParameter("use one of --keep-content, --delete-content and --erase")
    if keep_content and now:
        raise typer.BadParameter("--now needs --delete-content or --erase")
    if not keep_content:
        prompts.require_yes("--erase" if erase else "--delete-content", yes=yes)
    with backend() as engine:
        account_id = _resolve(engine, id)
        with engine.database.connection() as conn:
            if not keep_content and not yes:
                items = account_disconnect.count_content(conn, account_id)
                prompts.confirm(f"Disconnect, and delete {counted(items, 'item')}?")
        if keep_content:
            account_disconnect.disconnect_account(engine, account_id)
            say("Disconnected. The credentials were deleted, and the content was kept.")
            return
        with busy("Deleting content …"):
            if now:
                account_erase.erase_account(engine, account_id, keeps_account=delete_content)
                waits = False
            else:
                waits = account_erase.hide_account(engine, account_id, keeps_account=delete_content)
        minutes = engine.settings.erase_after_minutes
    if waits:
        what = "content" if delete_content else "account"
        say(
            f"Disconnected. The credentials were deleted, and the content is hidden. The {what} is"
            f" deleted in {minutes:g} min. Until then, restore it: polling reconnect {account_id}"
        )
    elif delete_content:
        say("Disconnected. The credentials and the content were deleted.")
    else:
        say("Erased. The account and all its data were deleted.")


def _resolve(engine: Backend, text: str) -> Any:
    from core.service import lookup

    with engine.database.connection() as conn:
        return lookup.account_id(conn, text)
