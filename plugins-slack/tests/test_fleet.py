"""Complete workspaces, synced by real workers that are killed.

The tests compare the kept content with the fake's.
"""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fake_slack import Fake
from fake_slack.bulk import fill
from fake_slack.server import CLIENT_ID, CLIENT_SECRET
from integration_polling_slack import Credentials, Slack
from integration_polling_slack.directory import TIERS
from support import oracle
from support.accounts import connect, sync
from support.deciding import STRICT, decide_on_every_surface
from support.deployment import Deployment
from support.fleet import Fleet, send

from core.plugins import get_registry
from core.search import query
from core.service.content import search_index
from core.settings import get_settings

MESSAGES = """
SELECT external_id, content_text FROM user_integration_content
WHERE user_integration_id = %s AND kind = 'message' AND deleted_at IS NULL
"""
DELETED = """
SELECT count(*) FROM user_integration_content
WHERE user_integration_id = %s AND deleted_at IS NOT NULL
"""
FOUND = """
SELECT external_id FROM content_search JOIN user_integration_content ON id = content_id
WHERE document @@ %s::tsquery
"""
AGE = """
UPDATE user_integration_content
SET content_text = 'as an older renderer left it', hash = md5(external_id)
WHERE user_integration_id = %s AND kind = 'message'
RETURNING 1
"""
BEGIN_REREAD = "UPDATE user_integration SET reader_version = 0 WHERE id = %s RETURNING id"
OUTDATED = """
SELECT 1 FROM user_integration_content WHERE user_integration_id = %s AND kind = 'message'
  AND content_text = 'as an older renderer left it' LIMIT 1
"""
STATES = "SELECT lane, state FROM sync_run WHERE user_integration_id = %s"
SAVED = "SELECT sum(outputs_saved), sum(outputs_deleted) FROM sync_run WHERE id = %s"

CASES, SEEN = (
    json.loads(Path(__file__).with_name("cases").joinpath(name).read_text("utf-8"))
    for name in ("messages.json", "seen.json")
)
NOT_POSTED = ("ts", "thread_ts", "root", "reply_count", "channel")
"""The parts of a case that the fake makes itself."""

MakeFleet = Callable[..., Fleet]


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Clear the caches of settings and plugins after each test."""
    yield
    get_settings.cache_clear()
    get_registry.cache_clear()


def settings(fake: Fake, **units: int) -> dict[str, str]:
    """Return the operator's settings: limits that delay no test, except those in `units`."""
    limits = {
        name: {"units": units.get(name.replace(".", "_"), 60_000), "per": 60} for name in TIERS
    }
    return {
        "SLACK_API_URL": fake.api_url,
        "SLACK_CLIENT_ID": CLIENT_ID,
        "SLACK_CLIENT_SECRET": CLIENT_SECRET,
        "POLLING_LIMITS": json.dumps({"slack": limits}),
    }


def connected(fake: Fake, deployment: Deployment) -> UUID:
    """Connect an account whose token is rotated, and return its id."""
    token, refresh = fake.rotate()
    credentials = Credentials.model_validate({"token": token, "refresh_token": refresh})
    return connect(deployment, Slack, {"files": "all"}, credentials)


def assert_whole(fake: Fake, deployment: Deployment, account: UUID) -> None:
    """Assert that every message of the workspace is kept once with its own text, and no others."""
    wanted = {id: message["text"] for id, message in fake.workspace.visible()}
    kept = dict(deployment.rows(MESSAGES, account))
    missing, surplus = wanted.keys() - kept.keys(), kept.keys() - wanted.keys()
    assert not missing, f"{len(missing)} of {len(wanted)} are missing: {sorted(missing)[:5]}"
    assert not surplus, f"{len(surplus)} too many: {sorted(surplus)[:5]}"
    mentions = {"<@U1>": "@Ann", "<@U2>": "@Björn", "&amp;": "&"}
    for id, text in wanted.items():
        for raw, shown in mentions.items():
            text = text.replace(raw, shown)
        assert kept[id] == text
    assert not deployment.value(DELETED, account)
    assert {state for _, state in deployment.rows(STATES, account)} == {"succeeded"}, (
        deployment.rows(oracle.LEFT)
    )


