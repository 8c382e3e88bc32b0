"""The pages of runs and tasks: their content, their readers, and their buttons."""

from __future__ import annotations

import re
from html import unescape
from uuid import uuid4

import httpx2
import pytest
from support.signed_in import signed_in

from core import Task
from core.service import pagination
from core.service.runs import tree as run_tree

TREE = "/runs/{}?parent={}"


@pytest.fixture
def made(desk, shop):
    """Make a run whose root made three steps; the first step made two pages."""
    account = desk.account("A shop", user_id="u")
    root = desk.root(account)
    desk.finish(root, tasks=[shop.step.task(number=n) for n in range(3)])
    first, *_ = desk.claim()
    desk.finish(first, tasks=[shop.page.task(number=n) for n in range(2)])
    return account, first.run_id, root.task_id, first.task_id


def park(
    desk, count: int = 1, error: str = "CoinFailed: heads", reason: str = "gave up"
) -> list[int]:
    """Park `count` of the tasks that are queued or ready, and return their ids."""
    return [
        id
        for (id,) in desk.rows(
            """UPDATE sync_task SET
                   state = 'parked', reason = %s, finished_at = now(), attempts = 5,
                   errors = jsonb_build_array(
                       jsonb_build_object('at', now(), 'attempt', 5, 'error', %s::text))
               WHERE id IN (
                   SELECT id FROM sync_task WHERE state IN ('ready', 'queued')
                   ORDER BY id DESC LIMIT %s)
               RETURNING id""",
            reason, error, count,
        )
    ]  # fmt: skip


