"""The text of documents: PDF, Office, OpenDocument and RTF files, HTML, mail and plain text.

Plain text, HTML and mail are read in the process, by readers that bound their own work. Other
formats are read in a child process, `python -m core.search.extraction FORMAT`. Its memory and time
are bounded, it writes no file, opens no connection, and starts no process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Protocol
from xml.etree.ElementTree import ParseError, XMLParser

from core import mail
from core.mail.budget import Budget
from core.mail.rtf import text_of_rtf

MAX_DOCUMENT_BYTES = 64 << 20
"""The largest document whose text is extracted."""

MAX_PLAIN_BYTES = 400_000
"""The bytes of a plain text that are read: enough for all searchable characters."""

MAX_EXTRACTED_CHARS = 400_000
"""The characters of a document's text that are kept."""

MAX_SECONDS = 30
"""The seconds that the child process may take; half of them on a CPU."""

LOOK_SECONDS = 0.5
"""Seconds between two looks whether the process that waits for a child process stops."""

MAX_MEMORY_BYTES = 768 << 20
"""The address space of the child process."""

MAX_PART_BYTES = 128 << 20
"""The bytes of one unpacked part of an archive that are read."""

MAX_ENTRIES = 10_000
"""The maximum number of entries of an archive that are read."""

MAX_RTF_STEPS = 2_000_000
"""The words, texts and braces of RTF that are read."""

HEAD_BYTES = 4_096
"""The bytes at the beginning by which a format is recognized."""

_ARCHIVES = {"word/document.xml": "docx", "ppt/presentation.xml": "pptx", "xl/workbook.xml": "xlsx"}
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b",
    re.IGNORECASE | re.DOTALL,
)
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_NAME = re.compile(r"\.(?:x?html?|xht)$", re.IGNORECASE)
_ENCRYPTED_ODF = b"encryption-data"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


READ_BY_CHILD = ("pdf", "archive", "rtf")
"""The formats that a child process reads."""

REFUSED = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")
"""The beginnings of audit events that the child process refuses."""


class Unreadable(Exception):
    """The text of a document cannot be extracted; the message is the reason."""


class ReaderFailed(Unreadable):
    """The child process failed, or took too much. On a machine with less load, it may not."""


class ReaderStopped(Exception):
    """The process stops, so it ended the child process."""


def format_of(head: bytes, name: str, content_type: str | None) -> str | None:
    """Return the format of a document by its first bytes; None if it has no text.

    Args:
      head: The first `HEAD_BYTES` bytes.
      name: The file's name.
      content_type: The type that the source gives, if any.
    """
    if head.lstrip(b"\xef\xbb\xbf\0\t\r\n ")[:5] == b"%PDF-":
        return "pdf"
    if head[:4] == b"PK\x03\x04":
        return "archive"
    if head[:5] == b"{\\rtf":
        return "rtf"
    if head[:8] == _OLE:
        return "ole"
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind == "message/rfc822" or name.lower().endswith(".eml"):
        return "mail"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "text"
    if len(_CONTROL.findall(head)) > len(head) // 100:
        return None
    if (
        _HTML.match(head)
        or _HTML_NAME.search(name)
        or kind in ("text/html", "application/xhtml+xml")
    ):
        return "html"
    return "text" if head.strip() else None


def in_process(data: bytes, format: str, content_type: str | None = None) -> str:
    """Return the text of plain text, HTML or a mail.

    Raises:
      Unreadable: No reader knows the format.
    """
    if format == "ole":
        raise Unreadable("it is encrypted, or has a format of Office before 2007")
    if format == "mail":
        read = mail.read(data)
        return f"{read.subject or ''}\n{read.text}"[:MAX_EXTRACTED_CHARS]
    charset = re.search(r"charset=\"?([\w.:-]+)", content_type or "")
    text = mail.decode(data, charset[1] if charset else None, is_html=format == "html").text
    return (mail.text_of_html(text).text if format == "html" else text)[:MAX_EXTRACTED_CHARS]


