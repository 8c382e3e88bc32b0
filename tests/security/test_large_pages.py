"""Large rows of one user, in as many requests as the user may send, leave memory for others.

Rows are as large as the engine keeps them. The JSON is the one that needs the most memory as Python
objects: empty lists.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import psycopg
import pytest
from support.dashboard import Browser
from support.hostile_texts import Filled, fill
from support.indexing import index_all
from support.serving import Served, polling_serve

from core.db.pool import Conn
from core.service import pagination
from core.service.content import queries
from core.web.user_slots import MAX_REQUESTS_PER_USER

MAX_USER_BYTES = 512 * 1024 * 1024
"""The memory that the requests of one user may use in one process."""

ROWS = 12
EMPTY_LISTS = 250_000

CONTENT = f"""
INSERT INTO user_integration_content (user_integration_id, integration_domain, external_id, kind,
    name, content_text, size, metadata, digest, content_seq, metadata_seq)
SELECT %(account)s, 'locked', 'large ' || lpad(n::text, 4, '0'), 'message',
    repeat(chr(1), least(%(lists)s, 65000)),
    'findme ' || repeat(chr(1), least(%(lists)s, {queries.MAX_TEXT_CHARS})) || chr(128512), 1,
    jsonb_build_object('thread_id', 'one', 'lists', (
        SELECT jsonb_agg('[]'::jsonb) FROM generate_series(1, %(lists)s))), '', 1, 1
FROM generate_series(1, %(rows)s) n
"""
JOIN_THREAD = """
UPDATE user_integration_content SET metadata = '{"thread_id": "one"}', name = 'findme'
WHERE id = %(item)s
"""
STATES = """
INSERT INTO sync_state (user_integration_id, partition, value, version, dispatch_seq)
SELECT %(account)s, 'large ' || lpad(n::text, 4, '0'), (
    SELECT jsonb_agg('[]'::jsonb) FROM generate_series(1, %(lists)s)), 1, 1
FROM generate_series(1, %(rows)s) n
"""
TASKS = """
INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type, payload,
    dedup_key, state, errors, finished_at)
SELECT %(run)s, %(account)s, 'locked', 'live', 'step', jsonb_build_object('lists', (
        SELECT jsonb_agg('[]'::jsonb) FROM generate_series(1, %(lists)s))),
    decode(md5(random()::text), 'hex'), 'parked', '[]', now()
FROM generate_series(1, %(rows)s) n
"""
ACCOUNTS = """
INSERT INTO user_integration (id, user_id, integration_domain, name, identity, config, credentials,
    sync_status)
SELECT gen_random_uuid(), %(user)s, 'locked', 'large ' || n, 'large ' || n, jsonb_build_object(
    'lists', (SELECT jsonb_agg('[]'::jsonb) FROM generate_series(1, %(lists)s))),
    repeat('sealed', 170000), 'paused'
FROM generate_series(1, %(rows)s) n
"""
RUNS = """
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state, start_seq,
    finished_at, skipped)
SELECT gen_random_uuid(), %(account)s, 'locked', 'live', 'manual', 'partial', 1, now(), (
    SELECT jsonb_object_agg('reason ' || k, k) FROM generate_series(1, %(lists)s / 10) k)
