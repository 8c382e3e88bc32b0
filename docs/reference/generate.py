"""Write the generated reference pages: `python docs/reference/generate.py`.

`api.md` comes from the OpenAPI document, and `errors.md` from the catalogue of errors. `states.md`
and the glossary's entries on states come from `core/states.py`. Tests compare the pages with their
sources.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core import states

TARGET = Path(__file__).with_name("api.md")
ERRORS = Path(__file__).with_name("errors.md")
STATES = Path(__file__).with_name("states.md")
GLOSSARY = Path(__file__).with_name("glossary.md")
Json = Mapping[str, Any]

INTRODUCTION = """\
# REST API

Generated from the OpenAPI document by `docs/reference/generate.py`. The server publishes that
document at `/openapi.json`. For an introduction, see [use the API](../how-to/use-the-api.md).

The problems 400, 401, 413, 422, 429 and 503 are not listed for each route.
"""
GENERAL = {"400", "401", "413", "422", "429", "503"}
"""Problems that the page does not repeat for each route."""


def render(document: Json) -> str:
    """Return the page `api.md`."""
    parts = [
        INTRODUCTION,
        document["info"]["description"].strip(),
        *_routes(document),
        "\n## Schemas",
        *_schemas(document),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _routes(document: Json) -> Iterator[str]:
    tag = None
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != tag:
                tag = operation["tags"][0]
                yield f"## {tag.capitalize()}"
            yield f"### `{method.upper()} {path}`"
            yield _unwrapped(operation["description"])
            yield from _parameters(operation)
            yield from _body(operation)
            yield _answers(operation)


def _parameters(operation: Json) -> Iterator[str]:
    rows = [
        f"| `{one['name']}` | {one['in']}{', required' if one.get('required') else ''} |"
        f" {_type(one['schema'])} | {_about(one)} |"
        for one in operation.get("parameters", ())
    ]
    if rows:
        yield "\n".join(["| parameter | in | type | description |", "|---|---|---|---|", *rows])


def _body(operation: Json) -> Iterator[str]:
    for media in operation.get("requestBody", {}).get("content", {}).values():
        yield f"Body: {_type(media['schema'])}"


def _answers(operation: Json) -> str:
    lines = []
    for status, answer in sorted(operation["responses"].items()):
        if status in GENERAL:
            continue
        schemas = [
            media["schema"] for media in answer.get("content", {}).values() if "schema" in media
        ]
        words = [answer["description"].rstrip(".")]
        if schemas and not status.startswith(("4", "5")):
            own = words[0] != "Successful Response"
            words = [_type(schemas[0]), *(words if own else [])]
        lines.append(f"* {status}: {'. '.join(words)}.")
    return "\n".join(["Responses:", "", *lines])


def _schemas(document: Json) -> Iterator[str]:
    for name, schema in sorted(document["components"]["schemas"].items()):
        if name.startswith(("HTTPValidationError", "ValidationError", "Page_")):
            continue
        yield f"### {name}"
        if "description" in schema:
            yield _unwrapped(schema["description"])
        if "enum" in schema:
            yield _type(schema)
        required, mark = set(schema.get("required", ())), " (required)"
        rows = [
            f"| `{field}`{mark if field in required else ''} | {_type(one)} | {_about(one)} |"
            for field, one in schema.get("properties", {}).items()
        ]
        if rows:
            yield "\n".join(["| field | type | description |", "|---|---|---|", *rows])


def _about(one: Json) -> str:
    text = _unwrapped(one.get("description", ""))
    default = one.get("schema", one).get("default")
    words = (
        f"Default: `{str(default).lower() if isinstance(default, bool) else default}`."
        if default is not None
        else ""
    )
    return " ".join(filter(None, [f"{text.rstrip('.')}." if text else "", words])).replace(
        "|", "\\|"
    )


def _type(schema: Json) -> str:
    if "$ref" in schema:
        return _named(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    kind = schema.get("format") or schema.get("type") or "any JSON"
    return {"date-time": "time", "string": "text", "integer": "number", "object": "object"}.get(
        kind, str(kind)
    )


def _named(name: str) -> str:
    page = re.fullmatch(r"Page_(\w+)_", name)
    if page:
        return f"page (`items`, `cursor`) of {_named(page[1])}"
    return f"[{name}](#{name.lower()})"


def _unwrapped(text: str) -> str:
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text.strip())


ABOUT_ERRORS = """\
# Errors

Generated from the catalogue `core/error_catalog` by `docs/reference/generate.py`.

