"""Errors that only commands raise. Their next step is worded for the command line alone."""

from __future__ import annotations

from core.error_catalog.entry import Catalog, entry

COMMAND_LINE = "Use the command line"
"""The next step on the other surfaces, which never show these errors."""
BY_FILE = "Give them with --credentials @FILE, or - for standard input"
OBJECT = 'Give an object, such as {{"key": "value"}}'

ENTRIES: Catalog = {
    "token-not-found": entry(
        404, "token {token} not found", COMMAND_LINE, cli="List tokens: polling tokens list"
    ),
    "token-not-valid": entry(
        404,
        "token {token} does not exist, or is already revoked",
        COMMAND_LINE,
        cli="List tokens: polling tokens list",
    ),
    "token-ambiguous": entry(
        422, "{text!r} matches several tokens", COMMAND_LINE, cli="Use more of the id"
    ),
    "set-without-value": entry(
        422, "--set takes key=value", COMMAND_LINE, cli="For example: --set pages=3"
    ),
    "secret-on-command-line": entry(
        422,
        "secrets do not belong on the command line, where others can read them",
        COMMAND_LINE,
        cli=BY_FILE,
    ),
    "secret-in-config": entry(
        422,
        "{field!r} belongs to the credentials, which --set and --config do not take",
        COMMAND_LINE,
        cli=BY_FILE,
    ),
    "config-field-unknown": entry(
        422,
        "config: {domain} has no field {field!r}; it has: {known}",
        COMMAND_LINE,
        cli="See: polling integrations show {domain}",
    ),
    "option-not-json": entry(422, "{option} is not valid JSON", COMMAND_LINE, cli=OBJECT),
    "option-not-an-object": entry(422, "{option} is not a JSON object", COMMAND_LINE, cli=OBJECT),
    "option-file-unreadable": entry(
        422,
        "{option}: {path} cannot be read: {detail}",
        COMMAND_LINE,
        cli="Name a file that exists",
    ),
    "psql-missing": entry(
        500,
        "psql is not installed",
        COMMAND_LINE,
        cli="Install PostgreSQL's client, or: pip install 'integration-polling[embedded]'",
    ),
    "serve-packages-missing": entry(
        500,
        "the API's packages are not installed",
        COMMAND_LINE,
        cli="Run: pip install 'integration-polling[serve]'",
    ),
    "plugin-directory-not-empty": entry(
        422, "{directory} is not empty", COMMAND_LINE, cli="Name a new directory"
    ),
    "plugin-directory-unwritable": entry(
        422,
        "{directory} cannot be written: {detail}",
        COMMAND_LINE,
        cli="Name another directory",
    ),
    "plugin-domain-invalid": entry(
        422,
        "{name!r} cannot be a domain: use lower-case letters, digits and dashes, a letter first",
        COMMAND_LINE,
        cli="Choose one: polling new DIRECTORY --domain my-crm",
    ),
    "demo-not-a-directory": entry(
        422,
        "{directory} is not a directory",
        COMMAND_LINE,
        cli="Try: polling demo /usr/share/doc",
    ),
    "demo-file-unreadable": entry(
        422,
        "{path!r} cannot be read",
        COMMAND_LINE,
        cli="Try another directory: polling demo DIRECTORY",
    ),
    "demo-files-differ": entry(
        500,
        "{wrong} of {total} files differ from what was kept; {example!r} {difference}",
        COMMAND_LINE,
        cli="Read the workers' log: {log}",
    ),
    "demo-workers-ended": entry(
        503,
        "the workers ended with exit code {exit_code} ({last_words})",
        COMMAND_LINE,
        cli="Read the log: {log}",
    ),
    "demo-ftp-missing": entry(
        500,
        "the demo needs an FTP server",
        COMMAND_LINE,
        cli="Run: pip install 'integration-polling[demo]'",
    ),
    "demo-ftp-failed": entry(
        503, "the FTP server of the demo does not start", COMMAND_LINE, cli="Read its log: {log}"
    ),
    "demo-stalled": entry(
        503,
        "nothing has moved for {seconds:.0f} s: {reason}",
        COMMAND_LINE,
        cli="Read the workers' log",
    ),
}
