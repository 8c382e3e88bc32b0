"""Accounts in the dashboard: lists, the page of an account, its buttons, and its settings."""

from __future__ import annotations

import json
import re
from typing import Annotated

import pytest
from pydantic import BaseModel, SecretStr
from support.dashboard import form
from support.rest import SECRET

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    Destination,
    Manifest,
    ResyncOnChange,
    TaskOutput,
    TaskResult,
)
from core.scopes import ALL, Scope
from core.service.accounts import queries as account_queries

XSS = '"><script>alert(1)</script><b>'


class Place(BaseModel, extra="allow"):
    host: Annotated[str, Destination()] = "here.example"
    query: Annotated[str, ResyncOnChange()] = ""
    size: int = 1


class Password(BaseModel):
    password: SecretStr


class Mailbox(BaseIntegration[Place, Password]):
    manifest = Manifest("mailbox", "Mailbox")

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "me")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations():
    return (Mailbox,)


def connect(dashboard, domain="locked", user="ann", password=SECRET, **config):
    """Connect an account with its user's token, and return its id."""
    new = {"integration_domain": domain, "config": config, "credentials": {"password": password}}
    answer = dashboard.user(user).post("/v1/user-integrations", json=new)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def names(page: str) -> list[str]:
    """Return the names of the accounts that a page lists."""
    return re.findall(r'<th scope="row">\s*<a href="/accounts/[^"]+">([^<]*)</a>', page)


def rows_by_name(page: str) -> dict[str, str]:
    """Return the rest of the row of each account that a page lists."""
    row = r'<th scope="row">\s*<a href="[^"]+">([^<]*)</a>(.*?)</tr>'
    return dict(re.findall(row, page, re.DOTALL))


def figure(page: str, label: str) -> str:
    """Return the value of a figure."""
    ((value,),) = [re.findall(r"<dd>([^<]*)</dd>", page.split(f">{label}</dt>")[1])[:1]]
    return value


# Lists
# --------------------------------------------------------------------------------------------------


def test_the_account_list_is_filtered_by_each_field(dashboard, desk) -> None:
    for name, user, domain, status in [
        ("Alpha", "ann", "locked", "active"),
        ("beta", "ann", "caller", "paused"),
        ("ALPHABET", "bob", "locked", "error"),
        ("100%_", "bob", "shop", "active"),
    ]:
        desk.account(name, user_id=user, domain=domain)
        desk.conn.execute(
            "UPDATE user_integration SET sync_status = %s WHERE name = %s", (status, name)
        )
    desk.conn.execute(
        "UPDATE user_integration SET next_sync_at = now() + interval '1 hour' WHERE name <> 'Alpha'"
    )
    operator, ann = dashboard.sign_in(), dashboard.sign_in("ann")
    assert names(operator.get("/accounts").text) == ["Alpha", "beta", "ALPHABET", "100%_"]
    assert names(operator.get("/accounts?status=&domain=&user=&name=&due=").text) == [
        "Alpha",
        "beta",
        "ALPHABET",
        "100%_",
    ]
    for filters, found in [
        ({"status": "paused"}, ["beta"]),
        ({"domain": "locked"}, ["Alpha", "ALPHABET"]),
        ({"user": "bob"}, ["ALPHABET", "100%_"]),
        ({"name": "alpha"}, ["Alpha", "ALPHABET"]),
        ({"name": "%_"}, ["100%_"]),
        ({"name": "alpha", "user": "bob", "status": "error"}, ["ALPHABET"]),
        ({"due": "now"}, ["Alpha"]),
        ({"due": "over"}, []),
        ({"name": "nobody"}, []),
    ]:
        page = operator.get("/accounts", **filters).text
        assert names(page) == found, filters
        kept = form(page, "/accounts").fields
        assert {name: kept[name] for name in filters} == filters
    assert names(ann.get("/accounts").text) == ["Alpha", "beta"]
    assert names(ann.get("/accounts", user="bob").text) == ["Alpha", "beta"]
    assert "bob" not in ann.get("/accounts", user="bob").text
    assert "No accounts match." in operator.get("/accounts", name="nobody").text
    assert operator.get("/accounts", status="asleep").status_code == 404


