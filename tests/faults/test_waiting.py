"""Why is it not here yet? Each cause is made on a real fleet, and every surface tells it.

The command line, REST and the dashboard show one sentence, with the end of the wait and the next
step.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from integration_polling_hello_world import HelloWorld
from support import forks
from support.accounts import connect, sync
from support.deployment import Deployment, make_deployment
from support.fleet import METERED, Fleet
from support.servers import Servers
from support.serving import Served, polling_serve
from support.stalls import Stalls, opened
from support.waiting import until

from core.accounts.store import PAUSE

NIGHTLY = "0 2 * * *"
VARIABLES = METERED | {"POLLING_PLUGINS": "support.stalls", "POLLING_CRON_SCHEDULE": NIGHTLY}
TICKED = "UPDATE engine_state SET last_tick_at = clock_timestamp() - %s * interval '1 hour'"
GROW = "UPDATE user_integration SET config = %s, version = version + 1 WHERE id = %s"
DONE = "SELECT count(*) FROM sync_task WHERE user_integration_id = %s AND state = 'done'"
QUEUED = DONE.replace("done", "queued")
OPEN = "SELECT count(*) FROM sync_run WHERE user_integration_id = %s AND state = 'running'"


@dataclass
class World:
    """A fleet with one process of four threads, which serves the integration `stalls` alone."""

    deployment: Deployment
    fleet: Fleet
    served: Served
    browser: httpx2.Client

    def cli(self, *words: str) -> str:
        """Run a command, and return its output."""
        return self.says(*words)[0]

    def says(self, *words: str) -> tuple[str, str]:
        """Run a command, and return its output and its notes."""
        environment = self.deployment.environment() | VARIABLES
        code, out, err = forks.polling(words, environment, self.deployment.home)
        assert code == 0, err
        return out, err

    def shown(self, account: UUID) -> dict[str, Any]:
        """Return the answer that the command line gives."""
        answer = json.loads(self.cli("accounts", "show", str(account), "--json"))["why"]
        assert isinstance(answer, dict)
        return answer

    def page(self, account: UUID) -> str:
        """Return the sentence and the next step on the page of an account."""
        page = self.browser.get(f"/accounts/{account}")
        assert page.status_code == 200, page.text
        (told,) = re.findall(r'<p[^>]* id="why">.*?</p>', page.text, re.DOTALL)
        return " ".join(html.unescape(re.sub("<[^>]*>", "", told)).split())

    def rest(self, path: str) -> dict[str, Any]:
        with self.served.client() as client:
            answer = client.get(f"/v1/{path}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["why"])

    def tells(
        self, account: UUID, cause: str, words: str, *, until_when: bool, remedy: str, step: str
    ) -> dict[str, Any]:
        """Wait for a cause, and check it on every surface. Return the answer over REST.

        Args:
          account: The account.
          cause: The code of the cause.
          words: The beginning of the sentence, as a regular expression.
          until_when: True if the end of the wait has a time.
          remedy: A part of the next step on the command line, as a regular expression.
          step: The same over REST and in the dashboard.
        """
        why: dict[str, Any] = {}

        def is_told() -> bool:
            why.update(self.rest(f"user-integrations/{account}"))
            return bool(why["cause"] == cause and re.match(words, why["sentence"]))

        try:
            until(is_told, f"the cause is {cause}", 15)
        except AssertionError as error:
            raise AssertionError(f"{error}: {why}") from None
        shown, page = self.shown(account), self.page(account)
        for sentence in (shown["sentence"], page):
            assert re.match(words, sentence), sentence
        assert shown["cause"] == cause
        assert (shown["ahead"] is None) == (why["ahead"] is None)
        assert (why["until"] is not None, shown["until"] is not None) == (until_when,) * 2
        if why["until"] is not None:
            assert why["until"][:10] in why["sentence"]
        assert re.search(remedy, shown["remedy"]), shown["remedy"]
        assert re.search(step, why["remedy"]), why["remedy"]
        assert re.search(step, page), page
        assert "polling " not in why["remedy"] + page
        return why


@pytest.fixture(scope="module")
def world(server_pair: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with built(server_pair.start(), folder) as made:
        yield made


@contextmanager
def built(servers: Servers, folder: Path) -> Iterator[World]:
    """Start a fleet and the server of its API."""
    home = folder / "home"
    home.mkdir()
    deployment = make_deployment(
        servers.postgres.url, servers.valkey.url, home, f"waits-{uuid4().hex[:8]}"
    )
    fleet = Fleet(deployment, folder, **VARIABLES)
    fleet.workers("stalls", "save_output", "polling", processes=1, threads=4)
    try:
        with polling_serve(deployment, folder, **VARIABLES) as served:
            fleet.ready()
            with httpx2.Client(base_url=served.url, timeout=10, trust_env=False) as browser:
                signed_in = browser.post("/sign-in", data={"token": served.token})
                assert signed_in.status_code == 303, signed_in.text
                yield World(deployment, fleet, served, browser)
    finally:
        fleet.end()
        print(fleet.says()[-20_000:])
        deployment.close()


@pytest.fixture
def account(world: World) -> Iterator[Callable[..., UUID]]:
    """Return a function that connects an account, which stops after the test."""
    made: list[UUID] = []

    def connected(user: str = "ann", group: str | None = None, **config: int) -> UUID:
        made.append(connect(world.deployment, Stalls, config, user=user, group=group))
        return made[-1]

    yield connected
    for each in made:
        opened(each, world.deployment.home).touch()
        world.deployment.rows(PAUSE, each)
        until(lambda each=each: not world.deployment.value(QUEUED, each), "its threads are free")


Connect = Callable[..., UUID]


def test_a_paused_account(world: World, account: Connect) -> None:
    paused = account()
    world.cli("pause", str(paused))
    world.tells(
        paused,
        "paused",
        "The account is paused, until a person resumes it",
        until_when=False,
        remedy=f"polling resume {paused}",
        step="[Rr]esume",
    )


def test_rejected_credentials(world: World, account: Connect) -> None:
    refused = account(refused=1)
    sync(world.deployment, refused)
    world.tells(
        refused,
        "credentials",
        "The engine stopped the account .*the password has changed, until it has new credentials",
        until_when=False,
        remedy=f"polling reconnect {refused}",
        step="PATCH|Reconnect",
    )


def test_a_breaker(world: World, account: Connect) -> None:
    away = account(away=6)
    sync(world.deployment, away)
    world.tells(
        away,
        "breaker",
        r"The provider has not answered since .*: HTTP 503, and the next try is at \d{4}-",
        until_when=True,
        remedy="Wait: .*polling sync ID",
        step="Wait: the engine tries again by itself",
    )


def test_the_own_rate_limit(world: World, account: Connect) -> None:
    limited = account(calls=5)
    sync(world.deployment, limited)
    why = world.tells(
        limited,
        "rate-limit",
        r"The limit “calls” of 2 in 10 min is used up, until \d{4}-.*; 3 of 6 known tasks done",
        until_when=True,
        remedy="raise the limit: polling limits set stalls calls",
        step="raise the limit",
    )
    assert (why["done"], why["total"], why["ahead"]) == (3, 6, None)


def test_a_limit_that_a_neighbour_has_used_up(world: World, account: Connect) -> None:
    neighbour = account("bob", "client", shared=3)
    sync(world.deployment, neighbour)
    until(lambda: world.deployment.value(DONE, neighbour) == 3, "the limit is used up")
    waits = account("ann", "client", shared=1)
    sync(world.deployment, waits)
    why = world.tells(
        waits,
        "shared-rate-limit",
        "The limit “client” of 2 in 10 min is used up, and 1 other account with an open run may",
        until_when=True,
        remedy="polling limits set stalls client",
        step="raise the limit",
    )
    assert why["ahead"] == 1
    assert str(neighbour) not in json.dumps(why)


def test_no_free_thread(world: World, account: Connect) -> None:
    busy, waits = account(hold=20), account(hold=1)
    sync(world.deployment, busy)
    until(lambda: world.deployment.value(QUEUED, busy) >= 3, "it has the threads")
    run = sync(world.deployment, waits)
    why = world.tells(
        waits,
        "threads",
        r"All 4 threads of stalls are busy with account account-\d+: \d+ tasks ahead, until a thr",
        until_when=False,
        remedy="start more workers",
        step="start more workers",
    )
    assert why["ahead"] >= 3
    of_run = world.rest(f"runs/{run}")
    assert of_run["cause"] == "threads"
    assert of_run["ahead"] >= 3


def test_a_silent_scheduler(world: World, account: Connect) -> None:
    """The schedule is nightly, so the leader does not claim the account itself."""
    due = account()
    world.deployment.rows(TICKED, 48)
    world.tells(
        due,
        "scheduler",
        r"The account has been due since .*, and the scheduler has been silent at .* 02:00:00 UTC,"
        r" until \d{4}-\d\d-\d\d 02:00:00 UTC",
        until_when=True,
        remedy="periodiq core.actors",
        step="periodiq core.actors",
    )
    world.deployment.rows(TICKED, 0)
    world.tells(
        due,
        "scheduler",
        r"The account has been due since .*“0 2 \* \* \*” starts no run before its next time",
        until_when=True,
        remedy=f"polling sync {due}",
        step="start a run now|Sync now",
    )


def test_no_worker_for_the_integration(world: World) -> None:
    unserved = connect(world.deployment, HelloWorld)
    world.tells(
        unserved,
        "worker",
        "No worker serves hello-world, until a worker that serves hello-world starts",
        until_when=False,
        remedy="Start a worker where a plugin for hello-world is installed",
        step="Start a worker where a plugin for hello-world is installed",
    )


def test_a_held_deletion(world: World, account: Connect) -> None:
    listed = account(items=30)
    sync(world.deployment, listed)
    until(lambda: not world.deployment.value(OPEN, listed), "the first run has ended")
    world.deployment.rows(GROW, json.dumps({"items": 1}), listed)
    sync(world.deployment, listed)
    world.tells(
        listed,
        "deletion",
        "The engine holds the deletion of 29 items, until a person accepts or refuses it",
        until_when=False,
        remedy="polling deletions accept",
        step="accept or refuse",
    )


def test_a_backfill_behind_the_live_run(world: World, account: Connect) -> None:
    loads = account(hold=2, background=3)
    sync(world.deployment, loads)
    why = world.tells(
        loads,
        "backfill",
        "Older items load in the background, behind 2 tasks of the live run, until the live run"
        " ends; 0 of 3 known tasks done",
        until_when=False,
        remedy="new items arrive in the meantime",
        step="new items arrive in the meantime",
    )
    assert (why["ahead"], why["done"], why["total"]) == (2, 0, 3)


def test_a_sync_ends_with_the_work_that_still_loads(world: World, account: Connect) -> None:
    loads = account(background=1)
    _, notes = world.says("sync", str(loads), "--wait")
    assert "Still to come: Older items load in the background, until the backfill ends" in notes
    out, _ = world.says("sync", str(loads), "--wait", "--json")
    assert json.loads(out)["why"]["cause"] == "backfill"


def test_a_pending_resync(world: World, account: Connect) -> None:
    holds = account(hold=1)
    run = sync(world.deployment, holds)
    until(lambda: world.deployment.value(QUEUED, holds) == 1, "a task holds a thread")
    world.cli("resync", str(holds))
    why = world.tells(
        holds,
        "resync",
        "A resync starts after the open run, which has 1 open task, until the run ends; 1 of 2",
        until_when=False,
        remedy=f"polling runs cancel {run}",
        step="cancel it",
    )
    assert why["ahead"] == 1


def test_a_limit_changes_live(server_pair: Servers, tmp_path: Path) -> None:
    """The fleet applies new figures without a restart, and the trail names the change."""
    with built(server_pair.start(), tmp_path) as world:
        limited = connect(world.deployment, Stalls, {"calls": 5})
        sync(world.deployment, limited)
        until(lambda: world.deployment.value(DONE, limited) == 3, "the limit is used up")
        with world.served.client() as client:
            [of_account] = [
                budget
                for limit in client.get("/v1/limits").json()["items"]
                for budget in limit["budgets"]
                if budget["key"] == f"account/{limited}/calls"
            ]
            assert (of_account["used"], of_account["left"]) == (2, 0)
            assert [each["user_integration_id"] for each in of_account["waiting"]] == [str(limited)]
        assert f"account/{limited}/calls" in world.browser.get("/limits").text
        world.cli("limits", "set", "stalls", "calls", "units=50")
        until(lambda: world.deployment.value(DONE, limited) == 6, "the new limit applies")
        acts = world.deployment.rows("SELECT act, target_id FROM audit WHERE act LIKE 'limit%%'")
        assert acts == [("limit.change", "stalls/calls")]


def test_redis_is_away(tmp_path: Path) -> None:
    servers = Servers()  # the other tests need theirs
    try:
        with built(servers.start(), tmp_path) as world:
            waits = connect(world.deployment, Stalls, {"calls": 1})
            servers.valkey.stop()
            world.tells(
                waits,
                "redis",
                "Redis does not answer, so no task is sent, until Redis answers",
                until_when=False,
                remedy="polling doctor",
                step="Check the Redis server",
            )
    finally:
        servers.close()
