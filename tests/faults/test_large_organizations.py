"""A large Workspace: slow pages and killed processes, and each user has exactly one account."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from support.deployment import Deployment
from support.fleet import Fleet, send
from support.gmail import FakeGmail
from support.gmail.directory import ADMINISTRATOR
from support.gmail.service_accounts import service_account

USERS = 10_050
PAGE_SECONDS = 0.1
HANGS_AT = 8
"""The request that gets no answer."""

ADD = """
INSERT INTO organization (id, user_id, integration_domain, name, config, credentials)
VALUES (%s, 'default', 'gmail', 'example.com', '{}', %s)
"""
COUNT = "SELECT count(*) FROM user_integration"
DUE = "UPDATE organization SET members_due_at = now()"
LISTED = "SELECT listed_at FROM organization WHERE members_due_at > now() + interval '50 min'"
STATES = "SELECT identity, sync_status FROM user_integration"
END = """
UPDATE organization SET ending_since = now(), credentials = NULL, hides_content = %s WHERE id = %s
"""


class SlowPages:
    """Answers each page after some time, and one never."""

    def __init__(self) -> None:
        self.hangs, self.released = threading.Event(), threading.Event()

    def __call__(self, number: int) -> None:
        time.sleep(PAGE_SECONDS)
        if number == HANGS_AT:
            self.hangs.set()
            self.released.wait()


@pytest.fixture
def slow_pages(gmail: FakeGmail) -> Iterator[SlowPages]:
    pages = SlowPages()
    for number in range(USERS):
        gmail.directory.add(f"user-{number}@example.com")
    gmail.directory.before = pages
    yield pages
    pages.released.set()


@pytest.fixture
def organization(deployment: Deployment) -> UUID:
    id, key = uuid4(), {"service_account": service_account(project_id="p")}
    sealed = deployment.vault.seal_json(key | {"subject": ADMINISTRATOR})
    deployment.rows(ADD, id, sealed)
    return id


def kill_worker(fleet: Fleet) -> None:
    """Kill the worker process. Its claim ends two minutes later, or here, immediately."""
    send(signal.SIGKILL, *fleet.worker_pids())
    fleet.deployment.rows(DUE)


def addresses(gmail: FakeGmail) -> dict[str, bool]:
    """Return the address of each user, and whether the user is active."""
    return {
        user["primaryEmail"]: not user.get("suspended") for user in gmail.directory.users.values()
    }


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_a_large_directory_becomes_exactly_its_accounts(
    gmail_fleet: Fleet,
    deployment: Deployment,
    gmail: FakeGmail,
    slow_pages: SlowPages,
    organization: UUID,
) -> None:
    """The first process is killed while a page hangs, the second one while it adds accounts."""
    fleet, users = gmail_fleet, gmail.directory.users
    fleet.workers(processes=1)
    fleet.until(slow_pages.hangs.is_set, "a page hangs", 60)
    assert deployment.value(COUNT) == 0, "an incomplete listing changes nothing"
    kill_worker(fleet)
    slow_pages.released.set()
    fleet.until(lambda: deployment.value(COUNT) >= 3_000, "accounts appear", 300, replace=True)
    kill_worker(fleet)
    assert 3_000 <= deployment.value(COUNT) < USERS
    assert not deployment.rows(LISTED)
    fleet.until(lambda: deployment.rows(LISTED), "all are listed", 600, replace=True)
    assert dict(deployment.rows(STATES)) == dict.fromkeys(addresses(gmail), "active")
    assert deployment.value(COUNT) == USERS

    ids = list(users)
    removed = {users.pop(id)["primaryEmail"] for id in ids[::21]}
    for id in ids[1::21]:
        users[id]["suspended"] = True
    deployment.rows(DUE)
    fleet.until(lambda: deployment.rows(LISTED), "all are listed again", 240, replace=True)
    expected = dict.fromkeys(removed, False) | addresses(gmail)
    assert dict(deployment.rows(STATES)) == {
        address: "active" if is_active else "paused" for address, is_active in expected.items()
    }
    assert Counter(expected.values())[False] == 958


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hides", [False, True], ids=["keeps", "hides"])
def test_a_large_organization_ends_although_leaders_are_killed(
    gmail_fleet: Fleet, deployment: Deployment, organization: UUID, hides: bool
) -> None:
    fleet = gmail_fleet
    deployment.rows(
        "INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config,"
        " credentials, organization_id, member) SELECT gen_random_uuid(), 'u', 'gmail', 'm' || n,"
        " 'm' || n, '{}', 'sealed', %s, 'm' || n FROM generate_series(1, 10000) n",
        organization,
    )
    state = "erasing" if hides else "disconnected"

    def ended() -> int:
        return int(deployment.value(f"{COUNT} WHERE sync_status = %s", state))

    program = fleet.workers(processes=1)
    fleet.ready(60)
    deployment.rows(END, hides, organization)
    for number in (500, 2_000, 4_000):
        fleet.until(lambda number=number: ended() >= number, f"{number} have ended", 120)
        program.kill()
        assert ended() < 10_000
        fleet.let_the_lead_run_out()
        program.start()
    gone = "SELECT NOT EXISTS (SELECT FROM organization)"
    fleet.until(lambda: deployment.value(gone), "the organization is gone", 240)
    assert ended() == deployment.value(COUNT) == 10_000
    assert deployment.value(f"{COUNT} WHERE organization_id IS NOT NULL") == 0
