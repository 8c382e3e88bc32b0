"""One account of `support.shelves`, its source, and the expectations of a person.

The model knows the source, the decisions of the person, and the promises of
`docs/how-to/deletions.md`. It asks no statement of the engine what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from core.accounts import store
from core.states import Deletions
from support.accounts import connect
from support.deployment import Deployment
from support.shelves import Item, Mode, Shelves, Source, moment

MIN_GUARDED, MAX_SHARE = 20, 0.5
LIVE = """
SELECT external_id, parent, content_text, external_timestamp, gone_at_source IS NOT NULL
FROM user_integration_content WHERE user_integration_id = %s AND deleted_at IS NULL
"""
HELD = """
SELECT h.id, h.state, h.source, h.parent, array_agg(i.external_id) FROM held_deletion h
JOIN held_deletion_item i ON i.held_deletion_id = h.id
JOIN user_integration a ON a.id = h.user_integration_id
WHERE a.id = %s AND h.state IN ('held', 'accepted', 'refused')
  AND (a.deletions = 'mark' OR h.state = 'refused')
GROUP BY 1, 2, 3, 4 ORDER BY 1
"""


class Row(NamedTuple):
    """A live row of the copy."""

    parent: str | None
    text: str
    gone: bool


class Held(NamedTuple):
    """A held deletion, as the table has it."""

    id: int
    state: str
    source: str
    parent: str | None
    items: set[str]


class Shelf:
    """One account and its source.

    Attributes:
      always: The items that were here at the last look, and at the source ever since.
      refused: The items whose deletion the person refused, and that the source did not show since.
      waiting: The items that waited for a decision at the last look, and that neither the source
        has shown nor a person decided since.
      shown: The items that the source had at some time since the last look.
      is_complete: True if no call has failed and no run was disturbed since a complete look.
    """

    def __init__(self, deployment: Deployment, path: Path, rng: Random, mode: Mode) -> None:
        self.deployment, self.path, self.rng, self.mode = deployment, path, rng, mode
        self.source, self.made, self.keeps = Source(), 0, False
        self.removed = dict[str, Item]()
        self.always, self.refused = set[str](), set[str]()
        self.waiting, self.shown = set[str](), set[str]()
        self.is_complete = True
        self.write()
        self.account = connect(deployment, Shelves, {"path": str(path), "mode": mode})

    # The source
    # ----------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Let the plugin see the source as it is now."""
        there = self.source.items.keys()
        self.shown |= there
        self.always &= there
        self.refused -= there
        self.waiting -= there
        self.source.write(self.path)

    def change(self, *, in_run: bool = False) -> bool:
        """Change the source in a random way. Returns True if no item moved or came back.

        Args:
          in_run: True if a run may be open. It can miss an item that moves from a folder that it
            has not listed yet into one that it has listed.
        """
        ways: list[Callable[[], None]] = [
            self.add, self.add, self.few, self.few, self.many, self.many, self.folder, self.texts,
            self.move, self.back, self.back, self.swap, self.export, self.empty,
        ]  # fmt: skip
        before, way = dict(self.source.items), self.rng.choice(ways)
        if way == self.move and self.mode == "window":
            way = self.texts  # a window does not show where an item went
        way()
        print(f"{self}: {way.__name__}, {len(self.source.items)} items, {in_run=}")
        after = self.source.items
        self._log(before)
        self.removed |= {id: item for id, item in before.items() if id not in after}
        if in_run:
            self.always -= {id for id in before.keys() & after if before[id][0] != after[id][0]}
        self.source.since = self.rng.randint(0, 4)
        self.write()
        return way not in (self.move, self.back)

    def _log(self, before: dict[str, Item]) -> None:
        after = self.source.items
        changed = [id for id in {*before, *after} if before.get(id) != after.get(id)]
        if self.rng.random() < 0.5:  # a folder that is gone stands for all that was in it
            changed = [id for id in changed if id in after or not _is_below_gone(id, before, after)]
        self.rng.shuffle(changed)
        self.source.log += changed

    def new(self, count: int, parent: str | None = None, *, folder: bool = False) -> list[str]:
        ids = [f"{'d' if folder else 'f'}{self.made + number}" for number in range(count)]
        self.made += count
        for id in ids:
            text = None if folder else f"text of {id}"
            self.source.items[id] = Item(parent, text, self.rng.randint(0, 6))
        return ids

    def folders(self) -> list[str]:
        return [id for id, item in self.source.items.items() if item.text is None]

    def remove(self, id: str) -> None:
        self.source.items.pop(id, None)
        for below in [one for one, item in self.source.items.items() if item.parent == id]:
            self.remove(below)

    def add(self) -> None:
        (folder,) = self.new(1, self.rng.choice([None, *self.folders()]), folder=True)
        self.new(self.rng.randint(0, 30), folder)
        self.new(self.rng.randint(0, 8), self.rng.choice([None, *self.folders()]))

    def few(self) -> None:
        for id in self.sample(self.rng.randint(1, 6)):
            self.remove(id)

    def many(self) -> None:
        for id in self.sample(int(len(self.source.items) * self.rng.uniform(0.4, 0.95))):
            self.remove(id)

    def folder(self) -> None:
        """Remove a folder with all that is in it."""
        for folder in self.folders()[:1]:
            self.remove(folder)

    def texts(self) -> None:
        for id in self.sample(9):
            item = self.source.items[id]
            self.source.items[id] = item._replace(text=item.text and f"{item.text}, changed")

    def move(self) -> None:
        """Move some files into a folder."""
        for id in self.sample(5):
            item = self.source.items[id]
            if self.folders() and item.text is not None:
                self.source.items[id] = item._replace(parent=self.rng.choice(self.folders()))

    def back(self) -> None:
        """Show some removed items again, at their place or at the top."""
        there = self.source.items
        absent = sorted(self.removed.keys() - there.keys())
        share = self.rng.choice((0.1, 0.6, 1.0))
        for id in sorted(self.rng.sample(absent, int(len(absent) * share)), reverse=True):
            item = self.removed[id]
            there[id] = item if item.parent in there else item._replace(parent=None)

    def swap(self) -> None:
        """Let a folder with other items take the place of everything."""
        self.source.items.clear()
        self.add()

    def export(self) -> None:
        """Replace the files of a folder by as many others."""
        parent = self.rng.choice([None, *self.folders()])
        files = [
            id for id, item in self.source.items.items() if item.parent == parent and item.text
        ]
        for id in files:
            self.remove(id)
        self.new(len(files), parent)

    def empty(self) -> None:
        self.source.items.clear()

    def sample(self, count: int) -> list[str]:
        return self.rng.sample(sorted(self.source.items), min(count, len(self.source.items)))

    # The copy
    # ----------------------------------------------------------------------------------------------

    def live(self) -> dict[str, Row]:
        rows = self.deployment.rows(LIVE, self.account)
        return {id: Row(parent, text, gone) for id, parent, text, _, gone in rows}

    def held(self) -> list[Held]:
        rows = self.deployment.rows(HELD, self.account)
        return [Held(*row, set(items)) for *row, items in rows]

    def decided(self, held: Held, *, accepted: bool) -> None:
        """Record a decision of the person, after it has had its answer."""
        self.waiting -= held.items
        if accepted:
            self.refused -= held.items
        else:
            # A run that is open may have seen the source as it was at any time since the last look.
            self.refused |= (held.items & self.live().keys()) - self.shown

    def set_deletions(self, deletions: Deletions) -> None:
        """Choose the treatment of items that disappear. With `keep`, nothing waits any more."""
        with self.deployment.connection() as conn, conn.transaction():
            store.set_deletions(conn, self.account, deletions)
        self.keeps = deletions is Deletions.KEEP
        if self.keeps:
            self.waiting.clear()

    def check(self, *, is_exact: bool, complete: bool = False) -> None:
        """Compare the copy with the source, after all runs have ended.

        Args:
          is_exact: True if the source did not change in the latest run, and nothing disturbed it.
          complete: True if the latest run listed everything.
        """
        live, there, held = self.live(), self.source.items, self.held()
        for what, ids in (
            ("at the source", self.always), ("refused", self.refused), ("waiting", self.waiting),
        ):  # fmt: skip
            assert ids <= live.keys(), f"{self} lost {sorted(ids - live.keys())}, {what}"
        if is_exact:
            self.is_complete |= complete or self.mode == "tree"
            if self.is_complete and (complete or self.mode != "window"):
                self._compare(live, held)
            elif self.mode == "window":
                self._compare_window(live, held)
        self.always = live.keys() & there.keys()
        waiting = [each.items for each in held if each.state == "held"]
        self.waiting = set[str]().union(*waiting) - there.keys()
        self.shown = set(there)

    def _compare(self, live: dict[str, Row], held: Collection[Held]) -> None:
        there, waiting = self.source.items, set[str]().union(*(each.items for each in held))
        self._same(live, there.keys())
        missing = live.keys() - there.keys()
        if self.keeps:
            # An item that a task saved after another one found its folder gone has no mark.
            assert missing >= {id for id, row in live.items() if row.gone}, self
            assert {each.state for each in held} <= {"refused"}, f"{self} keeps, and holds {held}"
        else:
            assert missing <= waiting, f"{self} neither deleted nor held {missing - waiting}"
            assert waiting <= missing, f"{self} holds {waiting - missing}, which is not missing"

    def _compare_window(self, live: dict[str, Row], held: Collection[Held]) -> None:
        """Compare what a window of the latest days shows, in the folders that it shows."""
        there, since = self.source.items, self.source.since
        looked: set[str | None] = {None}
        while more := {
            id for id, item in there.items()
            if item.parent in looked and item.day >= since and id not in looked
        }:  # fmt: skip
            looked |= more
        self._same(live, [id for id in looked if id is not None])
        rows = self.deployment.rows(LIVE, self.account)
        begin = moment(since)
        missing = {
            id for id, parent, _, time, gone in rows
            if parent in looked and id not in there and time >= begin and not gone
        }  # fmt: skip
        waiting = set[str]().union(*(each.items for each in held))
        assert missing <= waiting, f"{self} neither deleted nor held {missing - waiting}"

    def _same(self, live: dict[str, Row], ids: Iterable[str]) -> None:
        for id in ids:
            item = self.source.items[id]
            wanted = Row(item.parent, item.text or "", False)
            assert live.get(id) == wanted, f"{self} has {id} as {live.get(id)}, not as {wanted}"

    # The delete guard
    # ----------------------------------------------------------------------------------------------

    def expected(self, before: dict[str, Row]) -> tuple[set[str], set[str]]:
        """Return the items that the next complete listing must delete, and those it must hold.

        Only for a copy that is equal to its source before a change, and a source in which nothing
        moved. The listings of a tree run in any order, so a share lies between two bounds. An item
        in neither set may go either way.
        """
        there, deletes, holds = self.source.items, set[str](), set[str]()
        lost: dict[str | None, set[str]] = {}
        for parent in {row.parent for row in before.values()}:
            if parent is None or parent in there:
                direct = [id for id, row in before.items() if row.parent == parent]
                lost[parent] = _below([id for id in direct if id not in there], before)
        remains = bool(there)
        for parent, ids in lost.items():
            kept = _below([id for id, row in before.items() if row.parent == parent], before)
            new = _below([id for id, item in there.items() if item.parent == parent], there)
            others = [lost[id] for id in kept & lost.keys()]
            least = len(kept) - len(set[str]().union(*others) - ids)
            if not ids:
                continue
            if not remains:
                holds |= ids
            elif len(ids) < MIN_GUARDED or len(ids) <= MAX_SHARE * least:
                deletes |= ids
            elif len(ids) > MAX_SHARE * len(kept | new):
                holds |= ids
        return deletes, holds

    def __str__(self) -> str:
        return f"{self.path.stem} ({self.mode}{', keeps' if self.keeps else ''})"


def _is_below_gone(id: str, before: dict[str, Item], after: dict[str, Item]) -> bool:
    item = before.get(id)
    return item is not None and item.parent is not None and item.parent not in after


def _below(ids: Iterable[str], rows: dict[str, Row] | dict[str, Item]) -> set[str]:
    """Return items and all their descendants."""
    children: dict[str | None, list[str]] = {}
    for id, row in rows.items():
        children.setdefault(row.parent, []).append(id)
    found, left = set[str](), list(ids)
    while left:
        id = left.pop()
        if id not in found:
            found.add(id)
            left += children.get(id, [])
    return found
