"""A request that lasts does not outlive its token, its session or its account.

A waiting reader, a queued request, a slow download and a check are authorized when they begin. The
thief of a token keeps many of them open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import httpx2
import psycopg
import pytest
from pydantic import BaseModel
from support.cloud import PRODUCT, Provider, agree, cloud_of, consent, query
from support.dashboard import form
from support.hostile_texts import fill
from support.waiting import until

from core import AccountIdentity, BaseIntegration, Context, Manifest, TaskResult
from core.db.pool import Conn
from core.errors import NotFound
from core.scopes import ALL, Scope
from core.service import sessions, tokens
from core.service.accounts import oauth, oauth_client
from core.service.accounts.erase import erase_user
from core.service.authorization import Principal
from core.web import downloads
from core.web.feed_watcher import FeedWatcher
from core.web.user_slots import MAX_REQUESTS_PER_USER, UserSlots

CONTENT = "/v1/user-integration-content"

ENDS: dict[str, tuple[str, int]] = {
    "revoked": ("UPDATE api_token SET revoked_at = now()", 401),
    "expired": ("UPDATE api_token SET expires_at = now()", 401),
    "deleted": ("DELETE FROM api_token", 401),
    "without the scope": ("UPDATE api_token SET scopes = '{metrics:read}'", 403),
}
"""The ends of a user's access: a statement, and the status that follows."""


def sign_out(conn: Conn) -> None:
    """Sign Mallory out everywhere."""
    assert sessions.end_sessions(conn, Principal(uuid4(), "mallory")) == 1


def end(conn: Conn, statement: str, user: str = "mallory") -> None:
    assert conn.execute(f"{statement} WHERE user_id = %s".encode(), (user,)).rowcount


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(30) as pool:
        yield pool


# Readers of the change feed
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows when a reader has read everything, and waits."""
    wait, begun = FeedWatcher.wait_beyond, []

    async def noted(self: FeedWatcher, xid: int, *arguments: Any) -> bool:
        begun.append(xid)
        return await wait(self, xid, *arguments)

    monkeypatch.setattr(FeedWatcher, "wait_beyond", noted)
    return begun


@pytest.mark.parametrize("how", ENDS)
def test_a_waiting_reader_gets_nothing_after_the_end_of_its_access(
    api, conn, threads, waits, how
) -> None:
    statement, status = ENDS[how]
    answer, fair = (
        threads.submit(api.user(user).get, "/v1/changes", params={"wait": 60, "after": "latest"})
        for user in ("mallory", "ann")
    )
    until(lambda: len(waits) == 2, "both readers wait")
    end(conn, statement)
    for user in ("mallory", "ann"):
        fill(conn, "plain", f"words of {user}", user=user)
    assert "words of ann" in fair.result().text
    assert answer.result().status_code == status
    assert "words" not in answer.result().text


# Requests that wait for a slot of their user
# --------------------------------------------------------------------------------------------------


class Stuck:
    """A function that returns when the test allows it."""

    def __init__(self) -> None:
        self.leave, self.running = threading.Event(), 0
        self._lock = threading.Lock()

    def __call__(self, *_: Any, **__: Any) -> Any:
        with self._lock:
            self.running += 1
        self.leave.wait(60)
        return []


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    stuck = Stuck()
    monkeypatch.setattr("core.rest.routes.user_integrations.waiting.of_account", stuck)
    yield stuck
    stuck.leave.set()


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that counts the requests of the user with a slot or in its queue."""
    take, seen = UserSlots.take, set()

    async def noted(self: UserSlots, *arguments: Any) -> bool:
        seen.add(self)
        return await take(self, *arguments)

    monkeypatch.setattr(UserSlots, "take", noted)
    return lambda: sum(one._count.get("mallory", 0) for one in seen)


def active_account(conn: Conn) -> UUID:
    account = fill(conn, "plain", "words", user="mallory").account
    conn.execute("UPDATE user_integration SET sync_status = 'active'")
    return account


