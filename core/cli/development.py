"""Commands for plugin authors: new and dry-run."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.connect import collect_inputs
from core.cli.output import dump, fail, note, say, table
from core.cli.session import busy, registry
from core.cli.types import Config, Credentials, Json, Sets
from core.service.formatting import size
from core.states import RunState

if TYPE_CHECKING:
    from core.testing import Harness, SyncResult

CODES = {RunState.SUCCEEDED: 0, RunState.FAILED: 1, RunState.PARTIAL: 3}


def new(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIRECTORY", help="The new directory."),
    ],
    domain: Annotated[
        str | None, typer.Option(help="The integration's domain. Default: the directory's name.")
    ] = None,
) -> None:
    """Create a small plugin that already works: a Python package with tests.

    \b
    Example:
      polling new my-crm && cd my-crm && pip install -e . && pytest
    """
    from core.service.scaffold import scaffold

    plugin = scaffold(directory, domain, ("polling dry-run", "polling connect"))
    say(f"Created {directory} with the integration {plugin.domain}.")
    path = shlex.quote(str(directory))
    say(f"Next: pip install -e {path} && polling dry-run {plugin.domain}")
    say(f"Run its tests: pytest {path}")


def dry_run(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="The integration, such as ftp.")],
    set_: Sets = None,
    config: Config = None,
    credentials: Credentials = None,
    sample: Annotated[int, typer.Option(min=0, max=100_000, help="Number of items to show.")] = 10,
    max_tasks: Annotated[
        int,
        typer.Option(
            min=1,
            max=10_000_000,
            help="Maximum number of tasks. A task that would exceed it fails.",
        ),
    ] = 1_000,
    json: Json = False,
) -> None:
    """Run an integration in this process and store nothing.

    The command needs neither PostgreSQL nor Redis. It ends when all tasks are done.

    \b
    Examples:
      polling dry-run hello-world --set pages=2
      polling dry-run ftp --config @ftp.json --credentials @login.json
    """
    from core.known_secrets import KNOWN, secrets_of
    from core.service.accounts.validation import config_of, credentials_of
    from core.testing import Harness

    integration = registry().get(domain)
    values, secrets = collect_inputs(integration, set_ or [], config, credentials)
    valid_config, valid_credentials = (
        config_of(integration, values),
        credentials_of(integration, secrets),
    )
    with (
        KNOWN.scope(secrets_of(valid_credentials)),
        busy(f"Running {domain} …"),
        Harness(integration, valid_config, valid_credentials, max_tasks=max_tasks) as harness,
    ):
        result = harness.sync()
        _print_items(harness, sample, json)
        _print_result(harness, result, json)
    raise typer.Exit(CODES[result.state])


def _print_items(harness: Harness, sample: int, json: bool) -> None:
    items = itertools.islice(harness.content.values(), None if json else sample)
    if json:
        for item in items:
            fields = (
                "kind",
                "parent",
                "name",
                "timestamp",
                "content_type",
                "size",
                "hash",
                "fingerprint",
                "metadata",
            )
            dump({"external_id": item.id} | {name: getattr(item, name) for name in fields})
        return
    cells: list[tuple[Any, ...]] = [
        (item.kind, size(item.size), item.name or "", item.id) for item in items
    ]
    if cells:
        table(("KIND", "SIZE", "NAME", "EXTERNAL ID"), cells)


def _print_result(harness: Harness, result: SyncResult, json: bool) -> None:
    from core.accounts.redaction import error_text, redactor

    redact = redactor(harness.credentials)
    tell = note if json else say
    tell(
        f"{result.state}: {result.tasks_done} tasks done, {result.tasks_parked} parked,"
        f" {len(result.deferred)} deferred;"
        f" {len(harness.content)} items"
    )
    if result.error is not None:
        fail(error_text(result.error, redact), "The account would stop until someone fixes this")
    for deferred in result.deferred[:5]:
        note(f"{deferred.task.type} was deferred: {error_text(deferred.error, redact)}")
    for parked in result.parked[:5]:
        fail(f"{parked.task.type} was parked: {error_text(parked.error, redact)}")