def text(page: httpx2.Response) -> str:
    """Return the text that a person reads."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.text.partition("<main")[2]).split())


def test_runs_are_listed_and_filtered(dashboard, desk, made) -> None:
    account, run, *_ = made
    other = desk.account("B shop", user_id="v", domain="caller")
    theirs = desk.run(other)
    desk.rows(
        """
        UPDATE sync_run SET state = 'failed', error = 'it broke', finished_at = now() WHERE id = %s
        RETURNING 1
        """,
        theirs,
    )
    who = signed_in(dashboard)

    def listed(person=who, **filters):
        return {
            id
            for id in (str(run), str(theirs))
            if f'href="/runs/{id}"' in person.get("/runs", **filters).text
        }

    assert listed() == {str(run), str(theirs)}
    assert listed(state="failed") == {str(theirs)}
    assert listed(domain="shop") == {str(run)}
    assert listed(account="A shop") == listed(account=str(account)) == {str(run)}
    assert listed(account="A shop", state="failed") == set()
    desk.conn.execute(
        "UPDATE sync_run SET started_at = now() - interval '3 h', trigger = 'hint' WHERE id = %s",
        (theirs,),
    )
    assert listed(trigger="hint") == listed(until="1h") == listed(longer="2h") == {str(theirs)}
    assert listed(since="1h") == {str(run)}
    assert listed(longer="4h") == listed(since="1h", until="2h") == set()
    shown = re.findall(r'href="/runs/([0-9a-f-]{36})"', who.get("/runs", order="oldest").text)
    assert shown == [str(theirs), str(run)]
    assert "2 of 6" in text(who.get("/runs")), "the figures of the open run"
    assert "is not a span of time" in text(who.get("/runs", longer="long"))
    params = {"trigger": "hint", "min_seconds": 7_200}
    found = dashboard.admin.get("/v1/runs", params=params).json()["items"]
    assert [row["id"] for row in found] == [str(theirs)]
    assert listed(signed_in(dashboard, "v")) == {str(theirs)}
    assert "it broke" in who.get("/runs").text
    assert (
        "Account A shop not found" in signed_in(dashboard, "v").get("/runs", account="A shop").text
    )
    assert (
        f"Account {account} not found"
        in signed_in(dashboard, "v").get("/runs", account=str(account)).text
    )


@pytest.mark.parametrize("user", [None, "u"])
def test_pages_of_runs_show_each_once_newest_first(dashboard, desk, user) -> None:
    account = desk.account("A", user_id="u")
    desk.rows(
        """INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, state,
               start_seq, started_at, finished_at)
           SELECT gen_random_uuid(), %s, 'shop', 'live', 'schedule', 'succeeded',
               1, now() - (n / 2) * interval '1 minute', now()
           FROM generate_series(1, 120) n RETURNING 1""",
        account,
    )
    who, seen, path = signed_in(dashboard, user), [], "/runs"
    while path:
        page = who.get(path).text
        seen += re.findall(r'href="/runs/([0-9a-f-]{36})"', page)
        found = re.search(r'href="(/runs\?after=[^"]*)">Next', page)
        path = found[1].replace("&amp;", "&") if found else None
    wanted = [
        str(id) for (id,) in desk.rows("SELECT id FROM sync_run ORDER BY started_at DESC, id DESC")
    ]
    assert seen == wanted


def test_a_run_is_shown_as_a_tree(dashboard, desk, made) -> None:
    _, run, root, first = made
    who = signed_in(dashboard, "u")
    page = who.get(f"/runs/{run}")
    assert re.search(
        r'class="d0"><code>start</code>.*class="d1"><code>step</code>'
        r'.*class="d2"><code>page</code>',
        page.text,
        re.DOTALL,
    )
    assert "Tasks so far 6" in text(page)
    assert "Tasks done 2" in text(page)
    assert f'href="/runs/{run}?parent={root}#tree">3 follow-ups' in page.text
    below = who.get(f"/runs/{run}?parent={root}")
    steps = set(re.findall(r'href="/tasks/(\d+)"><code>step', below.text))
    assert len(steps) == 3
    assert f'href="/runs/{run}?parent={first}#tree">2 follow-ups' in below.text
    pages = who.get(f"/runs/{run}?parent={first}")
    assert len(set(re.findall(r'href="/tasks/(\d+)"><code>page', pages.text))) == 2
    crumbs = re.search(r'class="crumbs">(.*?)</ol>', pages.text, re.DOTALL)[1]
    assert re.findall(r"\?parent=(\d+)|/tasks/(\d+)", crumbs) == [(str(root), ""), ("", str(first))]


def test_children_and_roots_are_listed_page_by_page(dashboard, desk, shop) -> None:
    root = desk.root(desk.account())
    desk.finish(root, tasks=[shop.step.task(number=n) for n in range(120)])
    desk.rows(  # tasks carried over from another run have no parent here
        """INSERT INTO sync_task (
               run_id, user_integration_id, integration_domain, lane, type, payload, dedup_key)
           SELECT run_id, user_integration_id, integration_domain, lane, 'page', '{}', int4send(n)
           FROM sync_task, generate_series(1, 70) n WHERE id = %s RETURNING 1""",
        root.task_id,
    )
    who = signed_in(dashboard)

    def walked(path) -> list[int]:
        seen: list[int] = []
        while path and len(seen) < 1_000:
            page = who.get(path).text
            seen += [
                int(id)
                for id in re.findall(
                    r'<tr id="[^"]*">\s*<td class="name">\s*<a href="/tasks/(\d+)"', page
                )
            ]
            found = re.search(rf'href="(/runs/{root.run_id}\?after=[^"]*)">Next', page)
            path = found[1].replace("&amp;", "&") if found else None
        return seen

    steps = [id for (id,) in desk.rows("SELECT id FROM sync_task WHERE type = 'step' ORDER BY id")]
    roots = [id for (id,) in desk.rows("SELECT id FROM sync_task WHERE type <> 'step' ORDER BY id")]
    assert walked(TREE.format(root.run_id, root.task_id)) == steps
    assert walked(f"/runs/{root.run_id}") == roots
    assert (len(steps), len(roots)) == (120, 71)


def test_background_tasks_are_found_in_their_backfill(dashboard, desk, shop) -> None:
    root = desk.root(desk.account())
    desk.finish(root, tasks=[Task("step", {"number": 1}, background=True)])
    background = desk.value("SELECT id FROM sync_run WHERE lane = 'backfill'")
    who = signed_in(dashboard)
    page = who.get(TREE.format(root.run_id, root.task_id)).text
    assert f'href="/runs/{background}?parent={root.task_id}#tree"' in page
    there = who.get(f"/runs/{background}").text
    assert '<th scope="row" class="d0"><code>step</code>' in there
    assert (
        "<code>step</code>"
        in who.get(TREE.format(background, root.task_id)).text.partition("crumbs")[2]
    )


def test_task_types_that_add_each_other_are_shown_once() -> None:
    def row(type, made_by, first):
        names = ("known", "done", "parked", "deferred", "queued", "ready", "cancelled")
        counts = dict.fromkeys(names, 1)
        return {"type": type, "made_by": made_by, "first": first, **counts}

    rows = [
        row("start", None, 1),
        row("page", "start", 2),
        row("page", "page", 3),
        row("item", "page", 4),
        row("page", "item", 5),
    ]
    branches = run_tree.nest(rows)
    assert [(one.type, one.depth, one.known, one.others) for one in branches] == [
        ("start", 0, 1, ()), ("page", 1, 3, ("item",)), ("item", 2, 1, ()),
    ]  # fmt: skip
    assert [one.type for one in run_tree.nest([row("a", "b", 1), row("b", "a", 2)])] == [
        "a",
        "b",
    ]


def plan_for_a_large_recent_run(backend, desk, made, statement: str, settings: str) -> str:
    """Return the plan for a run of many tasks, with the settings of the dashboard's connections."""
    account, _, root, _ = made
    desk.rows(  # statistics for runs with one task each
        """INSERT INTO sync_task (
               run_id, user_integration_id, integration_domain, lane, type, payload, dedup_key)
           SELECT gen_random_uuid(), %s, 'shop', 'live', 'step', '{}', ''
           FROM generate_series(1, 3000) RETURNING 1""",
        account,
    )
    desk.conn.execute("ANALYZE sync_task")
    run = desk.run(desk.account("late"))
    desk.rows(
        """INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type,
               payload, dedup_key, parent_id)
           SELECT %s, %s, 'shop', 'live', 'step', '{}', int4send(n), %s
           FROM generate_series(1, 5000) n RETURNING 1""",
        run, account, root,
    )  # fmt: skip
    names = {"run": run, "parent": root, "end_id": None, "skipped": 9} | run_tree.KEY.params(
        50, None
    )
    with backend.database.connection() as conn, conn.transaction():
        conn.execute(settings)
        return "\n".join(line for (line,) in conn.execute("EXPLAIN " + statement, names))


