"""Slow requests of one user leave threads, previews, downloads and live pages for others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any

import pytest
from support.hostile_texts import fill, fill_mails
from support.indexing import read_texts
from support.waiting import until

from core.content import search_documents
from core.dashboard import live
from core.dashboard.live import Live
from core.service.query_timeout import MAX_QUERIES_PER_USER
from core.web import html_documents, user_slots
from core.web.user_slots import MAX_DOWNLOADS_PER_USER, MAX_REQUESTS_PER_USER, UserSlots
from core.worker.documents import DocumentReader

CONTENT = "/v1/user-integration-content"


class Stuck:
    """A function that does not return before the end of the test.

    Attributes:
      running: The number of calls that wait.
      most: The largest number of calls that waited at one time.
    """

    def __init__(self) -> None:
        self.leave = threading.Event()
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, *_: Any, **__: Any) -> Any:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.leave.wait(60)
        with self._lock:
            self.running -= 1


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stuck = Stuck()
    yield stuck
    stuck.leave.set()


@pytest.fixture
def threads(stuck: Stuck) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(100) as pool:
        try:
            yield pool
        finally:
            stuck.leave.set()


def statuses(answers: list[Future[Any]]) -> set[int]:
    return {answer.result().status_code for answer in answers}


@pytest.mark.parametrize("tokens", [1, 8])
def test_slow_requests_of_one_user_leave_threads_for_others(
    api, conn, monkeypatch, stuck, threads, tokens
) -> None:
    account = fill(conn, "plain", "words", user="mallory").account
    monkeypatch.setattr("core.rest.routes.user_integrations.waiting.of_account", stuck)
    greedy, other = [api.user("mallory") for _ in range(tokens)], api.user("ann")
    slow = [
        threads.submit(greedy[n % tokens].get, f"/v1/user-integrations/{account}")
        for n in range(60)
    ]
    until(lambda: stuck.running == MAX_REQUESTS_PER_USER, "the user's slots are in use")
    for _ in range(3):
        assert other.get("/v1/user-integrations").status_code == 200
    assert stuck.most == MAX_REQUESTS_PER_USER
    stuck.leave.set()
    statuses(slow)
    assert greedy[0].get("/v1/user-integrations").status_code == 200


def test_the_requests_of_one_user_that_wait_are_bounded(
    dashboard, conn, monkeypatch, stuck, threads
) -> None:
    monkeypatch.setattr(user_slots, "MAX_WAITING_PER_USER", 2)
    account = fill(conn, "plain", "words", user="mallory").account
    monkeypatch.setattr("core.rest.routes.user_integrations.waiting.of_account", stuck)
    greedy, browser = dashboard.user("mallory"), dashboard.sign_in("mallory")
    path = f"/v1/user-integrations/{account}"
    slow = [threads.submit(greedy.get, path) for _ in range(MAX_REQUESTS_PER_USER + 3)]
    (refused,) = until(lambda: [one for one in slow if one.done()], "one of them is refused")
    assert refused.result().status_code == 429
    assert refused.result().json()["code"] == "user-busy"
    assert browser.get("/accounts").status_code == 429
    stuck.leave.set()
    assert 429 in statuses(slow)


def test_a_request_waits_for_a_slot_for_a_bounded_time(
    api, conn, monkeypatch, stuck, threads
) -> None:
    account = fill(conn, "plain", "words", user="mallory").account
    monkeypatch.setattr("core.rest.routes.user_integrations.waiting.of_account", stuck)
    greedy = api.user("mallory")
    path = f"/v1/user-integrations/{account}"
    slow = [threads.submit(greedy.get, path) for _ in range(MAX_REQUESTS_PER_USER)]
    until(lambda: stuck.running == MAX_REQUESTS_PER_USER, "the slots are in use")
    monkeypatch.setattr(UserSlots.take, "__defaults__", (0.05,))
    answer = greedy.get(path)
    assert (answer.status_code, answer.json()["code"]) == (429, "user-busy")
    stuck.leave.set()
    statuses(slow)


def test_operators_have_no_slots(api, conn, monkeypatch, stuck, threads) -> None:
    account = fill(conn, "plain", "words").account
    monkeypatch.setattr("core.rest.routes.user_integrations.waiting.of_account", stuck)
    operator = api.admin
    slow = [threads.submit(operator.get, f"/v1/user-integrations/{account}") for _ in range(15)]
    until(lambda: stuck.running == 15, "all of them run")
    stuck.leave.set()
    statuses(slow)


def mail(text: str) -> bytes:
    message = EmailMessage()
    message["Subject"] = "A mail"
    message.set_content(text)
    return message.as_bytes()


@pytest.mark.parametrize("path", ["/content/{}", "/content/{}/preview", f"{CONTENT}/{{}}?as=html"])
def test_slow_previews_of_one_user_leave_previews_for_others(
    dashboard, conn, monkeypatch, stuck, threads, path
) -> None:
    items = {}
    for user in ("mallory", "ann"):
        account = fill(conn, "plain", "words", user=user).account
        items[user] = fill_mails(conn, account, [("one", mail(user))])["one"]
    read = html_documents.mail_preview.read

    def slow_for_mallory(source: Any) -> Any:
        data = b"".join([source] if isinstance(source, bytes) else source)
        if b"mallory" in data:
            stuck()
        return read(data)

    monkeypatch.setattr(html_documents.mail_preview, "read", slow_for_mallory)

    def client(user: str) -> Any:
        return dashboard.user(user) if path.startswith("/v1") else dashboard.sign_in(user).client

    greedy, other = client("mallory"), client("ann")
    slow = [threads.submit(greedy.get, path.format(items["mallory"])) for _ in range(12)]
    until(lambda: stuck.running, "a preview of the user is slow")
    for _ in range(3):
        answer = other.get(path.format(items["ann"]))
        assert answer.status_code == 200, answer.text
        assert "ann" in answer.text
    assert stuck.most == 1
    stuck.leave.set()
    assert 200 in statuses(slow)


def test_item_pages_of_one_user_leave_queries_for_others(dashboard, conn) -> None:
    """The page of an item lists the items below it, which is slow in a large account."""
    items = {user: fill(conn, "plain", "words", user=user).html for user in ("mallory", "ann")}
    slots = dashboard.backend.query_slots._slots
    for _ in range(MAX_QUERIES_PER_USER):
        assert slots.take("mallory")
    try:
        assert dashboard.sign_in("mallory").get(f"/content/{items['mallory']}").status_code == 503
        assert dashboard.sign_in("ann").get(f"/content/{items['ann']}").status_code == 200
    finally:
        for _ in range(MAX_QUERIES_PER_USER):
            slots.release("mallory")


@pytest.mark.parametrize("path", ["/content/{}/raw", f"{CONTENT}/{{}}/raw"])
def test_slow_downloads_of_one_user_are_bounded(
    dashboard, conn, monkeypatch, stuck, threads, path
) -> None:
    """A download holds a portion of the item in memory, for as long as the client reads it."""
    items = {user: fill(conn, "plain", "words", user=user).html for user in ("mallory", "ann")}

    def portions(item: int) -> Iterator[bytes]:
        yield b"first"
        if item == items["mallory"]:
            yield b"second"
            stuck()
        yield b"last"

    def find(_: Any, item: int) -> Any:
        size = len(b"firstsecondlast" if item == items["mallory"] else b"firstlast")
        return SimpleNamespace(size=size, hash=None, read=lambda: portions(item))

    monkeypatch.setattr("core.web.downloads.content_reader.find", find)
    monkeypatch.setattr(user_slots, "MAX_WAITING_PER_USER", 10)

    def client(user: str) -> Any:
        return dashboard.user(user) if path.startswith("/v1") else dashboard.sign_in(user).client

    greedy, other = client("mallory"), client("ann")
    slow = [threads.submit(greedy.get, path.format(items["mallory"])) for _ in range(40)]
    until(lambda: stuck.running == MAX_DOWNLOADS_PER_USER, "as many run as may")
    until(lambda: any(one.done() for one in slow), "further ones are refused")
    assert other.get(path.format(items["ann"])).content == b"firstlast"
    assert stuck.most == MAX_DOWNLOADS_PER_USER
    stuck.leave.set()
    assert statuses(slow) == {200, 429}


def test_a_user_s_downloads_leave_slots_for_other_requests_of_the_user(
    api, conn, monkeypatch, stuck, threads
) -> None:
    item = fill(conn, "plain", "words", user="ann").html

    def portions() -> Iterator[bytes]:
        yield b"first"
        yield b"second"
        stuck()

    body = SimpleNamespace(size=len(b"firstsecond"), hash=None, read=portions)
    monkeypatch.setattr("core.web.downloads.content_reader.find", lambda *_: body)
    ann = api.user("ann")
    slow = [threads.submit(ann.get, f"{CONTENT}/{item}/raw") for _ in range(MAX_DOWNLOADS_PER_USER)]
    until(lambda: stuck.running == MAX_DOWNLOADS_PER_USER, "the downloads run")
    assert ann.get("/v1/user-integrations").status_code == 200
    stuck.leave.set()
    assert statuses(slow) == {200}


def test_pages_that_update_themselves_take_no_slot(dashboard) -> None:
    browser, streams = dashboard.sign_in("ann"), []
    with ExitStack() as stack:
        for _ in range(MAX_REQUESTS_PER_USER + 2):
            stream = browser.client.stream("GET", "/runs", headers={"Accept": "text/event-stream"})
            # A generator that is not kept would end the stream.
            streams.append(stack.enter_context(stream).iter_lines())
            assert next(streams[-1]).startswith("retry")
        assert browser.get("/accounts").status_code == 200


def test_slow_live_pages_of_one_user_leave_others_updated(monkeypatch, stuck) -> None:
    monkeypatch.setattr(live, "MAX_CONCURRENT_RENDERS", 3)

    async def shown() -> tuple[str, int]:
        parts = Live()
        slow = [
            asyncio.create_task(parts.get((str(number),), "mallory", stuck)) for number in range(10)
        ]
        while stuck.running < live.MAX_RENDERS_PER_USER:
            await asyncio.sleep(0.01)
        html, _ = await asyncio.wait_for(parts.get(("page",), "ann", lambda: "page"), 20)
        stuck.leave.set()
        await asyncio.gather(*slow)
        return html, stuck.most

    assert asyncio.run(shown()) == ("page", live.MAX_RENDERS_PER_USER)


def test_nothing_is_left_of_slots_that_were_released() -> None:
    async def used() -> tuple[int, int]:
        slots = UserSlots(1)
        await slots.take("ann")
        waiting = [asyncio.create_task(slots.take("ann")) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # its client has left
        slots.release("ann")
        await waiting[1]
        slots.release("ann")
        return len(slots._slots), len(slots._count)

    assert asyncio.run(used()) == (0, 0)


def test_slow_files_of_one_user_leave_turns_for_others(backend, conn, monkeypatch) -> None:
    """A PDF may take half a minute, and a user may have thousands of them."""
    ids = {}
    for user, count in (("mallory", 4), ("ann", 1), ("mallory", 4), ("zoe", 2)):
        account = fill(conn, "plain", "words", user=user).account
        mails = [(f"{n}", mail(user)) for n in range(count)]
        ids |= dict.fromkeys(fill_mails(conn, account, mails).values(), user)
    conn.execute("UPDATE user_integration_content SET hash = id")
    conn.execute("DELETE FROM extracted_text")
    conn.execute(search_documents.REQUEST_TEXTS.encode(), {"ids": list(ids)})
    monkeypatch.setattr(DocumentReader, "text_of", lambda _, row: ids[row["content_id"]])
    turns = read_texts(backend)
    assert turns == ["ann", "mallory", "zoe", "mallory", "zoe", *["mallory"] * 6]
