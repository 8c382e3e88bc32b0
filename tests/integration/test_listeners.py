"""Listeners: one process of the fleet holds each, their accounts get hints, and failures show."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, SecretStr
from support.rest import SECRET
from support.waiting import until

from core import (
    EVENTS,
    AccountIdentity,
    BaseIntegration,
    Context,
    Hint,
    Listener,
    Manifest,
    NoFields,
    TaskResult,
    WebhookRequest,
    WebhookResponse,
)
from core.db.clocks import LISTEN_SECONDS
from core.errors import NotFound
from core.ledger import hints, listeners
from core.plugins import Registry
from core.service.accounts import webhooks
from core.service.accounts.listening import sentence, state_of
from core.worker import listening
from core.worker.accounts import Accounts
from core.worker.listening import Listening

DOMAIN = "heard"
WAITS = "SELECT count(*) FROM hint WHERE user_integration_id = %s"

SET_STATE = """
INSERT INTO sync_state (user_integration_id, partition, value, version, dispatch_seq)
VALUES (%s, %s, %s, 1, 1)
"""


class Keys(BaseModel):
    password: SecretStr = SecretStr("")


class Heard(BaseIntegration[NoFields, Keys]):
    """An integration whose listeners do what the test says."""

    manifest = Manifest(DOMAIN, "Heard")
    named: Any = None
    raw: Any = None
    listens: Any = None
    answers: Any = None
    judges: Any = None

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "Me")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()

    @classmethod
    def listeners(cls, settings: Any, accounts: Any) -> Any:
        return Heard.raw(accounts) if Heard.raw else Heard.named(list(accounts))

    @classmethod
    def listen(cls, listener: Any, hints: Any, stopping: Any) -> None:
        Heard.listens(listener, hints, stopping)

    @classmethod
    def webhook(cls, request: WebhookRequest) -> Any:
        return Heard.answers(request)

    @classmethod
    def follows(cls, part: str, account: Any) -> bool:
        return Heard.judges(part, account)


class LeftOut(BaseModel):
    left_out: list[str]


def together(accounts: Any) -> Any:
    return [Listener("all", {each.id: each.identity for each in accounts})]


def patient(listener: Any, hints: Any, stopping: threading.Event) -> None:
    hints.connected()
    stopping.wait(60)


@pytest.fixture
def integrations():
    return (Heard,)


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    Heard.named, Heard.raw, Heard.listens = together, None, patient
    Heard.answers = lambda request: WebhookResponse()
    Heard.judges = lambda part, account: True
    monkeypatch.setattr(listening, "TRY_SECONDS", 0.05)
    monkeypatch.setattr(listeners, "NAMING_SECONDS", 0.0)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.integrations[DOMAIN] = Heard
    registry.versions[DOMAIN] = "1"
    return registry


@pytest.fixture
def account(desk: Any) -> UUID:
    desk.conn.execute(
        "INSERT INTO integration (domain, name, tasks, max_tasks) VALUES (%s, %s, '{}', 1)",
        (DOMAIN, DOMAIN),
    )
    return heard(desk, "ann")


def heard(desk: Any, name: str, **given: Any) -> UUID:
    """Connect an account that is not due."""
    id: UUID = desk.account(name, DOMAIN, **given)
    desk.conn.execute(
        "UPDATE user_integration SET next_sync_at = now() + interval '10 minutes' WHERE id = %s",
        (id,),
    )
    return id


@pytest.fixture
def process(database, queues, registry, egress, vault) -> Any:
    """Return a function that runs the listeners of one more process during a block."""

    @contextmanager
    def run(paused: Any = lambda: False) -> Iterator[UUID]:
        accounts = Accounts(database, vault, registry, {})
        made, me = Listening(database, queues, registry, egress, accounts), uuid4()
        made.open(me, [DOMAIN, "other"], paused)
        try:
            yield me
        finally:
            made.close()

    return run


def row(desk: Any, columns: str, key: str = "all") -> Any:
    found = desk.rows(f"SELECT {columns} FROM listener WHERE key = %s", key)
    return found[0] if found else None


def is_connected(desk: Any) -> bool:
    return bool(row(desk, "connected_at IS NOT NULL") == (True,))


def let_leases_end(desk: Any) -> None:
    span = timedelta(seconds=LISTEN_SECONDS)
    desk.conn.execute("UPDATE listener SET holder_until = holder_until - %s", (span,))


# Who listens
# --------------------------------------------------------------------------------------------------


def test_a_listener_that_the_process_takes_while_it_ends_stops_too(
    desk, account, process, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, taken, closing = set(threading.enumerate()), threading.Event(), threading.Event()
    hold, stop = listeners.hold, Listening._stop

    def slow(*given: Any) -> Any:
        places = hold(*given)
        if places:
            taken.set()
            assert closing.wait(20)
        return places

    def stopped(self: Listening, places: Any) -> None:
        stop(self, places)
        closing.set()

    monkeypatch.setattr(listeners, "hold", slow)
    monkeypatch.setattr(Listening, "_stop", stopped)
    with process():
        assert taken.wait(20)
    left = {thread for thread in set(threading.enumerate()) - before if "listen" in thread.name}
    until(lambda: not any(thread.is_alive() for thread in left), "no listener is left")


def test_a_listener_has_one_holder_at_a_time(desk, account, process) -> None:
    with process() as first:
        until(lambda: is_connected(desk), "it is connected")
        with process():
            renewed = row(desk, "holder_until")
            until(lambda: row(desk, "holder_until") != renewed, "the lease is renewed")
            assert row(desk, "holder") == (first,)
        assert row(desk, "holder") == (first,)
    assert row(desk, "holder, connected_at") == (None, None)


def test_another_process_takes_over_when_the_lease_ends(desk, account, connect) -> None:
    first, second, conn = uuid4(), uuid4(), connect()
    listeners.name_listeners(conn, DOMAIN, {"all": Listener("all", {str(account): "ann"})})
    assert listeners.hold(conn, first, [DOMAIN]) == {(DOMAIN, "all")}
    assert listeners.connected(conn, first, DOMAIN, "all")
    assert listeners.hold(conn, second, [DOMAIN]) == set()
    assert listeners.hold(conn, first, [DOMAIN]) == {(DOMAIN, "all")}
    assert is_connected(desk), "a renewal keeps the connection"
    let_leases_end(desk)
    assert not listeners.of_account(conn, account).connected
    assert listeners.hold(conn, second, [DOMAIN]) == {(DOMAIN, "all")}
    assert row(desk, "holder, connected_at") == (second, None)
    assert not listeners.connected(conn, first, DOMAIN, "all"), "the first one has lost it"
    assert not is_connected(desk)


def test_a_lease_of_a_wrong_clock_does_not_last(desk, account, connect) -> None:
    conn = connect()
    listeners.name_listeners(conn, DOMAIN, {"all": Listener("all", {})})
    listeners.hold(conn, uuid4(), [DOMAIN])
    desk.conn.execute("UPDATE listener SET holder_until = now() + interval '1 day'")
    me = uuid4()
    assert listeners.hold(conn, me, [DOMAIN]) == {(DOMAIN, "all")}


def test_only_processes_that_serve_the_integration_listen(desk, account, connect) -> None:
    conn = connect()
    listeners.name_listeners(conn, DOMAIN, {"all": Listener("all", {})})
    assert listeners.hold(conn, uuid4(), ["other"]) == set()


def test_a_process_that_drains_hands_its_listeners_over(desk, account, process) -> None:
    paused = threading.Event()
    with process(paused.is_set):
        until(lambda: is_connected(desk), "it is connected")
        paused.set()
        until(lambda: row(desk, "holder") == (None,), "it is released")
        with process() as second:
            until(lambda: row(desk, "holder") == (second,), "the other one takes it")


def test_a_listener_that_ignores_stopping_delays_nothing(
    desk, account, process, monkeypatch
) -> None:
    forever = threading.Event()
    monkeypatch.setattr(listening, "CLOSE_SECONDS", 0.1)

    def listen(listener: Any, hints: Any, stopping: Any) -> None:
        hints.connected()
        forever.wait(60)

    Heard.listens = listen
    try:
        with process():
            until(lambda: is_connected(desk), "it is connected")
        assert row(desk, "holder") == (None,)
        assert not forever.is_set()
    finally:
        forever.set()


# What they name
# --------------------------------------------------------------------------------------------------


def test_accounts_come_and_go(desk, account, process) -> None:
    def addresses() -> dict[Any, str]:
        return dict(desk.rows("SELECT user_integration_id, address FROM listener_account"))

    with process():
        until(lambda: addresses() == {account: "ann"}, "the account is known")
        bob = heard(desk, "bob")
        until(lambda: addresses() == {account: "ann", bob: "bob"}, "a new account is known")
        until(lambda: desk.value(WAITS, bob), "the new account gets a hint")
        desk.conn.execute(
            "UPDATE user_integration SET sync_status = 'paused' WHERE id = %s", (account,)
        )
        until(lambda: addresses() == {bob: "bob"}, "a paused account is left out")
        desk.conn.execute("DELETE FROM user_integration WHERE id = %s", (bob,))
        until(lambda: not addresses(), "an erased account is gone")
        Heard.named = lambda accounts: []
        until(lambda: row(desk, "1") is None, "a listener that is not named is deleted")


def test_a_plugin_may_read_some_accounts_or_none(desk, account, process) -> None:
    heard(desk, "bob")
    Heard.raw = lambda accounts: [Listener("none", {})]
    with process():
        until(lambda: row(desk, "1", "none"), "a listener without accounts is stored")
        Heard.raw = lambda accounts: [Listener("one", {next(accounts).id: "a"})]
        until(lambda: row(desk, "1", "one"), "a listener with the first account is stored")
        assert desk.value("SELECT count(*) FROM listener_account") == 1
        assert row(desk, "1", "none") is None


@pytest.mark.parametrize(
    "named",
    [
        lambda accounts: [Listener("x", {str(uuid4()): "?"})],
        lambda accounts: [Listener("x", {}), Listener("x", {})],
        lambda accounts: [Listener("", {})],
        lambda accounts: [Listener("\x00", {})],
        lambda accounts: [
            Listener(key, {each.id: "a" for each in accounts}) for key in ("x", "y")
        ],
        lambda accounts: ["x"],
        lambda accounts: 1 / 0,
    ],
)  # fmt: skip
def test_invalid_listeners_change_nothing(desk, account, process, named, caplog) -> None:
    with process():
        until(lambda: is_connected(desk), "it is connected")
        Heard.named = named
        until(lambda: "listeners() of heard failed" in caplog.text, "the failure is logged")
        assert is_connected(desk)
    assert desk.value("SELECT count(*) FROM listener_account") == 1


def test_a_listener_for_a_webhook_has_no_holder(desk, account, process) -> None:
    Heard.named = lambda accounts: [
        Listener("hooks", {each.id: "T1" for each in accounts}, listens=False)
    ]
    with process():
        until(lambda: row(desk, "listens", "hooks"), "it is stored")
        seen = desk.value("SELECT listeners_due_at FROM integration")
        due = "SELECT listeners_due_at FROM integration"
        until(lambda: desk.value(due) != seen, "it is named again")
        assert row(desk, "holder", "hooks") == (None,)


# What they do
# --------------------------------------------------------------------------------------------------


def test_each_connection_makes_all_accounts_due_once(desk, account, process) -> None:
    bob, again = heard(desk, "bob"), threading.Event()

    def listen(listener: Any, hints: Any, stopping: Any) -> None:
        hints.connected()
        again.wait(60)
        hints.connected()
        stopping.wait(60)

    Heard.listens = listen
    opened = "SELECT count(*) FROM sync_run WHERE trigger = 'hint'"
    with process():
        until(lambda: desk.value(WAITS, account) and desk.value(WAITS, bob), "both have a hint")
        until(lambda: is_connected(desk), "it is connected")
        assert hints.open_due(desk.conn) == 2
        assert desk.value(opened) == 2
        again.set()
        waits = "SELECT count(*) FROM hint WHERE parts <> '{}'"
        until(lambda: desk.value(waits) == 2, "both have another hint")
        hints.open_due(desk.conn)
        assert desk.value(opened) == 2, "the open runs come first"


def test_a_hint_opens_a_run_for_every_account_with_the_address(desk, account, process) -> None:
    twin, other = heard(desk, "ann", user_id="v"), heard(desk, "bob")
    ready, said = threading.Event(), threading.Event()

    def listen(listener: Any, hints: Any, stopping: Any) -> None:
        ready.wait(60)
        hints.add("ann", "INBOX")
        hints.add("nobody")
        hints.add("x\x00y")
        said.set()
        stopping.wait(60)

    Heard.listens = listen
    hinted = "SELECT count(*) FROM hint"
    with process():
        until(lambda: desk.value(hinted) == 3, "all are known")
        desk.conn.execute("DELETE FROM hint")
        ready.set()
        assert said.wait(20)
    runs = "SELECT user_integration_id FROM sync_run WHERE trigger = 'hint'"
    assert {id for (id,) in desk.rows(runs)} == {account, twin}
    assert desk.value("SELECT taken FROM hint WHERE user_integration_id = %s", twin) == ["INBOX"]
    assert not desk.value(WAITS, other)


def test_a_listener_gets_an_instance_with_the_credentials(desk, account, process, vault) -> None:
    sealed = vault.seal(Keys(password=SecretStr(SECRET)))
    desk.conn.execute("UPDATE user_integration SET credentials = %s", (sealed,))
    said: list[Any] = []

    def listen(listener: Any, hints: Any, stopping: Any) -> None:
        (id,) = listener.accounts
        said.append(hints.instance(id).credentials.password.get_secret_value())
        try:
            hints.instance(str(uuid4()))
        except NotFound:
            said.append("not found")
        stopping.wait(60)

    Heard.listens = listen
    with process():
        until(lambda: len(said) == 2, "the listener runs")
    assert said == [SECRET, "not found"]


def test_a_failing_listener_is_called_again_and_its_error_shown(
    api, desk, account, process, monkeypatch, caplog
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(listening, "MAX_PAUSE_SECONDS", 0.01)

    def listen(listener: Any, hints: Any, stopping: Any) -> None:
        calls.append(1)
        match len(calls):
            case 1:
                raise RuntimeError("no route\nto the provider")
            case 2:
                raise SystemExit(1)
            case 3:
                return
        hints.disconnected("maintenance") if len(calls) == 4 else hints.connected()
        stopping.wait(60) if len(calls) > 4 else None

    Heard.listens = listen
    place = f"/v1/user-integrations/{account}"
    with process():
        until(lambda: is_connected(desk), "the fifth call connects")
        shown = api.admin.get(place).json()["listener"]
        assert (shown["state"], shown["error"]) == ("connected", None)
        assert row(desk, "failures") == (0,)
    assert "RuntimeError: no route to the provider" in caplog.text
    assert "SystemExit" in caplog.text
    assert "listen() returned" in caplog.text


def test_pauses_grow_and_stay_bounded() -> None:
    assert listening.pause_after(1) <= 1
    assert 1 < listening.pause_after(3) <= 4
    assert listening.pause_after(100_000) <= listening.MAX_PAUSE_SECONDS


def test_surfaces_show_that_events_do_not_arrive(
    api, dashboard, desk, account, connect, process
) -> None:
    conn, me, place = connect(), uuid4(), f"/v1/user-integrations/{account}"
    assert api.admin.get(place).json()["listener"] is None
    assert "events" not in dashboard.sign_in().get(f"/accounts/{account}").text
    listeners.name_listeners(conn, DOMAIN, {"all": Listener("all", {str(account): "ann"})})
    assert api.admin.get(place).json()["listener"]["state"] == "down"
    listeners.hold(conn, me, [DOMAIN])
    listeners.connected(conn, me, DOMAIN, "all")
    assert api.admin.get(place).json()["listener"]["state"] == "connected"
    page = dashboard.sign_in().get(f"/accounts/{account}").text
    assert "The engine receives the provider&#39;s events (connected" in page
    assert "; no event yet)" in page
    assert api.admin.get(place).json()["listener"]["event_at"] is None
    hints.add(conn, account, "C1")
    assert api.user("u").get(place).json()["listener"]["event_at"] is not None
    assert "; latest event" in dashboard.sign_in().get(f"/accounts/{account}").text
    listeners.failed(conn, me, DOMAIN, "all", "<b>no route</b>")
    owner, admin = api.user("u").get(place).json(), api.admin.get(place).json()
    assert (admin["listener"]["state"], admin["listener"]["error"]) == ("down", "<b>no route</b>")
    assert (owner["listener"]["state"], owner["listener"]["error"]) == ("down", None)
    page = dashboard.sign_in().get(f"/accounts/{account}").text
    assert "stopped" in page
    assert "&lt;b&gt;no route&lt;/b&gt;. The engine polls the account every 15 minutes." in page
    assert "no route" not in dashboard.sign_in("u").get(f"/accounts/{account}").text
    listeners.connected(conn, me, DOMAIN, "all")
    let_leases_end(desk)
    assert api.admin.get(place).json()["listener"]["state"] == "down", "its process has died"


# Webhooks
# --------------------------------------------------------------------------------------------------

HOOK = f"/v1/hints/{DOMAIN}"


@pytest.fixture
def known(desk, account, connect) -> UUID:
    """An account whose address in the provider's events is `T1`."""
    listener = Listener("hooks", {str(account): "T1"}, listens=False)
    listeners.name_listeners(connect(), DOMAIN, {"hooks": listener})
    return account


