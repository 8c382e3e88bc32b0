"""Schemathesis finds nothing, with all its checks. `nox -s fuzz` runs the complete search."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core import TaskOutput
from core.scopes import ALL
from core.service import tokens
from core.web import wrong_tokens

TESTS = Path(__file__).parents[1]
SEEDS = (1, 2, 3, 4, 5)
MAX_SECONDS = 3_600
SUBSCRIBE = """
INSERT INTO subscription (id, name, kind, channel, address, sealed)
VALUES (gen_random_uuid(), 'example.com', 'content', 'webhook', 'https://example.com/', %s)
"""


@pytest.fixture
def known(api, desk) -> dict[str, list[object]]:
    """Store an object of every kind, and return their ids by the parameter in a path."""
    del api.backend.registry.integrations["caller"]  # it connects to any host
    for name in ("one", "two"):
        sealed = api.backend.vault.seal_json({"password": "fine"})
        account = desk.account("me", domain="locked", user_id=name, credentials=sealed)
        run = desk.run(account)
        desk.conn.execute(
            "UPDATE sync_task SET state = 'parked', reason = 'x', finished_at = now()"
        )
        desk.conn.execute("UPDATE sync_run SET state = 'partial', finished_at = now()")
    account = desk.account("three", domain="shop", user_id="one")
    desk.keep(account, TaskOutput("1", "text", kind="message"), TaskOutput("2", b"\0", parent="1"))
    run = desk.run(account)
    desk.hold(account, run, "1")
    sealed = api.backend.vault.seal_json({"url": "https://example.com/", "secret": "whsec_AAAA"})
    desk.conn.execute(SUBSCRIBE, (sealed,))
    ids = {
        "subscription_id": "SELECT id::text FROM subscription",
        "user_integration_id": "SELECT id::text FROM user_integration",
        "run_id": "SELECT id::text FROM sync_run",
        "task_id": "SELECT id FROM sync_task",
        "content_id": "SELECT id FROM user_integration_content",
        "held_deletion_id": "SELECT id FROM held_deletion",
    }
    found = {name: [id for (id,) in desk.rows(query)] for name, query in ids.items()}
    named = {"integration_domain": ["locked"], "limit_name": ["calls"], "user_id": ["one", "two"]}
    return found | named


@pytest.fixture
def schemathesis(api, known, monkeypatch, tmp_path) -> Callable[..., None]:
    """Return a function that runs schemathesis with all checks, and requires that it is silent."""
    # Each check without a valid token would wait.
    monkeypatch.setattr(wrong_tokens, "DELAY_SECONDS", 0.0)
    monkeypatch.setattr(wrong_tokens, "BURST", 10**9)
    with api.backend.database.connection() as conn:
        token = tokens.create(conn, user_id=None, scopes=ALL)
    environment = os.environ | {
        "FUZZING_KNOWN": json.dumps(known),
        "FUZZING_TOKEN_ID": str(token.id),
        "PYTHONPATH": str(TESTS),
    }
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", TESTS / "support" / "schemathesis.toml"),
        *("run", f"{api.url}/openapi.json", "--checks", "all", "--suppress-health-check", "all"),
        *("--header", f"Authorization: Bearer {token.secret}"),
    ]

    def run(*arguments: object) -> None:
        done = subprocess.run(
            [str(word) for word in (*command, *arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=MAX_SECONDS,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.mark.long
@pytest.mark.timeout(MAX_SECONDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_schemathesis_finds_nothing(schemathesis, seed) -> None:
    schemathesis("--max-examples", 200, "--seed", seed)


def test_schemathesis_finds_nothing_in_a_short_search(schemathesis) -> None:
    schemathesis("--phases", "coverage", "--max-examples", 1, "--seed", 1)