FROM generate_series(1, %(rows)s) n
"""


@dataclass(frozen=True)
class Large:
    """An account of `mallory` with large rows in every table."""

    filled: Filled

    @property
    def listings(self) -> dict[str, str]:
        """The REST listings of the account, each with the field that identifies a row."""
        account, run = self.filled.account, self.filled.run
        content = "/v1/user-integration-content"
        return {
            f"{content}?user_integration_id={account}": "external_id",
            f"{content}?q=findme": "external_id",
            f"{content}/{self.filled.content}/thread": "external_id",
            f"/v1/user-integrations/{account}/state": "partition",
            f"/v1/user-integrations/{account}/runs": "id",
            f"/v1/runs/{run}/tasks": "id",
            "/v1/user-integrations": "id",
        }

    @property
    def pages(self) -> list[str]:
        """The pages of the dashboard that read most."""
        item, account = self.filled.content, self.filled.account
        return ["/content", f"/content/{item}/thread", f"/accounts/{account}", "/accounts"]


def fill_large(conn: Conn, *, rows: int = ROWS, lists: int = EMPTY_LISTS) -> Large:
    filled = fill(conn, "plain", "words", user="mallory")
    values: dict[str, Any] = {
        "account": filled.account, "run": filled.run, "user": "mallory", "rows": rows,
        "lists": lists, "item": filled.content,
    }  # fmt: skip
    for statement in (CONTENT, STATES, TASKS, ACCOUNTS, RUNS):
        conn.execute(statement.encode(), values)
    conn.execute(JOIN_THREAD, values)
    index_all(conn)
    return Large(filled)


def peak_bytes(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.mark.timeout(600)
def test_large_pages_of_one_user_leave_memory_for_others(deployment, tmp_path) -> None:
    with (
        psycopg.connect(deployment.database_url, autocommit=True) as conn,
        polling_serve(deployment, tmp_path) as served,
    ):
        large = fill_large(conn)
        item = f"/v1/user-integration-content/{large.filled.content}"
        paths = [f"{path}{'&' if '?' in path else '?'}limit=1000" for path in large.listings]
        paths += ["/v1/changes?limit=1000", item, f"/v1/tasks/{large.filled.task}"]
        scopes = ["content:read", "accounts:connect", "fleet:operate"]
        new = {"user_id": "mallory", "scopes": scopes}
        with served.client() as operator:
            token = operator.post("/v1/tokens", json=new).json()["token"]
        with served.client() as anonymous:
            del anonymous.headers["Authorization"]
            assert Browser(anonymous).send("/sign-in", {"token": token}).status_code == 303
            cookies = dict(anonymous.cookies)
        base = peak_bytes(served.process)
        for path in [*paths, *large.pages]:
            headers = {"Authorization": f"Bearer {token}"} if path.startswith("/v1") else {}
            fetch_together(served, path, headers, {} if headers else cookies)
            used = peak_bytes(served.process) - base
            print(f"{path}: {used / 2**20:.0f} MiB")
            assert used < MAX_USER_BYTES, path


def fetch_together(
    served: Served, path: str, headers: dict[str, str], cookies: dict[str, str]
) -> None:
    """Send as many requests as the user may have in progress, and read the responses."""

    def fetch(_: int) -> None:
        with httpx2.Client(
            base_url=served.url, headers=headers, cookies=cookies, timeout=300, trust_env=False
        ) as client:
            answer = client.get(path)
            while answer.status_code in (429, 503):  # others of the user's requests come first
                answer = client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"

    with ThreadPoolExecutor(MAX_REQUESTS_PER_USER) as threads:
        list(threads.map(fetch, range(MAX_REQUESTS_PER_USER)))


@pytest.mark.parametrize("most", [1, 30_000, 20_000_000])
def test_pages_that_are_cut_by_bytes_lose_nothing(api, conn, monkeypatch, most) -> None:
    monkeypatch.setattr(pagination, "MAX_PAGE_BYTES", most)
    large = fill_large(conn, rows=7, lists=50)
    mallory = api.user("mallory")
    for path, id in large.listings.items():
        for limit in (3, 1000):
            pages = read_all(mallory, path, limit)
            ids = [row[id] for page in pages for row in page]
            number = 8 if "q=" in path or "thread" in path or "state" not in path else 7
            assert len(ids) == len(set(ids)) >= number, path
            expected = 1 if most == 1 else min(limit, len(ids))
            assert len(pages[0]) == expected or 1 < len(pages[0]) < expected, path


def read_all(client: httpx2.Client, path: str, limit: int) -> list[list[dict[str, Any]]]:
    pages, after = [], ""
    while True:
        sign = "&" if "?" in path else "?"
        answer = client.get(f"{path}{sign}limit={limit}{after}")
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()["items"])
        if answer.json()["cursor"] is None:
            return pages
        after = f"&after={answer.json()['cursor']}"


@pytest.mark.parametrize("most", [1, 30_000, 20_000_000])
@pytest.mark.parametrize("rereads", ["true", "false"])
def test_pages_of_the_feed_that_are_cut_by_bytes_lose_nothing(
    api, conn, monkeypatch, most, rereads
) -> None:
    monkeypatch.setattr(pagination, "MAX_PAGE_BYTES", most)
    fill_large(conn, rows=7, lists=50)
    conn.execute("INSERT INTO erased_account (user_integration_id, changed_xid)"
        " VALUES (gen_random_uuid(), pg_current_xact_id()::text::bigint)")  # fmt: skip
    for client, number in ((api.user("mallory"), 10), (api.admin, 11)):
        seen, after, more, longest = [], "", True, 0
        while more:
            page = client.get(f"/v1/changes?limit=1000&rereads={rereads}{after}").json()
            seen += [change["content"] and change["content"]["id"] for change in page["changes"]]
            longest = max(longest, len(page["changes"]))
            after, more = f"&after={page['cursor']}", page["more"]
        assert len(seen) == len(set(seen)) == number
        assert (longest <= 2) if most == 1 else (longest > 1)
        assert (longest == number) == (most == 20_000_000)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("value", ["[],", "{},", "[[", '"",', "0,"])
def test_bodies_of_many_values_are_refused_before_they_are_parsed(api, value, encoding) -> None:
    """The server parses 64 bodies of 1 MiB without a token, which could use 2 GiB."""
    body = f'{{"config": [{value * 150_000}'.encode(encoding)
    for client in (api.client(None), api.user("mallory")):
        answer = client.post(
            "/v1/user-integrations", content=body, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
