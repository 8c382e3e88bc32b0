"""Errors that only commands raise. Their next steps are for the command line."""

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
        "Choose one from the list of tokens",
        cli="List tokens: polling tokens list",
        rest="List tokens: GET /v1/tokens",
    ),
    "token-ambiguous": entry(
        422, "{text!r} matches several tokens", COMMAND_LINE, cli="Use more of the id"
    ),
    "session-not-found": entry(
        404,
        "{person} has no open session",
        COMMAND_LINE,
        cli="List the people with sessions: polling sessions list",
    ),
    "tasks-not-selected": entry(
        422,
        "name tasks, or select them with conditions, but not both",
        "Give at least one condition",
        cli="For example: polling tasks retry 17, or: polling tasks retry --account ID",
    ),
    "accounts-not-selected": entry(
        422, "no condition selects accounts", "Give at least one condition"
    ),
    "quota-without-user": entry(
        422,
        "--quota needs a user",
        COMMAND_LINE,
        cli="For example: polling users ann --quota runs=500",
    ),
    "quota-invalid": entry(
        422,
        "{text!r} is not a valid quota",
        COMMAND_LINE,
        cli="Give accounts, bytes or runs, and a number, none or default: --quota bytes=10GiB",
    ),
    "set-without-value": entry(
        422, "--set needs key=value", COMMAND_LINE, cli="For example: --set pages=3"
    ),
    "secret-on-command-line": entry(
        422,
        "secrets on the command line are refused, because other users can read them",
        COMMAND_LINE,
        cli=BY_FILE,
    ),
    "secret-in-config": entry(
        422,
        "{field!r} belongs to the credentials, which --set and --config do not accept",
        COMMAND_LINE,
        cli=BY_FILE,
    ),
    "config-field-unknown": entry(
        422,
        "config: {domain} has no field {field!r}; it has: {known}",
        COMMAND_LINE,
        cli="See its fields: polling integrations show {domain}",
    ),
    "option-empty": entry(
        422,
        "{option}: {source} is empty",
        COMMAND_LINE,
        cli="If another command writes it, such as jq, check whether that command failed",
    ),
    "option-not-json": entry(422, "{option} is not valid JSON", COMMAND_LINE, cli=OBJECT),
    "option-not-an-object": entry(422, "{option} is not a JSON object", COMMAND_LINE, cli=OBJECT),
    "option-file-unreadable": entry(
        422,
        "{option}: cannot read {path}: {detail}",
        COMMAND_LINE,
        cli="Choose a file that exists and is readable",
    ),
    "export-cursor-twice": entry(
        422,
        "--since and --cursor-file both name a cursor",
        COMMAND_LINE,
        cli="Use one of the two",
    ),
    "export-to-terminal": entry(
        422,
        "Parquet is binary, and the output is a terminal",
        COMMAND_LINE,
        cli="Write to a file: polling export --format parquet -o content.parquet",
    ),
    "export-files-missing": entry(
        500,
        "{files:,} files are not in the blob store; the export is complete without them",
        COMMAND_LINE,
        cli="Set POLLING_BLOB_URL to the value that the workers use",
    ),
    "output-unwritable": entry(
        422,
        "cannot write {path}: {detail}",
        COMMAND_LINE,
        cli="Choose a file in a directory that exists and is writable",
    ),
    "psql-missing": entry(
        500,
        "psql is not installed",
        COMMAND_LINE,
        cli=(
            "Install PostgreSQL's client, or run in a clone of the repository:"
            " pip install -e '.[embedded]'"
        ),
    ),
    "serve-packages-missing": entry(
        500,
        "the API's packages are not installed",
        COMMAND_LINE,
        cli="In a clone of the repository, run: pip install -e '.[serve]'",
    ),
    "plugin-directory-not-empty": entry(
        422, "{directory} is not empty", COMMAND_LINE, cli="Choose a new directory"
    ),
    "plugin-directory-unwritable": entry(
        422,
        "cannot write to {directory}: {detail}",
        COMMAND_LINE,
        cli="Choose another directory",
    ),
    "plugin-domain-invalid": entry(
        422,
        "{name!r} is not a valid domain: use a lower-case letter, then letters, digits or dashes",
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
        "cannot read {path!r}",
        COMMAND_LINE,
        cli="Try another directory: polling demo DIRECTORY",
    ),
    "demo-files-differ": entry(
        500,
        "{wrong} of {total} files differ from the stored content; {example!r} {difference}",
        COMMAND_LINE,
        cli="Read the workers' log: {log}",
    ),
    "demo-workers-ended": entry(
        503,
        "the workers exited with code {exit_code} ({last_words})",
        COMMAND_LINE,
        cli="Read the log: {log}",
    ),
    "demo-ftp-missing": entry(
        500,
        "the demo needs an FTP server",
        COMMAND_LINE,
        cli="In a clone of the repository, run: pip install -e '.[demo]'",
    ),
    "demo-ftp-failed": entry(
        503, "the demo's FTP server did not start", COMMAND_LINE, cli="Read its log: {log}"
    ),
    "demo-stalled": entry(
        503,
        "no progress for {seconds:.0f} s: {reason}",
        COMMAND_LINE,
        cli="Read the workers' log",
    ),
}
