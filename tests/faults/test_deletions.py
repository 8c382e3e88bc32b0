"""Random deletions at a source, with failures, kills, decisions and changes of config.

The oracle knows the source. It does not know the rules of the delete guard: it asks for the
promises of `docs/how-to/deletions.md`.
"""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import METERED, Fleet, send
from support.shelves import Shelves, Source

from core.accounts import store
from core.db.pool import Database
from core.service.content import deletions
from core.states import Deletions

SMALL = METERED | {"POLLING_PLUGINS": "support.shelves", "SHELVES_ROWS": "6"}
LIVE = """
SELECT external_id, parent, content_text, gone_at_source IS NOT NULL FROM user_integration_content
WHERE user_integration_id = %s AND deleted_at IS NULL
"""
HELD = """
SELECT h.id, h.state, h.source, h.parent, array_agg(i.external_id) FROM held_deletion h
JOIN held_deletion_item i ON i.held_deletion_id = h.id
WHERE h.user_integration_id = %s AND h.state IN ('held', 'accepted', 'refused')
GROUP BY 1, 2, 3, 4 ORDER BY 1
"""
OPEN = """
SELECT 1 FROM user_integration a WHERE next_sync_at <= now() OR EXISTS (
    SELECT FROM sync_run r WHERE r.user_integration_id = a.id AND r.state = 'running')
"""
LATEST = """
SELECT state, finished_at FROM sync_run
WHERE user_integration_id = %s ORDER BY started_at DESC LIMIT 1
"""


class Shelf:
    """One account, its source, and the knowledge of the oracle."""

    def __init__(self, deployment: Deployment, path: Path, rng: Random, *, keeps: bool) -> None:
        self.deployment, self.path, self.rng, self.keeps = deployment, path, rng, keeps
        self.source, self.made = Source(), 0
        self.always: set[str] = set()  # at the source, and here, since the last look
        self.source.write(path)
        self.account = connect(deployment, Shelves, {"path": str(path)})
        if keeps:
            with deployment.connection() as conn:
                store.set_deletions(conn, self.account, Deletions.KEEP)

    def new(self, count: int, parent: str | None = None, *, folder: bool = False) -> list[str]:
        ids = [f"{'d' if folder else 'f'}{self.made + number}" for number in range(count)]
        self.made += count
        for id in ids:
            self.source.items[id] = (parent, None if folder else f"text of {id}")
        return ids

    def folders(self) -> list[str]:
        return [id for id, (_, text) in self.source.items.items() if text is None]

    def remove(self, id: str) -> None:
        self.source.items.pop(id, None)
        for below in [one for one, (parent, _) in self.source.items.items() if parent == id]:
            self.remove(below)

    def change(self) -> None:
        """Change the source in a random way."""
        ways = (self.add, self.add, self.few, self.few, self.many, self.some, self.texts, self.move)
        self.rng.choice((*ways, self.source.items.clear))()
        self.always &= self.source.items.keys()
        self.source.write(self.path)

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

    def some(self) -> None:
        """Remove a folder with all that is in it."""
        for folder in self.folders()[:1]:
            self.remove(folder)

    def texts(self) -> None:
        for id in self.sample(9):
            parent, text = self.source.items[id]
            self.source.items[id] = (parent, text and f"{text}, changed")

    def move(self) -> None:
        """Move a file into a folder."""
        for id in self.sample(1):
            if self.folders() and (text := self.source.items[id][1]) is not None:
                self.source.items[id] = (self.rng.choice(self.folders()), text)

    def sample(self, count: int) -> list[str]:
        return self.rng.sample(sorted(self.source.items), min(count, len(self.source.items)))

    def live(self) -> dict[str, tuple[str | None, str, bool]]:
        rows = self.deployment.rows(LIVE, self.account)
        return {id: (parent, text, gone) for id, parent, text, gone in rows}

    def held(self) -> list[tuple[int, str, str, str | None, set[str]]]:
        return [(*row, set(items)) for *row, items in self.deployment.rows(HELD, self.account)]

    def check(self, *, is_exact: bool) -> None:
        """Compare the account with its source.

        Args:
          is_exact: True if the latest run listed everything, and the source did not change.
        """
        live = self.live()
        there = self.source.items.keys()
        assert self.always <= live.keys(), f"lost {self.always - live.keys()}"
        held = set().union(*(items for *_, items in self.held()))
        if is_exact:
            assert there <= live.keys(), f"not here: {there - live.keys()}"
            for id in there:
                parent, text = self.source.items[id]
                assert live[id] == (parent, text or "", False), id
            missing = live.keys() - there
            if self.keeps:
                # An item that a task saved after another one found its folder gone has no mark.
                assert missing >= {id for id, (_, _, gone) in live.items() if gone}
                assert not held
            else:
                assert missing <= held, f"neither deleted nor held: {missing - held}"
                assert held <= missing, f"held, but not missing: {held - missing}"
        self.always = live.keys() & there


def settled(fleet: Fleet, deployment: Deployment, *, replace: bool = True) -> None:
    fleet.until(lambda: not deployment.rows(OPEN), "all runs end", 240, replace=replace)