def _occupy(
    client: httpx2.Client, account: Any, stuck: Stuck, threads: ThreadPoolExecutor
) -> list[Future[Any]]:
    """Use all slots of a user."""
    path = f"/v1/user-integrations/{account}"
    slow = [threads.submit(client.get, path) for _ in range(MAX_REQUESTS_PER_USER)]
    until(lambda: stuck.running == MAX_REQUESTS_PER_USER, "the slots of the user are in use")
    return slow


@pytest.mark.parametrize("how", ENDS)
def test_a_queued_request_does_nothing_after_the_end_of_its_access(
    api, conn, stuck, threads, slots, how
) -> None:
    statement, status = ENDS[how]
    account = active_account(conn)
    client = api.client(api.token("mallory", scopes=ALL))
    _occupy(client, account, stuck, threads)
    queued = [
        threads.submit(client.post, f"/v1/user-integrations/{account}/pause"),
        threads.submit(client.post, "/v1/tokens", json={"scopes": ["content:read"]}),
    ]
    until(lambda: slots() == MAX_REQUESTS_PER_USER + 2, "both requests wait")
    end(conn, statement)
    stuck.leave.set()
    assert [answer.result().status_code for answer in queued] == [status] * 2
    state = conn.execute("SELECT sync_status FROM user_integration WHERE id = %s", (account,))
    assert state.fetchone() == ("active",)


def test_a_queued_form_does_nothing_after_its_session_has_ended(
    dashboard, conn, stuck, threads, slots
) -> None:
    account = active_account(conn)
    thief = dashboard.sign_in("mallory")
    csrf = {"csrf": thief.csrf}
    _occupy(dashboard.user("mallory"), account, stuck, threads)
    queued = threads.submit(thief.send, f"/accounts/{account}/pause", csrf)
    until(lambda: slots() == MAX_REQUESTS_PER_USER + 1, "the form waits")
    sign_out(conn)
    stuck.leave.set()
    assert queued.result().status_code == 401
    state = conn.execute("SELECT sync_status FROM user_integration WHERE id = %s", (account,))
    assert state.fetchone() == ("active",)


# Tokens
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def principal(conn: Conn) -> Principal:
    """Return the principal of a request that began with a valid token."""
    secret = tokens.create(conn, user_id="mallory", scopes=ALL).secret
    found = tokens.authenticate(conn, secret)
    assert found is not None
    return found


@pytest.mark.parametrize("how", ["revoked", "expired", "deleted"])
def test_a_token_that_has_ended_creates_no_other(conn, principal, how) -> None:
    end(conn, ENDS[how][0])
    with pytest.raises(NotFound):
        tokens.create_for(conn, principal, user_id=None, scopes=[Scope.CONTENT_READ])
    assert conn.execute("SELECT count(*) FROM api_token WHERE id <> %s", (principal.token_id,)
                        ).fetchone() == (0,)  # fmt: skip


def test_a_token_is_not_created_during_a_revocation(conn, database_url, principal, threads) -> None:
    with (
        psycopg.connect(database_url, autocommit=True) as other,
        psycopg.connect(database_url) as revoking,
    ):
        revoking.execute("UPDATE api_token SET revoked_at = now()")
        made = threads.submit(
            tokens.create_for, other, principal, user_id=None, scopes=[Scope.CONTENT_READ]
        )
        until(lambda: _blocks(conn, revoking.info.backend_pid), "the creation waits")
        revoking.commit()
        with pytest.raises(NotFound):
            made.result()
    assert conn.execute("SELECT count(*) FROM api_token").fetchone() == (1,)


# Checks of accounts
# --------------------------------------------------------------------------------------------------


class Config(BaseModel):
    name: str = "me"
    mood: str = "fine"


class During:
    """The events while an account is checked, and how often it was checked."""

    def __init__(self) -> None:
        self.happens: Callable[[], object] = lambda: None
        self.checks = 0

    def __call__(self) -> None:
        self.checks += 1
        self.happens()


@pytest.fixture
def during() -> During:
    return During()


@pytest.fixture
def integrations(during: During, provider: Provider) -> Sequence[Any]:
    class Slow(BaseIntegration[Config]):
        manifest = Manifest("slow", "Slow")

        def check(self) -> AccountIdentity:
            during()
            return AccountIdentity(self.config.name, self.config.name)

        def start(self, ctx: Context) -> TaskResult:
            return TaskResult()

    return (Slow, cloud_of(provider))


