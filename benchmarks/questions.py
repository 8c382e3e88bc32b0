"""The questions of the benchmark `reading`: requests of the API and pages of the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from benchmarks import archive
from benchmarks.archive import Size
from core.content import feed
from core.db.pool import Conn
from core.service.content import changes
from core.service.pagination import encode_cursor

LISTING, SEARCH, FEED, OVERVIEW = "listing", "search", "feed", "overview"
MOST_MS: Mapping[str, float] = {LISTING: 100.0, SEARCH: 200.0, FEED: 100.0, OVERVIEW: 100.0}
"""The time in which 99 % of the answers of each kind arrive, in milliseconds."""

CONTENT = "/v1/user-integration-content"
LATER = "2099-01-01T00:00:00Z"
LONG_AGO = "2001-01-01T00:00:00Z"

MIDDLE_ITEM = """
SELECT user_integration_id, external_id FROM user_integration_content
WHERE user_integration_id = %(account)s ORDER BY external_id OFFSET %(skipped)s LIMIT 1
"""
LAST_ITEM = """
SELECT user_integration_id, external_id FROM user_integration_content
WHERE user_integration_id = %(account)s ORDER BY external_id DESC LIMIT 1
"""
CHANNEL = """
SELECT id FROM user_integration_content WHERE user_integration_id = %s AND external_id = 'C1'
"""
CHANGE = """
SELECT changed_xid, 0, id FROM user_integration_content
WHERE id = %s
"""
RUN_TASK = "SELECT id FROM sync_task WHERE run_id = %(run)s ORDER BY dedup_key LIMIT 1"
OLD_RUN = """
SELECT id, started_at FROM sync_run WHERE id = %(run)s
"""


@dataclass(frozen=True, slots=True)
class Question:
    """One question, with its requests in turn.

    Attributes:
      kind: `listing`, `search`, `feed` or `overview`; it decides the budget.
      path: The path of the request with a number: requests of a question may be about different
        accounts.
      page: `json` for the API, `html` for a page of the dashboard, `live` for the first update of
        its live part.
      of_user: True if a user's token asks.
    """

    kind: str
    name: str
    path: Callable[[int], str]
    page: str = "json"
    of_user: bool = False


def questions(conn: Conn, size: Size) -> Iterator[Question]:
    """Yield all questions."""
    yield from _overview()
    yield from _content(conn, size)
    yield from _accounts(size)
    yield from _runs(conn)
    yield from _feed(conn, size)
    yield from _searches()


def _of(path: str, **parameters: Any) -> Callable[[int], str]:
    """Return a path for each request. The text `{small}` stands for one of the small accounts."""
    query = f"?{urlencode(parameters, safe='{}')}" if parameters else ""

    def build(number: int) -> str:
        small = archive.account(100 + number % 500)
        return f"{path}{query}".replace("{small}", str(small))

    return build


def _overview() -> Iterator[Question]:
    yield Question(OVERVIEW, "overview", _of("/"), "html")
    yield Question(OVERVIEW, "overview, live", _of("/"), "live")
    yield Question(OVERVIEW, "health of the fleet", _of("/readyz"))
    yield Question(OVERVIEW, "users", _of("/v1/users"))
    yield Question(OVERVIEW, "users", _of("/users"), "html")


def _content(conn: Conn, size: Size) -> Iterator[Question]:
    large = archive.account(0)
    middle = conn.execute(MIDDLE_ITEM, {"account": large, "skipped": size.items // 10}).fetchone()
    last = conn.execute(LAST_ITEM, {"account": large}).fetchone()
    item = conn.execute(CHANNEL, (archive.account(1),)).fetchone()
    assert middle
    assert last
    assert item
    deep = encode_cursor(list(middle))
    scopes: dict[str, dict[str, Any]] = {
        "a large account": {"user_integration_id": large},
        "a small account": {"user_integration_id": "{small}"},
        "a user with 1,000 accounts": {"user_id": "user-many"},
        "all accounts": {},
    }
    filters: dict[str, dict[str, Any]] = {
        "no filter": {},
        "kind, rare": {"kind": "label"},
        "kind, none": {"kind": "nothing"},
        "parent, none": {"parent": "nothing"},
        "external_id, none": {"external_id": "nothing"},
        "updated_since, none": {"updated_since": LATER},
        "updated_since, all": {"updated_since": LONG_AGO},
        "since, none": {"since": LATER},
        "until, none": {"until": LONG_AGO},
        "deleted": {"deleted": "true"},
        "gone": {"gone": "true"},
        "gone and kind, none": {"gone": "true", "kind": "nothing"},
    }
    for scope, of_scope in scopes.items():
        for name, narrowed in filters.items():
            yield Question(
                LISTING, f"content of {scope}: {name}", _of(CONTENT, **of_scope, **narrowed)
            )
    for name, domain in {"domain": "slack", "unknown domain": "none"}.items():
        yield Question(
            LISTING, f"content of all accounts: {name}", _of(CONTENT, integration_domain=domain)
        )
    yield Question(LISTING, "content of a user", _of(CONTENT), of_user=True)
    yield Question(LISTING, "content of a user: kind, none", _of(CONTENT, kind="x"), of_user=True)
    for name, after in (("deep page", deep), ("last page", encode_cursor(list(last)))):
        yield Question(
            LISTING,
            f"content of a large account: {name}",
            _of(CONTENT, user_integration_id=large, after=after),
        )
        yield Question(LISTING, f"content of all accounts: {name}", _of(CONTENT, after=after))
    yield Question(LISTING, "content of a large account", _of("/content", account=large), "html")
    yield Question(
        LISTING,
        "content of a large account: kind, none",
        _of("/content", account=large, kind="nothing"),
        "html",
    )
    yield Question(LISTING, "content", _of("/content"), "html")
    yield Question(LISTING, "an item with many children", _of(f"/content/{item[0]}"), "html")


def _accounts(size: Size) -> Iterator[Question]:
    yield Question(LISTING, "accounts", _of("/v1/user-integrations"))
    for name, narrowed in {
        "user": {"user_id": "user-5000"},
        "unknown user": {"user_id": "nobody"},
        "domain": {"integration_domain": "slack"},
        "state, none": {"sync_status": "error"},
        "due, none": {"due_before": LONG_AGO},
    }.items():
        yield Question(LISTING, f"accounts: {name}", _of("/v1/user-integrations", **narrowed))
    yield Question(LISTING, "a large account", _of(f"/v1/user-integrations/{archive.account(0)}"))
    for name, narrowed in {
        "no filter": {},
        "state, none": {"status": "error"},
        "name, rare": {"name": f"account {size.accounts - 1}"},
        "name, none": {"name": "nothing"},
        "unknown user": {"user": "nobody"},
        "overdue": {"due": "over"},
    }.items():
        yield Question(LISTING, f"accounts: {name}", _of("/accounts", **narrowed), "html")
    for page in ("html", "live"):
        for name, account in {"large": str(archive.account(0)), "small": "{small}"}.items():
            yield Question(LISTING, f"a {name} account", _of(f"/accounts/{account}"), page)
    yield Question(LISTING, "accounts", _of("/accounts"), "live")


def _runs(conn: Conn) -> Iterator[Question]:
    old, large, opened = archive.run("run-3"), *map(archive.run, archive.LARGE_RUNS)
    task = conn.execute(RUN_TASK, {"run": large}).fetchone()
    run = conn.execute(OLD_RUN, {"run": old}).fetchone()
    assert task
    assert run
    of_large = f"/v1/user-integrations/{archive.account(0)}/runs"
    yield Question(LISTING, "runs of an account", _of(of_large))
    yield Question(LISTING, "runs of an account: state, none", _of(of_large, state="failed"))
    deep = encode_cursor([run[1], run[0]])
    for name, narrowed in {
        "no filter": {},
        "state, rare": {"state": "partial"},
        "state, none": {"state": "failed"},
        "running": {"state": "running"},
        "domain": {"domain": "slack"},
        "unknown domain": {"domain": "nothing"},
        "last page": {"after": deep},
    }.items():
        yield Question(LISTING, f"runs: {name}", _of("/runs", **narrowed), "html")
    yield Question(LISTING, "runs", _of("/runs"), "live")
    for name, id in {"an old run": old, "a run of a million tasks": large}.items():
        path = f"/v1/runs/{id}"
        yield Question(LISTING, name, _of(path))
        yield Question(LISTING, f"tasks of {name}", _of(f"{path}/tasks"))
        yield Question(
            LISTING, f"tasks of {name}: state, none", _of(f"{path}/tasks", state="parked")
        )
        yield Question(LISTING, name, _of(f"/runs/{id}"), "html")
    after = encode_cursor([task[0]])
    yield Question(
        LISTING,
        "tasks of a run of a million tasks: deep page",
        _of(f"/v1/runs/{large}/tasks", after=after),
    )
    yield Question(LISTING, "an open run of a million tasks", _of(f"/v1/runs/{opened}"))
    yield Question(LISTING, "an open run of a million tasks", _of(f"/runs/{opened}"), "html")
    yield Question(LISTING, "an open run of a million tasks", _of(f"/runs/{opened}"), "live")
    yield Question(LISTING, "a task", _of(f"/tasks/{task[0]}"), "html")
    yield Question(LISTING, "parked tasks", _of("/parked"), "html")
    yield Question(LISTING, "held deletions", _of("/v1/held-deletions"))


def _feed(conn: Conn, size: Size) -> Iterator[Question]:
    source = conn.execute(feed.FEED_SOURCE).fetchone()
    middle = conn.execute(CHANGE, (size.items // 2,)).fetchone()
    assert source
    assert middle
    places = {
        "beginning": {},
        "middle": {"after": encode_cursor([source[0], *middle])},
        "end": {"after": changes.end(conn)},
    }
    for name, narrowed in places.items():
        yield Question(FEED, f"changes: {name}", _of("/v1/changes", **narrowed))
        yield Question(
            FEED, f"changes of a user: {name}", _of("/v1/changes", **narrowed), of_user=True
        )
        yield Question(
            FEED,
            f"changes without rereads: {name}",
            _of("/v1/changes", rereads="false", **narrowed),
        )


def _searches() -> Iterator[Question]:
    scopes: dict[str, dict[str, Any]] = {
        "all accounts": {},
        "a large account": {"user_integration_id": archive.account(0)},
        "a small account": {"user_integration_id": "{small}"},
        "a user with 1,000 accounts": {"user_id": "user-many"},
    }
    queries = {
        "a common word": archive.COMMON,
        "a frequent word": archive.FREQUENT,
        "a rare word": archive.SELDOM,
        "an absent word": archive.ABSENT,
        "a common and a frequent word": f"{archive.COMMON} {archive.FREQUENT}",
        "a common and a rare word": f"{archive.COMMON} {archive.SELDOM}",
        "a phrase": f'"{archive.PHRASE}"',
        "from:": f"{archive.COMMON} from:ann",
        "in:": f"{archive.COMMON} in:inbox",
        "before:": f"{archive.COMMON} before:2025-01-01",
        "before:, none": f"{archive.COMMON} before:2001-01-01",
        "an excluded word": f"{archive.COMMON} -{archive.FREQUENT}",
        "two alternatives": f"{archive.FREQUENT} or {archive.SELDOM}",
        "kind:, none": f"{archive.COMMON} kind:nothing",
    }
    for scope, of_scope in scopes.items():
        for name, text in queries.items():
            yield Question(SEARCH, f"{name} in {scope}", _of(CONTENT, q=text, **of_scope))
        yield Question(
            SEARCH, f"a common word in {scope}: since, none",
            _of(CONTENT, q=archive.COMMON, since=LATER, **of_scope),
        )  # fmt: skip
    yield Question(SEARCH, "a common word", _of("/content", q=archive.COMMON), "html")
    yield Question(SEARCH, "a common word of a user", _of(CONTENT, q=archive.COMMON), of_user=True)