def assert_second_sync_is_cheap(fake: Fake, fleet: Fleet, account: UUID) -> None:
    """Assert that a sync makes the lookback's calls, which are those for new messages too."""
    fake.calls.clear()
    run = sync(fleet.deployment, account)
    oracle.wait_for_quiet(fleet, 120)
    asked = Counter(call.arguments["channel"] for call in fake.called("conversations.history"))
    for one in fake.workspace.channels.values():
        assert 1 <= asked[one.id] <= -(-len(one.top) // min(999, fake.page_cap))
    assert not fake.called("conversations.replies")
    assert deployment_row(fleet, run) == (0, 0)


def deployment_row(fleet: Fleet, run: UUID) -> Any:
    return fleet.deployment.rows(SAVED, run)[0]


@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_a_workspace_is_complete_after_kills_expired_tokens_and_new_messages(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """Two workers are killed, and the token expires three times under concurrent calls.

    People post messages throughout.
    """
    fake.page_cap = 10
    fill(fake.workspace, channels=6, messages=300, threads=40)
    channel = fake.workspace.channels["C0001"]
    fake.workspace.upload(channel, b"bytes" * 100_000)
    calls, killed = itertools.count(1), threading.Event()

    def before(method: str, arguments: dict[str, str]) -> None:
        if not method.startswith("conversations."):
            return
        # Tokens expire only after the kills: a worker that dies with a new token, before it is
        # stored, loses the account.
        if killed.is_set() and next(calls) in (1, 11, 21):
            with fake.workspace.lock:
                fake.tokens.update(dict.fromkeys(fake.tokens, "expired"))
        if len(fake.calls) % 10 == 0:
            fake.workspace.post(channel, "meanwhile")

    fake.before = before
    fleet = make_fleet(**settings(fake, conversations_replies=600))
    fleet.workers(threads=8)
    fleet.ready(100)
    account = connected(fake, deployment)
    sync(deployment, account)
    for tasks in (25, 50):
        fleet.until(
            lambda done=tasks: deployment.value(oracle.DONE) >= done,
            "tasks are done",
            100,
            replace=True,
        )
        fleet.until(fleet.worker_pids, "a worker runs", 100, replace=True)
        send(signal.SIGKILL, fleet.worker_pids()[0])
    killed.set()
    oracle.wait_for_quiet(fleet, 120)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 120)
    fake.before = None
    rotations = fake.called("oauth.v2.access")
    assert 1 <= len(rotations) <= 3, "the token was renewed more often than it expired"
    assert not [call for call in rotations if call.error], "a refresh token was used twice"
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 120)
    assert_whole(fake, deployment, account)
    assert_second_sync_is_cheap(fake, fleet, account)


