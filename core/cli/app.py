"""The list of commands, and the heading of the help under which each appears."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from core.cli import (
    accounts,
    audit,
    completion,
    connect,
    content,
    deletions,
    development,
    doctor,
    drain,
    export,
    integrations,
    keys,
    limits,
    organizations,
    processes,
    runs,
    serve,
    servers,
    sessions,
    subscriptions,
    sync,
    tasks,
    tokens,
    users,
)

START, ACCOUNTS, WORK, OPERATIONS, PLUGINS = (
    "Get started",
    "Accounts",
    "Runs and content",
    "Operations",
    "Plugins",
)

FORWARDED = {"ignore_unknown_options": True, "allow_extra_args": True}
"""The settings of a command that passes unknown options on to another program."""

WORDS = {"user": "user-id", "status": "state"}
"""Words that people type for an option whose documented name is another."""

ABOUT = """Copy people's mail, messages and files from other services into PostgreSQL.

To try it, start the engine in one terminal and connect an account in another:

\b
  polling up
  polling connect hello-world --name hello
  polling sync hello --wait
  polling content --account hello

Without DATABASE_URL, the commands share one embedded PostgreSQL, and start it if it does not run.
Without REDIS_URL, they share an embedded Valkey, a server that speaks the protocol of Redis.
"""


def build() -> typer.Typer:
    """Return the application with all commands."""
    app = typer.Typer(
        help=_unwrapped(ABOUT),
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    _start(app)
    _accounts(app)
    _work(app)
    _operations(app)
    app.add_typer(integrations.app, name="integrations", rich_help_panel=PLUGINS)
    app.command("new", rich_help_panel=PLUGINS)(development.new)
    app.command("dry-run", rich_help_panel=PLUGINS)(development.dry_run)
    _unwrap_help(app)
    return app


def command() -> Any:
    """Return the command that parses the command line."""
    from typer.main import get_command

    completion.answer_shell()
    root = get_command(build())
    _complete(root)
    return root


def _complete(command: Any) -> None:
    """Accept `-h` and `WORDS`, refuse empty words, and show flags without a type in the help."""
    command.context_settings["help_option_names"] = ["-h", "--help"]
    command.context_settings["token_normalize_func"] = _documented
    for parameter in command.get_params(
        command.make_context("polling", [], resilient_parsing=True)
    ):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.callback is None:
            parameter.callback = _not_empty
    for subcommand in getattr(command, "commands", {}).values():
        _complete(subcommand)


def _not_empty(context: Any, parameter: Any, value: Any) -> Any:
    """Refuse an empty word, as from an unset variable of a shell: it could mean anything."""
    words = value if isinstance(value, list | tuple) else [value]
    if "" in words and value != parameter.default:
        raise typer.BadParameter("it is empty", ctx=context, param=parameter)
    return value


def _documented(word: str) -> str:
    return WORDS.get(word, word)


def _unwrap_help(app: typer.Typer) -> None:
    """Unwrap the help texts of all commands and groups."""
    for command in app.registered_commands:
        command.help = _unwrapped(command.help or inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            listing = group.typer_instance.registered_callback
            if listing is not None:
                listing.help = _unwrapped(inspect.getdoc(listing.callback) or "")
            _unwrap_help(group.typer_instance)


def _unwrapped(text: str) -> str:
    """Join the lines of each paragraph of a help text, so that they wrap at any width.

    Typer keeps the line breaks of a docstring. Paragraphs that begin with `\\b` keep theirs.
    """
    return "\n\n".join(
        paragraph if paragraph.startswith("\b") else " ".join(paragraph.split())
        for paragraph in inspect.cleandoc(text).split("\n\n")
    )


def _start(app: typer.Typer) -> None:
    app.command("up", rich_help_panel=START)(processes.up)
    if find_spec("core.demo") is not None:
        app.command("demo", rich_help_panel=START)(processes.demo)
    app.command("worker", rich_help_panel=START, context_settings=FORWARDED)(processes.worker)
    app.command("scheduler", rich_help_panel=START, context_settings=FORWARDED)(processes.scheduler)
    app.command("serve", rich_help_panel=START)(serve.serve)
    app.command("doctor", rich_help_panel=START)(doctor.doctor)
    app.command("completion", rich_help_panel=START)(completion.completion)


def _accounts(app: typer.Typer) -> None:
    app.command("connect", rich_help_panel=ACCOUNTS)(connect.connect)
    app.add_typer(accounts.app, name="accounts", rich_help_panel=ACCOUNTS)
    app.command("check", rich_help_panel=ACCOUNTS)(accounts.check)
    app.command("pause", rich_help_panel=ACCOUNTS)(accounts.pause)
    app.command("resume", rich_help_panel=ACCOUNTS)(accounts.resume)
    app.command("reconnect", rich_help_panel=ACCOUNTS)(connect.reconnect)
    app.command("config", rich_help_panel=ACCOUNTS)(connect.config)
    app.command("disconnect", rich_help_panel=ACCOUNTS)(accounts.disconnect)
    app.add_typer(organizations.app, name="organizations", rich_help_panel=ACCOUNTS)


def _work(app: typer.Typer) -> None:
    app.command("sync", rich_help_panel=WORK)(sync.sync)
    app.command("resync", rich_help_panel=WORK)(sync.resync)
    app.command("reread", rich_help_panel=WORK)(sync.reread)
    app.add_typer(runs.app, name="runs", rich_help_panel=WORK)
    app.add_typer(tasks.app, name="tasks", rich_help_panel=WORK)
    app.add_typer(deletions.app, name="deletions", rich_help_panel=WORK)
    app.add_typer(content.app, name="content", rich_help_panel=WORK)
    app.command("export", rich_help_panel=WORK)(export.export)
    app.add_typer(subscriptions.app, name="subscriptions", rich_help_panel=WORK)


def _operations(app: typer.Typer) -> None:
    app.command("migrate", rich_help_panel=OPERATIONS)(servers.migrate)
    app.command("env", rich_help_panel=OPERATIONS)(servers.env)
    app.command("psql", rich_help_panel=OPERATIONS, context_settings=FORWARDED)(servers.psql)
    app.add_typer(keys.app, name="keys", rich_help_panel=OPERATIONS)
    app.add_typer(tokens.app, name="tokens", rich_help_panel=OPERATIONS)
    app.add_typer(sessions.app, name="sessions", rich_help_panel=OPERATIONS)
    app.command("users", rich_help_panel=OPERATIONS)(users.users)
    app.add_typer(limits.app, name="limits", rich_help_panel=OPERATIONS)
    app.command("audit", rich_help_panel=OPERATIONS)(audit.audit)
    app.command("drain", rich_help_panel=OPERATIONS)(drain.drain)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        from core.cli.output import say

        say(f"integration-polling {version('integration-polling')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
    ),
]


def _options(version: Version = False) -> None:
    """Declare the options of `polling` itself; their callbacks do the work."""
