"""The export of content as a file, or to standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.cli.output import note
from core.cli.session import backend
from core.errors import InvalidInput, PollingError
from core.service.content.export_formats import Format

if TYPE_CHECKING:
    from core.db.rows import Row
    from core.service.backend import Backend
    from core.service.content.export import Export, Files

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to this file. It appears when it is complete. Default: standard output.",
    ),
]
FilesFolder = Annotated[
    Path | None,
    typer.Option(
        "--files",
        metavar="DIRECTORY",
        help="Also store the bytes of items that are not text, such as attachments, in this"
        " directory. Each file has the name of its SHA-256.",
    ),
]


def export(
    format: Annotated[Format, typer.Option(help="The format of the export.")] = Format.JSONL,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR",
            help="Export only what changed after this cursor. Each export prints the cursor to use"
            " for the next one. Default: everything.",
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Export only this account: its name, its UUID, or a unique prefix of the UUID.",
        ),
    ] = None,
    output: Output = None,
    files: FilesFolder = None,
    cursor_file: Annotated[
        Path | None,
        typer.Option(
            "--cursor-file",
            metavar="FILE",
            help="Continue after the cursor in this file, and store the next cursor there. If"
            " the file does not exist yet, the export has everything.",
        ),
    ] = None,
) -> None:
    """Export content as CSV, JSON lines or Parquet.

    Each record is an item with its latest state and its text. In the record of a deleted item, the
    field `change` is `deleted`.

    \b
    Examples:
      polling export --format jsonl > content.jsonl
      polling export --format parquet -o content.parquet --files attachments
      polling export --format csv -o new.csv --cursor-file export.cursor
    """
    if since is not None and cursor_file is not None:
        raise InvalidInput("export-cursor-twice")
    if output is None and format is Format.PARQUET and sys.stdout.isatty():
        raise InvalidInput("export-to-terminal")
    if cursor_file is not None:
        since = _cursor(cursor_file)
    from core.service import lookup
    from core.service.content import export as content_export

    with backend() as engine:
        with engine.database.connection() as conn:
            account_id = None if account is None else lookup.account_id(conn, account)
            wanted = content_export.begin(conn, after=since, account=account_id)
        folder = None if files is None else content_export.Files(engine, files)
        records = _write(engine, wanted, format, output, folder)
    note(f"{records:,} {'record' if records == 1 else 'records'} exported.")
    if folder is not None and folder.missing:
        raise PollingError("export-files-missing", files=folder.missing)
    if cursor_file is None:
        note(f"For later changes only, repeat the command with --since {wanted.until}")
    else:
        _replace(cursor_file, [wanted.until.encode() + b"\n"])


def _write(
    engine: Backend, wanted: Export, format: Format, output: Path | None, folder: Files | None
) -> int:
    """Write the export, and return the number of its records."""
    from core.service.authorization import LOCAL_OPERATOR
    from core.service.content.export import batches
    from core.service.content.export_formats import encoded

    records = 0

    def counted() -> Iterator[list[Row]]:
        nonlocal records
        for batch in batches(
            engine, LOCAL_OPERATOR, wanted, keep=None if folder is None else folder.keep
        ):
            records += len(batch)
            yield batch

    chunks = encoded(format, counted())
    if output is None:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    else:
        _replace(output, chunks)
    return records


def _cursor(path: Path) -> str | None:
    """Return the cursor in a file; None if the file does not exist."""
    try:
        return path.read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "option-file-unreadable", option="--cursor-file", path=path, detail=_reason(error)
        ) from None


def _replace(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that replaces an earlier one when it is complete.

    A pipe or a device, such as `/dev/null`, is written to and stays.
    """
    replaces = path.is_file() or not path.exists()
    part = path.with_name(f".{path.name}.part") if replaces else path
    try:
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        if replaces:
            part.replace(path)
    except OSError as error:
        raise InvalidInput("output-unwritable", path=path, detail=_reason(error)) from None
    finally:
        if replaces:
            part.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not text"