def test_a_webhook_needs_no_token_and_makes_its_accounts_due(api, desk, known) -> None:
    requests: list[WebhookRequest] = []

    def answer(request: WebhookRequest) -> WebhookResponse:
        requests.append(request)
        return WebhookResponse([Hint("T1", "C1"), Hint("T2")], body="seen")

    Heard.answers = answer
    body = b'{"a": 1}\xff'
    response = api.client(None).post(f"{HOOK}?x=1", content=body, headers={"X-Sign": "s"})
    assert (response.status_code, response.text) == (200, "seen")
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["x-content-type-options"] == "nosniff"
    (request,) = requests
    assert (request.body, request.headers["x-sign"], request.query) == (body, "s", {"x": "1"})
    assert desk.rows("SELECT user_integration_id, taken FROM hint") == [(known, ["C1"])]
    assert desk.value("SELECT trigger FROM sync_run") == "hint"


def test_the_plugin_refuses_a_wrong_signature(api, desk, known) -> None:
    Heard.answers = lambda request: WebhookResponse(status=401, body="wrong signature")
    response = api.client(None).post(HOOK)
    assert (response.status_code, response.text) == (401, "wrong signature")
    assert desk.rows("SELECT 1 FROM hint") == []


def test_unknown_integrations_and_those_without_a_webhook_are_problems(api) -> None:
    for domain, code in (("nowhere", "integration-not-found"), ("locked", "webhook-not-offered")):
        response = api.client(None).post(f"/v1/hints/{domain}")
        assert (response.status_code, response.json()["code"]) == (404, code)
    assert api.client(None).get(HOOK).status_code == 405