ACCOUNTS = "/v1/user-integrations"
ROWS = """
SELECT sync_status, config->>'mood' FROM user_integration WHERE integration_domain = 'slow'
"""
SLOW = {"integration_domain": "slow", "config": {"name": "me"}}
CHANGES: dict[str, tuple[str, Any]] = {
    "credentials": ("PATCH", {"credentials": {}}),
    "config": ("PATCH", {"config": {"name": "me", "mood": "new"}}),
    "both": ("PATCH", {"config": {"name": "me", "mood": "new"}, "credentials": {}}),
    "the account again": ("POST", {**SLOW, "config": {"name": "me", "mood": "new"}}),
}


@pytest.mark.parametrize("how", ["revoked", "expired", "deleted"])
def test_a_check_adds_no_account_after_the_end_of_its_access(api, conn, during, how) -> None:
    client = api.user("mallory")
    during.happens = lambda: end(conn, ENDS[how][0])
    answer = client.post(ACCOUNTS, json=SLOW)
    assert (answer.status_code, answer.json()["code"]) == (401, "token-invalid")
    assert (conn.execute(ROWS).fetchall(), during.checks) == ([], 1)


@pytest.mark.parametrize("change", CHANGES)
def test_a_check_changes_no_account_after_the_end_of_its_access(api, conn, during, change) -> None:
    method, body = CHANGES[change]
    account = api.user("mallory").post(ACCOUNTS, json=SLOW).json()["id"]
    conn.execute("UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials'")
    during.happens = lambda: end(conn, ENDS["revoked"][0])
    path = f"{ACCOUNTS}/{account}" if method == "PATCH" else ACCOUNTS
    answer = api.user("mallory").request(method, path, json=body)
    assert (answer.status_code, during.checks) == (401, 2)
    assert conn.execute(ROWS).fetchall() == [("error", "fine")]


def test_a_check_adds_no_account_after_its_session_has_ended(dashboard, conn, during) -> None:
    thief = dashboard.sign_in("mallory")
    during.happens = lambda: sign_out(conn)
    connect = "/integrations/slow/connect"
    answer = thief.submit(connect, connect)
    assert (answer.status_code, during.checks) == (401, 1)
    assert conn.execute(ROWS).fetchall() == []
    during.happens = lambda: None
    assert dashboard.sign_in("mallory").submit(connect, connect).status_code == 303
    assert conn.execute(ROWS).fetchall() == [("active", "fine")]


@pytest.mark.parametrize("through", ["the dashboard", "the backend of a product"])
def test_a_sign_in_at_a_provider_stores_nothing_after_the_end_of_its_access(
    product, conn, browser, monkeypatch, through
) -> None:
    exchange = oauth_client.exchange

    def ending(*arguments: Any) -> Any:
        end(conn, ENDS["revoked"][0])
        return exchange(*arguments)

    monkeypatch.setattr(oauth, "exchange", ending)
    if through == "the dashboard":
        mallory = product.sign_in("mallory")
        connect = "/integrations/cloud/connect"
        fields = form(mallory.get(connect).text, connect).fields
        page = mallory.send("/integrations/cloud/authorize", fields).text
        url = unescape(page.split('class="button primary" href="')[1].split('"')[0])
        answer = mallory.client.get(agree(mallory.client, url))
        assert answer.headers["location"].startswith("/sign-in")
    else:
        mallory = product.user("mallory")
        there = browser.get(consent(mallory, browser, redirect_to=PRODUCT)).headers["location"]
        code = {"connect_code": query(there)["connect_code"]}
        assert mallory.post("/v1/oauth/redeem", json=code).status_code == 401
    assert conn.execute("SELECT count(*) FROM user_integration").fetchone() == (0,)


def test_an_erased_user_does_not_return_with_a_check(api, conn, during) -> None:
    client = api.user("mallory")
    during.happens = lambda: erase_user(api.backend, "mallory")
    assert client.post(ACCOUNTS, json=SLOW).status_code == 401
    assert conn.execute(ROWS).fetchall() == []


