"""Quotas of users: accounts, bytes of content and runs a day, on every way in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from core import Listing, TaskOutput
from core.db.pool import Conn, Database
from core.errors import QuotaReached
from core.ledger import controls, dispatching, hints, pruning, quotas, scheduling
from core.ledger.quotas import EVERYONE, Judge
from core.ledger.use import Use, add_use
from core.service import quotas as service
from core.service.accounts.erase import erase_account
from core.service.runs import actions, parked
from core.service.runs.parked import ParkedFilter
from core.states import Quota

BEGUN = "SELECT coalesce(sum(runs), 0)::int FROM user_day WHERE user_id = %s"
KEPT = "SELECT bytes FROM user_kept WHERE user_id = %s"
READY = "SELECT user_integration_id FROM sync_task WHERE state = 'ready'"
STORED = """
SELECT coalesce(sum(c.size), 0)::bigint FROM user_integration_content c
JOIN user_integration a ON a.id = c.user_integration_id WHERE a.user_id = %s
"""


def bound(conn: Conn, user: str = "u", **most: int | None) -> None:
    """Set quotas of a user, and compare the content of all users with theirs."""
    quotas.set_quotas(conn, user, {Quota(name): number for name, number in most.items()})
    Judge().look(conn)


def make_due(conn: Conn) -> None:
    conn.execute("UPDATE user_integration SET next_sync_at = clock_timestamp()")


def kept(desk: Any, user: str = "u") -> int:
    """Return the total of a user, after the leader has added all changes."""
    Judge().look(desk.conn)
    found = desk.rows(KEPT, user)
    total = int(found[0][0]) if found else 0
    assert total == desk.value(STORED, user)
    return total


def waiting(desk: Any, domain: str = "shop") -> set[str]:
    """Return the accounts with ready tasks that the dispatcher finds."""
    look = dispatching.look(desk.conn, domain, 100)
    return {each.account for each in look.accounts}


@pytest.fixture
def connections(database_url: str) -> Iterator[Callable[[], Any]]:
    database = Database(database_url, size=16)
    yield database.connection
    database.close()


# Runs


def test_no_more_accounts_are_counted_than_matter(desk) -> None:
    for name in "abcde":
        desk.account(name, user_id="u")
    assert quotas.require_place(desk.conn, "u") == 0, "an organization adds 100,000 accounts"
    assert quotas.require_place(desk.conn, "u", 3) == 3
    bound(desk.conn, accounts=6)
    assert quotas.require_place(desk.conn, "u") == 5
    bound(desk.conn, accounts=4)
    with pytest.raises(QuotaReached, match="the quota is 4"):
        quotas.require_place(desk.conn, "u")


def test_the_schedule_begins_no_more_runs_than_the_quota(desk) -> None:
    accounts = [desk.account(str(number)) for number in range(5)]
    other = desk.account("other", user_id="v")
    bound(desk.conn, runs=2)
    claim = scheduling.claim_due(desk.conn, 100)
    begun = {account for _, account in claim.runs}
    assert (len(begun), claim.waiting, claim.handled) == (3, 3, 6)
    assert other in begun
    assert desk.value(BEGUN, "u") == 2
    assert desk.value(BEGUN, "v") == 0  # nothing bounds this user
    assert not scheduling.any_due(desk.conn)
    ahead = desk.rows(
        "SELECT id, next_sync_at - clock_timestamp() FROM user_integration WHERE user_id = 'u'"
    )
    late = {id: span for id, span in ahead if id not in begun}
    assert set(late) == set(accounts) - begun
    assert all(timedelta() < span <= timedelta(minutes=15) for span in late.values())


def test_a_new_day_has_runs_again(desk) -> None:
    desk.account()
    bound(desk.conn, runs=1)
    desk.finish(desk.root(desk.account()))
    make_due(desk.conn)
    assert scheduling.claim_due(desk.conn, 100).waiting == 1
    desk.conn.execute("UPDATE user_day SET day = day - 1")
    make_due(desk.conn)
    assert len(scheduling.claim_due(desk.conn, 100).runs) == 1


def test_an_account_that_joins_its_open_run_counts_no_run(desk) -> None:
    account = desk.account()
    bound(desk.conn, runs=2)
    desk.run(account)
    make_due(desk.conn)
    assert scheduling.claim_due(desk.conn, 100).joined == 1
    assert desk.run(account) == desk.run(account)
    assert desk.value(BEGUN, "u") == 1


def test_a_due_account_that_joins_its_run_takes_no_run_from_another(desk) -> None:
    """The user has one run left. The first account needs none, and the second one begins it."""
    busy, idle = desk.account("busy"), desk.account("idle")
    desk.run(busy)
    bound(desk.conn, runs=1)
    due = "UPDATE user_integration SET next_sync_at = clock_timestamp() - %s * interval '1 s'"
    for account, seconds in ((busy, 2), (idle, 1)):
        desk.conn.execute(f"{due} WHERE id = %s", (seconds, account))
    claim = scheduling.claim_due(desk.conn, 100)
    assert [account for _, account in claim.runs] == [idle]
    assert (claim.joined, claim.waiting) == (1, 0)
    make_due(desk.conn)
    assert scheduling.claim_due(desk.conn, 100).joined == 2
    assert desk.value(BEGUN, "u") == 1


def test_schedulers_beside_each_other_begin_no_more_runs_than_the_quota(
    desk, connections, together
) -> None:
    for number in range(12):
        desk.account(str(number), user_id="u" if number % 2 else "v")
    bound(desk.conn, runs=3)
    bound(desk.conn, "v", runs=4)

    def claim() -> int:
        with connections() as conn:
            return sum(len(scheduling.claim_due(conn, 2).runs) for _ in range(6))

    assert sum(together(claim, claim, claim, claim)) == 7
    assert (desk.value(BEGUN, "u"), desk.value(BEGUN, "v")) == (3, 4)


def test_requests_beside_each_other_begin_no_more_runs_than_the_quota(
    desk, connections, together
) -> None:
    accounts = [desk.account(str(number)) for number in range(8)]
    bound(desk.conn, runs=3)

    def request(account: UUID) -> Callable[[], bool]:
        def ask() -> bool:
            with connections() as conn:
                if account.int % 2:
                    return hints.add(conn, account)
                return scheduling.request_run(conn, account)[1]

        return ask

    answers = together(*(request(account) for account in accounts))
    assert sum(answer is True for answer in answers) == 3
    assert all(isinstance(each, bool | QuotaReached) for each in answers)
    assert len(desk.runs()) == 3


def test_a_refused_resync_changes_nothing(desk) -> None:
    account = desk.account()
    bound(desk.conn, runs=0)
    with pytest.raises(QuotaReached) as refused:
        scheduling.request_resync(desk.conn, account)
    assert (refused.value.code, refused.value.status) == ("runs-quota-reached", 429)
    assert not desk.value("SELECT resync_due OR drop_state FROM user_integration")


def test_a_hint_waits_for_a_run_of_the_day(desk) -> None:
    account = desk.account()
    desk.keep(account)
    bound(desk.conn, runs=0)
    assert not hints.add(desk.conn, account, "INBOX")
    assert hints.open_due(desk.conn) == 0
    bound(desk.conn, runs=1)
    desk.conn.execute("UPDATE hint SET due_at = clock_timestamp()")
    assert hints.open_due(desk.conn) == 1
    assert desk.value(BEGUN, "u") == 1


def test_the_end_of_a_run_leaves_the_run_of_hints_to_the_leader(desk) -> None:
    account = desk.account()
    bound(desk.conn, runs=2)
    root = desk.root(account)
    hints.add(desk.conn, account)
    desk.finish(root)
    assert desk.runs() == ["succeeded"]
    assert hints.open_due(desk.conn) == 1
    assert desk.value(BEGUN, "u") == 2


def test_a_retry_counts_a_run_only_if_it_opens_one(desk) -> None:
    account = desk.account()
    first, second = desk.add(desk.run(account), "1", "2")
    bound(desk.conn, runs=0)
    desk.conn.execute("UPDATE sync_task SET state = 'parked' WHERE id IN (%s, %s)", (first, second))
    assert len(controls.retry(desk.conn, [first])) == 1
    desk.conn.execute("UPDATE sync_run SET state = 'failed'")
    with pytest.raises(QuotaReached):
        controls.retry(desk.conn, [second])
    assert desk.value("SELECT retried_as FROM sync_task WHERE id = %s", second) is None


def test_a_quota_of_one_user_does_not_end_the_bulk_retry_of_an_operator(api, desk) -> None:
    for user in ("u", "v"):
        task = desk.add(desk.run(desk.account(user, user_id=user)), "1")[0]
        desk.conn.execute("UPDATE sync_task SET state = 'parked' WHERE id = %s", (task,))
    desk.conn.execute("DELETE FROM sync_task WHERE type = 'start'")
    desk.conn.execute("UPDATE sync_run SET state = 'partial'")
    bound(desk.conn, runs=0)
    own = ParkedFilter(user="u")
    with pytest.raises(QuotaReached):
        parked.apply_to_all(api.backend, actions.retry, own)
    every = parked.apply_to_all(api.backend, actions.retry, ParkedFilter(user=None))
    assert (every.done, every.refused) == (1, 1)


# Bytes


def test_the_total_of_a_user_follows_every_change_of_content(desk) -> None:
    account, other = desk.account("a"), desk.account("b")
    foreign = desk.account("c", user_id="v")
    desk.keep(account, TaskOutput("1", "x" * 100), TaskOutput("2", "y" * 50))
    desk.keep(other, TaskOutput("1", "z" * 7))
    desk.keep(foreign, TaskOutput("1", "w"))
    assert (kept(desk), kept(desk, "v")) == (157, 1)
    desk.keep(account, TaskOutput("1", "x" * 10), TaskOutput("2", "y" * 50))
    desk.keep(account, TaskOutput.update("2", metadata={"a": 1}))
    assert kept(desk) == 67
    # Deleted items stay, so they count.
    desk.keep(account, TaskOutput.gone("1"))
    desk.keep(other, listed=[Listing()])
    assert kept(desk) == 67


def test_a_rolled_back_change_does_not_count(desk) -> None:
    outcome = desk.outcome(desk.root(desk.account()), output=[TaskOutput("1", "x" * 100)])
    with desk.conn.transaction(force_rollback=True):
        desk.save(outcome)
    assert kept(desk) == 0


def test_leaders_beside_each_other_add_each_change_once(desk, connections, together) -> None:
    account = desk.account()
    for number in range(20):
        desk.keep(account, TaskOutput(str(number), "x" * 10))

    def look() -> None:
        with connections() as conn:
            Judge().look(conn)

    assert together(*[look] * 4) == [None] * 4
    assert kept(desk) == 200


def test_tasks_of_a_user_with_too_much_content_wait_until_there_is_room(api, desk) -> None:
    account, foreign = desk.account("a"), desk.account("b", user_id="v")
    desk.keep(account, TaskOutput("1", "x" * 100))
    desk.run(foreign)
    make_due(desk.conn)
    scheduling.claim_due(desk.conn, 100)
    assert waiting(desk) == {str(account), str(foreign)}
    service.change(api.backend, "u", {Quota.BYTES: 100})
    assert waiting(desk) == {str(foreign)}
    service.change(api.backend, "u", {Quota.BYTES: 101})
    assert waiting(desk) == {str(account), str(foreign)}
    service.change(api.backend, "u", {Quota.BYTES: 100})
    service.change(api.backend, "u", {Quota.BYTES: "default"})
    assert waiting(desk) == {str(account), str(foreign)}


def test_requests_for_work_are_refused_while_there_is_no_room(api, desk) -> None:
    account = desk.account()
    desk.keep(account, TaskOutput("1", "x" * 100))
    bound(desk.conn, bytes=100)
    for request in (actions.sync, actions.resync):
        with pytest.raises(QuotaReached) as refused:
            request(api.backend, account)
        assert (refused.value.code, refused.value.status) == ("bytes-quota-reached", 409)
    assert desk.runs() == ["succeeded"]


def test_erased_content_makes_room(api, desk) -> None:
    account, other = desk.account("a"), desk.account("b")
    desk.keep(account, TaskOutput("1", "x" * 100))
    desk.keep(other, TaskOutput("1", "x" * 10))
    bound(desk.conn, bytes=100)
    erase_account(api.backend, account)
    assert kept(desk) == 10
    desk.run(other)
    assert waiting(desk) == {str(other)}


def test_a_quota_of_no_bytes_is_reached_without_content(api, desk) -> None:
    bound(desk.conn, bytes=0)
    bound(desk.conn, "w", runs=9)
    account = connect(api.backend, "first").id
    foreign = connect(api.backend, "first", "w").id
    make_due(desk.conn)
    scheduling.claim_due(desk.conn, 100)
    assert {id for (id,) in desk.rows(READY)} == {account, foreign}
    assert waiting(desk, "locked") == {str(foreign)}
    for _ in range(2):
        Judge().look(desk.conn)
        assert waiting(desk, "locked") == {str(foreign)}
    service.change(api.backend, "u", {Quota.BYTES: 1})
    assert waiting(desk, "locked") == {str(account), str(foreign)}
    assert desk.rows("SELECT * FROM user_kept") == []


def test_an_erased_user_keeps_the_quotas_and_the_runs_of_the_day(api, desk) -> None:
    """A user whose token may erase cannot remove them."""
    desk.account(user_id="ann")
    ann = api.user("ann")
    add_use(desk.conn, {"ann": Use(polls=2, tasks=3, thread_seconds=1.5, bytes_in=4)})
    desk.keep(desk.account("full", user_id="ann"), TaskOutput("1", "x" * 100))
    bound(desk.conn, "ann", accounts=2, bytes=100, runs=1)
    scheduling.claim_due(desk.conn, 100)
    assert ann.delete("/v1/users/ann?now=true").status_code == 200
    assert ann.get("/v1/users/ann/quotas").status_code == 401
    shown = service.of_user(desk.conn, "ann")
    assert [shown[name]["most"] for name in Quota] == [2, 100, 1]
    assert [shown[name]["used"] for name in Quota] == [0, 0, 1]
    assert desk.rows("SELECT * FROM user_kept") == []
    (use,) = desk.rows("SELECT * FROM user_day WHERE user_id = 'ann'")
    assert use[2:] == (0, 0, 0.0, 0, 0, 1)
    desk.account("back", user_id="ann")
    claim = scheduling.claim_due(desk.conn, 100)
    assert (len(claim.runs), claim.waiting) == (0, 1)
    pruning.prune(desk.conn)
    assert desk.value(BEGUN, "ann") == 1
    desk.conn.execute("UPDATE user_day SET day = day - 2")
    pruning.prune(desk.conn)
    assert desk.rows("SELECT * FROM user_day") == []


def test_a_reached_default_is_found_for_all_users(desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.ledger.quotas.MAX_JUDGED", 2)
    for number in range(5):
        user = f"user-{number}"
        desk.keep(desk.account(user, user_id=user), TaskOutput("1", "x" * number))
    quotas.set_default(desk.conn, {"bytes": 3})
    quotas.set_quotas(desk.conn, "user-4", {Quota.BYTES: None})
    judge = Judge()
    for _ in range(3):
        judge.look(desk.conn)
    full = "SELECT user_id FROM user_kept WHERE is_full ORDER BY 1"
    assert desk.rows(full) == [("user-3",)]
    quotas.set_default(desk.conn, {"bytes": None})
    judge = Judge()
    for _ in range(3):
        judge.look(desk.conn)
    assert desk.rows(full) == []


# Accounts


def connect(backend: Any, name: str, user: str = "u", **given: Any) -> Any:
    from core.service.accounts.actions import connect as connected

    return connected(
        backend,
        "locked",
        config={"name": name},
        credentials={"password": "right"},
        user_id=user,
        **given,
    )


def test_requests_beside_each_other_connect_no_more_accounts_than_the_quota(
    api, desk, together
) -> None:
    bound(desk.conn, accounts=2)
    names = [str(uuid4()) for _ in range(6)]
    answers = together(*(lambda name=name: connect(api.backend, name) for name in names))
    refused = [each for each in answers if isinstance(each, QuotaReached)]
    assert len(refused) == 4
    assert {(each.code, each.status) for each in refused} == {("accounts-quota-reached", 409)}
    assert desk.value("SELECT count(*) FROM user_integration WHERE user_id = 'u'") == 2


def test_an_account_that_is_connected_again_needs_no_place(api, desk, together) -> None:
    bound(desk.conn, accounts=1)
    answers = together(*[lambda: connect(api.backend, "same")] * 4)
    assert len({each.id for each in answers}) == 1
    bound(desk.conn, accounts=0)
    assert not connect(api.backend, "same").is_new
    with pytest.raises(QuotaReached):
        connect(api.backend, "another")


# Defaults and surfaces


def test_a_user_without_a_quota_of_its_own_has_the_default(desk) -> None:
    quotas.set_default(desk.conn, {"accounts": 5, "bytes": None, "runs": 7})
    quotas.set_quotas(desk.conn, "u", {Quota.RUNS: None, Quota.BYTES: 10})
    shown = service.of_user(desk.conn, "u")
    assert {name: shown[name]["most"] for name in Quota} == {
        "accounts": 5,
        "bytes": 10,
        "runs": None,
    }
    assert [shown[name]["is_default"] for name in Quota] == [True, False, False]
    quotas.set_default(desk.conn, {"accounts": 5, "bytes": None, "runs": 8})
    assert service.of_user(desk.conn, "w")["runs"]["most"] == 8
    assert [row["user_id"] for row in service.of_all(desk.conn)] == ["u"]
    assert EVERYONE not in desk.rows("SELECT user_id FROM user_day")


def test_operators_set_quotas_and_users_see_their_own(api, desk) -> None:
    desk.keep(desk.account(user_id="ann"), TaskOutput("1", "x" * 100))
    ann = api.user("ann")
    path = "/v1/users/ann/quotas"
    changed = api.admin.patch(path, json={"accounts": 3, "bytes": 100}).json()
    assert changed["accounts"] == {"used": 1, "most": 3, "is_default": False}
    assert changed["bytes"] == {"used": 100, "most": 100, "is_default": False}
    assert changed["runs"]["most"] is None
    assert ann.get(path).json() == changed | {
        "runs_reset_at": ann.get(path).json()["runs_reset_at"]
    }
    account = desk.value("SELECT id FROM user_integration")
    problem = ann.post(f"/v1/user-integrations/{account}/sync")
    assert (problem.status_code, problem.json()["code"]) == (409, "bytes-quota-reached")
    shown = ann.get(f"/v1/user-integrations/{account}").json()
    assert "100 B of 100 B" in str(shown)
    api.admin.patch(path, json={"bytes": None, "runs": 0})
    problem = ann.post(f"/v1/user-integrations/{account}/sync")
    assert (problem.status_code, problem.json()["code"]) == (429, "runs-quota-reached")
    resets_at = datetime.fromisoformat(ann.get(path).json()["runs_reset_at"])
    left = (resets_at - datetime.now(UTC)).total_seconds()
    assert left <= int(problem.headers["Retry-After"]) <= left + 60
    assert "0 of 0 runs" in str(ann.get(f"/v1/user-integrations/{account}").json())
    assert api.admin.patch(path, json={"runs": "default"}).json()["runs"]["is_default"]
    assert ann.patch(path, json={"runs": 9}).status_code == 403
    assert api.user("bob").get(path).status_code == 403
    for wrong in ({"runs": -1}, {"runs": 2**63}, {"runs": "many"}, {"tasks": 1}):
        assert api.admin.patch(path, json=wrong).status_code == 422


def test_an_integer_may_have_a_decimal_point(api) -> None:
    changed = api.admin.patch("/v1/users/ann/quotas", json={"accounts": 2.0})
    assert changed.json()["accounts"]["most"] == 2
    for wrong in (2.5, True, "2"):
        answer = api.admin.patch("/v1/users/ann/quotas", json={"accounts": wrong})
        assert answer.status_code == 422


def test_all_ways_in_beside_each_other_exceed_no_quota(
    dashboard, desk, connections, together
) -> None:
    """Commands, REST, forms, hints, the schedule and a leader compete for two quotas."""
    bound(desk.conn, "ann", accounts=3, runs=5)
    user, browser = dashboard.user("ann"), dashboard.sign_in("ann")
    names = [str(number) for number in range(9)]

    def over_rest(name: str) -> int:
        body = {"integration_domain": "locked", "config": {"name": name}}
        body["credentials"] = {"password": "right"}
        return int(user.post("/v1/user-integrations", json=body).status_code)

    def by_form(name: str) -> int:
        page = "/integrations/locked/connect"
        fields = {"config.name": name, "credentials.password": "right"}
        return int(browser.submit(page, page, fields).status_code)

    def by_command(name: str) -> int:
        return 201 if connect(dashboard.backend, name, "ann").is_new else 200

    ways = (over_rest, by_form, by_command)
    answers = together(
        *(lambda name=name, way=ways[int(name) % 3]: way(name) for name in names)  # type: ignore[misc]
    )
    made = [each for each in answers if each in (201, 303)]
    assert len(made) == 3, answers
    accounts = [id for (id,) in desk.rows("SELECT id FROM user_integration WHERE user_id = 'ann'")]
    assert len(accounts) == 3

    def scheduled() -> int:
        with connections() as conn:
            return len(scheduling.claim_due(conn, 2).runs)

    def hinted(account: UUID) -> int:
        with connections() as conn:
            return int(hints.add(conn, account))

    def ended() -> None:
        """End all runs, so that the next ones may begin."""
        with connections() as conn:
            conn.execute("UPDATE sync_run SET state = 'succeeded', finished_at = now()")
            conn.execute("UPDATE user_integration SET next_sync_at = clock_timestamp()")

    for _ in range(4):
        ended()
        path = f"/v1/user-integrations/{accounts[0]}/sync"
        together(
            scheduled,
            scheduled,
            lambda path=path: user.post(path).status_code,  # type: ignore[misc]
            lambda: browser.post(f"/accounts/{accounts[1]}/sync").status_code,
            lambda: hinted(accounts[2]),
            lambda: hinted(accounts[0]),
        )
    begun = (
        "SELECT count(*) FROM sync_run r JOIN user_integration a ON a.id = r.user_integration_id"
    )
    assert desk.value(f"{begun} WHERE a.user_id = 'ann'") == desk.value(BEGUN, "ann") == 5
