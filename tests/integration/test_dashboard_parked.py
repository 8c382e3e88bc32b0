"""The page of parked tasks: the list, and its actions on one task and on many.

Some of these tasks are no longer parked when the action begins.
"""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest
from support.signed_in import signed_in

from core.service.runs import actions as run_actions
from core.service.runs import parked


@pytest.fixture
def shelf(desk):
    """Return `shelf(account, count, error=…)`, which parks new tasks of a run that has ended."""

    def put(
        account, count: int = 1, *, type: str = "step", error: str | None = "CoinFailed: heads"
    ) -> list[int]:
        run = desk.value(
            """INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger,
                   state, start_seq, finished_at)
               SELECT gen_random_uuid(), id, integration_domain, 'live', 'schedule',
                   'partial', 1, now()
               FROM user_integration WHERE id = %s RETURNING id""",
            account,
        )
        ids = desk.add(run, *(f"{error} {n}" for n in range(count)), type=type)
        desk.rows(
            """UPDATE sync_task SET
                   state = 'parked', reason = 'gave up', finished_at = now(), attempts = 5,
                   errors = CASE WHEN %s::text IS NULL THEN NULL ELSE jsonb_build_array(
                       jsonb_build_object('error', 'Older: one'),
                       jsonb_build_object('at', now(), 'attempt', 5, 'error', %s::text)) END
               WHERE id = ANY(%s) RETURNING 1""",
            error, error, ids,
        )  # fmt: skip
        return ids

    return put


def shown(page) -> list[int]:
    return [int(id) for id in re.findall(r'name="task" value="(\d+)"', page.text)]