def test_the_plan_for_the_types_of_a_large_run_is_not_quadratic(backend, desk, made) -> None:
    plan = plan_for_a_large_recent_run(backend, desk, made, run_tree.TYPES, run_tree.HASHED)
    assert "Nested Loop" not in plan, plan
    assert "Seq Scan on sync_task" not in plan, plan


@pytest.mark.parametrize("statement", [run_tree.ROOTS, run_tree.CHILD_TASKS, run_tree.LAST_TASK])
def test_a_page_of_a_large_run_reads_its_tasks_in_order(backend, desk, made, statement) -> None:
    plan = plan_for_a_large_recent_run(backend, desk, made, statement, pagination.IN_ORDER)
    assert "sync_task_of_run" in plan, plan
    assert "Seq Scan on sync_task" not in plan, plan


def test_deferred_tasks_of_a_run_are_counted(dashboard, desk, made) -> None:
    _, run, *_ = made
    desk.conn.execute("UPDATE sync_task SET state = 'deferred' WHERE type = 'page'")
    page = text(signed_in(dashboard, "u").get(f"/runs/{run}"))
    assert "Tasks deferred 2" in page
    assert "Parked Deferred Queued" in page


def test_a_run_shows_its_reason_to_wait_and_can_be_cancelled(dashboard, desk, made) -> None:
    _, run, *_ = made
    who = signed_in(dashboard, "u")
    assert "No worker is running, until a worker that serves shop starts" in text(
        who.get(f"/runs/{run}")
    )
    assert who.post(f"/runs/{run}/cancel").headers["location"] == f"/runs/{run}?flash=cancelled"
    page = text(who.get(f"/runs/{run}?flash=cancelled"))
    assert "Cancelled by hand" in page
    assert "Its open tasks continue in the next run" in page
    assert "Cancel the run" not in page
    assert desk.runs() == ["cancelled"]
    assert "Action not possible" in text(who.post(f"/runs/{run}/cancel", status=409))


def test_a_task_is_shown_in_full_and_can_be_retried(dashboard, desk, made) -> None:
    _, _, root, first = made
    (parked,) = park(desk)
    who = signed_in(dashboard, "u")
    page = who.get(f"/tasks/{parked}")
    assert "CoinFailed: heads" in text(page)
    assert "gave up" in text(page)
    assert f'href="/tasks/{first}"' in page.text
    assert f'href="/tasks/{root}"' in page.text
    who.post(f"/tasks/{parked}/retry")
    copy = desk.value("SELECT retried_as FROM sync_task WHERE id = %s", parked)
    page = who.get(f"/tasks/{parked}").text
    assert f'href="/tasks/{copy}">as task {copy}' in page
    assert "formaction" not in page
    assert f'href="/tasks/{parked}"' in who.get(f"/tasks/{copy}").text
    who.post(f"/tasks/{parked}/retry", status=409)
    who.post(f"/tasks/{first}/discard", status=409)


