"""The command line as a new user meets it.

It uses real servers, with `polling up` in one terminal and commands in another.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from support import cli as cli_support
from support.cli import Cli, stop_servers, until
from support.deployment import YEARLY

from core.embedded.locks import private_folder
from core.embedded.postgres import Postgres
from core.embedded.valkey import Valkey

SECRET = cli_support.PASSWORD


def servers_run(home: Path) -> bool:
    embedded = home / "embedded"
    return Postgres(embedded)._daemon.alive() or Valkey(embedded)._daemon.alive()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data of an embedded PostgreSQL after its first use."""
    cli = Cli(tmp_path_factory.mktemp("first"))
    cli.ok("migrate")
    return cli.home / "embedded" / "postgres"


def copy(data: Path, cli: Cli) -> None:
    """Copy the data for another home: to create them takes seconds."""
    subprocess.run(["cp", "-a", str(data), str(private_folder(cli.home / "embedded"))], check=True)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Cli]:
    """Run `polling up` beside the commands. It must end cleanly and stop its servers."""
    cli = Cli(tmp_path_factory.mktemp("cli"), forked=True, POLLING_CRON_SCHEDULE=YEARLY)
    copy(data, cli)
    try:
        with cli_support.up(cli) as lines:
            assert any(str(cli.home) in line for line in lines), (
                "the output does not name the data directory"
            )
            said = re.search(r"the API at (http://127\.0\.0\.1:\d+)/v1", "".join(lines))
            assert said, "the output does not name the address of the API"
            cli.api = said[1]
            yield cli
        assert not servers_run(cli.home)
    finally:
        stop_servers(cli.home)


@pytest.fixture
def alone(tmp_path: Path, data: Path) -> Iterator[Cli]:
    """Run commands without `polling up`."""
    cli = Cli(tmp_path, forked=True)
    copy(data, cli)
    yield cli
    stop_servers(cli.home)


# With `polling up` beside the commands


def test_a_drain_lasts_until_it_is_undone(cli: Cli) -> None:
    id = cli.connect("drained", pages=1, items=1)
    drained = cli.ok("drain", "--timeout", "30")
    assert "they take no tasks" in drained.out
    assert "polling drain --undo" in drained.err
    assert cli("sync", id, "--wait", "--timeout", "0").code == 4
    assert re.match(r"Undone: \d+ worker", cli.ok("drain", "--undo").out)
    cli.ok("sync", id, "--wait", "--timeout", "60")
    assert "No worker is draining" in cli.ok("drain", "--undo").err


def test_the_api_answers_at_the_printed_address(cli: Cli) -> None:
    token = cli.ok("tokens", "create", "--admin", "--name", "test", "--json").json()
    with httpx2.Client(base_url=cli.api, trust_env=False, timeout=30) as client:
        assert client.get("/v1/integrations").status_code == 401
        client.headers["Authorization"] = f"Bearer {token['token']}"
        assert "hello-world" in {
            one["integration_domain"] for one in client.get("/v1/integrations").json()["items"]
        }
        assert "polling_dispatcher_leads 1.0" in client.get("/metrics").text
        assert "test" in cli.ok("tokens", "list").out
        cli.ok("tokens", "revoke", token["id"][:8])
        assert client.get("/v1/integrations").status_code == 401
        scopes = ("--scope", "metrics:read", "--scope", "content:read")
        token = cli.ok("tokens", "create", "--admin", *scopes, "--json").json()
        client.headers["Authorization"] = f"Bearer {token['token']}"
        assert client.get("/metrics").status_code == 200
        assert client.get("/v1/tokens").json()["code"] == "scope-missing"
        assert "content:read, metrics:read" in cli.ok("tokens", "list").out
        token = cli.ok("tokens", "create", "--admin", "--role", "viewer", "--json").json()
        client.headers["Authorization"] = f"Bearer {token['token']}"
        assert client.get("/metrics").status_code == 200
        assert client.get("/v1/changes").json()["code"] == "scope-missing"
        cli.ok("tokens", "create", "--user-id", "ann")
        listed = {
            row["user_id"]: row["scopes"] for row in cli.ok("tokens", "list", "--json").rows()
        }
        assert "tokens:admin" not in listed["ann"]
    assert "metrics:write" in cli.fails(
        "tokens", "create", "--admin", "--scope", "metrics:write", code=2
    )
    assert "emperor" in cli.fails("tokens", "create", "--admin", "--role", "emperor", code=2)
    assert "token nothing not found" in cli.fails("tokens", "revoke", "nothing")
    assert "--user-id U or --admin" in cli.fails("tokens", "create", code=2)


def test_serve_names_the_port_that_is_in_use(cli: Cli) -> None:
    port = cli.api.rpartition(":")[2]
    assert f"port {port}" in cli.fails("serve", "--port", port)