def test_overdue_accounts_are_marked_and_filtered(dashboard, desk) -> None:
    for name, minutes in (("late", 60), ("due", 1)):
        desk.account(name)
        desk.conn.execute(
            """
            UPDATE user_integration SET next_sync_at = now() - %s * interval '1 minute'
            WHERE name = %s
            """,
            (minutes, name),
        )
    operator = dashboard.sign_in()
    assert names(operator.get("/accounts", due="over").text) == ["late"]
    assert names(operator.get("/accounts", due="now").text) == ["late", "due"]
    assert operator.get("/accounts").text.count(">overdue</strong>") == 1


def test_an_account_with_an_open_run_is_running_on_every_page(dashboard, desk) -> None:
    running, waiting, paused = map(desk.account, ("running", "waiting", "paused"))
    desk.run(running)
    desk.conn.execute(
        "UPDATE user_integration SET next_sync_at ="
        " CASE WHEN name <> 'paused' THEN now() + interval '14.5 minutes' END"
    )
    browser = dashboard.sign_in()
    shown = rows_by_name(browser.get("/accounts").text)
    assert ">running</td>" in shown["running"]
    assert ">in 14 min</time></td>" in shown["waiting"]
    assert "<td>paused</td>" in shown["paused"]
    for account, text in ((running, "running"), (waiting, "in 14 min"), (paused, "paused")):
        page = browser.get(f"/accounts/{account}").text
        assert figure(page, "Next sync") == text
        row = account_queries.shown_accounts.one(desk.conn, "account", account)
        assert account_queries.next_sync(row).text == text


def test_a_backfill_does_not_replace_the_next_sync(dashboard, desk) -> None:
    account = desk.account("old items")
    desk.run(account)
    desk.conn.execute("UPDATE sync_run SET lane = 'backfill'")
    desk.conn.execute("UPDATE user_integration SET next_sync_at = now() + interval '14.5 minutes'")
    assert figure(dashboard.sign_in().get(f"/accounts/{account}").text, "Next sync") == "in 14 min"


def test_lists_are_read_page_by_page(dashboard, desk) -> None:
    wanted = [f"n{number:03}" for number in range(120)]
    for name in wanted:
        desk.account(name)
    desk.account("another")
    operator, found, pages = dashboard.sign_in(), [], 0
    page = operator.get("/accounts", name="n", user="u").text
    while True:
        found += [name for name in names(page) if name != "another"]
        pages += 1
        onward = re.search(r'<p class="more"><a href="([^"]+)">Next page', page)
        if onward is None:
            break
        page = operator.get(onward[1].replace("&amp;", "&")).text
    assert (found, pages) == (wanted, 3)
    assert operator.get("/accounts", after="nonsense").status_code == 422


def test_the_account_list_shows_the_first_reason_to_wait(dashboard, desk) -> None:
    ids = {
        name: desk.account(name, group="g" if name == "grouped" else None)
        for name in ("blocked", "grouped", "free", "stopped")
    }
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials',"
        " status_detail = %s WHERE name = 'stopped'",
        (f"refused {XSS}",),
    )
    block = "INSERT INTO limit_block VALUES (%s, now() + interval '1 hour', %s)"
    desk.conn.execute(block, (f"account/{ids['blocked']}/*", "too many calls"))
    desk.conn.execute(block, ("group/shop/g/quota", None))
    serving(desk)
    page = dashboard.sign_in().get("/accounts").text
    rows = rows_by_name(page)
    assert "too many calls; next try" in rows["blocked"]
    assert "quota" in rows["grouped"]
    assert "stopped the account because its credentials do not work: refused" in rows["stopped"]
    assert "until" not in rows["free"]
    assert "<script>alert" not in page


def serving(desk) -> None:
    """Register a worker and a leader in the ledger."""
    desk.conn.execute(
        """
        INSERT INTO process (id, kind, host, pid, queues, threads, seen_at)
        VALUES (%s, 'worker', 'h', 1, %s, 8, now())
        """,
        (desk.me, ["shop", "locked", "mailbox"]),
    )
    desk.conn.execute(
        "UPDATE engine_state SET leader = %s, leader_until = now() + interval '9 seconds'",
        (desk.me,),
    )


# One account
# --------------------------------------------------------------------------------------------------


