"""Processes compete for the last places of one user's quotas, and are killed at random.

They are two API processes, commands, workers and a leader that claims due accounts. The tables
alone tell whether a quota was exceeded: a trigger of the test notes each run that begins.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from unicodedata import normalize

import httpx2
import pytest
from support.accounts import set_due
from support.deployment import Deployment
from support.fleet import Fleet, Program, send
from support.forks import POLLING, Fork, start
from support.ports import free_port

from core.ledger import quotas
from core.scopes import DEFAULT
from core.service import tokens
from core.states import Quota

ACCOUNTS, RUNS = 4, 40
USER = "Ann\u0301 o'N/eil"
NEIGHBOURS = (USER.lower(), normalize("NFC", USER))
"""Users whose ids differ in case or in normal form. They have no quota."""

SECRET = "hello"
QUOTAS = {"accounts-quota-reached": 409, "runs-quota-reached": 429}
SEEN = [("connect", "accounts-quota-reached"), ("retry", "done")]
"""Answers without which the crowd would not compete."""

HARMLESS = {404, 409, 429, 503}
"""Answers to requests for an account that is gone, to too many requests, and beside a restart."""

NOTE_RUNS = """
CREATE TABLE begun (account uuid, user_id text);
CREATE FUNCTION note_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO begun SELECT id, user_id FROM user_integration WHERE id = NEW.user_integration_id;
    RETURN NULL;
