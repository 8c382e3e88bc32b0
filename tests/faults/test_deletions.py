"""Random deletions at a source, with failures, kills, decisions and changes of accounts.

The oracle knows the source and the person's decisions. It does not ask the engine what is missing:
it asks for the promises of `docs/how-to/deletions.md`.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import get_args

import pytest
from integration_polling_ftp import Credentials as FtpCredentials
from integration_polling_ftp import Ftp
from support.accounts import connect, sync, tick
from support.cli import PASSWORD, USERNAME, ftp_server
from support.deciding import STRICT, Decision, Person, decide_on_every_surface
from support.deployment import Deployment
from support.fleet import METERED, Fleet, send
from support.serving import polling_serve
from support.shelf import Held, Row, Shelf
from support.shelves import Mode

from core.errors import NotFound, WrongState
from core.ledger import controls, scheduling
from core.states import Deletions

SMALL = METERED | {"POLLING_PLUGINS": "support.shelves", "SHELVES_ROWS": "6"}
OPEN = "SELECT 1 FROM sync_run WHERE state = 'running'"
DUE = "SELECT 1 FROM user_integration WHERE next_sync_at <= now()"
OPEN_RUN = "SELECT id FROM sync_run WHERE user_integration_id = %s AND state = 'running'"
LATEST = """
SELECT state FROM sync_run WHERE user_integration_id = %s ORDER BY started_at DESC LIMIT 1
"""


@pytest.fixture
def person(fleet: Fleet, deployment: Deployment, tmp_path: Path) -> Iterator[Person]:
    """Return a person who decides on held deletions, beside a fleet with small portions."""
    fleet.workers(processes=2, threads=4, **SMALL)
    with polling_serve(deployment, tmp_path, **SMALL) as served:
        fleet.ready(90)
        with closing(Person(deployment, served, Random("person"))) as person:
            yield person


class History:
    """Random rounds of changes, runs, disturbances and decisions."""

    def __init__(
        self,
        fleet: Fleet,
        deployment: Deployment,
        person: Person,
        shelves: list[Shelf],
        rng: Random,
    ) -> None:
        self.fleet, self.deployment, self.person = fleet, deployment, person
        self.shelves, self.rng = shelves, rng

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def sync(self, shelf: Shelf, *, complete: bool = False) -> None:
        """Request a run."""
        print(f"{shelf}: run, {complete=}")
        if not complete:
            sync(self.deployment, shelf.account)
            return
        with self.deployment.connection() as conn:
            scheduling.request_resync(conn, shelf.account)
        self.deployment.queues.wake()

    def settle(self) -> None:
        """Wait until all runs have ended, and those that are due after them."""

        def settled() -> bool:
            if self.deployment.rows(OPEN):
                return False
            if self.deployment.rows(DUE):
                tick(self.deployment)
                return False
            return True

        self.fleet.until(settled, "all runs end", 240, replace=True)

    def calm_round(self) -> None:
        """Change each source, and compare the copies after an undisturbed run."""
        judged, complete = {}, {}
        for shelf in self.shelves:
            shelf.source.failures = shelf.source.seconds = 0.0
            before = shelf.live()
            was_equal = before.keys() == shelf.source.items.keys() and not shelf.held()
            if self.chance(0.15):
                shelf.is_complete = False
                shelf.set_deletions(Deletions.MARK if shelf.keeps else Deletions.KEEP)
            is_plain = shelf.change()
            complete[shelf] = self.chance(0.4)
            lists = complete[shelf] or shelf.mode == "tree"
            if was_equal and is_plain and lists and not shelf.keeps:
                judged[shelf] = shelf.expected(before)
            self.sync(shelf, complete=complete[shelf])
        self.settle()
        for shelf in self.shelves:
            self.require_success(shelf)
            shelf.check(is_exact=True, complete=complete[shelf])
            live = shelf.live().keys()
            deletes, holds = judged.get(shelf, (set(), set()))
            assert not deletes & live, f"{shelf} did not delete {deletes & live}"
            assert holds <= live, f"{shelf} did not hold {holds - live}"
        self.decide()

    def require_success(self, shelf: Shelf) -> None:
        """Check that the latest run succeeded, also if it continued the tasks of earlier ones."""
        assert self.deployment.rows(LATEST, shelf.account) == [("succeeded",)], str(shelf)

    def decide(self) -> None:
        """Decide on some held deletions, of sources that may have changed since they were shown."""
        accepted: dict[Shelf, list[Held]] = {}
        before = {shelf: shelf.live() for shelf in self.shelves}
        for shelf in self.shelves:
            if self.chance(0.5):
                shelf.change()
            for held in shelf.held():
                choice = self.rng.choice(("accept", "accept", "refuse", "wait"))
                if choice != "wait" and self.decided(shelf, held, choice) and choice == "accept":
                    accepted.setdefault(shelf, []).append(held)
        self.settle()
        for shelf in self.shelves:
            listed = shelf in accepted
            if listed:
                self.require_success(shelf)
            shelf.check(is_exact=listed, complete=listed)
            for held in accepted.get(shelf, ()):
                self.compare_accepted(shelf, held, accepted[shelf], before[shelf])

    def decided(self, shelf: Shelf, held: Held, choice: Decision) -> bool:
        """Decide on a held deletion. Returns False if it does not exist any more."""
        shown = self.person.items(held.id)
        if shown is None or not self.person.decide(held.id, choice):
            return False
        print(f"{shelf}: {choice} {held.id} of {held.source} with {sorted(shown)}")
        shelf.decided(held._replace(items=shown), accepted=choice == "accept")
        return True

    def compare_accepted(
        self, shelf: Shelf, held: Held, accepted: list[Held], before: dict[str, Row]
    ) -> None:
        """Check that a run has deleted what was shown and is missing, and nothing else there."""
        there, live = shelf.source.items, shelf.live()
        left = (held.items & live.keys()) - there.keys()
        assert not left, f"{shelf} accepted, and still here: {left}"
        shown = set[str]().union(*(each.items for each in accepted))
        parents = {each.parent for each in accepted if each.source == "listing"}
        extra = {
            id for id in before.keys() - live.keys() - shown
            if _listed_below(id, before, there) in parents
        }  # fmt: skip
        assert not extra, f"{shelf} deleted, and did not show: {extra}"

    def wild_round(self) -> None:
        """Change each source, and disturb the runs."""
        for shelf in self.shelves:
            shelf.is_complete = False
            shelf.source.failures = 0.04 if self.chance(0.5) else 0.0
            shelf.source.seconds = 0.02
            shelf.change()
            self.sync(shelf, complete=self.chance(0.3))
        self.wild_ways()
        self.settle()
        for shelf in self.shelves:
            shelf.check(is_exact=False)

    def wild_ways(self) -> None:
        """Change and decide while runs are open, and perhaps kill a worker."""
        wild = self.rng.sample(self.shelves, max(len(self.shelves) * 2 // 3, 1))
        ways = [self.changed, self.changed, self.account, self.deletions, self.cancel, self.random]
        for shelf in wild:
            time.sleep(self.rng.uniform(0.0, 0.1))  # the moment is random
            self.rng.choice([*ways, self.random, self.random])(shelf)
        if self.chance(0.5) and (pids := self.fleet.worker_pids()):
            with suppress(ProcessLookupError):
                send(signal.SIGKILL, self.rng.choice(pids))
            self.fleet.let_the_lead_run_out(18)

    def changed(self, shelf: Shelf) -> None:
        shelf.change(in_run=True)

    def account(self, shelf: Shelf) -> None:
        """Change the config or the identity of an account."""
        print(f"{shelf}: config")
        value = json.dumps(self.rng.randint(1, 10**6))
        statement = self.rng.choice((
            "UPDATE user_integration SET config = jsonb_set(config, '{number}', %s::jsonb)",
            "UPDATE user_integration SET identity = %s",
        ))  # fmt: skip
        self.deployment.rows(f"{statement} WHERE id = %s", value, shelf.account)

    def deletions(self, shelf: Shelf) -> None:
        shelf.set_deletions(Deletions.MARK if shelf.keeps else Deletions.KEEP)

    def cancel(self, shelf: Shelf) -> None:
        print(f"{shelf}: cancel")
        for (run,) in self.deployment.rows(OPEN_RUN, shelf.account):
            with suppress(WrongState, NotFound), self.deployment.connection() as conn:
                controls.cancel_run(conn, run)

    def random(self, shelf: Shelf) -> None:
        """Decide while a run is open."""
        for held in shelf.held():
            choice = self.rng.choice(("accept", "refuse"))
            self.decided(shelf, held, choice)

    def finish(self) -> None:
        """Accept all held deletions, and compare each account with its source."""
        for _ in range(8):
            for shelf in self.shelves:
                shelf.source.failures = shelf.source.seconds = 0.0
                shelf.write()
                self.sync(shelf, complete=True)
            self.settle()
            held = [(shelf, each) for shelf in self.shelves for each in shelf.held()]
            if not held:
                break
            for shelf, each in held:
                self.decided(shelf, each, "accept")
            self.settle()
        for shelf in self.shelves:
            shelf.check(is_exact=True, complete=True)
            if not shelf.keeps:
                assert shelf.live().keys() == shelf.source.items.keys(), str(shelf)
        # The leader deletes the rows that a killed worker left, once in a minute.
        self.fleet.until(
            lambda: self.deployment.rows("SELECT count(*) FROM sync_seen") == [(0,)],
            "nothing is seen",
            90,
        )


def _listed_below(id: str, before: dict[str, Row], there: object) -> str | None:
    """Return the parent of the listing that lacks an item: its nearest ancestor at the source."""
    parent = before[id].parent
    while parent is not None and parent not in there and parent in before:  # type: ignore[operator]
        parent = before[parent].parent
    return parent


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "accounts", "rounds"),
    [(1, 6, 3), *(pytest.param(seed, 12, 12, marks=pytest.mark.long) for seed in range(2, 8))],
)
def test_a_copy_follows_its_source_and_loses_nothing(
    fleet: Fleet,
    deployment: Deployment,
    person: Person,
    tmp_path: Path,
    seed: int,
    accounts: int,
    rounds: int,
) -> None:
    rng = Random(seed)
    modes = [mode for mode in get_args(Mode) for _ in range(accounts // 3)]
    shelves = [
        Shelf(deployment, tmp_path / f"{number}.json", Random(f"{seed} {number}"), mode)
        for number, mode in enumerate(modes)
    ]
    deployment.rows("UPDATE user_integration SET poll_interval_minutes = 100000")
    history = History(fleet, deployment, person, shelves, rng)
    for turn in range(rounds):
        if turn and rng.random() < 0.5:
            history.wild_round()
        else:
            history.calm_round()
    history.finish()


@pytest.mark.timeout(400)
def test_a_person_decides_on_held_deletions(
    make_fleet: Callable[..., Fleet], deployment: Deployment, tmp_path: Path
) -> None:
    (served := tmp_path / "served" / "folder").mkdir(parents=True)
    for number in range(5):
        (served / f"{number}.txt").write_text(f"file {number}")
    fleet = make_fleet(**STRICT)
    fleet.workers(processes=1)
    fleet.ready(90)
    with ftp_server(served.parent) as port:
        login = FtpCredentials(username=USERNAME, password=PASSWORD)
        account = connect(deployment, Ftp, {"host": "127.0.0.1", "port": port}, login)
        decide_on_every_surface(fleet, tmp_path, account, "file")