def test_a_connected_account_is_synced_and_its_content_shown(cli: Cli) -> None:
    id = cli.connect("first", pages=2, items=3)
    done = cli.ok("sync", "first", "--wait", "--json").json()
    assert done == {
        "run_id": done["run_id"], "state": "succeeded", "tasks_done": 3, "tasks_parked": 0,
        "tasks_deferred": 0, "outputs_saved": 6, "outputs_unchanged": 0, "outputs_deleted": 0,
        "deletions_held": 0, "outputs_skipped": 0, "skipped": {}, "owed": 0, "owed_since": None,
        "seconds": done["seconds"], "why": done["why"],
    }  # fmt: skip
    assert done["why"]["sentence"].startswith("The account waits for its next run, which starts at")
    items = cli.ok("content", "--account", id[:8], "--json").rows()
    assert {item["external_id"] for item in items} == {
        f"{page}-{item}" for page in (1, 2) for item in range(3)
    }
    assert {
        (item["integration_domain"], item["kind"], item["user_integration_id"]) for item in items
    } == {("hello-world", "greeting", id)}
    assert all(len(item["hash"]) == 64 for item in items)
    shown = cli.ok("content", "show", str(items[0]["id"]), "--json").json()
    assert cli.ok("content", "show", str(items[0]["id"]), "--raw").out == shown["content"]
    again = cli.ok("sync", id, "--wait")
    assert "0 saved, 6 unchanged" in again.out


def test_tables_fit_80_columns(cli: Cli) -> None:
    cli.connect("n" * 90, pages=1)
    cli.ok("sync", "n" * 90, "--wait")
    for words in (
        ["accounts"],
        ["runs"],
        ["tasks"],
        ["content"],
        ["accounts", "show", "n" * 90],
        ["integrations"],
    ):
        lines = cli.ok(*words).out.splitlines()
        assert len(lines) > 1
        assert max(map(len, lines)) <= 80, words


def test_a_cursor_leads_from_one_page_to_the_next(cli: Cli) -> None:
    id = cli.connect("pages", pages=3, items=5)
    cli.ok("sync", id, "--wait")
    everything = [
        item["external_id"] for item in cli.ok("content", "--account", id, "--json").rows()
    ]
    assert len(everything) == 15
    found, after = [], []
    while True:
        done = cli.ok("content", "--account", id, "--json", "--limit", "4", *after)
        found += [item["external_id"] for item in done.rows()]
        if not done.err:
            break
        after = ["--after", done.err.split()[-1]]
    assert found == everything
    assert "cursor" in cli.fails("content", "--after", "x")
    assert "cursor" in cli.fails("runs", "--after", "WyJ4IiwgInkiXQ")


def test_an_export_continues_from_the_cursor_of_the_last_one(cli: Cli, tmp_path: Path) -> None:
    id = cli.connect("exported", pages=1, items=2)
    cli.ok("sync", "exported", "--wait")
    output, cursor = tmp_path / "out.jsonl", tmp_path / "cursor"
    words = ("export", "--account", "exported", "-o", str(output), "--cursor-file", str(cursor))
    assert "2 records exported" in cli.ok(*words).err
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert {(row["external_id"], row["user_integration_id"]) for row in records} == {
        ("1-0", id), ("1-1", id),
    }  # fmt: skip
    assert all(row["content"].startswith("Hello") for row in records)
    assert "0 records exported" in cli.ok(*words).err
    assert output.read_text() == ""
    printed = cli.ok("export", "--account", "exported", "--format", "csv")
    assert printed.out.startswith("change,user_id,")
    after = printed.err.rpartition("--since ")[2].strip()
    assert cli.ok("export", "--account", "exported", "--since", after).out == ""
    stored = cursor.read_text()
    assert "--since and --cursor-file" in cli.fails(*words, "--since", after)
    assert "cannot write" in cli.fails("export", "-o", str(tmp_path / "no" / "file"))
    cursor.write_text("nonsense")
    assert "cursor" in cli.fails(*words)
    assert cursor.read_text() == "nonsense"
    cursor.write_text(stored)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_a_paused_account_is_not_synced_until_it_is_resumed(cli: Cli) -> None:
    cli.connect("rests")
    assert "resume" in cli.ok("pause", "rests").out
    assert "is paused" in cli.fails("sync", "rests")
    cli.ok("resume", "rests")
    cli.ok("sync", "rests", "--wait")


def test_accounts_in_error_are_checked_and_resumed(cli: Cli) -> None:
    names = ("broken-1", "broken-2")
    for name in names:
        cli.connect(name)
    stop = "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials'"
    cli.ok("psql", "-c", f"{stop} WHERE name LIKE 'broken-%'")
    assert "Resumed 2 accounts." in cli.ok("resume", *names).out
    cli.ok("psql", "-c", f"{stop} WHERE name = 'broken-1'")
    assert "Resumed" in cli.ok("resume", "--state", "error", "--domain", "hello-world").out
    for name in names:
        assert cli.ok("accounts", "show", name, "--json").json()["sync_status"] == "active"
        cli.ok("disconnect", name, "--keep-content")
    assert "disconnected" in cli.fails("resume", "broken-1")
    assert cli("resume").code == 2
    assert cli("resume", "broken-1", "--state", "error").code == 2