def test_an_account_that_is_stored_during_an_erasure_is_erased(
    api, conn, database_url, threads
) -> None:
    client = api.user("mallory")
    account = client.post(ACCOUNTS, json=SLOW).json()["id"]
    (token,) = conn.execute("SELECT id FROM api_token WHERE user_id = 'mallory'").fetchone()
    conn.execute("UPDATE user_integration SET user_id = 'hidden' WHERE id = %s", (account,))
    with psycopg.connect(database_url) as storing:
        assert tokens.hold(storing, Principal(token, "mallory"))
        storing.execute("UPDATE user_integration SET user_id = 'mallory' WHERE id = %s", (account,))
        erasing = threads.submit(erase_user, api.backend, "mallory")
        pid = storing.info.backend_pid
        until(lambda: _blocks(conn, pid), "the erasure waits")
        storing.commit()
        assert erasing.result().accounts == 1
    assert conn.execute("SELECT count(*) FROM user_integration").fetchone() == (0,)
    assert client.get(ACCOUNTS).status_code == 401


def _blocks(conn: Conn, pid: int) -> bool:
    """Return True if another connection waits for this one."""
    row = conn.execute(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))", (pid,)
    ).fetchone()
    return bool(row and row[0])


# Downloads
# --------------------------------------------------------------------------------------------------


class Item:
    """The content of an item, whose second portion waits until the test allows it."""

    size, hash = len(b"firstsecondsecret"), None

    def __init__(self) -> None:
        self.begun, self.leave = threading.Event(), threading.Event()

    def read(self) -> Iterator[bytes]:
        yield b"first"
        yield b"second"
        self.begun.set()
        self.leave.wait(60)
        yield b"secret"


@pytest.fixture
def item(monkeypatch: pytest.MonkeyPatch) -> Iterator[Item]:
    item = Item()
    monkeypatch.setattr(downloads.content_reader, "find", lambda *_: item)
    monkeypatch.setattr(downloads, "AUTHORIZATION_SECONDS", 0.0)
    yield item
    item.leave.set()


def received(client: httpx2.Client, path: str) -> tuple[bytes, bool]:
    """Return the bytes of a download, and whether it was complete."""
    data = b""
    with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        try:
            for portion in answer.iter_raw():
                data += portion
        except httpx2.RemoteProtocolError:
            return data, False
    return data, True


def sign_out_everywhere(dashboard: Any, conn: Conn) -> None:
    assert dashboard.sign_in("mallory").post("/sign-out-everywhere").status_code == 303


def erase(dashboard: Any, conn: Conn) -> None:
    assert dashboard.admin.delete("/v1/users/mallory?now=true").status_code == 200


def nothing(dashboard: Any, conn: Conn) -> None:
    """Leave the access as it is."""


def ended(how: str) -> Callable[[Any, Conn], None]:
    return lambda dashboard, conn: end(conn, ENDS[how][0])


@pytest.mark.parametrize(
    ("path", "then", "complete"),
    [
        (f"{CONTENT}/{{}}/raw", nothing, True),
        ("/content/{}/raw", nothing, True),
        *((f"{CONTENT}/{{}}/raw", ended(how), False) for how in ENDS),
        *(("/content/{}/raw", ended(how), False) for how in ENDS if how != "deleted"),
        *((path, erase, False) for path in (f"{CONTENT}/{{}}/raw", "/content/{}/raw")),
        ("/content/{}/raw", sign_out_everywhere, False),
        (f"{CONTENT}/{{}}/raw", sign_out_everywhere, True),
    ],
)
def test_a_download_ends_with_the_access_to_it(
    dashboard, conn, item, threads, caplog, path, then, complete
) -> None:
    path = path.format(fill(conn, "plain", "words", user="mallory").html)
    client = dashboard.user("mallory")
    if not path.startswith("/v1"):
        client = dashboard.sign_in("mallory").client
    download = threads.submit(received, client, path)
    assert item.begun.wait(20)
    then(dashboard, conn)
    item.leave.set()
    data, is_complete = download.result()
    assert (b"secret" in data, is_complete) == (complete, complete)
    assert "Traceback" not in caplog.text
