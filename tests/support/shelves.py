"""An integration for a source that a test changes at any time: a file with a tree of items.

Each folder is listed in pages. A changed item is returned by its page, or by a task that downloads
it, before or after the last page. No listing reaches what is below a folder that was never kept. So
each task also returns the folders above its items that are not kept yet. Calls may fail.
`SHELVES_ROWS` makes the portions of deletions small.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

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
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = int(os.environ.get("SHELVES_ROWS", "0"))
if ROWS:
    for module in (short_transactions, holds, seen, store):
        for name in ("MAX_ROWS", "DIRECT_ROWS"):
            if hasattr(module, name):
                setattr(module, name, ROWS)
    short_transactions.FIRST_ROWS = max(ROWS // 2, 1)
    portions.MAX_FRAMES = 2

Mode = Literal["tree", "window", "log"]
"""The extent of a run.

`tree` lists everything. `window` lists the items of the latest days in each folder. `log` reads
which items changed since its cursor. A complete run lists everything in each mode.
"""


class Config(BaseModel):
    """The config of an account: the file of its source, and a value without an effect."""

    path: str
    mode: Mode = "tree"
    number: int = 0


class Item(NamedTuple):
    """An item of the source.

    Attributes:
      parent: The id of its folder; None at the top.
      text: Its text; None for a folder.
      day: Its day, as a number.
    """

    parent: str | None
    text: str | None
    day: int = 0

    @property
    def fingerprint(self) -> str:
        return f"{self.parent} {self.text} {self.day}"


class Source(BaseModel):
    """The contents of the file.

    Attributes:
      items: The items by id.
      log: The ids of the items that changed or disappeared, in their order.
      since: The first day of a window.
      failures: The share of calls that fail.
      seconds: The longest time of a call.
    """

    items: dict[str, Item] = {}
    log: list[str] = []
    since: int = 0
    failures: float = 0.0
    seconds: float = 0.0

    def above(self, ids: Sequence[str]) -> list[str]:
        """Return all folders above these items."""
        found: dict[str, None] = {}
        for id in ids:
            parent = self.items[id].parent
            while parent is not None and parent not in found:
                found[parent] = None
                parent = self.items[parent].parent
        return list(found)

    def write(self, path: Path) -> None:
        """Replace the file."""
        path.with_suffix(".new").write_text(self.model_dump_json(), "utf-8")
        path.with_suffix(".new").replace(path)


class Cursor(BaseModel):
    """The number of entries of the log that were read."""

    read: int


class Shelves(BaseIntegration[Config]):
    """The integration."""

    manifest = Manifest("shelves", "Shelves")

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "Shelves")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult(tasks=[self.look.task(complete=ctx.run.complete)])

    @task
    def look(self, ctx: Context, complete: bool) -> TaskResult:
        """Read the log, or begin a listing."""
        source, before = self._read(), ctx.state("log", Cursor)
        is_window = self.config.mode == "window" and not complete
        first = self.folder.task(parent=None, after="", since=source.since if is_window else None)
        if self.config.mode != "log":
            return TaskResult(tasks=[first])
        cursor = Cursor(read=len(source.log))
        if complete or before is None:
            return TaskResult(tasks=[first], state={"log": cursor})
        ids = list(dict.fromkeys(source.log[before.read :]))
        gone = [TaskOutput.gone(id) for id in ids if id not in source.items]
        here = [id for id in ids if id in source.items]
        folders = self._folders(ctx, source, here)
        output, seen, tasks = self._changed(source, here)
        return TaskResult([*gone, *folders, *output], tasks, seen=seen, state={"log": cursor})

    @task
    def folder(self, ctx: Context, parent: str | None, after: str, since: int | None) -> TaskResult:
        """List a page of a folder: the items after an id. The last page completes the listing.

        A page by number would miss an item if an earlier one disappears between two pages.
        """
        source = self._read()
        if parent is not None and parent not in source.items:
            return TaskResult(output=[TaskOutput.gone(parent)])
        inside = sorted(
            id
            for id, item in source.items.items()
            if item.parent == parent and id > after and (since is None or item.day >= since)
        )
        ids = inside[:PAGE]
        known = ctx.fingerprints(ids)
        same = [id for id in ids if known.get(id) == source.items[id].fingerprint]
        folders = self._folders(ctx, source, ids)
        output, seen, tasks = self._changed(source, [id for id in ids if id not in same])
        output = [*folders, *output]
        tasks += [
            self.folder.task(parent=id, after="", since=since)
            for id in ids
            if source.items[id].text is None
        ]
        if len(inside) > PAGE:
            tasks.append(self.folder.task(parent=parent, after=ids[-1], since=since))
            return TaskResult(output, tasks, seen=[*same, *seen])
        listing = Listing(parent, since=None if since is None else moment(since))
        return TaskResult(output, tasks, seen=[*same, *seen], listed=[listing])

    @task
    def download(self, ctx: Context, id: str) -> TaskResult:
        source = self._read()
        if id not in source.items:
            if random.random() < 0.5:
                raise SkipItem("gone")
            return TaskResult(output=[TaskOutput.gone(id)])
        return TaskResult([*self._folders(ctx, source, [id]), _output(id, source.items[id])])

    def _folders(self, ctx: Context, source: Source, ids: Sequence[str]) -> list[TaskOutput]:
        """Return the folders above these items that are not kept."""
        above = source.above(ids)
        known = ctx.fingerprints(above)
        return [_output(id, source.items[id]) for id in above if id not in known]

    def _changed(
        self, source: Source, ids: Sequence[str]
    ) -> tuple[list[TaskOutput], list[str], list[Any]]:
        """Return some items as output, and tasks that download the others, at any time."""
        output, seen, tasks = [], [], list[Any]()
        for id in ids:
            if random.random() < 0.5:
                output.append(_output(id, source.items[id]))
            else:
                seen.append(id)
                late = replace(self.download.task(id=id), priority=random.choice((-1, 0, 1)))
                tasks.append(late)
        return output, seen, tasks

    def _read(self) -> Source:
        source = Source.model_validate_json(Path(self.config.path).read_text("utf-8"))
        time.sleep(source.seconds * random.random())
        chance = random.random()
        if chance < source.failures / 4:
            raise PermanentError("this call fails")
        if chance < source.failures:
            raise TransientError("this call fails now")
        return source


def moment(day: int) -> datetime:
    """Return the beginning of a day."""
    return EPOCH + timedelta(days=day)


def _output(id: str, item: Item) -> TaskOutput:
    kind = "folder" if item.text is None else "file"
    return TaskOutput(
        id, item.text or "", kind=kind, parent=item.parent, timestamp=moment(item.day),
        fingerprint=item.fingerprint,
    )  # fmt: skip


@hookimpl
def integrations() -> Sequence[type[BaseIntegration[Any, Any]]]:
    return [Shelves]