def test_two_accounts_of_one_name_are_ambiguous(cli: Cli) -> None:
    first = cli.connect("twin")
    second = str(
        cli.ok("connect", "hello-world", "--name", "twin", "--set", "name=other", "--json").json()[
            "id"
        ]
    )
    error = cli.fails("pause", "twin")
    assert first in error
    assert second in error
    cli.ok("pause", first)


def test_connecting_the_same_account_again_returns_the_same_id(cli: Cli) -> None:
    assert cli.connect("same") == cli.connect("same", pages=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "nobody"], "account nobody not found"),
        (["runs", "show", "abcd"], "run abcd not found"),
        (["tasks", "show", "999999"], "task 999999 not found"),
        (["tasks", "retry", "999999"], "task 999999 not found"),
        (["content", "show", "x"], "is not a valid content id: use a number"),
        (["connect", "nope"], "integration 'nope' is not installed"),
        (
            ["connect", "hello-world", "--set", "pages=many"],
            "pages: must be a valid integer",
        ),
        (["connect", "hello-world", "--set", "pges=1"], "no field 'pges'"),
        (["connect", "hello-world", "--config", "{"], "--config is not valid JSON"),
        (["connect", "ftp"], "host: Field required"),
        (["connect", "ftp", "--set", "host=127.0.0.1:1"], "port: connection failed"),
        (["connect", "ftp", "--set", f"password={SECRET}"], "belongs to the credentials"),
        (["connect", "ftp", "--credentials", f'{{"password": "{SECRET}"}}'], "command line"),
    ],
)
def test_an_error_of_the_user_is_one_line(cli: Cli, words: list[str], said: str) -> None:
    error = cli.fails(*words)
    assert said in error
    assert SECRET not in error


def test_parked_tasks_are_shown_retried_and_discarded(cli: Cli) -> None:
    cli.connect("parks", fanout_depth=1, items=4, fail_rate={"permanent": 0.3})
    done = cli("sync", "parks", "--wait", "--json")
    assert (done.code, done.json()["state"]) == (3, "partial")
    parked = cli.ok("tasks", "--account", "parks", "--state", "parked", "--json").rows()
    assert len(parked) == done.json()["tasks_parked"] > 1
    assert "permanent on purpose" in cli.ok("tasks", "show", str(parked[0]["id"])).out
    named = cli.ok(
        "tasks", "--account", "parks", "--reason", "PERMANENT", "--since", "1h", "--json"
    )
    assert {row["id"] for row in parked} <= {row["id"] for row in named.rows()}
    assert not cli.ok("tasks", "--account", "parks", "--type", "none", "--json").rows()
    assert "name tasks" in cli.fails("tasks", "retry")
    assert "is not a time" in cli.fails("tasks", "retry", "--since", "soon")
    first = str(parked[0]["id"])
    assert cli("tasks", "retry", "1", "2", "--payload", "{}").code == 2
    assert "not a JSON object" in cli.fails("tasks", "retry", first, "--payload", "[]")
    assert "does not fit" in cli.fails("tasks", "retry", first, "--payload", '{"page": "x"}')
    cli.ok("tasks", "retry", first, "--payload", json.dumps(parked[0]["payload"]))
    cli.ok("tasks", "discard", str(parked[1]["id"]))
    assert cli.ok("tasks", "show", str(parked[1]["id"]), "--json").json()["state"] == "done"
    assert "neither parked nor deferred" in cli.fails("tasks", "discard", str(parked[1]["id"]))
    rest = ["--account", "parks", "--reason", "permanent", "--json"]
    # The retried task may be parked again by now.
    assert cli.ok("tasks", "discard", *rest).json()["done"] in (len(parked) - 2, len(parked) - 1)


def test_an_integration_is_paused_and_resumed(cli: Cli) -> None:
    cli.connect("rests", fanout_depth=0, items=1)
    assert "until an operator resumes it" in cli.ok("integrations", "pause", "hello-world").out
    try:
        (row,) = [
            row for row in cli.ok("integrations", "--json").rows() if row["domain"] == "hello-world"
        ]
        assert row["paused_at"]
        assert "paused" in cli.ok("integrations").out
        assert "An operator paused the integration" in cli.ok("accounts", "show", "rests").err
        waited = cli("sync", "rests", "--wait", "--timeout", "3")
        assert (waited.code, "An operator paused the integration" in waited.err) == (4, True)
    finally:
        cli.ok("integrations", "resume", "hello-world")
    assert cli.ok("sync", "rests", "--wait", "--json").json()["state"] == "succeeded"
    assert "is not paused" in cli.fails("integrations", "resume", "hello-world")


