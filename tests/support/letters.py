"""An integration that keeps letters with their sources, and reads them again.

A source is text: a line of the subject, lines `file: NAME TEXT`, and the words. The reader of
version 2 keeps the case of the words, finds `file:` lines in capitals too, and does not take lines
`file: tmp…` for files. `LETTERS_READER` sets the version, and `LETTERS_SECONDS` the duration of
reading a letter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, SecretStr

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Listing,
    Manifest,
    Reader,
    RereadOnChange,
    StoredItem,
    TaskOutput,
    TaskResult,
    hookimpl,
    task,
)

READER_VERSION = int(os.environ.get("LETTERS_READER", "1"))
SECONDS = float(os.environ.get("LETTERS_SECONDS", "0"))


class Config(BaseModel):
    letters: int = 10
    marks: str = ""
    files: Annotated[bool, RereadOnChange()] = True


class Credentials(BaseModel):
    token: SecretStr = SecretStr("")


def source(number: int) -> str:
    """Return the source of a letter. Every third has a file that only version 2 finds."""
    lines = [f"Subject {number}", f"file: tmp{number} nothing", f"file: a{number} some words"]
    lines += [f"FILE: b{number} more words"] if number % 3 == 0 else []
    # Every fourth letter is read alike by both versions.
    words = "small words" if number % 4 == 3 else "Large Words"
    return "\n".join([lines[0], words] if number % 4 == 3 else [*lines, words])


def read(id: str, text: str, config: Config, version: int, marks: str) -> Iterator[TaskOutput]:
    """Yield the rows of a letter, without its source."""
    time.sleep(SECONDS)
    subject, *lines = text.split("\n")
    fold = str if version > 1 else str.lower
    words = [fold(line) for line in lines if not line.lower().startswith("file:")]
    yield TaskOutput(
        id, "\n".join(words), kind="letter", name=subject, metadata={"marks": marks},
    )  # fmt: skip
    for line in lines if config.files else ():
        if not (line.lower() if version > 1 else line).startswith("file:"):
            continue
        name, _, content = line[6:].partition(" ")
        if version > 1 and name.startswith("tmp"):
            continue
        yield TaskOutput(f"{id}/{name}", content, kind="file", parent=id, name=name)


class Letters(BaseIntegration[Config, Credentials]):
    """The integration; a letter of number n has the id `letter-n`."""

    manifest = Manifest("letters", "Letters", reader=Reader(READER_VERSION, ["letter"], ["source"]))

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "Letters")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.fetch.task(first=0)])

    @task
    def fetch(self, ctx: Context, first: int) -> TaskResult:
        """Keep the letters from a number on, 50 at a time."""
        last = min(first + 50, self.config.letters)
        more = [self.fetch.task(first=last)] if last < self.config.letters else []
        return TaskResult(self._rows(range(first, last)), more)

    def _rows(self, numbers: Sequence[int]) -> Iterator[TaskOutput]:
        for number in numbers:
            id, text = f"letter-{number:06}", source(number)
            yield from read(id, text, self.config, READER_VERSION, self.config.marks)
            yield TaskOutput(f"{id}/raw", text, kind="source", parent=id)

    def reread(self, item: StoredItem) -> TaskResult:
        raw = item.child(f"{item.id}/raw")
        if raw is None:
            return TaskResult()
        marks = str(item.metadata.get("marks", ""))
        rows = list(read(item.id, raw.read().decode(), self.config, READER_VERSION, marks))
        return TaskResult(rows, seen=[raw.id], listed=[Listing(item.id)])


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Letters]
