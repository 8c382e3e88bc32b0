"""An integration for a source that a test changes at any time: a file with a tree of items.

Each folder is listed in pages. A changed item is returned by its page, or by a task that downloads
it, before or after the last page. Calls may fail. `SHELVES_ROWS` makes the portions of deletions
small.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Listing,
    Manifest,
    PermanentError,
    SkipItem,
    TaskOutput,
    TaskResult,
    TransientError,
    hookimpl,
    task,
)
from core.content import holds, portions, seen, store
from core.db import short_transactions

PAGE = 7
ROWS = int(os.environ.get("SHELVES_ROWS", "0"))
if ROWS:
    for module in (short_transactions, holds, seen, store):
        for name in ("MAX_ROWS", "DIRECT_ROWS"):
            if hasattr(module, name):
                setattr(module, name, ROWS)
    short_transactions.FIRST_ROWS = max(ROWS // 2, 1)
    portions.MAX_FRAMES = 2


class Config(BaseModel):
    """The config of an account: the file of its source, and a value without an effect."""

    path: str
    number: int = 0


class Source(BaseModel):
    """The contents of the file: (parent, text) by id. A text of None is that of a folder."""

    items: dict[str, tuple[str | None, str | None]] = {}
    failures: float = 0.0
    seconds: float = 0.0

    def write(self, path: Path) -> None:
        """Replace the file."""
        path.with_suffix(".new").write_text(self.model_dump_json(), "utf-8")
        path.with_suffix(".new").replace(path)


class Shelves(BaseIntegration[Config]):
    """The integration: it lists the tree from the top."""

    manifest = Manifest("shelves", "Shelves")

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "Shelves")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.folder.task(parent=None, page=0)])

    @task
    def folder(self, ctx: Context, parent: str | None, page: int) -> TaskResult:
        """List a page of a folder. The last page completes the listing."""
        source = self._read()
        inside = sorted(id for id, (above, _) in source.items.items() if above == parent)
        if parent is not None and parent not in source.items:
            return TaskResult(output=[TaskOutput.gone(parent)])
        ids = inside[page * PAGE : (page + 1) * PAGE]
        known, output, seen, tasks = ctx.fingerprints(ids), [], [], []
        for id in ids:
            above, text = source.items[id]
            if known.get(id) == f"{above} {text}":
                seen.append(id)
            elif random.random() < 0.5:
                output.append(_output(id, above, text))
            else:
                seen.append(id)
                late = replace(self.download.task(id=id), priority=random.choice((-1, 0, 1)))
                tasks.append(late)
            if text is None:
                tasks.append(self.folder.task(parent=id, page=0))
        if len(inside) > (page + 1) * PAGE:
            return TaskResult(
                output, [*tasks, self.folder.task(parent=parent, page=page + 1)], seen=seen
            )
        return TaskResult(output, tasks, seen=seen, listed=[Listing(parent)])

    @task
    def download(self, ctx: Context, id: str) -> TaskResult:
        source = self._read()
        if id not in source.items:
            if random.random() < 0.5:
                raise SkipItem("gone")
            return TaskResult(output=[TaskOutput.gone(id)])
        return TaskResult([_output(id, *source.items[id])])

    def _read(self) -> Source:
        source = Source.model_validate_json(Path(self.config.path).read_text("utf-8"))
        time.sleep(source.seconds * random.random())
        chance = random.random()
        if chance < source.failures / 4:
            raise PermanentError("this call fails")
        if chance < source.failures:
            raise TransientError("this call fails now")
        return source


def _output(id: str, parent: str | None, text: str | None) -> TaskOutput:
    kind = "folder" if text is None else "file"
    return TaskOutput(id, text or "", kind=kind, parent=parent, fingerprint=f"{parent} {text}")


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Shelves]