An error has a code, which stays the same, a message, and a next step. The command line prints the
message and the next step to standard error. REST answers with [problem
details](https://www.rfc-editor.org/rfc/rfc9457): `code`, `status`, `detail` and `next_step`. The
dashboard shows the message and the next step on the page. Names in braces are fields of the error.
"""


def render_errors() -> str:
    """The complete reference of errors."""
    from core.error_catalog import PARTS

    parts = [ABOUT_ERRORS.strip("\n")]
    for name, entries in PARTS.items():
        parts.append(f"## {name}")
        for code, entry in sorted(entries.items()):
            parts.append(f"### {code}")
            parts.append(f"{entry.status}: {_text(entry.message)}")
            parts.append("\n".join(_steps(entry.steps)))
    return "\n\n".join(parts) + "\n"


def _steps(steps: Any) -> Iterator[str]:
    words = {"Command line": "cli", "REST": "rest", "Dashboard": "dashboard"}
    for label, surface in words.items():
        yield f"- {label}: {_text(steps.on(surface))}"


def _text(template: str) -> str:
    """A template as a reader sees it: `{path!r}` is `{path}`."""
    names = re.sub(r"(?<!\{)\{(\w+)[^{}]*\}", r"{\1}", template)
    return names.replace("{{", "{").replace("}}", "}").replace("<", "&lt;")


MACHINES = {"Accounts": states.ACCOUNTS, "Runs": states.RUNS, "Tasks": states.TASKS}
WORDS: Mapping[str, type[states.Word]] = {
    "Account state": states.AccountState,
    "Account state reason": states.AccountStateReason,
    "Deletions": states.Deletions,
    "Hold source": states.HoldSource,
    "Held state": states.HeldState,
    "Lane": states.Lane,
    "Operation": states.Operation,
    "Run state": states.RunState,
    "Task state": states.TaskState,
    "Trigger": states.Trigger,
    "Wait cause": states.WaitCause,
    "Subscription kind": states.SubscriptionKind,
    "Subscription channel": states.SubscriptionChannel,
    "Subscription state": states.SubscriptionState,
    "Delivery state": states.DeliveryState,
}
"""The generated entries of the glossary."""
ABOUT_STATES = """\
Generated from `core/states.py` by `docs/reference/generate.py`. Planned values and transitions are
reserved: no statement writes them yet. *Open* states have work to do. A *final* state does not
change.
"""


def render_states() -> str:
    """Return the page of the states: a diagram for each machine, then the other words."""
    drawn = {machine.states for machine in MACHINES.values()}
    parts = ["# States", textwrap.fill(ABOUT_STATES, 100)]
    for title, machine in MACHINES.items():
        parts += [f"## {title}", inspect.getdoc(machine.states) or "", _diagram(machine)]
        parts.append(_table(machine.states, machine))
    for title, words in WORDS.items():
        if words not in drawn:
            parts += [f"## {title}", inspect.getdoc(words) or "", _table(words)]
    return "\n\n".join(parts) + "\n"


def _diagram(machine: states.Machine[Any]) -> str:
    lines = [
        f"    {change.source or '[*]'} --> {change.target}: {change.event}"
        + (" (planned)" if change.planned else "")
        for change in machine.transitions
    ]
    lines += [f"    {state} --> [*]" for state in machine.final]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def _table(words: type[states.Word], machine: states.Machine[Any] | None = None) -> str:
    rows = ["| value | meaning |", "|---|---|"]
    for word in words:
        notes = ["Planned."] if word.planned else []
        notes += ["Open."] if machine is not None and word in machine.open else []
        notes += ["Final."] if machine is not None and word in machine.final else []
        rows.append(f"| `{word}` | {' '.join([word.meaning, *notes])} |")
    return "\n".join(rows)


def render_glossary(text: str) -> str:
    """Return the glossary with its generated entries replaced; the other entries stay."""
    for title, words in WORDS.items():
        about = " ".join((inspect.getdoc(words) or "").split(": `")[0].split()).rstrip(".")
        values = ", ".join(f"`{word}`" for word in words)
        entry = textwrap.fill(f"**{title}** {about}: {values}. See [States](states.md).", 100)
        text = re.sub(
            rf"^\*\*{title}\*\* .*?(?=\n\n|\n?\Z)", entry, text, flags=re.MULTILINE | re.DOTALL
        )
    return text


def document() -> Json:
    """The OpenAPI document of the application; nothing is connected for it."""
    from typing import cast

    from core.rest.app import build
    from core.service.backend import Backend

    return build(cast("Backend", None)).openapi()


if __name__ == "__main__":
    TARGET.write_text(render(document()), "utf-8")
    ERRORS.write_text(render_errors(), "utf-8")
    STATES.write_text(render_states(), "utf-8")
    GLOSSARY.write_text(render_glossary(GLOSSARY.read_text("utf-8")), "utf-8")