def test_an_operator_edits_the_payload_of_a_parked_task(dashboard, desk) -> None:
    (task,) = desk.add(desk.run(desk.account(user_id="u", domain="locked")), "one")
    desk.conn.execute("UPDATE sync_task SET state = 'parked', finished_at = now()")
    place = f"/tasks/{task}/retry-edited"
    assert place not in signed_in(dashboard, "u").get(f"/tasks/{task}").text
    operator = signed_in(dashboard)
    assert place in operator.get(f"/tasks/{task}").text
    for wrong in ('{"number": "x"}', "[1]", "{<b>", ""):
        page = operator.post(place, status=422, payload=wrong).text
        assert "The payload does not fit the task" in page
        assert f">\n{wrong}</textarea>" in unescape(page)
        assert "data-live" not in page
    answer = operator.post(place, payload='{"number": 7}')
    copy = desk.value("SELECT retried_as FROM sync_task WHERE id = %s", task)
    assert answer.headers["location"] == f"/tasks/{copy}?flash=retried-edited"
    assert desk.value("SELECT payload FROM sync_task WHERE id = %s", copy) == {"number": 7}


def test_a_parked_task_can_be_discarded(dashboard, desk, made) -> None:
    (parked,) = park(desk)
    who = signed_in(dashboard, "u")
    who.post(f"/tasks/{parked}/discard")
    assert desk.tasks()[parked] == "done"
    page = text(who.get(f"/tasks/{parked}"))
    assert "State discarded" in page
    assert "discarded by hand" in page


@pytest.mark.parametrize(
    ("state", "reason", "copy", "shown"),
    [
        ("done", None, None, "done"),
        ("done", "too large", None, "skipped"),
        ("done", "discarded by hand: heads", None, "discarded"),
        ("parked", "heads", None, "parked"),
        ("parked", "heads", 7, "retried"),
    ],
)
def test_a_task_that_did_not_run_is_not_shown_as_done(
    dashboard, desk, made, state: str, reason: str | None, copy: int | None, shown: str
) -> None:
    _, run, root, _ = made
    desk.conn.execute(
        "UPDATE sync_task SET state = %s, reason = %s, retried_as = %s WHERE id = %s",
        (state, reason, copy, root),
    )
    who = signed_in(dashboard, "u")
    for page in (f"/tasks/{root}", f"/runs/{run}"):
        assert f'<span class="state {shown}">{shown}</span>' in who.get(page).text


def test_runs_and_tasks_of_other_users_are_not_found(dashboard, desk, made) -> None:
    _, run, root, _ = made
    (parked,) = park(desk)
    mine = desk.run(desk.account("mine", user_id="v"))
    stranger = signed_in(dashboard, "v")
    for path in (
        f"/runs/{run}",
        f"/tasks/{root}",
        f"/runs/{uuid4()}",
        "/tasks/99999",
        f"/runs/{mine}?parent={root}",
    ):
        stranger.get(path, status=404)
    for path in (f"/runs/{run}/cancel", f"/tasks/{parked}/retry", f"/tasks/{parked}/discard"):
        stranger.post(path, status=404)
    assert desk.tasks()[parked] == "parked"
    assert desk.runs()[0] == "running"


def test_nothing_is_done_without_the_csrf_token(dashboard, desk, made) -> None:
    _, run, *_ = made
    (parked,) = park(desk)
    who = signed_in(dashboard, "u")
    for path in (f"/runs/{run}/cancel", f"/tasks/{parked}/retry", f"/tasks/{parked}/discard"):
        for csrf in ("", "another"):
            assert who.client.post(path, data={"csrf": csrf}).status_code == 403
    assert desk.tasks()[parked] == "parked"
    assert desk.runs() == ["running"]


def test_the_page_of_a_run_is_updated_live(dashboard, desk, made) -> None:
    _, run, *_ = made
    who = signed_in(dashboard, "u")
    with who.client.stream(
        "GET", f"/runs/{run}", headers={"Accept": "text/event-stream"}
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines, seen = answer.iter_lines(), []

        def wait_for(what: str) -> None:
            while what not in (line := next(lines)):
                seen.append(line)

        wait_for("Tasks done")
        park(desk)
        wait_for('class="parked"')
    assert len(seen) > 10
    assert who.csrf not in "".join(seen)


def test_the_counts_of_a_run_remain_after_pruning(dashboard, desk, made) -> None:
    _, run, *_ = made
    desk.rows("""
        UPDATE sync_run SET state = 'succeeded', finished_at = now(), tasks_done = 7, pruned = true
        RETURNING 1
        """)
    desk.rows("DELETE FROM sync_task RETURNING 1")
    page = text(signed_in(dashboard, "u").get(f"/runs/{run}"))
    assert "Tasks done 7" in page
    assert "were deleted after the retention time" in page
