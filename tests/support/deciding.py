"""A person who decides on held deletions: on the command line, over REST or in the dashboard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Literal, get_args
from uuid import UUID

from core.ledger.scheduling import request_resync
from support.dashboard import Browser
from support.deployment import Deployment
from support.fleet import Fleet
from support.forks import polling
from support.serving import Served, polling_serve

Decision = Literal["accept", "refuse"]
Surface = Literal["cli", "rest", "dashboard"]

STRICT = {"POLLING_MAX_DELETED_SHARE": "0"}
"""Settings with which the guard holds every deletion."""

LIVE = """
SELECT external_id FROM user_integration_content
WHERE user_integration_id = %s AND deleted_at IS NULL
"""
OPEN = "SELECT 1 FROM sync_run WHERE state = 'running'"
# An item beside one of the source, as if an earlier run had stored it.
PLANT = """
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    parent, name, external_timestamp, content_text, size, digest, content_seq, metadata_seq,
    updated_at)
SELECT user_integration_id, integration_domain, %s, kind, parent, name, external_timestamp, '', 0,
    '', 0, 0, now() - interval '1 day'
FROM user_integration_content
WHERE user_integration_id = %s AND kind = %s AND deleted_at IS NULL ORDER BY external_id LIMIT 1
RETURNING external_id
"""


class Person:
    """An operator with a terminal, a REST client and a browser.

    Args:
      deployment: The deployment.
      served: Its running API and dashboard.
      rng: Chooses the surface of each decision.
      variables: Further settings of the command line.
    """

    def __init__(
        self,
        deployment: Deployment,
        served: Served,
        rng: Random,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._environment, self._folder = deployment.environment() | {**variables}, deployment.home
        self._rng = rng
        self._api, site = served.client(), served.client()
        del site.headers["Authorization"]
        self._browser = Browser(site)
        answer = self._browser.send("/sign-in", {"token": served.token})
        assert answer.status_code == 303, answer.text
        self._csrf = self._browser.csrf

    def close(self) -> None:
        """Close the clients."""
        self._api.close()
        self._browser.client.close()

    def decide(self, id: int, decision: Decision, surface: Surface | None = None) -> bool:
        """Decide on a held deletion. Returns False if it does not exist any more.

        Args:
          id: The held deletion.
          decision: The decision.
          surface: The surface. Default: a random one, and seldom the slow command line.
        """
        surface = surface or self._rng.choice(("rest", "rest", "dashboard", "dashboard", "cli"))
        ways = {"rest": self._in_rest, "dashboard": self._in_dashboard, "cli": self._in_cli}
        return ways[surface](id, decision)

    def held(self, account: UUID) -> dict[int, set[str]]:
        """Return the items of each held deletion of an account."""
        answer = self._api.get("/v1/held-deletions", params={"user_integration_id": str(account)})
        ids = [row["id"] for row in answer.raise_for_status().json()["items"]]
        return {id: self.items(id) or set() for id in ids}

    def items(self, id: int) -> set[str] | None:
        """Return the items that a held deletion shows; None if it does not exist any more."""
        found, after = set[str](), None
        while True:
            params = {"limit": "200", **({"after": after} if after else {})}
            answer = self._api.get(f"/v1/held-deletions/{id}/items", params=params)
            if answer.status_code == 404:
                return None
            page = answer.raise_for_status().json()
            found |= {item["external_id"] for item in page["items"]}
            if (after := page["cursor"]) is None:
                return found

    def _in_rest(self, id: int, decision: Decision) -> bool:
        answer = self._api.post(f"/v1/held-deletions/{id}/{decision}")
        assert answer.status_code in (200, 404), answer.text
        return answer.status_code == 200

    def _in_dashboard(self, id: int, decision: Decision) -> bool:
        path = f"/deletions/{id}"
        if self._browser.get(path).status_code == 404:
            return False
        answer = self._browser.send(f"{path}/{decision}", {"csrf": self._csrf})
        assert answer.status_code in (303, 404), answer.text
        return answer.status_code == 303

    def _in_cli(self, id: int, decision: Decision) -> bool:
        words = ["deletions", decision, str(id), "--json"]
        code, out, errors = polling(words, self._environment, self._folder)
        if code:
            assert f"held deletion {id} not found" in errors, errors
            return False
        return json.loads(out)["id"] == id


def decide_on_every_surface(fleet: Fleet, folder: Path, account: UUID, kind: str) -> None:
    """Refuse and accept held deletions of an account, on each surface.

    The deletions are those of items that the source does not have. Exactly these are deleted, and
    only after their acceptance.

    Args:
      fleet: A fleet with the settings `STRICT`, with running workers.
      folder: A folder for the API.
      account: An account that has items.
      kind: The kind of the items.
    """
    deployment = fleet.deployment

    def live() -> set[str]:
        return {id for (id,) in deployment.rows(LIVE, account)}

    def settle() -> None:
        fleet.until(lambda: not deployment.rows(OPEN), "all runs end", 120)

    def plant(id: str) -> None:
        assert deployment.rows(PLANT, id, account, kind) == [(id,)]

    def resync() -> None:
        with deployment.connection() as conn:
            request_resync(conn, account)
        deployment.queues.wake()
        settle()

    def only_held(person: Person) -> tuple[int, set[str]]:
        """Wait until a thread of the worker has settled the others, after the end of their run."""
        fleet.until(lambda: len(person.held(account)) == 1, "one held deletion remains")
        ((id, items),) = person.held(account).items()
        return id, items

    resync()
    source = live()
    with (
        polling_serve(deployment, folder, **fleet.variables) as served,
        closing(Person(deployment, served, Random(0), fleet.variables)) as person,
    ):
        for surface in get_args(Surface):
            plant(surface)
            resync()
            first, items = only_held(person)
            assert (items, live()) == ({surface}, source | {surface})
            assert person.decide(first, "refuse", surface)
            resync()
            assert live() == source | {surface}
            plant("later")
            assert person.decide(first, "accept", surface)
            settle()
            assert live() == source | {"later"}
            second, items = only_held(person)
            assert (items, second > first) == ({"later"}, True)
            assert person.decide(second, "accept", surface)
            settle()
            assert (live(), person.held(account)) == (source, {})
            deployment.rows(
                "DELETE FROM user_integration_content WHERE external_id IN (%s, 'later')", surface
            )
