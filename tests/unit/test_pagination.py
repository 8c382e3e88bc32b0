"""Cursors: each leads to the row at which its page ended, and other texts are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInput
from core.service import tokens
from core.service.accounts import queries as account_queries
from core.service.content import changes
from core.service.content import listing as content_listing
from core.service.content import queries as content_queries
from core.service.pagination import MAX_PAGE_ROWS, Keyset, bounded, encode_cursor
from core.service.runs import listing as run_listing
from core.service.runs import parked
from core.service.runs import queries as run_queries
from core.service.runs import tree as run_tree

KEYS = {
    "accounts": account_queries.accounts.key,
    "runs": run_queries.runs.key,
    "tasks": run_queries.tasks.key,
    "content": content_queries.content.key,
    "content of an account": content_queries.content_of_account.key,
    "states": account_queries.states.key,
    "tokens": tokens.tokens.key,
    "changes": changes.KEY,
    "history": run_listing.KEY,
    "parked": parked.KEY,
    "search": content_listing.KEY,
    "tree": run_tree.KEY,
}
ZONES = st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-900, 900))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "timestamptz": st.datetimes(timezones=ZONES),
    "uuid": st.uuids(),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
ROW = (datetime(2026, 1, 2, tzinfo=UTC), UUID(int=7))


@pytest.mark.parametrize("which", KEYS)
@given(st.data())
def test_a_cursor_contains_the_key_of_its_row(which: str, data: st.DataObject) -> None:
    key = KEYS[which]
    row = {column: data.draw(VALUES[kind]) for column, kind in key.columns.items()}
    cursor = key.encode(row)
    assert dict(zip(key.columns, key.decode(cursor), strict=True)) == row
    assert key.params(10, cursor) == {"limit": 11} | {f"after_{name}": row[name] for name in row}


@pytest.mark.parametrize("which", KEYS)
@given(st.lists(JSON, max_size=4))
def test_any_other_values_are_refused_or_are_a_valid_key(which: str, values: list[Any]) -> None:
    """PostgreSQL can compare every accepted value with its column."""
    key = KEYS[which]
    try:
        found = key.decode(encode_cursor(values))
    except InvalidInput:
        return
    types = {"bigint": int, "text": str, "timestamptz": datetime, "uuid": UUID}
    for value, kind in zip(found, key.columns.values(), strict=True):
        assert type(value) is types[kind]
        assert kind != "bigint" or -(2**63) <= value < 2**63
        assert kind != "text" or not set(value) & {"\0", "\ud800"}


@pytest.mark.parametrize("which", KEYS)
@pytest.mark.parametrize("cursor", ["", "x", "W10", "eyJhIjoxfQ", "\ud800", "é", "W1tb" * 9_000])
def test_an_invalid_cursor_is_refused(which: str, cursor: str) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid cursor"):
        KEYS[which].params(10, cursor)


@pytest.mark.parametrize(
    "place",
    [
        (ROW[0].replace(tzinfo=None), ROW[1]),
        ("infinity", ROW[1]),
        ("0000-00-00", ROW[1]),
        (ROW[0], "7"),
        (ROW[0],),
        (*ROW, 1),
        (1, ROW[1]),
        (ROW[0], None),
    ],
)
def test_a_key_of_other_types_is_refused(place: tuple[object, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid cursor"):
        run_listing.KEY.decode(encode_cursor(place))


@pytest.mark.parametrize("text", ["\0", "a\ud800", None, 1])
def test_a_text_that_postgresql_cannot_hold_is_refused(text: object) -> None:
    with pytest.raises(InvalidInput, match=r"^invalid cursor"):
        content_queries.content_of_account.key.decode(encode_cursor([text]))


@given(st.integers(-5, 3 * MAX_PAGE_ROWS), st.integers(0, 2 * MAX_PAGE_ROWS))
def test_a_page_ends_at_its_limit(limit: int, there: int) -> None:
    key = Keyset({"id": "bigint"})
    rows = [{"id": id} for id in range(min(there, key.params(limit, None)["limit"]))]
    page = key.page(rows, limit)
    assert page.rows == rows[: bounded(limit)]
    assert 1 <= bounded(limit) <= MAX_PAGE_ROWS
    if there <= bounded(limit):
        assert page.cursor is None
    else:
        assert key.decode(page.cursor or "") == [page.rows[-1]["id"]]
