"""A person who decides on held deletions: on the command line, over REST or in the dashboard."""

from __future__ import annotations

import json
import subprocess
from random import Random
from typing import Literal

from support.dashboard import Browser
from support.deployment import Deployment
from support.serving import POLLING, Served

Decision = Literal["accept", "refuse"]


class Person:
    """An operator with a terminal, a REST client and a browser.

    Args:
      deployment: The deployment.
      served: Its running API and dashboard.
      rng: Chooses the surface of each decision.
    """

    def __init__(self, deployment: Deployment, served: Served, rng: Random) -> None:
        self._deployment, self._rng = deployment, rng
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

    def decide(self, id: int, decision: Decision) -> bool:
        """Decide on a held deletion. Returns False if it does not exist any more."""
        ways = (self._in_rest, self._in_rest, self._in_dashboard, self._in_dashboard, self._in_cli)
        return self._rng.choice(ways)(id, decision)

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
        done = subprocess.run(
            [*POLLING, "deletions", decision, str(id), "--json"],
            env=self._deployment.environment(), cwd=self._deployment.home, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            assert f"held deletion {id} not found" in done.stderr, done.stderr
            return False
        return json.loads(done.stdout)["id"] == id
