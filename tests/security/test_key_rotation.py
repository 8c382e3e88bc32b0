"""Rotating keys loses no token if a process was forgotten, and the error names the process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from integration_polling_hostile import Credentials, Hostile
from pydantic import SecretStr
from support.accounts import connect, sync
from support.deployment import Deployment
from support.fleet import HOSTILE, METERED, Fleet
from support.leaky import FRESH, Leaky
from support.leaky import Credentials as LeakyCredentials
from support.waiting import until

from core.accounts import store
from core.accounts.vault import Vault, fingerprint, new_key
from core.db.pool import Conn, Database
from core.errors import VaultError, WrongState
from core.ledger import processes
from core.ledger.processes import Process
from core.service.accounts import key_rotation
from core.service.accounts.key_rotation import keys_in_use
from core.service.fleet.doctor import keys as doctor

OLD, NEW, THIRD = new_key(), new_key(), new_key()


class Backend:
    """The parts of a backend that a rotation uses."""

    def __init__(self, database: Database, *keys: str) -> None:
        self.database, self.vault = database, Vault(keys)


@pytest.fixture
def process(conn: Conn) -> Callable[..., UUID]:
    """Return `process(*keys, kind="worker", silent=0)`, which registers a process."""

    def register(*keys: str, kind: str = "worker", silent: float = 0.0) -> UUID:
        row = Process(uuid4(), kind, "host", len(keys), [], 1, [fingerprint(key) for key in keys])
        processes.heartbeat(conn, row, None)
        conn.execute(
            "UPDATE process SET seen_at = seen_at - %s * interval '1 second' WHERE id = %s",
            (silent, row.id),
        )
        return row.id

    return register


@pytest.fixture
def sealed(conn: Conn) -> Callable[[str], UUID]:
    """Return `sealed(key)`, which stores an account that is encrypted with this key."""

    def connect(key: str) -> UUID:
        return store.connect(
            conn,
            user_id="ann",
            domain="hostile",
            name="x",
            identity=str(uuid4()),
            group=None,
            config={},
            credentials=Vault([key]).seal(Credentials(token=SecretStr("a-token"))),
            limits=[],
        )[0]

    return connect


def rotated(backend: Any) -> int:
    return [rotation.done for rotation in key_rotation.rotate(backend)][-1]


def said(conn: Conn, *keys: str) -> list[tuple[str, str]]:
    return [(check.status, check.message) for check in doctor.examine(conn, keys)]


REFUSED = {
    "a worker lacks it": ([OLD], {}, "rotation-key-missing"),
    "an API lacks it": ([OLD], {"kind": "api"}, "rotation-key-missing"),
    "a worker does not seal with it": ([OLD, NEW], {}, "rotation-key-not-first"),
    "an API does not seal with it": ([OLD, NEW], {"kind": "api"}, "rotation-key-not-first"),
    "a worker is of an older version": ([], {}, "rotation-keys-unknown"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_rotation_is_refused_while_a_live_process_does_not_seal_with_the_new_key(
    conn: Conn,
    database: Database,
    process: Callable[..., UUID],
    sealed: Callable[[str], UUID],
    case: str,
) -> None:
    held, options, code = REFUSED[case]
    process(NEW, OLD)
    process(*held, **options)
    account = sealed(OLD)
    with pytest.raises(WrongState) as caught:
        rotated(Backend(database, NEW, OLD))
    assert caught.value.code == code
    assert f"{options.get('kind', 'worker')} host:{len(held)}" in str(caught.value)
    assert NEW not in str(caught.value)
    before = conn.execute("SELECT credentials FROM user_integration WHERE id = %s", (account,))
    assert Vault([OLD]).key_of(before.fetchone()[0]) == fingerprint(OLD)


def test_dead_processes_and_dispatchers_do_not_stop_a_rotation(
    database: Database, process: Callable[..., UUID], sealed: Callable[[str], UUID]
) -> None:
    process(NEW, OLD)
    process(OLD, silent=60)
    process(kind="dispatcher")
    sealed(OLD)
    assert rotated(Backend(database, NEW, OLD)) == 1


def test_a_process_that_starts_during_the_rotation_is_noticed(
    database: Database, process: Callable[..., UUID], sealed: Callable[[str], UUID]
) -> None:
    sealed(OLD)
    rotation = key_rotation.rotate(Backend(database, NEW, OLD))  # type: ignore[arg-type]
    next(rotation)
    process(OLD, NEW)
    with pytest.raises(WrongState):
        list(rotation)


def test_one_account_that_no_key_opens_does_not_stop_the_others(
    conn: Conn, database: Database, sealed: Callable[[str], UUID]
) -> None:
    accounts = {sealed(key): key for key in (OLD, THIRD, OLD, NEW, THIRD, OLD)}
    with pytest.raises(VaultError) as caught:
        rotated(Backend(database, NEW, OLD))
    assert caught.value.fields["count"] == 2
    for id, text in conn.execute("SELECT id, credentials FROM user_integration").fetchall():
        lost = accounts[id] == THIRD
        assert (str(id) in str(caught.value)) == lost
        assert (Vault([NEW]).key_of(text) is None) == lost


def test_pending_sign_ins_are_rotated_too(conn: Conn, database: Database) -> None:
    insert = """
    INSERT INTO oauth_flow (
        state_digest, integration_domain, user_id, config, verifier, answer, expires_at)
    VALUES (%s, 'shop', 'ann', '{}', %s, %s, now() + interval '1 minute')
    """
    old = Vault([OLD])
    conn.execute(insert, (b"1", old.seal_text("verifier"), old.seal_text("answer")))
    conn.execute(insert, (b"2", Vault([THIRD]).seal_text("no key opens this"), None))
    assert keys_in_use(conn, Vault([NEW, OLD]))[fingerprint(OLD)] == 2
    rotated(Backend(database, NEW, OLD))
    found = conn.execute("SELECT verifier, answer FROM oauth_flow ORDER BY state_digest").fetchall()
    assert [Vault([NEW]).open_text(sealed) for sealed in found[0]] == ["verifier", "answer"]
    assert Vault([NEW, OLD]).key_of(found[1][0]) is None
    assert found[1][1] is None


def test_the_doctor_says_when_the_old_key_is_unused(
    conn: Conn, database: Database, process: Callable[..., UUID], sealed: Callable[[str], UUID]
) -> None:
    first, second = process(NEW, OLD), process(OLD, NEW, kind="api", silent=60)
    sealed(OLD)
    name = f"key 2 of POLLING_SECRET_KEYS ({fingerprint(OLD)})"
    assert ("warn", f"{name} is needed to decrypt 1 value") in said(conn, NEW, OLD)
    rotated(Backend(database, NEW, OLD))
    [(_, message)] = [one for one in said(conn, NEW, OLD) if "may still do so" in one[1]]
    assert "api host:2 (silent for" in message
    assert name in message
    processes.deregister(conn, second)
    unused = ("ok", f"nothing is encrypted with {name}, and no process encrypts with it")
    assert unused in said(conn, NEW, OLD)
    sealed(OLD)
    assert unused not in said(conn, NEW, OLD)
    processes.deregister(conn, first)


def test_the_doctor_names_processes_with_other_keys(
    conn: Conn, process: Callable[..., UUID]
) -> None:
    process(OLD)
    process(OLD, NEW, kind="api")
    process()
    texts = [message for status, message in said(conn, NEW, OLD) if status == "warn"]
    assert any(re.match(r"worker host:1: without the key", text) for text in texts)
    assert any(re.match(r"api host:2: encrypting with another key", text) for text in texts)
    assert any(re.match(r"worker host:0: an older version", text) for text in texts)


def test_a_fingerprint_shows_nothing_of_its_key() -> None:
    assert fingerprint(OLD) not in OLD
    assert len({fingerprint(OLD), fingerprint(NEW), fingerprint(OLD)}) == 2


# Real processes


@contextmanager
def serving(fleet: Fleet, keys: str) -> Iterator[Any]:
    """Run `polling serve` with these keys."""
    command = [sys.executable, "-c", "from core.cli import main; main()", "serve", "--port", "0"]
    program = fleet.start(command, POLLING_SECRET_KEYS=keys)
    fleet.until(
        lambda: fleet.deployment.rows("SELECT 1 FROM process WHERE kind = 'api'"), "the API", 40
    )
    yield program
    program.terminate()
    assert not fleet.deployment.rows("SELECT 1 FROM process WHERE kind = 'api'")


def polling(deployment: Deployment, keys: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from core.cli import main; main()", *words],
        env=deployment.environment() | METERED | {"POLLING_SECRET_KEYS": keys},
        cwd=deployment.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_forgotten_process_is_named_until_it_has_the_new_key_in_front(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """The API was forgotten: it would seal refreshed tokens with the key that is removed next."""
    old, new = deployment.secret_key, NEW
    both = f"{new},{old}"
    connect(deployment, Hostile, {}, Credentials(token=SecretStr("a-token")))
    fleet = make_fleet(**HOSTILE)
    fleet.workers(processes=1, POLLING_SECRET_KEYS=both)
    fleet.ready()
    with serving(fleet, f"{old},{new}") as api:
        done = polling(deployment, both, "keys", "rotate")
        assert done.returncode == 1
        assert "encrypt with another key" in done.stderr
        assert f":{api.pid}" in done.stderr
        assert "worker" not in done.stderr
        os.kill(api.pid, signal.SIGCONT)
    with serving(fleet, both):
        done = polling(deployment, both, "keys", "rotate")
        assert done.returncode == 0, done.stderr
        out = polling(deployment, both, "doctor").stdout
        assert "no process encrypts with it" in " ".join(out.split())
    sealed = deployment.value("SELECT credentials FROM user_integration")
    assert Vault([new]).key_of(sealed) == fingerprint(new)


def test_a_refreshed_token_that_this_worker_cannot_open_waits_and_is_not_parked(
    make_fleet: Callable[..., Fleet], deployment: Deployment
) -> None:
    """Another process with a newer key has stored it; the plugin wraps the error in its own."""
    old = deployment.secret_key
    fleet = make_fleet(**METERED | {"POLLING_PLUGINS": "support.leaky"}, POLLING_MAX_ATTEMPTS="1")
    account = connect(deployment, Leaky, {}, LeakyCredentials(token=SecretStr("wrap the error")))
    newer = Vault([NEW]).seal(LeakyCredentials(token=SecretStr(FRESH)))
    gate = fleet.log.parent / "renewed"
    fleet.workers(processes=1, LEAKY_WAITS_FOR=str(gate))
    sync(deployment, account)
    fleet.until(lambda: (gate.with_suffix(".reached")).exists(), "the task runs", 40)
    deployment.rows(
        "UPDATE user_integration SET credentials = %s,"
        " credentials_version = credentials_version + 1 WHERE id = %s",
        newer,
        account,
    )
    gate.touch()
    query = "SELECT state, attempts, snoozes, reason FROM sync_task WHERE type = 'write'"
    row = fleet.until(
        lambda: next((row for row in deployment.rows(query) if row[3]), None), "it waits", 40
    )
    assert row == ("ready", 0, 1, "no configured key decrypts these credentials")
    fleet.programs[0].terminate()
    deployment.rows("UPDATE sync_task SET available_at = now()")
    fleet.workers(processes=1, POLLING_SECRET_KEYS=f"{NEW},{old}")
    until(
        lambda: deployment.value("SELECT state FROM sync_task WHERE type = 'write'") == "done",
        "it ends with the key",
        60,
    )
