"""The rules for results and exceptions of tasks, without a database.

`test_two_judges` compares the engine and the kit.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.judges import Kit, Odd
from support.odd_results import EXCEPTIONS, KEPT, PARKED, RESULTS, WAITS, Deed

from core.errors import (
    CursorExpired,
    NotFound,
    PermanentError,
    ResultInvalid,
    TaskUnfit,
    TransientError,
)
from core.integration.results import MAX_ID_BYTES
from core.results import parking
from core.results.decisions import (
    MIN_DEFERRALS,
    Defer,
    Done,
    Expired,
    Park,
    Retry,
    RetryPolicy,
    Snooze,
    StopAccount,
    Wait,
    decide,
)
from core.results.parking import Cause
from core.results.result import result_rows
from core.results.signals import TimeLimitExceeded
from core.results.text import encode_json, is_storable, is_storable_json, sanitize_json
from core.testing.blobs import MemoryStore

FAILING_FOR_A_WEEK = {"failing_seconds": 7 * 86_400, "deferrals": MIN_DEFERRALS}
DOCS = Path(__file__).parents[2] / "docs"


def tries(**given: Any) -> Any:
    return SimpleNamespace(
        **{
            "attempts": 0,
            "crashes": 0,
            "snoozes": 0,
            "deferrals": 0,
            "failing_seconds": 0.0,
            "trigger": "manual",
            **given,
        }
    )


@pytest.mark.parametrize("name", PARKED)
def test_the_kit_parks_a_task_with_an_invalid_result(name: str) -> None:
    (verdict,) = Kit().judge([Deed(PARKED[name], name=name)])
    assert (verdict.state, verdict.content, verdict.states) == ("parked", {}, {})


@pytest.mark.parametrize("name", KEPT)
def test_the_kit_keeps_a_valid_result(name: str) -> None:
    (verdict,) = Kit().judge([Deed(KEPT[name], name=name)])
    assert (verdict.state, set(verdict.content) <= {"a", "b"}) == ("done", True)


@pytest.mark.parametrize("name", WAITS)
def test_the_kit_makes_a_task_wait_as_requested(name: str) -> None:
    make, seconds = WAITS[name]
    (verdict,) = Kit().judge([Deed(make, name=name)])
    assert (verdict.state, verdict.wait) == ("ready", seconds)


@given(result=RESULTS)
def test_any_result_becomes_storable_rows_or_is_refused(result: Any) -> None:
    try:
        rows = result_rows(result, Odd, MemoryStore(), {})
    except ResultInvalid:
        return
    for row in rows.outputs:
        assert 0 < len(row.id.encode()) <= MAX_ID_BYTES
        texts = [row.id, row.kind, row.parent, row.name, row.type, row.text, row.fingerprint]
        assert all(is_storable(text) for text in texts if text is not None)
        assert is_storable_json(encode_json(row.metadata, "metadata"))
    for value in [*(task.payload for task in rows.tasks), *(state.value for state in rows.states)]:
        assert is_storable_json(encode_json(value, "value"))
    assert len({row.id for row in rows.outputs}) == len(rows.outputs)


@given(
    error=EXCEPTIONS,
    attempts=st.integers(0, 5),
    snoozes=st.integers(0, 10**9),
    trigger=st.sampled_from(["manual", "resync"]),
)
def test_every_exception_has_a_decision_with_a_storable_reason(
    error: BaseException, attempts: int, snoozes: int, trigger: str
) -> None:
    decision = decide(
        error, tries(attempts=attempts, snoozes=snoozes, trigger=trigger), RetryPolicy()
    )
    assert decision.reason
    assert is_storable(decision.reason)
    if isinstance(decision, Wait | Retry | Defer | Snooze):
        assert 0 <= decision.seconds <= 86_400
    if isinstance(decision, Snooze):
        assert decision.limit is None or is_storable(decision.limit)


@pytest.mark.parametrize(
    ("error", "given", "cause"),
    [
        (PermanentError("no"), {}, Cause.REFUSED),
        (NotFound("content-not-found", content="7"), {}, Cause.REFUSED),
        (ResultInvalid("no"), {}, Cause.INVALID),
        (TaskUnfit("no"), {}, Cause.INVALID),
        (ValueError("no"), {"attempts": 2}, Cause.ATTEMPTS),
        (TransientError("no"), {"attempts": 2, **FAILING_FOR_A_WEEK}, Cause.GIVEN_UP),
        (TimeLimitExceeded("no"), {"crashes": 2}, Cause.CRASHES),
        (CursorExpired("p"), {"trigger": "resync"}, Cause.CURSOR),
        (CursorExpired("\0"), {}, Cause.CURSOR),
    ],
    ids=repr,
)
def test_the_decision_to_park_names_its_cause(
    error: BaseException, given: dict[str, Any], cause: Cause
) -> None:
    decision = decide(error, tries(**given), RetryPolicy())
    assert isinstance(decision, Park)
    assert decision.cause is cause


def test_the_causes_of_parking_are_listed_in_code_and_docs() -> None:
    assert parking.__doc__
    page = (DOCS / "reference" / "plugin-api.md").read_text("utf-8")
    for cause in Cause:
        assert f"| `{cause.name}` |" in parking.__doc__
        assert f"| `{cause}` |" in page


def test_a_limit_is_a_text_and_none_means_the_account() -> None:
    from core import RateLimited

    def limit(named: Any) -> str | None:
        decision = decide(RateLimited(limit=named), tries(), RetryPolicy())
        assert isinstance(decision, Snooze)
        return decision.limit

    assert [limit(named) for named in (None, "", "quota", "q\0", 5)] == [
        None,
        None,
        "quota",
        "q\ufffd",
        "5",
    ]


def test_errors_about_the_account_or_its_cursor_count_no_attempt() -> None:
    from core import ConfigurationError, CredentialsInvalid, SkipItem

    errors = [
        SkipItem("a draft"), CursorExpired("p"), CredentialsInvalid("no"), ConfigurationError("no"),
    ]  # fmt: skip
    assert [type(decide(error, tries(attempts=2), RetryPolicy())) for error in errors] == [
        Done,
        Expired,
        StopAccount,
        StopAccount,
    ]


TEXTS = st.text("a\0\\u0d8\ud800\udc00\U0001f600", max_size=6)


@given(value=st.dictionaries(TEXTS, st.lists(TEXTS, max_size=3), max_size=3))
def test_json_is_sanitized_like_its_texts(value: dict[str, list[str]]) -> None:
    import json

    from core.results.text import sanitize

    # JSON does not distinguish a pair of surrogates from the character that they form.
    joined = json.loads(json.dumps(value))
    expected = {sanitize(key): [sanitize(text) for text in texts] for key, texts in joined.items()}
    encoded = encode_json(value, "value")
    assert json.loads(sanitize_json(encoded)) == expected or len(expected) < len(joined)
    assert is_storable_json(encoded) == all(
        is_storable(text) for key, texts in joined.items() for text in (key, *texts)
    )