def test_a_sync_of_an_incomplete_account_exits_with_3_though_it_succeeded(cli: Cli) -> None:
    cli.connect("owes", fanout_depth=1, items=4, fail_rate={"permanent": 0.3})
    first = cli("sync", "owes", "--wait", "--json").json()
    parked = cli.ok("tasks", "--account", "owes", "--state", "parked", "--json").rows()
    assert first["owed"] == len(parked) > 0
    cli.ok("config", "owes", "--set", "fail_rate={}")
    again = cli("sync", "owes", "--wait", "--json")
    assert (again.code, again.json()["state"]) == (3, "succeeded")
    assert again.json()["owed"] == len(parked)
    assert again.json()["owed_since"] is not None
    shown = cli("sync", "owes", "--wait")
    assert (
        f"Incomplete: {len(parked)} tasks failed or were cancelled, and are not done" in shown.err
    )
    assert cli.ok("accounts", "show", "owes", "--json").json()["complete_as_of"] is None
    for task in parked:
        cli.ok("tasks", "discard", str(task["id"]))
    run = cli.ok("sync", "owes", "--wait", "--json").json()
    assert run["owed"] == 0
    started = cli.ok("runs", "show", run["run_id"], "--json").json()["started_at"]
    assert cli.ok("accounts", "show", "owes", "--json").json()["complete_as_of"] == started
    assert "complete as of" in cli.ok("accounts", "show", "owes").out


def test_an_account_that_stops_ends_the_wait_and_resumes_when_reconnected(cli: Cli) -> None:
    cli.connect("stops", fanout_depth=1, fail_rate={"credentials": 0.02}, seed=1)
    error = cli.fails("sync", "stops", "--wait")
    assert "credentials" in error
    assert "polling reconnect" in error
    shown = cli.ok("accounts", "show", "stops")
    assert "next sync" not in shown.out
    assert re.search(r"failed runs in a row +0", shown.out), "the run of a stopped account is open"
    assert "Waiting" not in shown.err
    assert "The engine stopped the account because its credentials do not work" in shown.err
    assert "credentials" in cli.fails("sync", "stops")
    rows = cli.ok("accounts", "--state", "error", "--json").rows()
    assert "stops" in [row["name"] for row in rows]

    run = cli.ok("runs", "--account", "stops", "--json").json()["id"]

    def ends() -> bool:
        """Reconnect if necessary, and return True once the run has succeeded.

        Each failing task fails once in a run, so that some reconnect lets the run succeed.
        """
        if cli.ok("accounts", "show", "stops", "--json").json()["sync_status"] == "error":
            cli.ok("reconnect", "stops")
        return bool(cli.ok("runs", "show", run, "--json").json()["state"] == "succeeded")

    until(ends, 120)


def test_waiting_ends_with_code_4_after_the_timeout(cli: Cli) -> None:
    cli.connect("slow", pages=40, delay_ms=1000)
    done = cli("sync", "slow", "--wait", "--timeout", "0.5", "--json")
    assert (done.code, done.json()["state"]) == (4, "running")
    cli.ok("runs", "cancel", done.json()["run_id"][:13])
    assert cli.ok("runs", "show", done.json()["run_id"], "--json").json()["state"] == "cancelled"
    assert "already ended" in cli.fails("runs", "cancel", done.json()["run_id"])
    cli.ok("disconnect", "slow", "--keep-content")


def test_ctrl_c_ends_the_wait_quietly(cli: Cli) -> None:
    id = cli.connect("interrupted", pages=40, delay_ms=1000)
    process = cli.start("sync", id, "--wait")
    until(lambda: cli.ok("runs", "--account", id, "--json").out)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.endswith("is already open.")]
    assert (process.returncode, out, said) == (130, "", [])
    cli.ok("disconnect", id, "--keep-content")


def test_config_changes_name_interval_and_fields(cli: Cli) -> None:
    id = cli.connect("changes")
    done = cli.ok(
        "config",
        "changes",
        "--set",
        "pages=1",
        "--set",
        "fail_rate.skip=0",
        "--interval",
        "60",
        "--name",
        "changed",
    )
    assert done.out.startswith("Config of changed updated.")
    assert cli.ok("config", "changed").json()["pages"] == 1
    assert cli.ok("accounts", "show", id, "--json").json()["poll_interval_minutes"] == 60
    assert "another account" in cli.fails("config", id, "--set", "name=someone-else")


