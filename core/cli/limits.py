"""The command limits: the limits of providers, their use, and the accounts that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from core.cli.output import dump_all, say, table
from core.cli.session import backend
from core.cli.types import Json
from core.field_problems import first_problem
from core.service.formatting import ago, counted, number
from core.settings import LimitOverride

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.service.fleet.limits import LimitUse

app = typer.Typer()

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="The integration, such as gmail.")]
Name = Annotated[str, typer.Argument(metavar="LIMIT", help="The limit's name.")]
Figures = Annotated[
    list[str],
    typer.Argument(
        metavar="FIGURE=NUMBER",
        help="A new figure: units, per (seconds) or backfill_share of a rate; tasks of a"
        " concurrency limit.",
    ),
]


@app.callback(invoke_without_command=True)
def list_limits(context: typer.Context, json: Json = False) -> None:
    """List the limits of integrations: how much is used, how much is left, and who waits.

    A limit without accounts in progress has no use. LEFT and WAITING are those of each account, of
    each group of accounts, or of the integration.

    \b
    Examples:
      polling limits
      polling limits set gmail quota units=12000
      polling limits reset gmail quota
    """
    if context.invoked_subcommand is not None:
        return
    from core.service.fleet import limits

    with backend() as engine, engine.database.connection() as conn:
        found = limits.in_use(engine, conn)
    if json:
        dump_all(map(_json, found))
    elif not found:
        say("No limits.")
    else:
        columns = ("INTEGRATION", "LIMIT", "ALLOWED", "FOR", "USED", "LEFT", "MORE", "WAITING")
        table(columns, [row for use in found for row in _rows(use)], wide="WAITING")


@app.command("set")
def set_figures(domain: Domain, name: Name, figures: Figures) -> None:
    """Change figures of a limit. The fleet applies them within seconds, without a restart.

    They replace those of POLLING_LIMITS until you reset them.

    \b
    Example:
      polling limits set gmail quota units=12000 per=60
    """
    from core.service.fleet import limits

    given = dict(figure.partition("=")[::2] for figure in figures)
    try:
        override = LimitOverride.model_validate(given)
    except ValidationError as error:
        problem = first_problem(error)
        raise typer.BadParameter(f"{problem.place}: {problem.message}") from None
    with backend() as engine:
        use = limits.change(engine, domain, name, override)
        engine.wake()
    say(f"The limit {name} of {domain} is now {use.figures}.")


@app.command("reset")
def reset_figures(domain: Domain, name: Name) -> None:
    """Restore the figures of POLLING_LIMITS, or the figures of the plugin.

    \b
    Example:
      polling limits reset gmail quota
    """
    from core.service.fleet import limits

    with backend() as engine:
        use = limits.reset(engine, domain, name)
        engine.wake()
    say(f"The limit {name} of {domain} is {use.figures} again.")


def _rows(use: LimitUse) -> Iterator[tuple[object, ...]]:
    start = (use.domain, use.limit.name, use.figures + ("*" if use.is_changed else ""))
    if not use.budgets:
        yield (*start, use.limit.by, "", "", "", "")
    for budget in use.budgets:
        names = ", ".join(budget.waiting.values())
        more = budget.waiting_accounts - len(budget.waiting)
        yield (
            *start,
            budget.key,
            number(budget.used),
            number(budget.left),
            ago(budget.more_at) if budget.more_at else "",
            f"{names} and {counted(more, 'other')}" if more else names,
        )


def _json(use: LimitUse) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "integration_domain": use.domain,
        **asdict(use.limit),
        "is_changed": use.is_changed,
        "budgets": [asdict(budget) for budget in use.budgets],
    }