@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_429_blocks_the_method_for_all_workers(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """The operator's limit is too high. One refusal blocks the method for all workers.

    It counts no attempt.
    """
    fake.page_cap = 10
    fill(fake.workspace, channels=6, messages=120, threads=0)
    fake.limits["conversations.history"] = (10, 2.0)
    fleet = make_fleet(**settings(fake))
    fleet.workers(threads=8)
    fleet.ready(100)
    account = connected(fake, deployment)
    deployment.rows("UPDATE user_integration SET limit_group = 'T1:A1'")
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 120)
    assert_whole(fake, deployment, account)
    calls = fake.called("conversations.history")
    refused = [call for call in calls if call.status == 429]
    assert refused
    # Calls in progress on 16 threads may be refused together with the first one.
    assert len(refused) <= 16 * (1 + (len(calls) - len(refused)) // 10)
    blocked = {key for (key,) in deployment.rows("SELECT key FROM limit_block")}
    assert blocked == {"group/slack/T1:A1/conversations.history"}, (
        "another limit or another group was blocked"
    )
    attempts = deployment.value(
        "SELECT max(attempts) FROM sync_task WHERE user_integration_id = %s", account
    )
    assert attempts == 0, "a refusal was counted as an attempt"


def found(deployment: Deployment, words: str) -> set[str]:
    """Return the items that the search finds by these words in a row."""
    asked = query.parse(f'"{words}"', lambda *_: ()).text
    return {id for (id,) in deployment.rows(FOUND, asked)}


@pytest.mark.acceptance
@pytest.mark.timeout(200)
def test_the_search_finds_each_word_that_a_person_sees(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """All words and emoji of 80 messages, and the phrases of the other cases."""
    fake.workspace.add_user("U01ANN", "Ann")
    fake.workspace.add_user("U02BOB", "Bob")
    fake.workspace.groups["S01OPS"] = "oncall"
    channel = fake.workspace.add_channel("general", id="C01GEN")
    wanted = list[tuple[str, str]]()
    for case in [*SEEN, *(one for one in CASES if one["field"] == "text")]:
        left = {key: value for key, value in case["message"].items() if key not in NOT_POSTED}
        ts = fake.workspace.post(channel, left.pop("text", ""), **left)
        words = case["seen"].split() if "seen" in case else case["contains"]
        wanted += [(f"{channel.id}:{ts}", one.replace('"', " ")) for one in words if is_word(one)]
    assert len(wanted) > 600
    fleet = make_fleet(**settings(fake))
    fleet.workers(threads=2)
    fleet.ready(100)
    sync(deployment, connected(fake, deployment))
    oracle.wait_for_quiet(fleet, 100)
    with deployment.connection() as conn:
        while search_index.index_pending(conn):
            pass
    results = {words: found(deployment, words) for words in {words for _, words in wanted}}
    assert [one for one in wanted if one[0] not in results[one[1]]] == []
    assert not found(deployment, "not seen"), "a fallback"


def is_word(text: str) -> bool:
    """Return True for words and emoji, and False for punctuation, bullets and check boxes."""
    return any(
        sign.isalnum() or (unicodedata.category(sign) == "So" and sign not in "◦■☐✓")
        for sign in text
    )


@pytest.mark.long
@pytest.mark.acceptance
@pytest.mark.timeout(1800)
def test_100_000_messages_are_rendered_again_without_slack(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """Each message is kept as an older renderer left it; a reread writes its current form."""
    fill(fake.workspace, channels=50, messages=100_000, threads=100)
    fleet = make_fleet(**settings(fake))
    fleet.workers(processes=2, threads=8)
    fleet.ready(100)
    account = connected(fake, deployment)
    sync(deployment, account)
    oracle.wait_for_quiet(fleet, 900)
    assert_whole(fake, deployment, account)
    deployment.rows(AGE, account)
    fake.calls.clear()
    began = time.monotonic()
    run = deployment.rows(BEGIN_REREAD, account)
    fleet.until(lambda: not deployment.rows(OUTDATED, account), "all are rendered again", 600)
    print(f"rendered 100,000 messages again in {time.monotonic() - began:.0f} s, {run}")
    oracle.wait_for_quiet(fleet, 60)
    assert not fake.calls
    assert_whole(fake, deployment, account)


@pytest.mark.long
@pytest.mark.acceptance
@pytest.mark.timeout(1800)
def test_20_000_messages_are_kept_with_a_kill_every_5_seconds(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet
) -> None:
    """50 channels, 20,000 messages, 2,000 threads."""
    fill(fake.workspace, channels=50, messages=20_000, threads=2_000)
    assert sum(len(one.threads) for one in fake.workspace.channels.values()) == 2_000
    fleet = make_fleet(**settings(fake, conversations_replies=3_000))
    for _ in range(3):  # containers of one process each: the death of one ends no other
        fleet.workers(processes=1, threads=8)
    fleet.ready(100)
    account = connected(fake, deployment)
    sync(deployment, account)
    kills, due = 0, time.monotonic() + 5

    def quiet() -> bool:
        nonlocal kills, due
        if time.monotonic() >= due and len(pids := fleet.worker_pids()) > 1:
            send(signal.SIGKILL, pids[kills % len(pids)])
            kills, due = kills + 1, time.monotonic() + 5
        return not deployment.value(oracle.OPEN)

    fleet.until(quiet, "the workspace is kept", 1_200, replace=True)
    assert kills >= 2
    oracle.wait_for_quiet(fleet, 120)
    assert_whole(fake, deployment, account)
    assert_second_sync_is_cheap(fake, fleet, account)


@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_a_person_decides_on_held_deletions(
    fake: Fake, deployment: Deployment, make_fleet: MakeFleet, tmp_path: Path
) -> None:
    fill(fake.workspace, channels=2, messages=30, threads=4)
    fleet = make_fleet(**settings(fake), **STRICT)
    fleet.workers(processes=1)
    fleet.ready(100)
    decide_on_every_surface(fleet, tmp_path, connected(fake, deployment), "message")