END $$;
CREATE TRIGGER note_run AFTER INSERT ON sync_run FOR EACH ROW EXECUTE FUNCTION note_run();
"""
BEGUN = "SELECT count(*) FROM begun WHERE user_id = %s"
COUNTED = "SELECT coalesce(sum(runs), 0)::int FROM user_day WHERE user_id = %s"
CONNECTED = "SELECT count(*) FROM user_integration WHERE user_id = %s"
PARKED = """
SELECT t.id FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE a.user_id = %s AND t.state = 'parked' AND t.retried_as IS NULL
"""
IDS = "SELECT id::text FROM user_integration WHERE user_id = %s AND sync_status = 'active'"
EVERY = "SELECT id FROM user_integration"
# Users whose total and changes are not the size of their content.
WRONG_TOTALS = """
SELECT user_id, sum(bytes) FROM (
    SELECT a.user_id, c.size AS bytes FROM user_integration_content c
    JOIN user_integration a ON a.id = c.user_integration_id
    UNION ALL SELECT user_id, -bytes FROM user_kept
    UNION ALL SELECT user_id, -bytes FROM kept_change
) every GROUP BY 1 HAVING sum(bytes) <> 0
"""


class Crowd:
    """Clients and commands of one user, which act in threads until `stop`.

    Attributes:
      answers: The number of answers, by way and code.
      faults: Wrong answers and wrong rows.
    """

    def __init__(self, fleet: Fleet, ports: list[int], secrets: list[str], random: Random) -> None:
        self.fleet, self.ports, self.secrets, self.random = fleet, ports, secrets, random
        self.deployment = fleet.deployment
        self.answers: Counter[tuple[str, str]] = Counter()
        self.faults: list[Any] = []
        self.commands: list[Fork | subprocess.Popen[bytes]] = []
        self._names = count()
        self._stopping = threading.Event()
        ways = (self.connects, self.connects, self.syncs, self.syncs, self.retries, self.erases,
                self.hints, self.runs_commands, self.makes_due, self.looks)  # fmt: skip
        self._threads = [threading.Thread(target=self._repeat, args=(way,)) for way in ways]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, number: int) -> None:
        """Wait until there are more answers, while programs that have ended are restarted."""
        wanted = self.answers.total() + number
        self.fleet.until(
            lambda: self.answers.total() >= wanted, f"{number} more answers", 60, replace=True
        )

    def _repeat(self, act: Callable[[], None]) -> None:
        while not self._stopping.wait(0.02):
            try:
                act()
            except httpx2.TransportError:  # the process was killed
                self._stopping.wait(0.1)
            except Exception:  # noqa: BLE001  a thread cannot fail the test
                self.faults.append(traceback.format_exc())

    def client(self) -> httpx2.Client:
        """Return a client with one of the tokens, of one of the API processes."""
        return httpx2.Client(
            base_url=f"http://127.0.0.1:{self.random.choice(self.ports)}",
            headers={"Authorization": f"Bearer {self.random.choice(self.secrets)}"},
            timeout=30,
            trust_env=False,
            verify=False,
        )

    def send(self, way: str, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send a request, and check its answer."""
        with self.client() as client:
            answer = client.request(method, path, **more)
        code = "done" if answer.is_success else answer.json()["code"]
        self.answers[way, code] += 1
        status = answer.status_code
        if (not answer.is_success and QUOTAS.get(code, status) != status) or (
            not answer.is_success and status not in HARMLESS
        ):
            self.faults.append((way, status, answer.text))
        if code == "runs-quota-reached" and self.deployment.value(BEGUN, USER) < RUNS:
            self.faults.append((way, "refused although there is room", answer.text))
        return answer

    def config(self) -> dict[str, Any]:
        """Return the config of an account: a new one, or one that was connected before."""
        name = f"{USER} {next(self._names) % 12}"
        return {"name": name, "pages": 2, "items": 3, "grow": 2, "fail_rate": {"permanent": 0.4}}

    def one(self) -> str | None:
        ids = [id for (id,) in self.deployment.rows(IDS, USER)]
        return self.random.choice(ids) if ids else None

    def connects(self) -> None:
        body = {"integration_domain": "hello-world", "config": self.config()}
        self.send("connect", "POST", "/v1/user-integrations", json=body)

    def syncs(self) -> None:
        if id := self.one():
            action = self.random.choice(["sync", "resync"])
            self.send("sync", "POST", f"/v1/user-integrations/{id}/{action}")

    def retries(self) -> None:
        """Retry one parked task, or all of one account."""
        if parked := [task for (task,) in self.deployment.rows(PARKED, USER)]:
            self.send("retry", "POST", f"/v1/tasks/{self.random.choice(parked)}/retry")
        if id := self.one():
            self.send("retry all", "POST", "/v1/tasks/retry", json={"user_integration_id": id})

    def erases(self) -> None:
        self._stopping.wait(0.5)
        if id := self.one():
            path = f"/v1/user-integrations/{id}"
            self.send("erase", "DELETE", path, params={"content": "delete", "now": "true"})

    def hints(self) -> None:
        name = f"{USER} {self.random.randrange(12)}"
        body = json.dumps({"name": name, "page": "1"}).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Hello-Signature": signature}
        with self.client() as client:
            answer = client.post("/v1/hints/hello-world", content=body, headers=headers)
        if not answer.is_success and answer.status_code not in HARMLESS:
            self.faults.append(("hint", answer.status_code, answer.text))

    def runs_commands(self) -> None:
        id = self.one() if self.random.random() < 0.5 else None
        config = ["--config", json.dumps(self.config()), "--user-id", USER]
        words = ["sync", id] if id else ["connect", "hello-world", *config]
        with tempfile.TemporaryFile() as errors, Path(os.devnull).open() as nothing:
            process = start(
                [*POLLING, *words],
                self.deployment.environment() | self.fleet.variables,
                self.deployment.home,
                [nothing.fileno(), errors.fileno(), errors.fileno()],
            )
            self.commands.append(process)
            process.wait()
            errors.seek(0)
            error = errors.read().decode()
        self.answers["command", str(process.returncode)] += 1
        if process.returncode not in (0, 1, -signal.SIGKILL) or "Traceback" in error:
            self.faults.append((words, process.returncode, error))
        ends = (1, -signal.SIGKILL)  # it may be killed behind its last line
        if "quota" in error and (process.returncode not in ends or "error: user " not in error):
            self.faults.append((words, process.returncode, error))

    def makes_due(self) -> None:
        self._stopping.wait(0.5)
        set_due(self.deployment, *(id for (id,) in self.deployment.rows(EVERY)))

    def looks(self) -> None:
        """Compare the tables at one moment."""
        with self.deployment.connection() as conn, conn.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            ((connected,), (begun,), (counted,)) = (
                conn.execute(statement, (USER,)).fetchone() or (-1,)
                for statement in (CONNECTED, BEGUN, COUNTED)
            )
            wrong = conn.execute(WRONG_TOTALS).fetchall()
        if connected > ACCOUNTS or begun > RUNS or begun != counted or wrong:
            self.faults.append((connected, begun, counted, wrong))


