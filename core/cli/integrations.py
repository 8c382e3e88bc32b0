"""Commands for the installed integrations: list, show, pause and resume them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.inputs import is_secret, properties
from core.cli.output import describe, dump, dump_all, say, stdout, table
from core.cli.session import backend, registry
from core.cli.types import Json
from core.errors import PollingError
from core.integration.limits import Limit, Rate
from core.service.formatting import counted, span

if TYPE_CHECKING:
    from pydantic import BaseModel

    from core.integration.base import Integration

app = typer.Typer()

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="The integration, such as ftp.")]


@app.callback(invoke_without_command=True)
def list_integrations(context: typer.Context, json: Json = False) -> None:
    """List installed integrations; show, pause or resume one.

    The list also contains plugins that failed to load, with their errors.

    \b
    Examples:
      polling integrations
      polling integrations show ftp
    """
    if context.invoked_subcommand is not None:
        return
    rows = list(_rows())
    if json:
        dump_all(rows)
    elif not rows:
        say("No integrations. How to install one: docs/how-to/install-plugins.md")
    else:
        cells = ((row["domain"] or "?", row["name"], row["version"], _status(row)) for row in rows)
        table(("DOMAIN", "NAME", "VERSION", "STATUS"), cells)


def _status(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"quarantined: {row['error']}"
    return "paused" if row["paused_at"] else "ok"


def _pauses() -> dict[str, Any]:
    """Return the pauses by domain; empty if PostgreSQL does not answer or has no tables yet."""
    from core.service.fleet import pauses

    try:
        with backend() as engine, engine.database.connection() as conn:
            return dict(pauses.lasting(conn))
    except PollingError:
        return {}


def _rows() -> Iterator[dict[str, Any]]:
    installed, paused = registry(), _pauses()
    for domain, integration in sorted(installed.integrations.items()):
        yield {
            "domain": domain,
            "name": integration.manifest.name,
            "distribution": installed.distributions[domain],
            "version": installed.versions[domain],
            "error": None,
            **_pause(paused.get(domain)),
        }
    for plugin in installed.quarantined:
        yield {
            "domain": ", ".join(plugin.domains) or None,
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": None,
            "error": plugin.error,
            **_pause(None),
        }


def _pause(pause: Any) -> dict[str, Any]:
    return {"paused_at": pause and pause.since, "paused_until": pause and pause.until}


@app.command("show")
def show(
    domain: Domain,
    json: Json = False,
) -> None:
    """Show an integration: its config and credential fields, its tasks and its limits.

    \b
    Example:
      polling integrations show ftp
    """
    installed = registry()
    integration = installed.get(domain)
    if json:
        dump(_document(integration, installed.versions[domain]))
        return
    manifest = integration.manifest
    about = {
        "domain": domain,
        "name": manifest.name,
        "version": installed.versions[domain],
        "docs": manifest.docs,
    }
    tasks = {
        "tasks": ", ".join(integration.task_specs),
        "limits": "; ".join(map(_limit, manifest.limits)),
    }
    describe(about | tasks)
    _print_fields("Config (--set, --config)", integration.config_model)
    _print_fields("Credentials (--credentials)", integration.credentials_model)


@app.command("pause")
def pause(
    domain: Domain,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End the pause at this time (2026-01-31T08:00, UTC) or after this duration (2h)."
            " Default: the pause lasts until you resume the integration.",
        ),
    ] = None,
) -> None:
    """Pause all accounts of an integration. Running tasks finish. No new task starts.

    \b
    Examples:
      polling integrations pause gmail
      polling integrations pause gmail --until 2h
    """
    from core.service import times
    from core.service.fleet import pauses

    with backend() as engine:
        made = pauses.pause(engine, domain, None if until is None else times.future(until))
    say(f"Paused {pauses.end_of(made)}. Resume it: polling integrations resume {domain}")


@app.command("resume")
def resume(domain: Domain) -> None:
    """Resume a paused integration. Its accounts become due, spread over their intervals.

    \b
    Example:
      polling integrations resume gmail
    """
    from core.service.fleet import pauses

    with backend() as engine:
        pauses.resume(engine, domain)
    say("Resumed. The next runs are spread over the interval of each account.")


def _limit(limit: Limit) -> str:
    scope = "in all" if limit.by == "integration" else f"for each {limit.by}"
    if isinstance(limit, Rate):
        return f"{limit.name}: {counted(limit.units, 'unit')} in {span(limit.per)} {scope}"
    return f"{limit.name}: {counted(limit.tasks, 'task')} at the same time {scope}"


def _document(integration: Integration, version: str | None) -> dict[str, Any]:
    manifest = integration.manifest
    return {
        "domain": manifest.domain,
        "name": manifest.name,
        "version": version,
        "docs": manifest.docs,
        "tasks": {name: dict(spec.cost) for name, spec in integration.task_specs.items()},
        "config": integration.config_model.model_json_schema(),
        "credentials": integration.credentials_model.model_json_schema(),
    }


def _print_fields(title: str, model: type[BaseModel]) -> None:
    stdout().print(f"\n{title}", style="bold")
    required = set(model.model_json_schema().get("required", ()))
    rows = []
    for name, field in properties(model).items():
        default = "" if is_secret(field) else field.get("default", "")
        default = "required" if name in required else default
        kind = "secret" if is_secret(field) else field.get("type", "")
        if (most := field.get("maximum")) is not None:
            kind += f" ≤ {most:g}"
        meaning = field.get("description", "")
        if isinstance(default, list) and default:
            meaning = f"{meaning.rstrip('.')}. Default: {', '.join(map(str, default))}"
            default = f"{len(default)} values"
        rows.append((f"  {name}", kind, default, meaning))
    if rows:
        table(("  FIELD", "TYPE", "DEFAULT", "MEANING"), rows, wraps=True)
    else:
        say("  none")