@pytest.mark.parametrize(
    "answers",
    [
        lambda request: 1 / 0,
        lambda request: (_ for _ in ()).throw(RuntimeError(SECRET)),
        lambda request: None,
        lambda request: WebhookResponse([Hint("T1")] * 101),
        lambda request: WebhookResponse(["T1"]),
        lambda request: WebhookResponse(status=1000),
        lambda request: WebhookResponse(id="x" * 501),
        lambda request: WebhookResponse(body="<script>", content_type="text/html"),
    ],
)
def test_a_webhook_that_fails_tells_the_sender_nothing(api, desk, known, answers) -> None:
    Heard.answers = answers
    response = api.client(None).post(HOOK, json={})
    assert (response.status_code, response.json()["code"]) == (500, "webhook-failed")
    assert SECRET not in response.text
    assert desk.rows("SELECT 1 FROM hint") == []


def test_a_part_that_the_account_does_not_follow_makes_no_hint(api, desk, known) -> None:
    desk.conn.execute(
        "UPDATE user_integration SET config = %s WHERE id = %s", ('{"only": "C1"}', known)
    )
    desk.conn.execute(SET_STATE, (known, "x", '{"left_out": ["C2"]}'))
    asked = list[str]()

    def follows(part: str, one: Any) -> bool:
        asked.append(part)
        left_out = one.state("x", LeftOut).left_out
        assert one.state("y", LeftOut) is None
        assert (one.id, one.config) == (str(known), {"only": "C1"})
        if part == "broken":
            raise RuntimeError(SECRET)
        return part not in left_out

    Heard.judges = follows
    Heard.answers = lambda request: WebhookResponse([Hint("T1", request.body.decode() or None)])
    parts = "SELECT array_agg(part) FROM hint, unnest(parts || taken) part"
    for body, wanted in (("C2", None), ("C1", ["C1"]), ("broken", ["broken", "C1"])):
        assert api.client(None).post(HOOK, content=body).status_code == 200
        assert desk.value(parts) == wanted
    api.client(None).post(HOOK, content="broken")
    assert asked == ["C2", "C1", "broken"], "a waiting hint asks nothing"
    api.client(None).post(HOOK)
    assert "" in desk.value(parts), "the complete account is always followed"


