"""Query strings, charts, and the paths to which a browser is redirected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

pytest.importorskip("jinja2", reason="needs the extra `serve`")

from core.dashboard import rendering
from core.dashboard.charts import HEIGHT, last_hour
from core.dashboard.session import local_path


def test_a_query_string_has_no_empty_parameters() -> None:
    assert rendering.query(q="a b&c", user=None, kind="") == "?q=a+b%26c"
    assert rendering.query(q=None) == ""


def test_a_chart_has_a_bar_for_each_minute_and_the_highest_fills_it() -> None:
    now = datetime(2026, 11, 23, 12, 30, 30, tzinfo=UTC)
    chart = last_hour(
        "Tasks",
        {
            datetime(2026, 11, 23, 12, 0, tzinfo=UTC): 600,
            datetime(2026, 11, 23, 12, 30, tzinfo=UTC): 150,
        },
        now,
    )
    heights = {bar.x: bar.height for bar in chart.bars if bar.height}
    assert (len(chart.bars), chart.total, chart.peak) == (60, 750, 10.0)
    assert heights == {29: HEIGHT, 59: HEIGHT / 2}, "150 in half a minute are 5 a second"


def test_a_chart_without_values_has_no_bars() -> None:
    assert not any(bar.height for bar in last_hour("Tasks", {}, datetime.now(UTC)).bars)


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("/accounts?status=error", "/accounts?status=error"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\b", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/\nX: y", "/"),
        ("", "/"),
    ],
)
def test_a_browser_is_redirected_to_paths_of_this_site_only(wanted: str, path: str) -> None:
    assert local_path(wanted) == path
