"""Commands for the installed integrations: list them, and show one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli.inputs import is_secret, properties
from core.cli.output import describe, dump, dump_all, say, stdout, table
from core.cli.session import registry
from core.cli.types import Json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from core.integration.base import Integration

app = typer.Typer()


@app.callback(invoke_without_command=True)
def list_integrations(context: typer.Context, json: Json = False) -> None:
    """List installed integrations, or show one.

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
        say("No integrations. Install one: pip install integration-polling-hello-world")
    else:
        cells = ((row["domain"], row["name"], row["version"], row["error"] or "ok") for row in rows)
        table(("DOMAIN", "NAME", "VERSION", "STATUS"), cells)


def _rows() -> Iterator[dict[str, Any]]:
    installed = registry()
    for domain, integration in sorted(installed.integrations.items()):
        yield {
            "domain": domain,
            "name": integration.manifest.name,
            "version": installed.versions[domain],
            "error": None,
        }
    for plugin in installed.quarantined:
        yield {
            "domain": plugin.name,
            "name": plugin.distribution,
            "version": None,
            "error": plugin.error,
        }


@app.command("show")
def show(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="The integration's domain.")],
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
        "limits": ", ".join(map(str, manifest.limits)),
    }
    describe(about | tasks)
    _print_fields("Config (--set, --config)", integration.config_model)
    _print_fields("Credentials (--credentials)", integration.credentials_model)


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
        default = (
            "required"
            if name in required
            else "hidden"
            if is_secret(field)
            else field.get("default", "")
        )
        kind = "secret" if is_secret(field) else field.get("type", "")
        rows.append((f"  {name}", kind, default, field.get("description", "")))
    if rows:
        table(("  FIELD", "TYPE", "DEFAULT", "MEANING"), rows)
    else:
        say("  none")