def in_child(file: IO[bytes], format: str, is_stopping: Callable[[], bool] = lambda: False) -> str:
    """Return the text of a document, read by a child process.

    Args:
      file: The document, a file of the operating system.
      format: One of `READ_BY_CHILD`.
      is_stopping: True if the child process has to end. Default: never.

    Raises:
      ReaderFailed: The child process failed, or took too much.
      ReaderStopped: `is_stopping` returned True.
      Unreadable: The document is damaged or encrypted, or has no text.
    """
    file.flush()
    command = [sys.executable, "-P", "-B", "-m", "core.search.extraction", format]
    child = subprocess.Popen(
        command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    with child:
        try:
            output, errors = _output(child, is_stopping)
        finally:
            child.kill()
    if child.returncode == 3:
        raise Unreadable(errors.decode("utf-8", "replace").strip()[:200])
    if child.returncode:
        raise ReaderFailed("reading it takes too much, or fails")
    text = output.decode("utf-8", "replace")[:MAX_EXTRACTED_CHARS]
    if not text.strip():
        raise Unreadable("it has no text")
    return text


def _output(child: subprocess.Popen[bytes], is_stopping: Callable[[], bool]) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + MAX_SECONDS
    while time.monotonic() < deadline:
        try:
            return child.communicate(timeout=LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if is_stopping():
                raise ReaderStopped from None
    raise ReaderFailed(f"it takes more than {MAX_SECONDS} s")


# In the child process
# --------------------------------------------------------------------------------------------------


def _pdf(file: IO[bytes]) -> Iterator[str]:
    from pypdf import PdfReader

    reader = PdfReader(file)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("it is encrypted")
    if reader.metadata is not None and reader.metadata.title:
        yield str(reader.metadata.title)
    for page in reader.pages:
        yield page.extract_text()


def _rtf(file: IO[bytes]) -> Iterator[str]:
    found = text_of_rtf(file.read(MAX_PART_BYTES), Budget(MAX_RTF_STEPS))
    yield mail.text_of_html(found.text).text if found.is_html else found.text


def _archive(file: IO[bytes]) -> Iterator[str]:
    """Yield the text of an Office, OpenDocument or EPUB file."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()[:MAX_ENTRIES]
        format = next((_ARCHIVES[name] for name in names if name in _ARCHIVES), None)
        if format is None and "mimetype" in names:
            kind = _part(archive, "mimetype", 100)
            format = "epub" if b"epub" in kind else "odf" if b"opendocument" in kind else None
        if format is None:
            raise Unreadable("it is an archive without a document")
        if any(entry.flag_bits & 1 for entry in archive.infolist()[:MAX_ENTRIES]) or (
            "META-INF/manifest.xml" in names
            and _ENCRYPTED_ODF in _part(archive, "META-INF/manifest.xml")
        ):
            raise Unreadable("it is encrypted")
        yield from _READERS[format](archive, sorted(names, key=_natural))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts `slide2` before `slide10`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _part(archive: zipfile.ZipFile, name: str, size: int = MAX_PART_BYTES) -> bytes:
    with archive.open(name) as part:
        return part.read(size)


class _Target(Protocol):
    """A receiver of the elements of an XML document."""

    def start(self, tag: str, attributes: Mapping[str, str], /) -> None: ...
    def end(self, tag: str, /) -> None: ...
    def data(self, data: str, /) -> None: ...


class _Text:
    """Collects the text of an XML document: paragraphs are lines, cells have tabs between them."""

    def __init__(
        self, shown: frozenset[str], lines: frozenset[str], blanks: frozenset[str]
    ) -> None:
        self._shown, self._lines, self._blanks = shown, lines, blanks
        self._depth = 0
        self.found: list[str] = []

    def start(self, tag: str, _: Mapping[str, str]) -> None:
        name = tag.rpartition("}")[2]
        self._depth += name in self._shown
        if name in self._blanks:
            self.found.append("\t")

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        self._depth -= name in self._shown
        if name in self._lines:
            self.found.append("\n")

    def data(self, data: str) -> None:
        if self._depth:
            self.found.append(data)


def _xml(data: bytes, target: _Target) -> None:
    """Parse XML up to its first error. The limits of the process bound what entities expand to."""
    parser = XMLParser(target=target)  # noqa: S314
    with contextlib.suppress(ParseError):
        parser.feed(data)


def _text(data: bytes, places: _Places) -> str:
    target = _Text(*places)
    _xml(data, target)
    return "".join(target.found)


_Places = tuple[frozenset[str], frozenset[str], frozenset[str]]
_OOXML: _Places = (frozenset({"t"}), frozenset({"p", "br", "tr"}), frozenset({"tab", "tc"}))
_WORD = re.compile(r"word/(?:document|header\d*|footer\d*|footnotes|endnotes|comments)\.xml")
_SLIDE = re.compile(r"ppt/(?:slides/slide|notesSlides/notesSlide)\d+\.xml")
_ODF = (
    frozenset({"p", "h"}),
    frozenset({"p", "h", "table-row"}),
    frozenset({"tab", "s", "table-cell"}),
)


def _docx(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    for name in sorted(filter(_WORD.fullmatch, names), key=lambda name: "document" not in name):
        yield _text(_part(archive, name), _OOXML)


def _pptx(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    for name in filter(_SLIDE.fullmatch, names):
        yield _text(_part(archive, name), _OOXML)


def _odf(archive: zipfile.ZipFile, _: list[str]) -> Iterator[str]:
    yield _text(_part(archive, "content.xml"), _ODF)


def _epub(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    for name in filter(_HTML_NAME.search, names):
        yield in_process(_part(archive, name), "html")


class _Sheet:
    """Collects the cells of a sheet: rows as lines."""

    def __init__(self, strings: list[str]) -> None:
        self._strings, self._shared, self._in = strings, False, False
        self._cell: list[str] = []
        self.found: list[str] = []

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if name == "c":
            self._shared, self._cell = attributes.get("t") == "s", []
        self._in = name in ("v", "t")

    def data(self, data: str) -> None:
        if self._in:
            self._cell.append(data)

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        self._in = False
        if name == "row":
            self.found.append("\n")
        elif name == "c" and self._cell:
            value = "".join(self._cell)
            if self._shared:
                known = value.isdecimal() and int(value) < len(self._strings)
                value = self._strings[int(value)] if known else ""
            self.found.append(f"{value}\t")


class _Strings:
    """Collects the shared strings of a workbook."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._in = False

    def start(self, tag: str, _: Mapping[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if name == "si":
            self.found.append("")
        self._in = name == "t"

    def data(self, data: str) -> None:
        if self._in and self.found:
            self.found[-1] += data

    def end(self, _: str) -> None:
        self._in = False


def _xlsx(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    strings = _Strings()
    if "xl/sharedStrings.xml" in names:
        _xml(_part(archive, "xl/sharedStrings.xml"), strings)
    yield from re.findall(
        r"<(?:\w+:)?sheet [^>]*?name=\"([^\"]*)\"",
        _part(archive, "xl/workbook.xml").decode("utf-8", "replace"),
    )
    for name in filter(re.compile(r"xl/worksheets/sheet\d+\.xml").fullmatch, names):
        sheet = _Sheet(strings.found)
        _xml(_part(archive, name), sheet)
        yield "".join(sheet.found)


_READERS: Mapping[str, Callable[[zipfile.ZipFile, list[str]], Iterator[str]]] = {
    "docx": _docx, "pptx": _pptx, "xlsx": _xlsx, "odf": _odf, "epub": _epub,
}  # fmt: skip


def _bounded(texts: Iterator[str]) -> Iterator[str]:
    left = MAX_EXTRACTED_CHARS
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _confine() -> None:
    """Bound what a document can make this process do."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS // 2, MAX_SECONDS // 2))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.nice(10)
    logging.disable()  # pypdf logs each defect; the waiting process would collect all of them
    sys.addaudithook(_refuse)


def _refuse(event: str, _: tuple[Any, ...]) -> None:
    if event.startswith(REFUSED):
        raise PermissionError(f"the reader of a document may not use {event}")


def main(format: str) -> int:
    """Print the text of the document on standard input.

    Returns:
      The exit code: 3 if the document cannot be read. The reason is then on standard error.
    """
    _confine()
    found: list[str] = []
    try:
        sys.stdin.buffer.seek(0)
        found.extend(_bounded(_FORMATS[format](sys.stdin.buffer)))
    except Unreadable as error:
        sys.stderr.write(f"{error}\n")
        return 3
    except Exception as error:  # (damaged files raise anything)
        if not found:
            if isinstance(error, MemoryError):
                raise
            sys.stderr.write(f"it is damaged ({type(error).__name__})\n")
            return 3
    sys.stdout.buffer.write("\n".join(found).encode("utf-8", "replace"))
    return 0


_FORMATS: Mapping[str, Callable[[IO[bytes]], Iterator[str]]] = {
    "pdf": _pdf, "archive": _archive, "rtf": _rtf,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