def said(page) -> str:
    found = re.search(r'<p class="flash" role="status">(.*?)</p>', page.text, re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def states(desk) -> dict[int, str]:
    return {
        id: "retried" if again else state
        for id, state, again in desk.rows("SELECT id, state, retried_as FROM sync_task")
    }


def test_parked_tasks_are_listed_newest_first_and_filtered(dashboard, desk, shelf) -> None:
    mine, other = (
        desk.account("mine", user_id="u"),
        desk.account("other", user_id="v", domain="caller"),
    )
    steps, pages = shelf(mine, 2), shelf(mine, 1, type="page", error="Timeout")
    odd, theirs = shelf(mine, 1, error="no class, but words"), shelf(other, 1, error=None)
    who = signed_in(dashboard)

    def found(person=who, **filters):
        return shown(person.get("/parked", **filters))

    assert found() == sorted([*steps, *pages, *odd, *theirs], reverse=True)
    assert found(signed_in(dashboard, "v")) == theirs
    assert (
        found(account="mine")
        == found(account=str(mine))
        == sorted([*steps, *pages, *odd], reverse=True)
    )
    assert found(domain="caller") == theirs
    assert found(type="page") == pages
    assert found(error="CoinFailed") == steps[::-1]
    assert found(error="other") == sorted([*odd, *theirs], reverse=True)
    page = who.get("/parked")
    assert "CoinFailed: heads" in page.text
    assert "Older: one" not in page.text
    assert re.search(
        r'href="/parked\?domain=shop&amp;type=step&amp;error=CoinFailed">CoinFailed</a>\s*</td>\s*'
        r'<td class="count">2<',
        page.text,
    )
    assert "No parked tasks match." in who.get("/parked", type="nothing").text


def test_a_task_that_is_no_longer_parked_is_not_listed(dashboard, desk, shelf) -> None:
    again, dropped, cancelled, left = shelf(desk.account(), 4)
    who = signed_in(dashboard)
    who.post("/parked/retry", task=again)
    who.post("/parked/discard", task=dropped)
    desk.rows("UPDATE sync_task SET state = 'cancelled' WHERE id = %s RETURNING 1", cancelled)
    assert shown(who.get("/parked")) == [left]


def test_pages_of_parked_tasks_show_each_once(dashboard, desk, shelf) -> None:
    ids = shelf(desk.account(), 120)
    who, seen, path = signed_in(dashboard), [], "/parked"
    while path:
        page = who.get(path)
        seen += shown(page)
        found = re.search(r'href="(/parked\?after=[^"]*)">Next', page.text)
        path = found[1].replace("&amp;", "&") if found else None
    assert seen == ids[::-1]
    assert "120 parked tasks" in page.text


def test_only_the_selected_tasks_are_retried(dashboard, desk, shelf) -> None:
    one, two, three = shelf(desk.account("a"), 3)
    (far,) = shelf(desk.account("b"), 1)
    who = signed_in(dashboard)
    answer = who.post("/parked/retry?type=step", task=[one, three, far])
    assert answer.headers["location"] == "/parked?type=step&retried=3"
    assert said(who.get(answer.headers["location"])) == "3 tasks retried."
    assert {id for id, state in states(desk).items() if state == "retried"} == {one, three, far}
    assert states(desk)[two] == "parked"


def test_a_task_that_is_no_longer_parked_does_not_stop_the_others(dashboard, desk, shelf) -> None:
    one, two, three = shelf(desk.account(), 3)
    who = signed_in(dashboard)
    who.post("/parked/retry", task=two)
    answer = who.post("/parked/discard", task=[one, two, three, 999_999])
    assert (
        said(who.get(answer.headers["location"]))
        == "2 tasks discarded. 2 skipped: no longer parked, or beyond a quota."
    )
    now = states(desk)
    assert (now[one], now[two], now[three]) == ("done", "retried", "done")


def test_all_tasks_that_match_are_retried(dashboard, desk, shelf, monkeypatch) -> None:
    monkeypatch.setattr(parked, "BATCH_TASKS", 7)
    accounts = [desk.account(f"a{n}", user_id="u" if n else "other") for n in range(3)]
    mine = [id for account in accounts[1:] for id in shelf(account, 10)]
    others = [*shelf(accounts[0], 3), *shelf(accounts[1], 2, error="Timeout: x")]
    who = signed_in(dashboard, "u")
    page = who.get("/parked", error="CoinFailed")
    assert "Retry all" in page.text
    assert 'formaction="/parked/retry-all?error=CoinFailed"' in page.text
    answer = who.post("/parked/retry-all?error=CoinFailed")
    assert said(who.get(answer.headers["location"])) == "20 tasks retried."
    now = states(desk)
    assert {now[id] for id in mine} == {"retried"}
    assert {now[id] for id in others} == {"parked"}


def test_reason_and_time_select_parked_tasks(dashboard, desk, shelf) -> None:
    old, busy, other = shelf(desk.account(), 3)
    desk.conn.execute("UPDATE sync_task SET reason = 'HTTP 503', finished_at = now()")
    desk.conn.execute("UPDATE sync_task SET reason = 'gone' WHERE id = %s", (other,))
    desk.conn.execute(
        "UPDATE sync_task SET finished_at = now() - interval '3 h' WHERE id = %s", (old,)
    )
    who = signed_in(dashboard)
    assert set(shown(who.get("/parked", reason="http 5"))) == {old, busy}
    page = who.get("/parked", reason="http 5", since="2h")
    assert shown(page) == [busy]
    assert 'formaction="/parked/retry-all?reason=http+5&amp;since=2h"' in page.text
    assert "not a time" in who.get("/parked", since="soon").text
    who.post("/parked/retry-all?reason=http+5&since=2h")
    now = states(desk)
    assert (now[old], now[busy], now[other]) == ("parked", "retried", "parked")


def test_tasks_parked_during_a_bulk_retry_are_left(backend, desk, shelf, monkeypatch) -> None:
    monkeypatch.setattr(parked, "BATCH_TASKS", 2)
    account, retry = desk.account(), run_actions.retry
    before, after = shelf(account, 5), []

    def retried_and_parked_again(engine, ids):
        after.extend(shelf(account, len(ids), error="Again: it failed"))
        return retry(engine, ids)

    monkeypatch.setattr(run_actions, "retry", retried_and_parked_again)
    outcome = parked.apply_to_all(backend, run_actions.retry, parked.ParkedFilter())
    assert (outcome.done, outcome.refused, outcome.more) == (5, 0, False)
    now = states(desk)
    assert {now[id] for id in before} == {"retried"}
    assert {now[id] for id in after} == {"parked"}


def test_a_bulk_action_that_takes_too_long_can_be_continued(
    dashboard, desk, shelf, monkeypatch
) -> None:
    monkeypatch.setattr(parked, "BATCH_TASKS", 5)
    monkeypatch.setattr(parked, "MAX_BULK_SECONDS", 0.0)
    shelf(desk.account(), 8)
    who = signed_in(dashboard)
    answer = who.post("/parked/discard-all")
    assert (
        said(who.get(answer.headers["location"]))
        == "5 tasks discarded. More tasks match. Choose the action again to continue."
    )
    answer = who.post("/parked/discard-all")
    assert said(who.get(answer.headers["location"])) == "3 tasks discarded."
    assert shown(who.get("/parked")) == []


def test_a_user_cannot_change_parked_tasks_of_another(dashboard, desk, shelf) -> None:
    ids = shelf(desk.account("a", user_id="u"), 2)
    stranger = signed_in(dashboard, "v")
    answer = stranger.post("/parked/retry", task=ids)
    assert answer.headers["location"] == "/parked?retried=0&refused=2"
    stranger.post("/parked/discard", task=ids)
    stranger.post("/parked/discard-all")
    stranger.post("/parked/retry-all?account=a", status=404)
    assert {states(desk)[id] for id in ids} == {"parked"}


def test_nothing_is_done_without_the_csrf_token_or_a_selection(dashboard, desk, shelf) -> None:
    ids = shelf(desk.account(), 2)
    who = signed_in(dashboard)
    for path in ("retry", "discard", "retry-all", "discard-all"):
        answer = who.client.post(f"/parked/{path}", data={"csrf": "another", "task": ids})
        assert answer.status_code == 403
    who.post("/parked/retry", status=422)
    who.post("/parked/retry", status=422, task=["x", "-1", "9" * 400, "\u0661"])
    assert {states(desk)[id] for id in ids} == {"parked"}


def test_few_parked_tasks_among_many_are_found_through_their_index(desk, shelf) -> None:
    account = desk.account()
    shelf(account, 20)
    run = desk.run(account)
    desk.rows(
        """INSERT INTO sync_task (run_id, user_integration_id, integration_domain, lane, type,
               payload, dedup_key, state)
           SELECT %s, %s, 'shop', 'live', 'step', '{}', int4send(n), 'done'
           FROM generate_series(1, 20000) n RETURNING 1""",
        run, account,
    )  # fmt: skip
    desk.conn.execute("ANALYZE sync_task")
    for statement in (parked.PAGE_OF_PARKED, parked.GROUPS, parked.COUNT_FILTERED):
        plan = "\n".join(
            line
            for (line,) in desk.conn.execute(
                "EXPLAIN " + statement, asdict(parked.ParkedFilter()) | parked.KEY.params(50, None)
            )
        )
        assert "sync_task_stopped" in plan, plan
        assert "Seq Scan on sync_task" not in plan, plan