@pytest.mark.parametrize(
    "kills", [4, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_killed_processes_that_compete_for_the_last_places_exceed_no_quota(
    kills: int, make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    random = Random(kills)
    fleet = make_fleet(POLLING_CRON_SCHEDULE="* * * * *", HELLO_WORLD_WEBHOOK_SECRET=SECRET)
    deployment.rows(NOTE_RUNS)
    with deployment.connection() as conn:
        quotas.set_quotas(conn, USER, {Quota.ACCOUNTS: ACCOUNTS, Quota.RUNS: RUNS})
        secrets = [_token(conn, USER) for _ in range(3)]
        foreign = [_token(conn, user) for user in NEIGHBOURS]
    fleet.workers(processes=2, threads=2)
    fleet.scheduler()
    ports = [free_port(), free_port()]
    apis = [fleet.start([*POLLING, "serve", "--port", str(port)]) for port in ports]
    fleet.ready(60)
    crowd = Crowd(fleet, ports, secrets, random)
    fleet.until(lambda: all(map(_answers, ports)), "both APIs answer", 60)
    crowd.start()
    try:
        for turn in range(kills):
            crowd.wait_for_answers(10)
            _kill(turn, random, fleet, apis, crowd)
            fleet.let_the_lead_run_out(18)
        fleet.until(
            lambda: all(crowd.answers[each] for each in SEEN), "each was answered", 60, replace=True
        )
    finally:
        crowd.stop()
    fleet.until(lambda: all(map(_answers, ports)), "both APIs answer", 60, replace=True)
    assert crowd.faults == []

    # On a slow machine, the crowd acts so often that its user may not act again within the hour.
    deployment.rows("UPDATE audit SET at = at - interval '1 hour'")

    # Nothing that was killed holds a place or a run.
    while crowd.deployment.value(CONNECTED, USER) < ACCOUNTS:
        body = {"integration_domain": "hello-world", "config": {"name": f"new {random.random()}"}}
        assert crowd.send("fill", "POST", "/v1/user-integrations", json=body).status_code in (
            201,
            429,
        )
    body = {"integration_domain": "hello-world", "config": {"name": "one too many"}}

    def is_refused() -> bool:
        """The user's earlier requests may still use the rate."""
        answer = crowd.send("fill", "POST", "/v1/user-integrations", json=body)
        assert answer.status_code in (409, 429)
        return answer.status_code == 409

    fleet.until(is_refused, "one account too many is refused", 60, replace=True)

    def fill() -> bool:
        crowd.syncs()
        return crowd.answers["sync", "runs-quota-reached"] > 0

    fleet.until(fill, "all runs of the day have begun", 120, replace=True)
    assert deployment.value(BEGUN, USER) == deployment.value(COUNTED, USER) == RUNS
    for secret in foreign:
        crowd.secrets = [secret]
        assert crowd.send("other", "POST", "/v1/user-integrations", json=body).status_code == 201
    fleet.until(
        lambda: all(deployment.value(BEGUN, user) for user in NEIGHBOURS),
        "the runs of other users begin",
        60,
        replace=True,
    )
    crowd.looks()
    assert crowd.faults == []


def _token(conn: Any, user: str) -> str:
    return tokens.create(conn, user_id=user, name="", days=None, scopes=DEFAULT).secret


def _answers(port: int) -> bool:
    with suppress(httpx2.TransportError):
        url = f"http://127.0.0.1:{port}/healthz"
        return httpx2.get(url, trust_env=False, verify=False).status_code == 200
    return False


def _kill(turn: int, random: Random, fleet: Fleet, apis: list[Program], crowd: Crowd) -> None:
    """Kill an API process, a worker, a command or a dispatcher, in turn."""
    running = [each for each in crowd.commands if each.returncode is None]
    pids = [[], fleet.worker_pids(), [each.pid for each in running], fleet.dispatcher_pids()]
    if turn % 4 == 0:
        apis[random.randrange(len(apis))].kill()
    elif pids[turn % 4]:
        with suppress(ProcessLookupError):
            send(signal.SIGKILL, random.choice(pids[turn % 4]))