def test_an_event_that_was_stored_is_ignored_when_it_is_sent_again(
    api, desk, known, monkeypatch
) -> None:
    Heard.answers = lambda request: WebhookResponse([Hint("T1", "C1")], id=request.body.decode())
    stored, failing = [], [True]

    def add(database: Any, queues: Any, integration: Any, address: str, part: Any) -> int:
        if failing.pop() if failing else False:
            raise RuntimeError("the database is away")
        stored.append((address, part))
        return 1

    monkeypatch.setattr(webhooks, "add", add)
    monkeypatch.setattr(webhooks, "MAX_REMEMBERED", 3)
    codes = [api.client(None).post(HOOK, content="Ev1").status_code for _ in range(4)]
    assert codes == [500, 200, 200, 200]
    assert stored == [("T1", "C1")], "a retry of a failed request counts, and no other"
    for id in ("Ev2", "Ev3", "Ev4", "Ev1", ""):
        api.client(None).post(HOOK, content=id)
    assert len(stored) == 6, "the process remembers a bounded number"
    api.client(None).post(HOOK, content="")
    assert len(stored) == 7, "without an id, all requests count"


def test_a_webhook_that_hangs_is_answered_and_bounded(api, desk, known, monkeypatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(webhooks, "ANSWER_SECONDS", 0.1)
    Heard.answers = lambda request: release.wait(60) and WebhookResponse()
    try:
        codes = [
            api.client(None).post(HOOK).json()["code"] for _ in range(webhooks.MAX_CONCURRENT + 1)
        ]
    finally:
        release.set()
    assert codes == ["webhook-timed-out"] * webhooks.MAX_CONCURRENT + ["webhooks-busy"]
    monkeypatch.setattr(webhooks, "ANSWER_SECONDS", 20.0)
    Heard.answers = lambda request: WebhookResponse()
    assert api.client(None).post(HOOK).status_code == 200


def test_a_webhook_has_a_rate_and_a_largest_body(api, known, monkeypatch) -> None:
    from core.rest.routes import hints as route
    from core.web.request_rates import Rate

    stranger = api.client(None)
    assert stranger.post(HOOK, content=b"x" * (1024 * 1024 + 1)).status_code == 413
    monkeypatch.setattr(route, "_rate", Rate(0.001, 1_500.0))
    codes = [stranger.post(HOOK).status_code for _ in range(4)]
    assert codes == [200, 200, 429, 429], json.dumps(codes)


# Events of one account
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delivery", "says"),
    [
        ({"problem": "the topic\nis in\x1b another project"}, "the topic is in"),
        ({"until": "2026-01-01T00:00:00Z"}, listeners.DELIVERY_ENDED),
    ],
)
def test_an_account_whose_own_events_do_not_arrive_is_down(
    desk, account, connect, delivery: dict[str, str], says: str
) -> None:
    conn, me = connect(), uuid4()
    bob = heard(desk, "bob")
    named = Listener("all", {str(account): "ann", str(bob): "bob"})
    listeners.name_listeners(conn, DOMAIN, {"all": named})
    listeners.hold(conn, me, [DOMAIN])
    listeners.connected(conn, me, DOMAIN, "all")
    for id, value in ((account, delivery), (bob, {"until": "2999-01-01T00:00:00Z"})):
        conn.execute(SET_STATE, (id, EVENTS, json.dumps(value)))
    found, other = (listeners.of_account(conn, id) for id in (account, bob))
    assert state_of(other) == "connected"
    assert state_of(found) == "down"
    for in_full in (True, False):
        text = sentence(found, 15, in_full=in_full)
        assert says in text
        assert text.endswith("The engine polls the account every 15 minutes.")
    listeners.failed(conn, me, DOMAIN, "all", "the listener's own error")
    assert "own error" in sentence(listeners.of_account(conn, account), 15)


def test_an_unreadable_delivery_is_ignored(desk, account, connect) -> None:
    conn, me = connect(), uuid4()
    listeners.name_listeners(conn, DOMAIN, {"all": Listener("all", {str(account): "ann"})})
    listeners.hold(conn, me, [DOMAIN])
    listeners.connected(conn, me, DOMAIN, "all")
    conn.execute(SET_STATE, (account, EVENTS, json.dumps({"until": "soon"})))
    assert listeners.of_account(conn, account).connected