def test_the_page_of_an_account_shows_its_condition(dashboard, desk) -> None:
    account = desk.account("mine", user_id="ann", config={"shown": "in the config"})
    desk.keep(account, TaskOutput("1", "text"), TaskOutput("2", "more"))
    run = desk.run(account)
    desk.conn.execute(
        "UPDATE sync_task SET state = 'parked', errors = %s WHERE run_id = %s",
        (json.dumps([{"error": f"TransientError: {XSS}"}]), run),
    )
    desk.conn.execute(
        "INSERT INTO sync_state VALUES (%s, 'inbox', '{\"cursor\": 42}', 3, 1)", (account,)
    )
    page = dashboard.sign_in("ann").get(f"/accounts/{account}").text
    task = desk.value("SELECT max(id) FROM sync_task")
    for said in (
        "mine", "in the config", f'href="/runs/{run}"', f'href="/tasks/{task}"',
        f'href="/parked?account={account}"', f'href="/content?account={account}"', "inbox",
        "&#34;cursor&#34;: 42", "No worker is running", "TransientError",
        "1 task failed or was cancelled, and is not done",
    ):  # fmt: skip
        assert said in page, said
    assert re.search(r"Items</a></dt>\s*<dd>2</dd>", page)
    assert re.search(r"Complete as of</dt>\s*<dd>1 task not done</dd>", page)
    assert "<script>alert" not in page


def test_a_stopped_account_shows_the_reason_and_the_remedy(dashboard, desk) -> None:
    account = connect(dashboard)
    stop = """
    UPDATE user_integration SET sync_status = 'error', status_reason = %s,
        status_detail = 'it said no'
    """
    browser, place = dashboard.sign_in("ann"), f"/accounts/{account}"
    for reason, page in (("credentials", "credentials"), ("configuration", "settings")):
        desk.conn.execute(stop, (reason,))
        text = browser.get(place).text
        assert "it said no" in text
        assert re.search(rf'<p class="wait" id="why">.*?href="{place}/{page}"', text, re.DOTALL)
        assert f'formaction="{place}/sync"' not in text


def test_a_plugin_that_is_not_installed_hides_nothing(dashboard, desk) -> None:
    account = desk.account("orphan", user_id="ann")
    browser = dashboard.sign_in("ann")
    page = browser.get(f"/accounts/{account}").text
    assert "is not installed" in page
    assert "/settings" not in page
    assert browser.get(f"/accounts/{account}/settings").status_code == 404
    assert browser.post(f"/accounts/{account}/pause").status_code == 303


