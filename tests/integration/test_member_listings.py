"""A plugin that lists members may hang, fail or tell secrets: others continue, and people see why.

The members come from two made-up integrations, whose behaviour each test chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

import pytest
from pydantic import BaseModel, SecretStr

from core import (
    AccountIdentity,
    BaseIntegration,
    CredentialsInvalid,
    Manifest,
    Member,
    NoFields,
    PermanentError,
    RateLimited,
    TransientError,
    Unavailable,
)
from core.errors import PollingError
from core.ledger import organizations as ledger
from core.service import organizations
from core.worker import members as worker_members
from core.worker.members import Members

Behaviour = Callable[[], Iterable[Member]]
ONE = Member("1", "one")
SECRETS = {"pin": "pin7", "note": "tulip2field"}
"""A declared secret, and one that no model declares."""

SHOWN = "SELECT problem, listed_at IS NOT NULL, members FROM organization WHERE id = %s"


class Key(BaseModel, extra="ignore"):
    club: str = ""
    pin: SecretStr = SecretStr("")


class Club(BaseIntegration[NoFields, Key]):
    manifest = Manifest("club", "Club")
    behaviour: ClassVar[dict[str, Behaviour]] = {}

    @classmethod
    def members(
        cls, settings: Any, credentials: Mapping[str, Any], listed: Sequence[str] | None
    ) -> Iterable[Member]:
        yield from cls.behaviour.get(credentials["club"], lambda: [ONE])()

    def check(self) -> AccountIdentity:
        return AccountIdentity("one", "one")


class Guild(Club):
    manifest = Manifest("guild", "Guild")


@pytest.fixture
def integrations() -> Sequence[Any]:
    return (Club, Guild)


@pytest.fixture
def behaviour() -> Iterator[dict[str, Behaviour]]:
    Club.behaviour.clear()
    yield Club.behaviour
    Club.behaviour.clear()


@pytest.fixture
def worker(backend) -> Iterator[Members]:
    running = Members(backend.database, backend.vault, backend.registry, backend.egress)
    yield running
    running.close()


class Hanging:
    """A plugin that hangs until the end of the test, or until it is released."""

    def __init__(self) -> None:
        self.reached, self.released, self.left = (threading.Event() for _ in range(3))

    def __call__(self) -> Iterable[Member]:
        self.reached.set()
        try:
            self.released.wait()
            return [ONE]
        finally:
            self.left.set()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    plugin = Hanging()
    yield plugin
    plugin.released.set()


@pytest.fixture
def connected(backend, behaviour) -> Callable[..., UUID]:
    """Return `connected(club, domain)`, which stores an organization with one member."""

    def connect(club: str, domain: str = "club", **more: Any) -> UUID:
        return organizations.connect(
            backend, domain, name=club, user_id=f"{club} {{member}}",
            credentials={"club": club} | more,
        ).id  # fmt: skip

    return connect


@pytest.fixture
def rows(backend) -> Callable[..., Any]:
    def fetch(statement: str, *params: Any) -> Any:
        with backend.database.connection() as conn:
            return conn.execute(statement, params).fetchone()

    return fetch


def due(backend, *ids: UUID) -> None:
    """Let the members of these organizations be listed, the first one first; no others."""
    later = "UPDATE organization SET members_due_at = now() + interval '50 minutes'"
    now = "UPDATE organization SET members_due_at = now() - %s * interval '1 s' WHERE id = %s"
    with backend.database.connection() as conn:
        conn.execute(later)
        for number, id in enumerate(reversed(ids)):
            conn.execute(now, (number, id))


def test_a_plugin_that_hangs_stops_no_listing_of_another_integration(
    backend, behaviour, connected, hanging: Hanging, worker: Members, rows, until
) -> None:
    first, other = connected("a"), connected("b", "guild")
    behaviour["a"] = hanging
    behaviour["b"] = lambda: [ONE, Member("2", "two")]
    due(backend, first, other)
    worker.open(["club", "guild", "unknown"])
    until(lambda: rows(SHOWN, other)[2] == 2)
    assert hanging.reached.wait(20)
    assert not hanging.left.is_set()
    assert rows(SHOWN, first) == (None, True, 1), "its deadline has not passed"


def test_a_plugin_that_hangs_stops_no_listing_of_another_organization(
    backend, behaviour, connected, hanging: Hanging, worker: Members, rows, until, monkeypatch
) -> None:
    monkeypatch.setattr(worker_members, "LISTING_SECONDS", 0.3)
    first, other = connected("a"), connected("b")
    behaviour["a"] = hanging
    behaviour["b"] = lambda: [ONE, Member("2", "two")]
    due(backend, first, other)
    worker.open(["club"])
    until(lambda: rows(SHOWN, other)[2] == 2)
    assert "did not list the members within 0.005 minutes" in rows(SHOWN, first)[0]
    assert not hanging.left.is_set()


def test_an_organization_is_listed_again_after_its_thread_has_ended(
    backend, behaviour, connected, hanging: Hanging, worker: Members, rows, until, monkeypatch
) -> None:
    first, other = connected("a"), connected("b")
    behaviour["a"] = hanging
    due(backend, first)
    with monkeypatch.context() as short:
        short.setattr(worker_members, "LISTING_SECONDS", 0.1)
        assert worker.list_next("club")
    due(backend, first, other)
    with monkeypatch.context() as few:
        few.setattr(worker_members, "MAX_STUCK", 1)
        assert not worker.list_next("club"), "no more threads"
    assert worker.list_next("club")
    assert not worker.list_next("club"), "one thread for each organization"
    assert rows(SHOWN, first)[0] is not None
    hanging.released.set()
    until(lambda: worker.list_next("club"))
    assert rows(SHOWN, first) == (None, True, 1)


def test_a_listing_whose_process_was_killed_is_repeated(
    backend, behaviour, connected, worker: Members, rows
) -> None:
    id = connected("a")
    due(backend, id)
    with backend.database.connection() as conn:
        assert ledger.claim(conn, "club") is not None
    assert not worker.list_next("club"), "the other process lists them"
    left = rows("SELECT members_due_at - clock_timestamp() FROM organization")[0]
    assert left.total_seconds() <= ledger.CLAIM_SECONDS < 3_600


def test_a_process_renews_its_claim_while_it_lists_members(
    backend, behaviour, connected, hanging: Hanging, worker: Members, rows, until, monkeypatch
) -> None:
    def claimed() -> float:
        left = rows("SELECT members_due_at - clock_timestamp() FROM organization")[0]
        return float(left.total_seconds())

    monkeypatch.setattr(ledger, "RENEW_SECONDS", 0.01)
    id = connected("a")
    behaviour["a"] = hanging
    due(backend, id)
    thread = threading.Thread(target=worker.list_next, args=("club",))
    thread.start()
    assert hanging.reached.wait(20)
    aged = (
        "UPDATE organization SET members_due_at = clock_timestamp() + interval '20 s' RETURNING 1"
    )
    rows(aged)
    until(lambda: claimed() > 60)
    with backend.database.connection() as conn:
        ledger.list_soon(conn, id)
    assert claimed() < 0
    hanging.released.set()
    thread.join(20)
    assert rows(SHOWN, id) == (None, True, 1)


HOUR, SOON = 3_600, 300
FAILURES = [
    (PermanentError("no"), HOUR, "no"),
    (CredentialsInvalid("no", remedy="Correct it"), HOUR, "no. Correct it"),
    (ZeroDivisionError("x"), HOUR, "the plugin failed: ZeroDivisionError"),
    (SystemExit(1), HOUR, "the plugin failed: SystemExit"),
    (TransientError("later"), SOON, "later"),
    (ConnectionResetError("x"), SOON, "the plugin failed: ConnectionResetError"),
    (Unavailable("down", retry_after=1_800), 1_800, "down"),
    (Unavailable("down", retry_after=5), SOON, "down"),
    (RateLimited("slow", retry_after=90_000), HOUR, "slow"),
    (RateLimited("slow", retry_after=float("nan")), SOON, "slow"),
    (RateLimited("slow", retry_after=float("inf")), HOUR, "slow"),
    (RateLimited("slow", retry_after="5"), SOON, "slow"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("error", "seconds", "problem"), FAILURES, ids=str)
def test_a_listing_that_failed_is_tried_again_when_the_provider_may_answer(
    backend, behaviour, connected, worker: Members, rows, error, seconds: int, problem: str
) -> None:
    def fail() -> Iterable[Member]:
        yield ONE
        raise error

    id = connected("a")
    behaviour["a"] = fail
    due(backend, id)
    assert worker.list_next("club")
    assert rows(SHOWN, id) == (problem, True, 1)
    statement = "SELECT extract(epoch FROM members_due_at - updated_at) FROM organization"
    assert abs(int(rows(statement)[0]) - seconds) <= 5
    behaviour.clear()
    due(backend, id)
    assert worker.list_next("club")
    assert rows(SHOWN, id)[0] is None


def test_no_secret_of_an_organization_reaches_people(
    backend, behaviour, connected, worker: Members, rows, caplog: pytest.LogCaptureFixture
) -> None:
    id = connected("tulip", **SECRETS)

    def fail() -> Iterable[Member]:
        raise PermanentError(f"the key {SECRETS['pin']} of tulip ({SECRETS['note']}) is wrong")

    behaviour["tulip"] = fail
    due(backend, id)
    assert worker.list_next("club")
    problem = "the key *** of tulip (***) is wrong"
    assert rows(SHOWN, id)[0] == problem
    assert problem in caplog.text
    for ask in (
        lambda: organizations.sync(backend, id),
        lambda: connected("tulip", **SECRETS),
    ):
        with pytest.raises(PollingError) as raised:
            ask()
        assert problem in str(raised.value)
    assert problem in rows(SHOWN, id)[0]
