"""Compare facts in the documentation with the code: commands, columns, metrics, terms, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from core import states
from core.cli.app import build
from core.cli.drain import drain
from core.cli.serve import CONNECTIONS
from core.db import clocks
from core.db.pool import MAX_IDLE_IN_TRANSACTION_SECONDS, MINIMUM_VERSION
from core.db.schema import metadata
from core.dispatcher import domain, loop
from core.dispatcher.maintenance import STAND_IN_TICKS
from core.error_catalog import ADVICE, CATALOG
from core.known_secrets import MIN_SECRET_CHARS
from core.ledger import leadership
from core.limits import budgets
from core.rest import metrics
from core.results import decisions, parking
from core.service.fleet.snapshot import Snapshot
from core.settings import Settings
from core.transport import queues
from core.web import session_cookie
from core.worker.instance_pool import IDLE_SECONDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), *ROOT.glob("plugins-*/README.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def source(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def page(name: str) -> str:
    """Return a page as one line, so that it does not matter where a sentence wraps."""
    return " ".join((DOCS / name).read_text("utf-8").split())


# --- commands

COMMAND = re.compile(r"(?:^|[|;&(]\s*|\bexec (?:-T )?api )(?:\w+=\S* )*polling(?: ([^|;&()\n]*)|$)")
COMMANDS = get_command(build())


def commands_named(text: str) -> Iterator[str]:
    """Yield the arguments of each `polling` command in inline code and in shell blocks."""
    prose = FENCE.sub("", text)
    for span in re.findall(r"`([^`]+)`", prose):
        yield from COMMAND.findall(" ".join(span.split()))
    for kind, block in FENCE.findall(text):
        if kind in ("", "sh", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from COMMAND.findall(re.sub(r"\s#.*|^\$ ", "", line))


def unknown(arguments: str) -> str | None:
    """Return the first word that is neither a command nor an option; None if all are known."""
    command: Any = COMMANDS
    is_value = False
    words: list[str] = re.findall(r'"[^"]*"|\'[^\']*\'|\S+', arguments)
    for word in words:
        children = getattr(command, "commands", {})
        if is_value:
            is_value = False
        elif word in children:
            command = children[word]
        elif word.startswith("--"):
            options = {
                name: option
                for option in command.params
                for name in (*option.opts, *option.secondary_opts)
            }
            if word not in options.keys() | {"--help"}:
                return word
            is_value = word != "--help" and not getattr(options[word], "is_flag", False)
        elif children and not (word.isupper() or word.startswith("{")):
            return word
    return None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_named_exist_with_their_options(path: Path) -> None:
    wrong = {
        f"polling {arguments}": word
        for arguments in commands_named(path.read_text("utf-8"))
        if (word := unknown(arguments)) is not None
    }
    assert not wrong


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("`polling tasks --state parked`", None),
        ("`polling tasks\nretry 17`", None),
        ("`polling tasks bury 17`", "bury"),
        ("```sh\nA=1 polling sync hello --wait  # polling no\n```", None),
        ("```sh\npolling sync hello --wit\n```", "--wit"),
        ("```\ndocker compose exec api polling doctors\n```", "doctors"),
        ("```sh\ncreateuser polling --login\n```", None),
    ],
)
def test_the_check_of_commands_notices(text: str, word: str | None) -> None:
    assert [unknown(arguments) for arguments in commands_named(text)] == (
        [] if "createuser" in text else [word]
    )


def test_commands_in_next_steps_exist_with_their_options() -> None:
    steps = [*ADVICE.values(), *(entry.steps for entry in CATALOG.values())]
    named = [
        arguments
        for step in steps
        for arguments in re.findall(r": polling ([^,;.)]+)", step.on("cli"))
    ]
    assert len(named) > 10
    assert not [arguments for arguments in named if unknown(arguments) is not None]


# --- anchors

ANCHOR = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_anchors_lead_to_headings(path: Path) -> None:
    links = [
        (path.parent / target if target else path, anchor)
        for target, anchor in ANCHOR.findall(path.read_text("utf-8"))
        if "://" not in target
    ]
    assert not [
        f"{target.name}#{anchor}"
        for target, anchor in links
        if anchor not in anchors(target.read_text("utf-8"))
    ]


# --- tables

COLUMN = re.compile(r"`(\w+)\.(\w+)`")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_columns_that_are_named_with_their_table_exist(path: Path) -> None:
    named = [
        (table, column)
        for table, column in COLUMN.findall(path.read_text("utf-8"))
        if table in metadata.tables and f"{table}.{column}" not in [*states.Act]
    ]
    assert not [pair for pair in named if pair[1] not in metadata.tables[pair[0]].columns]


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_the_reference_of_tables_lists_no_other_columns(table: str) -> None:
    """Rows name their columns in the first cell, and lists name them after the first colon."""
    reference = source("docs/reference/tables.md")
    section = re.split(r"\n(?=\*\*`|## )", reference.split(f"**`{table}`**", 1)[1])[0]
    first = section.split("\n\n", 1)[0].partition(":")[2]
    cells = "".join(re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE))
    listed = re.findall(r"`(\w+)`", cells or first)
    assert listed
    assert not [name for name in listed if name not in metadata.tables[table].columns]


# --- metrics

SUFFIXES = re.compile(r"_(total|bucket|sum|count|gsum|gcount)$")


def test_metrics_that_are_named_exist() -> None:
    snapshot = Snapshot([], [], [], [], [], [], [], [], [], [], [], 0, 0, 0.0, False, 0.0, 0, [])
    families = re.findall(r"^# TYPE (\w+)", metrics.render(snapshot), re.MULTILINE)
    names = {SUFFIXES.sub("", family) for family in families}
    named = {
        name
        for path in PAGES
        for span in re.findall(r"`([^`]+)`", FENCE.sub("", path.read_text("utf-8")))
        for name in re.findall(r"\bpolling_[a-z_]+\b", span)
    }
    named -= {session_cookie.NAME}
    assert len(named) > 10
    assert not {name for name in named if SUFFIXES.sub("", name) not in names}


# --- terms

TERMS = {
    *(
        "ledger",
        "fence",
        "epoch",
        "lease",
        "suspect",
        "snooze",
        "tombstone",
        "window",
        "run",
        "task",
    ),
    *("quarantine", "partition", "dispatch", "vault", "seal", "delete guard", "park", "allocation"),
    *("completion", "leadership", "problem details", "supervisor", "harness", "oracle", "soak"),
    *("budget", "refresh", "backfill", "task"),
}
"""Terms of this project and of its field that texts use without an explanation."""


def test_the_glossary_has_the_terms_and_every_value_of_a_state() -> None:
    page = re.sub(r"(?<!\n)\n(?!\n)", " ", source("docs/reference/glossary.md"))
    entries = dict(re.findall(r"^\*\*(.+?)\*\* (.+)$", page, re.MULTILINE))
    assert not TERMS - {name if name.isupper() else name.lower() for name in entries}
    for name, words in {
        "Account state": states.AccountState,
        "Account state reason": states.AccountStateReason,
        "Deletions": states.Deletions,
        "Lane": states.Lane,
        "Operation": states.Operation,
        "Run state": states.RunState,
        "Task state": states.TaskState,
        "Trigger": states.Trigger,
    }.items():
        assert re.findall(r"`([a-z]+)`", entries[name])[-len(words) :] == list(words), name


# --- numbers


def number(pattern: str, name: str) -> int:
    """Return a number that stands in the code without a name."""
    found = re.search(pattern, source(name))
    assert found, pattern
    return int(found[1])


SPARE = number(r"self\.database\.resize\(threads \+ (\d+)\)", "core/worker/process.py") + number(
    r"size=(\d+), timeout=STALE_SECONDS", "core/worker/admission.py"
)
OF_DISPATCHER = number(
    r"Database\(environment\.database_url, size=(\d+)\)", "core/dispatcher/loop.py"
)
FLEET = 4 * (8 + SPARE + OF_DISPATCHER) + CONNECTIONS
LEADS, VACANT = clocks.LEAD_SECONDS, leadership.VACANT_SECONDS
DAYS = Settings.model_fields["give_up_after_days"].default
PAUSE = decisions.MAX_DEFERRAL_SECONDS / 3_600

STATED = {
    "how-to/run-in-production.md": [
        f"| a worker process | threads + {SPARE}, so {8 + SPARE} with 8 threads",
        f"| a dispatcher: one for each worker command | {OF_DISPATCHER} |",
        f"| `polling serve` | {CONNECTIONS} |",
        f"use at most {FLEET} connections",
        f"another dispatcher leads after about {LEADS:g} seconds",
        f"a worker process starts one after about {LEADS + VACANT:g} seconds",
        f"with exit code 4 after {signature(drain).parameters['timeout'].default} seconds",
        f"it begins with that only after {STAND_IN_TICKS:g} times this interval",
    ],
    "how-to/use-your-own-servers.md": [
        f"sets {MAX_IDLE_IN_TRANSACTION_SECONDS} seconds for its own sessions",
        f"Use version {MINIMUM_VERSION // 10_000} or newer",
        f"Use Redis {'.'.join(map(str, queues.MINIMUM_VERSION))} or newer",
    ],
    "how-to/recover.md": [
        f"pauses that grow from one minute to {PAUSE:g} hours",
        f"If the task fails for {DAYS:g} days",
        f"the provider failed for {DAYS:g} days",
        f"{'three' if parking.MAX_CRASHES == 3 else parking.MAX_CRASHES} crashes;",
        "Every 2 seconds, the engine compares Redis with its records in PostgreSQL",
    ],
    "../SECURITY.md": [f"secrets of {MIN_SECRET_CHARS} or more characters"],
    "how-to/rotate-keys.md": [
        f"wait {'a minute' if decisions.KEY_SECONDS == 60 else decisions.KEY_SECONDS} before",
    ],
    "explanation/limits-and-fairness.md": [
        f"for up to {IDLE_SECONDS:g} seconds after a task",
        f"at least {decisions.MIN_SNOOZE_SECONDS:g} second and at most"
        f" {decisions.MAX_SNOOZE_SECONDS / 86_400:g} day",
        f"from {decisions.FIRST_BLIND_SNOOZE_SECONDS:g} seconds to"
        f" {decisions.MAX_DEFAULT_SNOOZE_SECONDS / 60:g} minutes",
        f"in {budgets.SLOTS} slots",
        f"{'three' if domain.WINDOW_PER_THREAD == 3 else domain.WINDOW_PER_THREAD} tasks for each",
        f"a {'quarter' if domain.WINDOW_SECONDS == 0.25 else domain.WINDOW_SECONDS} of a second",
        f"notices new work of an idle domain within {loop.WAKEUP_CHECK_SECONDS * 1000:g} ms",
    ],
}


@pytest.mark.parametrize("name", STATED)
def test_numbers_are_those_of_the_code(name: str) -> None:
    text = page(name)
    assert not [stated for stated in STATED[name] if stated not in text]
    assert "Job(2.0, self._resend," in source("core/dispatcher/maintenance.py")