def test_disconnecting_keeps_or_deletes_the_content_as_requested(cli: Cli) -> None:
    for name, option, left in (("stays", "--keep-content", 30), ("goes", "--delete-content", 0)):
        id = cli.connect(name)
        cli.ok("sync", id, "--wait")
        cli.fails("disconnect", id, code=2)
        contradiction = cli.fails("disconnect", id, "--keep-content", "--delete-content", code=2)
        for choice in ("--keep-content", "--delete-content", "--erase"):
            assert choice in contradiction
        if not left:
            assert "--yes" in cli.fails("disconnect", id, option, code=2)
        assert cli.ok("accounts", "show", id, "--json").json()["sync_status"] == "active"
        cli.ok("disconnect", id, option, "--yes", *([] if left else ["--now"]))
        assert len(cli.ok("content", "--account", id, "--json").rows()) == left
        assert cli.ok("accounts", "show", id, "--json").json()["sync_status"] == "disconnected"
        assert "disconnected" in cli.fails("sync", id)
        assert bool(cli.ok("runs", "--account", id, "--json").out) == bool(left)


def test_content_is_hidden_and_comes_back(cli: Cli) -> None:
    id = cli.connect("returns")
    cli.ok("sync", id, "--wait")
    assert "--now" in cli.fails("disconnect", id, "--keep-content", "--now", code=2)
    done = cli.ok("disconnect", id, "--delete-content", "--yes")
    assert "is deleted in 60 min" in done.out
    assert f"polling reconnect {id}" in done.out
    assert cli.ok("content", "--account", id, "--json").out == ""
    assert cli.ok("accounts", "show", id, "--json").json()["sync_status"] == "erasing"
    assert "hidden until it is deleted" in cli.fails("sync", id)
    assert "hidden until it is deleted" in cli.fails("disconnect", id, "--keep-content")
    cli.ok("reconnect", id)
    assert len(cli.ok("content", "--account", id, "--json").rows()) == 30
    cli.ok("disconnect", id, "--erase", "--now", "--yes")


def test_an_erased_account_makes_room_for_another(cli: Cli) -> None:
    """The error of a reached quota names the command that helps."""
    config = ["--config", '{"name": "first"}', "--user-id", "ann", "--json"]
    id = cli.ok("connect", "hello-world", *config).json()["id"]
    cli.ok("users", "ann", "--quota", "accounts=1")
    config[1] = '{"name": "second"}'
    error = cli.fails("connect", "hello-world", *config)
    assert "user ann has 1 accounts; the quota is 1" in error
    assert "polling disconnect ID --erase" in error
    cli.ok("disconnect", id, "--delete-content", "--now", "--yes")
    cli.fails("connect", "hello-world", *config)
    assert "--yes" in cli.fails("disconnect", id, "--erase", code=2)
    done = cli.ok("disconnect", id, "--erase", "--now", "--yes")
    assert done.out.startswith("Erased.")
    cli.fails("accounts", "show", id)
    other = cli.ok("connect", "hello-world", *config).json()["id"]
    cli.ok("disconnect", other, "--erase", "--now", "--yes")
    cli.ok("users", "ann", "--quota", "accounts=default")


def test_quotas_of_users_come_in_pages(cli: Cli) -> None:
    for user in ("ann", "bob", "it's cleo"):
        cli.ok("users", user, "--quota", "runs=5")
    cli.ok("users", "bob", "--quota", "runs=default", "--quota", "accounts=none")
    page = cli.ok("users", "--quotas", "--limit", "2")
    assert "0 of 5" in page.out
    (bob,) = [line for line in page.out.splitlines() if line.startswith("bob")]
    assert bob.split()[-1] == "-"
    assert page.err.strip() == "Next page: repeat the command with --after bob"
    last = cli.ok("users", "--quotas", "--after", "bob")
    assert "it's cleo" in last.out
    assert "bob" not in last.out
    assert last.err == ""
    every = cli.ok("users", "--quotas", "--json").rows()
    assert {"ann", "bob", "it's cleo"} <= {row["user_id"] for row in every}
    assert "--quotas" in cli.fails("users", "--after", "bob", code=2)
    for user in ("ann", "bob", "it's cleo"):
        cli.ok("users", user, "--quota", "runs=default", "--quota", "accounts=default")