def test_the_live_part_of_an_account_is_shared_by_all_sessions(dashboard, desk) -> None:
    account = connect(dashboard)
    browser = dashboard.sign_in("ann")
    csrf, place = browser.csrf, f"/accounts/{account}"
    with browser.client.stream("GET", place, headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen = ""
        for line in stream.iter_lines():
            seen += line + "\n"
            if seen.endswith("\n\n") and "event: live" in seen:
                if "paused" in seen.rpartition("event: live")[2]:
                    break
                desk.conn.execute("UPDATE user_integration SET sync_status = 'paused'")
    assert f'formaction="{place}/pause"' in seen
    assert csrf not in seen
    assert 'name="csrf"' not in seen


def test_the_stream_of_an_erased_account_ends(dashboard, desk) -> None:
    account = connect(dashboard)
    browser = dashboard.sign_in("ann")
    with browser.client.stream(
        "GET", f"/accounts/{account}", headers={"Accept": "text/event-stream"}
    ) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: live"
        desk.conn.execute("DELETE FROM user_integration")
        assert [line for line in lines if line.startswith("event:")] == ["event: end"]


# Its buttons
# --------------------------------------------------------------------------------------------------


def press(browser, account, what, **fields):
    """Press a button, and return the status and the message of the next page."""
    answer = browser.post(f"/accounts/{account}/{what}", fields)
    if answer.status_code == 303:
        answer = browser.get(answer.headers["location"])
    said = re.search(r'<p class="(?:flash|wrong)" role="(?:status|alert)">([^<]*)', answer.text)
    return answer.status_code, said[1] if said else None


def test_every_button_of_an_account_works(dashboard, desk) -> None:
    account, browser = connect(dashboard), dashboard.sign_in("ann")
    status = "SELECT sync_status FROM user_integration"
    assert press(browser, account, "pause") == (
        200,
        "Account paused. Tasks that are already running will finish.",
    )
    assert desk.value(status) == "paused"
    assert press(browser, account, "sync") == (
        409,
        "The account is paused. Press Resume on the account&#39;s page.",
    )
    assert (
        "data-live" not in browser.post(f"/accounts/{account}/sync").text
    )  # an error stays until the reader leaves the page
    assert desk.runs() == []
    assert press(browser, account, "resume") == (200, "Account resumed.")
    assert press(browser, account, "check") == (200, "Check passed: the credentials work.")
    assert press(browser, account, "sync") == (200, "Run started.")
    assert desk.runs() == ["running"]
    assert press(browser, account, "sync") == (200, "A run is already open.")
    later = "The resync starts after the open run has ended."
    assert press(browser, account, "resync") == (200, later)
    assert (
        desk.value("SELECT count(*) FROM sync_run WHERE trigger = 'resync' OR state = 'running'")
        > 0
    )
    assert press(browser, account, "disconnect")[0] == 200
    assert desk.rows("SELECT sync_status, credentials FROM user_integration") == [
        ("disconnected", None)
    ]
    assert press(browser, account, "resume")[0] == 409


def test_the_page_shows_the_answer_of_the_provider(dashboard, desk, vault) -> None:
    account, browser = connect(dashboard), dashboard.sign_in("ann")
    desk.conn.execute(
        "UPDATE user_integration SET credentials = %s",
        (vault.seal(Password(password=SecretStr("wrong-" + SECRET))),),
    )
    status, said = press(browser, account, "check")
    assert (status, SECRET in said) == (422, False)
    assert "rejects the credentials" in said


STOP = """
UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials',
    status_detail = 'expired', stopped_at = now() - interval '3 hours', stopped_by = %s
WHERE id = %s
"""
STATE = "SELECT sync_status, status_reason, status_detail FROM user_integration WHERE id = %s"


def reject(desk, vault, account) -> None:
    """Give an account credentials that its provider rejects."""
    sealed = vault.seal(Password(password=SecretStr("wrong-" + SECRET)))
    desk.conn.execute(
        "UPDATE user_integration SET credentials = %s WHERE id = %s", (sealed, account)
    )


def test_an_account_in_error_resumes_if_its_provider_accepts_it(dashboard, desk, vault) -> None:
    account, browser = connect(dashboard), dashboard.sign_in("ann")
    run = desk.run(account)
    task = desk.value("SELECT id FROM sync_task WHERE run_id = %s", run)
    desk.conn.execute(STOP, (task, account))
    page = browser.get(f"/accounts/{account}").text
    assert "Check and resume" in page
    assert f'<a href="/tasks/{task}">task {task}</a>' in page
    assert "3 h ago" in page
    good = desk.value("SELECT credentials FROM user_integration WHERE id = %s", account)
    reject(desk, vault, account)
    status, said = press(browser, account, "resume")
    assert (status, SECRET in said) == (422, False)
    assert desk.rows(STATE, account) == [("error", "credentials", "expired")]
    desk.conn.execute("UPDATE user_integration SET credentials = %s", (good,))
    assert press(browser, account, "resume") == (200, "Account resumed.")
    assert desk.rows(STATE, account) == [("active", None, None)]
    assert "Check and resume" not in browser.get(f"/accounts/{account}").text


def test_selected_accounts_are_resumed_paused_and_synced(dashboard, desk, vault) -> None:
    ids = [connect(dashboard, name=f"a{number}") for number in range(3)]
    other = connect(dashboard, user="bob", name="b")
    for account in (*ids, other):
        desk.conn.execute(STOP, (None, account))
    reject(desk, vault, ids[2])
    browser = dashboard.sign_in("ann")
    page = browser.get("/accounts", status="error").text
    assert all(f'name="account" value="{account}"' in page for account in ids)

    def act(what: str, *accounts: str) -> str:
        answer = browser.post(f"/accounts/{what}-selected?status=error", {"account": accounts})
        assert (answer.status_code, "status=error" in answer.headers["location"]) == (303, True)
        return " ".join(
            re.sub("<[^>]*>", " ", browser.get(answer.headers["location"]).text).split()
        )

    shown = act("resume", *ids, other)
    assert "2 accounts resumed. 2 accounts skipped" in shown
    states = dict(desk.rows("SELECT id::text, sync_status FROM user_integration"))
    assert [states[id] for id in (*ids, other)] == ["active", "active", "error", "error"]
    assert "1 account with an open run now. 1 account skipped" in act("sync", ids[0], ids[2])
    assert desk.rows("SELECT user_integration_id::text FROM sync_run") == [(ids[0],)]
    assert "2 accounts paused." in act("pause", *ids[:2])
    assert browser.post("/accounts/pause-selected").status_code == 422
    assert browser.post("/accounts/pause-selected", {"account": "x"}).status_code == 422


def test_the_timeline_has_runs_held_deletions_stops_and_acts(dashboard, desk) -> None:
    account = connect(dashboard)
    run = desk.run(account)
    desk.conn.execute(
        """
        UPDATE sync_run SET state = 'failed', error = 'no <b>answer</b>', outputs_saved = 3,
            started_at = now() - interval '9 minutes', finished_at = now() - interval '4 minutes'
        """
    )
    task = desk.value("SELECT id FROM sync_task")
    held = desk.hold(account, run, "1", "2")
    desk.conn.execute(STOP, (task, account))
    dashboard.user("ann").patch(f"/v1/user-integrations/{account}", json={"name": "renamed"})
    page = f"/accounts/{account}/timeline"
    shown = dashboard.sign_in(scopes=ALL).get(page).text
    rows = re.findall(r"<tr>\s*<td>.*?</tr>", shown, re.DOTALL)
    texts = [" ".join(re.sub("<[^>]*>", " ", row).split()) for row in rows]
    expected = (
        "Deletion of 2 of 2 items held",
        "Changed the properties of an account ann",
        "Connected a new account ann",
        "Run (manual) failed after 5 min: 3 items saved, 0 deleted. Error of a task: no &lt;b&gt;",
        "The engine stopped the account: expired",
    )
    for text in expected:
        assert any(text in found for found in texts), (text, texts)
    assert len(texts) == len(expected)
    assert "stopped" in texts[-1], "the oldest event is the last one"
    for link in (f"/runs/{run}", f"/tasks/{task}", f"/deletions/{held}"):
        assert f'href="{link}"' in shown
    of_user = dashboard.sign_in("ann", scopes=[Scope.ACCOUNTS_CONNECT]).get(page).text
    assert "Run (manual) failed" in of_user
    assert "Changed the properties" not in of_user
    assert "Deletion of" not in of_user
    assert 'href="/tasks/' not in of_user
    assert dashboard.sign_in("bob").get(page).status_code == 404


def test_a_run_of_a_stopped_account_is_not_shown_as_running(dashboard, desk) -> None:
    account, browser = connect(dashboard), dashboard.sign_in("ann")
    run = desk.run(account)
    pages = (f"/accounts/{account}", "/runs", f"/runs/{run}")
    running, stopped = (f'class="state {word}">{word}<' for word in ("running", "stopped"))
    for page in pages:
        assert running in browser.get(page).text, page
    desk.conn.execute("UPDATE user_integration SET sync_status = 'paused'")
    for page in pages:
        shown = browser.get(page).text
        assert (running in shown, stopped in shown) == (False, True), page


def test_erasing_asks_for_the_name(dashboard, desk) -> None:
    account = desk.account("My  account", user_id="ann")
    desk.keep(account, TaskOutput("1", "text"))
    browser = dashboard.sign_in("ann")
    answer = browser.submit(f"/accounts/{account}", f"/accounts/{account}/erase", {"name": XSS})
    assert (answer.status_code, "This name does not match." in answer.text) == (422, True)
    assert "<script>alert" not in answer.text
    assert desk.value("SELECT count(*) FROM user_integration_content") == 1
    place, typed = f"/accounts/{account}", {"name": " My account "}
    answer = browser.submit(place, f"{place}/erase", typed)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{place}?flash=hidden")
    assert desk.value("SELECT count(*) FROM user_integration_content") == 1
    shown = browser.get(answer.headers["location"]).text
    assert "Its content is hidden, and will be deleted." in shown
    assert "reconnect the account to restore it" in shown
    answer = browser.submit(place, f"{place}/erase", typed | {"now": "yes"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/accounts?flash=erased")
    assert desk.value("SELECT count(*) FROM user_integration") == 0
    assert desk.value("SELECT count(*) FROM user_integration_content") == 0
    assert "Account erased, with all its content." in browser.get(answer.headers["location"]).text


# Changing it
# --------------------------------------------------------------------------------------------------


def change(browser, account, part, **changes):
    place = f"/accounts/{account}/settings"
    return browser.submit(place, place, changes, having=part)


def test_the_name_and_the_interval_can_be_changed(dashboard, desk) -> None:
    account, browser = connect(dashboard), dashboard.sign_in("ann")
    answer = change(browser, account, "interval", name=f"New {XSS}", interval="9")
    assert answer.headers["location"] == f"/accounts/{account}?flash=changed"
    assert desk.rows("SELECT name, poll_interval_minutes FROM user_integration") == [
        (f"New {XSS}", 9)
    ]
    assert (
        "<script>alert"
        not in browser.get(f"/accounts/{account}").text + browser.get("/accounts").text
    )
    answer = change(browser, account, "interval", name="kept", interval="0")
    assert answer.status_code == 422
    shown = form(answer.text, f"/accounts/{account}/settings", "interval")
    assert (shown.fields["name"], shown.attributes["interval"]["aria-invalid"]) == ("kept", "true")
    assert desk.value("SELECT poll_interval_minutes FROM user_integration") == 9


def test_the_config_form_is_filled_in_and_can_be_changed(dashboard, desk) -> None:
    account, browser = (
        connect(dashboard, "mailbox", size=7, more="not in the form"),
        dashboard.sign_in("ann"),
    )
    answer = change(browser, account, "part")
    assert answer.headers["location"].endswith("?flash=changed")
    config = {"host": "here.example", "query": "", "size": 7, "more": "not in the form"}
    assert desk.value("SELECT config FROM user_integration") == config
    answer = change(browser, account, "part", **{"config.query": "from:x"})
    assert answer.headers["location"].endswith("?flash=changed-lists-again")
    assert desk.value("SELECT config FROM user_integration") == config | {"query": "from:x"}
    answer = change(browser, account, "part", **{"config.size": "many", "config.query": "kept"})
    assert answer.status_code == 422
    shown = form(answer.text, f"/accounts/{account}/settings", "part")
    assert (shown.fields["config.size"], shown.fields["config.query"]) == ("many", "kept")
    assert shown.attributes["config.size"]["aria-invalid"] == "true"


def test_a_user_moves_an_account_only_with_its_credentials(dashboard, desk) -> None:
    account, browser = connect(dashboard, "mailbox"), dashboard.sign_in("ann")
    place = f"/accounts/{account}/settings"
    answer = change(browser, account, "part", **{"config.host": "elsewhere.example"})
    assert (answer.status_code, "also enter the credentials" in answer.text) == (422, True)
    assert form(answer.text, place, "part").attributes["config.host"]["aria-invalid"] == "true"
    assert desk.value("SELECT config ->> 'host' FROM user_integration") == "here.example"
    with_them = {
        "config.host": "elsewhere.example",
        "with_credentials": "on",
        "credentials.password": SECRET,
    }
    missing = change(browser, account, "part", **with_them | {"credentials.password": ""})
    assert missing.status_code == 422
    assert form(missing.text, place, "part").fields["with_credentials"] == "on"
    assert change(browser, account, "part", **with_them).status_code == 303
    assert desk.rows("SELECT config ->> 'host', credentials_version FROM user_integration") == [
        ("elsewhere.example", 2)
    ]
    operator = change(dashboard.sign_in(), account, "part", **{"config.host": "third.example"})
    assert operator.status_code == 303


def test_an_account_resumes_after_new_credentials(dashboard, desk) -> None:
    account, browser = connect(dashboard), dashboard.sign_in("ann")
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials'"
    )
    place = f"/accounts/{account}/credentials"
    answer = browser.submit(place, place, {"credentials.password": "wrong-" + SECRET})
    assert (answer.status_code, SECRET in answer.text) == (422, False)
    assert desk.value("SELECT sync_status FROM user_integration") == "error"
    answer = browser.submit(place, place, {"credentials.password": "newer"})
    assert answer.headers["location"] == f"/accounts/{account}?flash=reconnected"
    assert desk.rows("SELECT sync_status, credentials_version FROM user_integration") == [
        ("active", 2)
    ]
    assert "Account reconnected." in browser.get(answer.headers["location"]).text
