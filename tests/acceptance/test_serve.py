"""`polling serve` and `polling up`, as people start them.

An account is connected over HTTP, polled, and read.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading

import httpx2
import pytest
from support.deployment import Deployment
from support.waiting import until

POLLING = [sys.executable, "-c", "from core.cli import main; main()"]


@pytest.fixture
def served(deployment: Deployment, tmp_path):
    """Start `polling serve`, and yield its address and its process."""
    log = tmp_path / "serve.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*POLLING, "serve", "--port", "0"],
            env=deployment.environment(),
            cwd=tmp_path,
            stdout=file,
            stderr=file,
        )
    try:
        found = until(
            lambda: re.search(r"The dashboard is at (http://[\d.:]+\d)", log.read_text()),
            "the API starts",
        )
        yield found[1], process
    finally:
        process.kill()
        process.wait()


def polling(deployment: Deployment, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*POLLING, *words],
        env=deployment.environment(),
        cwd=deployment.home,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_account_is_connected_over_http_polled_and_read(served, deployment, fleet) -> None:
    url, process = served
    token = json.loads(polling(deployment, "tokens", "create", "--user-id", "me", "--json").stdout)[
        "token"
    ]
    with httpx2.Client(
        base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False
    ) as client:
        until(lambda: client.get("/healthz").status_code == 200, "the API answers")
        fleet.workers(processes=1)
        fleet.ready()
        config = {"pages": 2, "items": 3, "name": "me"}
        body = {"integration_domain": "hello-world", "config": config}
        account = client.post("/v1/user-integrations", json=body).json()["id"]
        run = client.post(f"/v1/user-integrations/{account}/sync").json()["run_id"]
        until(
            lambda: client.get(f"/v1/runs/{run}").json()["state"] == "succeeded",
            "the run has ended",
        )
        changes = client.get("/v1/changes").json()["changes"]
        assert len(changes) == 6
        one = changes[0]["content"]
        assert client.get(f"/v1/user-integration-content/{one['id']}/raw").content
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143  # the exit code of every command that SIGTERM ends
    listed = polling(deployment, "tokens", "list", "--json")
    assert json.loads(listed.stdout)["user_id"] == "me"
    revoked = polling(deployment, "tokens", "revoke", json.loads(listed.stdout)["id"][:8])
    assert revoked.returncode == 0, revoked.stderr
    assert polling(deployment, "tokens", "create").returncode != 0


def test_a_request_that_waits_for_changes_is_answered_at_shutdown(served, deployment) -> None:
    url, process = served
    token = json.loads(polling(deployment, "tokens", "create", "--user-id", "me", "--json").stdout)[
        "token"
    ]
    answers = []

    def wait() -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=120) as client:
            answers.append(client.get("/v1/changes", params={"wait": 60}))

    thread = threading.Thread(target=wait)
    thread.start()
    used = until(
        lambda: json.loads(polling(deployment, "tokens", "list", "--json").stdout)["last_used_at"],
        "the request arrives",
    )
    process.send_signal(signal.SIGTERM)
    thread.join(60)
    assert used
    assert answers, "the request was cut off"
    assert (answers[0].status_code, answers[0].json()["changes"]) == (200, [])
    assert answers[0].json()["cursor"]
    assert process.wait(60) == 143


def test_log_lines_name_account_run_and_task(deployment, fleet) -> None:
    from integration_polling_hello_world import HelloWorld
    from support import accounts

    account = accounts.connect(
        deployment, HelloWorld, {"pages": 1, "items": 2, "fail_rate": {"permanent": 1.0}}
    )
    fleet.workers(processes=1, POLLING_MAX_ATTEMPTS="1")
    fleet.ready()
    run = accounts.sync(deployment, account)
    lines = until(
        lambda: [line for line in fleet.says().splitlines() if "is parked" in line],
        "a task is parked",
    )
    told = json.loads(lines[0])
    assert (told["domain"], told["account"], told["run"]) == ("hello-world", str(account), str(run))
    assert isinstance(told["task"], int)
    assert told["level"] == "warning"