def test_no_output_contains_the_ftp_password(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    hostile = tmp_path / "served" / "a [red]\x1b[2Jname"
    hostile.write_bytes(b"\x00\xff content")
    login = {"username": cli_support.USERNAME, "password": "wrong-" + SECRET}
    with cli_support.ftp_server(tmp_path / "served") as port:
        words = ["--set", "host=127.0.0.1", "--set", f"port={port}", "--credentials", "-"]
        words += ["--set", "settle_seconds=0"]
        error = cli.fails("connect", "ftp", *words, given=json.dumps(login))
        assert "FTP rejects the credentials" in error
        assert SECRET not in error
        login["password"] = SECRET
        id = cli.ok("connect", "ftp", *words, "--json", given=json.dumps(login)).json()["id"]
        cli.ok("sync", id, "--wait")
        cli.ok("check", id)
        error = cli.fails(
            "reconnect",
            id,
            "--credentials",
            "-",
            given=json.dumps(login | {"password": "nope-nope"}),
        )
        assert "nope-nope" not in error
        assert "credentials are missing" in cli.fails("reconnect", id)
        cli.ok("reconnect", id, "--credentials", "-", given=json.dumps(login))
    assert "port: connection failed" in cli.fails("check", id)
    listed = cli.ok("content", "--account", id)
    assert "\x1b" not in listed.out
    assert "[red]" in listed.out
    for words in (
        ["accounts", "--json"],
        ["accounts", "show", id],
        ["tasks", "--account", id, "--json"],
    ):
        assert SECRET not in cli.ok(*words).out
    cli.ok("disconnect", id, "--delete-content", "--now", "--yes")


def test_every_check_of_the_doctor_passes(cli: Cli) -> None:
    done = cli.ok("doctor", "--json")
    status = {check["name"]: check["status"] for check in done.rows()}
    for name in (
        "PostgreSQL",
        "Redis",
        "schema",
        "keys",
        "workers",
        "dispatcher",
        "blob store",
        "clock",
        "settings",
    ):
        assert status[name] == "ok", done.out


def test_env_and_psql_give_access_to_the_servers(cli: Cli) -> None:
    urls = dict(line.split("=", 1) for line in cli.ok("env").out.splitlines())
    assert urls == cli.ok("env", "--json").json()
    assert urls.keys() == {"DATABASE_URL", "REDIS_URL"}
    assert cli.ok("psql", "-Atc", "SELECT 6 * 7").out == "42\n"
    assert "already" in cli.ok("migrate").out


def test_rotating_keys_is_refused_beside_processes_without_the_new_key(cli: Cli) -> None:
    old, new = (cli.home / "secret.key").read_text(), cli.ok("keys", "new").out.strip()
    refusal = Cli(cli.folder, forked=True, POLLING_SECRET_KEYS=f"{new},{old}").fails(
        "keys", "rotate"
    )
    assert "these processes lack the key" in refusal
    assert {"api", "worker"} <= set(refusal.split())
    assert new not in refusal


# Without `polling up`: its processes lack the new key.


def test_rotating_keys_seals_every_credential_with_the_new_key(alone: Cli, tmp_path: Path) -> None:
    cli = alone
    with cli_support.ftp_server(tmp_path) as port:
        words = ["--set", "host=127.0.0.1", "--set", f"port={port}", "--credentials", "-", "--json"]
        login = {"username": cli_support.USERNAME, "password": SECRET}
        id = cli.ok("connect", "ftp", *words, given=json.dumps(login)).json()["id"]
        old, new = (cli.home / "secret.key").read_text(), cli.ok("keys", "new").out.strip()
        rotating = Cli(cli.folder, forked=True, POLLING_SECRET_KEYS=f"{new},{old}")
        rotating.ok("keys", "rotate")
        Cli(cli.folder, forked=True, POLLING_SECRET_KEYS=new).ok("check", id)
        assert "no configured key decrypts" in cli.fails("check", id)
        assert "no configured key decrypts" in cli.fails("keys", "rotate")
        assert "no secret key can decrypt" in cli("doctor").out
        Cli(cli.folder, forked=True, POLLING_SECRET_KEYS=f"{old},{new}").ok("keys", "rotate")
        cli.ok("check", id)
    cli.ok("disconnect", id, "--delete-content", "--now", "--yes")


def test_connect_prompts_for_fields_on_a_terminal(cli: Cli, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    said = bytearray()

    def read_until(text: bytes) -> None:
        while text not in said:
            assert select.select([ours], [], [], 60)[0], said
            said.extend(os.read(ours, 4096))

    with cli_support.ftp_server(tmp_path) as port:
        process = cli.start(
            "connect", "ftp", "--set", f"port={port}", stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        # The space after a prompt arrives once the terminal no longer echoes input.
        answers = [
            (b"host: ", "127.0.0.1"),
            (b"[anonymous]: ", cli_support.USERNAME),
            (b"password: ", SECRET),
            (b"[y/N]: ", "y"),
        ]
        try:
            for prompt, answer in answers:
                read_until(prompt)
                os.write(ours, f"{answer}\n".encode())
            assert b"The connection is not encrypted" in said
            read_until(b"Next: polling sync")
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
    assert SECRET.encode() not in said


def test_connect_shows_what_would_be_kept_and_asks_about_warnings(cli: Cli) -> None:
    words = ("connect", "hello-world", "--set", "name=rehearsed", "--set", "pages=2")
    seen = cli.ok(*words, "--dry-run")
    assert "Pages: 2" in seen.out
    assert "Nothing was stored" in seen.out
    checked = cli.ok(*words, "--dry-run", "--json").json()
    assert checked["identity"]["id"] == "rehearsed"
    assert checked["rehearsal"]["sections"][0]["facts"]["Pages"] == 2
    assert "rehearsed" not in cli.ok("accounts", "--json").out
    refused = (*words, "--config", '{"fail_rate": {"skip": 0.9, "exit": 0.9}}', "--dry-run")
    assert "refuses this account" in cli(*refused).err
    assert cli(*refused).code == 1

    risky = (*words, "--config", '{"fail_rate": {"transient": 0.5}}')
    code, said = answered(cli, risky, b"[y/N]: ", "n")
    assert (code, b"50% of the tasks fail on purpose" in said) == (1, True)
    assert "rehearsed" not in cli.ok("accounts", "--json").out
    code, said = answered(cli, risky, b"[y/N]: ", "y")
    assert (code, b"Next: polling sync" in said) == (0, True)


def answered(cli: Cli, words: tuple[str, ...], prompt: bytes, answer: str) -> tuple[int, bytes]:
    """Run a command on a terminal, and answer its only question."""
    ours, theirs = os.openpty()
    process = cli.start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said, sent = bytearray(), False
    try:
        while select.select([ours], [], [], 60)[0]:
            try:
                said.extend(os.read(ours, 4096))
            except OSError:  # the command has ended
                break
            if prompt in said and not sent:
                os.write(ours, f"{answer}\n".encode())
                sent = True
        return process.wait(60), bytes(said)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# Without `polling up`


def test_a_command_starts_the_servers_for_its_own_duration(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    assert cli.ok("accounts").out.startswith("No accounts")
    assert not servers_run(cli.home)


def test_waiting_without_a_worker_prints_a_warning_and_sigterm_ends_it(alone: Cli) -> None:
    alone.connect("hello")
    process = alone.start("sync", "hello", "--wait")
    assert process.stderr is not None
    assert "No worker is running" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "")
    assert not servers_run(alone.home)


def test_a_closed_output_pipe_is_not_an_error(alone: Cli) -> None:
    alone.connect("hello")
    process = alone.start("accounts", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(60)
    process.stderr.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"DATABASE_URL": "postgresql://localhost:1/x", "REDIS_URL": "redis://localhost:1"},
            "POLLING_SECRET_KEYS",
        ),
        (
            {
                "DATABASE_URL": "postgresql://localhost:1/x",
                "REDIS_URL": "redis://localhost:1",
                "POLLING_SECRET_KEYS": "x",
            },
            "PostgreSQL does not answer",
        ),
        ({"POLLING_CRON_SCHEDULE": "often"}, "POLLING_CRON_SCHEDULE"),
        ({"POLLING_LOG_LEVEL": "LOUD"}, "POLLING_LOG_LEVEL"),
    ],
)
def test_an_error_in_the_settings_is_one_line(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    error = Cli(tmp_path, **settings).fails("accounts")
    assert said in error
    assert "\n" in error.rstrip("\n"), "no hint"


def test_the_doctor_shows_the_settings_of_integrations(tmp_path: Path) -> None:
    given = {
        "GMAIL_CLIENT_ID": "our-client",
        "GMAIL_CLIENT_SECRET": SECRET,
        "GMAIL_API_URL": "http://localhost:1",
    }
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    # A folder's `.env` has lower priority than the environment.
    done = Cli(
        tmp_path,
        forked=True,
        SLACK_API_URL=f"nonsense-{SECRET}",
        DATABASE_URL="postgresql://localhost:1/x",
    )("doctor", "--json")
    found = {check["name"]: check for check in done.rows()}
    gmail, slack = found["settings of gmail"], found["settings of slack"]
    assert gmail["status"] == "ok"
    assert "GMAIL_API_URL=http://localhost:1" in gmail["message"]
    assert "GOOGLE_TOKEN_URL=https://oauth2.googleapis.com/token" in gmail["message"]
    assert "GMAIL_CLIENT_SECRET is set" in gmail["message"]
    assert (slack["status"], "SLACK_API_URL" in slack["message"]) == ("fail", True)
    assert SECRET not in done.out + done.err


def test_the_doctor_checks_the_rest_when_servers_are_down(tmp_path: Path) -> None:
    key = Cli(tmp_path, forked=True).ok("keys", "new").out.strip()
    urls = {
        "DATABASE_URL": "postgresql://someone:hidden-word@localhost:1/x",
        "REDIS_URL": "redis://localhost:1",
    }
    variables = {"POLLING_SECRET_KEYS": key, "POLLING_PLUGINS": "no_such_module"}
    done = Cli(tmp_path, forked=True, **variables, **urls)("doctor", "--json")
    found = {check["name"]: check for check in done.rows()}
    assert done.code == 1
    assert [found[name]["status"] for name in ("PostgreSQL", "Redis", "plugin no_such_module")] == [
        "fail"
    ] * 3
    assert found["blob store"]["status"] == "ok"
    gmail = found["settings of gmail"]["message"]
    assert gmail.startswith("not set: GMAIL_CLIENT_ID, GMAIL_CLIENT_SECRET. In use: ")
    assert all(check["advice"] for check in done.rows() if check["status"] == "fail")
    assert "hidden-word" not in done.out + done.err


def test_the_doctor_reports_a_missing_schema_and_an_evicting_redis(tmp_path: Path) -> None:
    from core.embedded import Servers
    from core.settings import Settings

    alone = Cli(tmp_path, forked=True)
    key = alone.ok("keys", "new").out.strip()
    given = {"database_url": None, "redis_url": None, "home": alone.home}
    with Servers(Settings(_env_file=None, **given)) as urls:
        settings = {
            "DATABASE_URL": urls.database_url,
            "REDIS_URL": urls.redis_url,
            "POLLING_SECRET_KEYS": key,
        }
        cli = Cli(alone.folder, forked=True, **settings)
        assert "polling migrate" in cli.fails("accounts")
        import redis

        with redis.Redis.from_url(urls.redis_url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        found = {check["name"]: check for check in cli("doctor", "--json").rows()}
        assert (found["schema"]["status"], found["Redis"]["status"]) == ("fail", "fail")
        assert found["schema"]["advice"] == "Run: polling migrate"
        assert "it was empty" in cli.ok("migrate").out
        assert cli.ok("accounts").out.startswith("No accounts")


def test_a_new_plugin_can_be_installed_and_run(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    cli.ok("new", "my-notes")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    pip += [
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--target",
        str(tmp_path / "installed"),
    ]
    made = subprocess.run(
        [*pip, str(tmp_path / "my-notes")], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no build backend here: {made.stderr.splitlines()[-1:]}")
    cli.env["PYTHONPATH"] = str(tmp_path / "installed")
    assert "my-notes" in [row["domain"] for row in cli.ok("integrations", "--json").rows()]
    assert len(cli.ok("dry-run", "my-notes", "--json").rows()) == 3


def test_an_empty_listing_names_its_filters(cli: Cli) -> None:
    id = cli.connect("without-content")
    assert "nobody" in cli.ok("accounts", "--user-id", "nobody").out
    out = cli.ok("runs", "--account", "without-content", "--state", "failed").out
    assert "state failed" in out
    assert id[:8] in out
    assert id[:8] in cli.ok("content", "--account", "without-content").out


def test_up_with_a_taken_port_fails_and_names_the_port(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert port in cli.fails("up", "--port", port)


def test_another_package_named_core_is_not_imported(alone: Cli) -> None:
    other = alone.folder / "other" / "core"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('the wrong core')\n")
    python, *words = cli_support.PROGRAM
    with subprocess.Popen(
        [python, "-P", *words, "up", "--processes", "1"],
        cwd=other.parent,
        env=alone.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "All services are running" in line or "the wrong core" in line:
                break
        process.send_signal(signal.SIGINT)
        lines += process.stdout
    assert not [line for line in lines if "the wrong core" in line]
    assert process.returncode == 0, lines


@pytest.mark.parametrize(
    "words",
    [
        ("accounts", "--user-id", ""),
        ("accounts", "show", ""),
        ("content", "--search", ""),
        ("tasks", "retry", ""),
        ("tokens", "create", "--user", ""),
        ("export", "--since", ""),
    ],
)
def test_an_empty_word_is_refused(alone: Cli, words: tuple[str, ...]) -> None:
    """An unset variable of a shell gives one."""
    assert "it is empty" in alone.fails(*words, code=2)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("accounts", "list"), "To list, run: polling accounts"),
        (("runs", "ls"), "To list, run: polling runs"),
        (("list",), "Try: polling --help"),
        (("content", "--search"), "Try: polling content --help"),
        (("completion",), "Choose from: bash, zsh, fish"),
        (("worker", "--processes", "x"), "Try: polling worker --help"),
        (("scheduler", "--nope"), "Try: polling scheduler --help"),
    ],
)
def test_wrong_usage_names_the_next_step(alone: Cli, words: tuple[str, ...], error: str) -> None:
    assert error in alone.fails(*words, code=2)


def test_a_wrong_cursor_of_an_export_names_its_option(alone: Cli) -> None:
    assert "--since" in alone.fails("export", "--since", "zzz")


def test_empty_listings_name_their_filters(alone: Cli) -> None:
    assert "nobody" in alone.ok("users", "nobody").out
    assert "nobody" in alone.ok("audit", "--user-id", "nobody").out


def test_a_newer_schema_is_refused_in_each_command(alone: Cli) -> None:
    alone.ok("psql", "-c", "UPDATE alembic_version SET version_num = '9999'")
    assert "newer" in alone.fails("accounts")
    assert "newer" in alone.fails("migrate")
    assert "newer" in (done := alone("doctor")).out + done.err


def test_a_relative_home_is_used_as_an_absolute_folder(alone: Cli) -> None:
    alone.env["POLLING_HOME"] = "data"
    alone.env["COLUMNS"] = "500"
    assert str(alone.folder / "data") in alone("doctor").out


def test_limits_of_an_unknown_integration_are_reported(alone: Cli) -> None:
    alone.env["POLLING_LIMITS"] = '{"fpt": {"connections": {"tasks": 2}}}'
    assert "fpt" in alone("doctor").out