def later_runs(deployment: Deployment) -> None:
    """Let no account be due before the test asks for it."""
    deployment.rows("UPDATE user_integration SET poll_interval_minutes = 100000")


def decide(shelf: Shelf, backend: object, rng: Random) -> dict[int, tuple[str | None, set[str]]]:
    """Accept or refuse some held deletions; return the accepted ones, with their items."""
    accepted = {}
    for id, _, source, parent, items in shelf.held():
        choice = rng.choice(("accept", "accept", "refuse", "wait"))
        if choice == "accept":
            deletions.accept(backend, [id])  # type: ignore[arg-type]
            if source == "listing":
                accepted[id] = (parent, items)
        elif choice == "refuse":
            deletions.refuse(backend, [id])  # type: ignore[arg-type]
    return accepted


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "rounds"),
    [(1, 3), *(pytest.param(seed, 12, marks=pytest.mark.long) for seed in range(2, 8))],
)
def test_a_copy_follows_its_source_and_loses_nothing(
    fleet: Fleet, deployment: Deployment, tmp_path: Path, seed: int, rounds: int
) -> None:
    rng = Random(seed)
    shelves = [
        Shelf(
            deployment, tmp_path / f"{number}.json", Random(f"{seed} {number}"), keeps=number == 3
        )
        for number in range(4)
    ]
    later_runs(deployment)
    database = Database(deployment.database_url)
    backend = SimpleNamespace(database=database, wake=deployment.queues.wake)
    fleet.workers(processes=2, threads=4, **SMALL)
    fleet.ready(90)
    for turn in range(rounds):
        chaos = rng.random() < 0.6 and turn > 0
        kills, changes, config = (chaos and rng.random() < 0.5 for _ in range(3))
        empty = {}
        for shelf in shelves:
            shelf.source.failures = 0.04 if chaos and rng.random() < 0.5 else 0.0
            shelf.source.seconds = 0.02 if chaos else 0.0
            shelf.change()
            if not shelf.source.items:
                empty[shelf.account] = shelf.live().keys()
            sync(deployment, shelf.account)
        if chaos:
            disturb(fleet, deployment, shelves, rng, kills=kills, changes=changes, config=config)
        settled(fleet, deployment)
        for shelf in shelves:
            shelf.check(is_exact=not chaos)
            if shelf.account in empty and not changes:
                assert shelf.live().keys() >= empty[shelf.account], "an empty source deleted"
        if not chaos:
            confirm(fleet, deployment, shelves, backend, rng)
    finish(fleet, deployment, shelves, backend)
    database.close()


def disturb(
    fleet: Fleet,
    deployment: Deployment,
    shelves: list[Shelf],
    rng: Random,
    *,
    kills: bool,
    changes: bool,
    config: bool,
) -> None:
    """Kill a worker, change sources and configs while the runs are open."""
    time.sleep(rng.uniform(0.05, 0.6))  # the moment is random
    if changes:
        for shelf in shelves:
            shelf.change()
    if config:
        for shelf in shelves:
            deployment.rows(
                "UPDATE user_integration SET config = jsonb_set(config, '{number}', %s::jsonb)"
                " WHERE id = %s", str(rng.randint(1, 10**6)), shelf.account,
            )  # fmt: skip
    if kills and (pids := fleet.worker_pids()):
        with suppress(ProcessLookupError):
            send(signal.SIGKILL, rng.choice(pids))
        fleet.let_the_lead_run_out(18)


def confirm(
    fleet: Fleet, deployment: Deployment, shelves: list[Shelf], backend: object, rng: Random
) -> None:
    """Decide on held deletions, let more items disappear, and check the runs that confirm."""
    decided = {shelf.account: decide(shelf, backend, rng) for shelf in shelves}
    before = {shelf.account: shelf.live() for shelf in shelves}
    for shelf in shelves:
        if decided[shelf.account] and rng.random() < 0.5:
            shelf.change()
    settled(fleet, deployment)
    for shelf in shelves:
        after = shelf.live()
        lost = {id: row for id, row in before[shelf.account].items() if id not in after}
        for parent, items in decided[shelf.account].values():
            # The run may have read the source before its change.
            extra = {id for id, row in lost.items() if row[0] == parent and id not in items}
            assert not extra, f"deleted, and not shown: {extra}"
        shelf.check(is_exact=False)


def finish(fleet: Fleet, deployment: Deployment, shelves: list[Shelf], backend: object) -> None:
    """Accept all held deletions, and compare each account with its source."""
    for _ in range(8):
        for shelf in shelves:
            shelf.source.failures = shelf.source.seconds = 0.0
            shelf.source.write(shelf.path)
            sync(deployment, shelf.account)
        settled(fleet, deployment)
        held = [id for shelf in shelves for id, *_ in shelf.held()]
        if not held:
            break
        deletions.accept(backend, held)  # type: ignore[arg-type]
        settled(fleet, deployment)
    for shelf in shelves:
        shelf.check(is_exact=True)
        if not shelf.keeps:
            assert shelf.live().keys() == shelf.source.items.keys()
    fleet.until(
        lambda: deployment.rows("SELECT count(*) FROM sync_seen") == [(0,)], "nothing is seen"
    )
