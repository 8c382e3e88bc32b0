"""The versions of files: when they are equal, and when a later change may not show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from integration_polling_ftp.connection import Stat
from integration_polling_ftp.versions import (
    Version,
    is_racy,
    is_same,
    is_same_look,
    version_after,
)

NOW = datetime(2026, 11, 30, 8, 20, 5, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("known", "listed", "same"),
    [
        ("1:202601020304", "1:20260102", True),
        ("1:202601020304", "2:20260102", False),
        ("1:202601020304", "1:20260103", False),
        ("1:20260102030405", "1:20260102030406", False),
        ("1:", "1:", True),
        ("1:", "1:20260102", False),
        (None, "1:", False),
    ],
)
def test_versions_are_compared_in_the_coarser_precision(
    known: str | None, listed: str, same: bool
) -> None:
    assert is_same(known, listed) is same


@pytest.mark.parametrize(
    "text",
    ["4:20261130082005", "4:202611300820=20261130082005?", ":", "7:+", "4:20261130082005#8g1f~"],
)
def test_a_version_is_its_text(text: str) -> None:
    version = Version.parse(text)
    assert version is not None
    assert version.text == text


def test_what_is_no_version_has_none() -> None:
    assert Version.parse(None) is Version.parse("") is Version.parse("directory") is None


def test_an_id_that_could_be_mistaken_is_left_out() -> None:
    for unique in ("a~", "a#b", "x" * 65, "a b", "ü"):
        assert Version(4, "20261130082005", unique=unique).text == "4:20261130082005"


@pytest.mark.parametrize("zone", [-12 * 60, -210, 0, 60, 345, 14 * 60])
@pytest.mark.parametrize(
    ("form", "age", "racy"),
    [
        ("%Y%m%d%H%M%S", 0, True), ("%Y%m%d%H%M%S", 1, True), ("%Y%m%d%H%M%S", -3, True),
        ("%Y%m%d%H%M%S", 30, False), ("%Y%m%d%H%M%S", 600, False),
        ("%Y%m%d%H%M", 0, True), ("%Y%m%d%H%M", 55, True), ("%Y%m%d%H%M", 200, False),
        ("%Y%m%d", 3600, True),
    ],
)  # fmt: skip
def test_a_time_near_that_of_the_look_is_racy_in_every_zone(
    zone: int, form: str, age: int, racy: bool
) -> None:
    modified = (NOW - timedelta(seconds=age) + timedelta(minutes=zone)).strftime(form)
    assert is_racy(modified, NOW) is racy


def test_old_and_future_times_are_not_racy() -> None:
    for distance in (-9000 * DAY, -2 * DAY, 2 * DAY):
        assert not is_racy(f"{NOW + distance:%Y%m%d%H%M%S}", NOW)
    assert not is_racy("", NOW)


def test_after_a_second_look_the_clocks_do_not_matter() -> None:
    assert not is_racy(f"{NOW:%Y%m%d%H%M%S}", NOW, settled=10)
    assert is_racy(f"{NOW:%Y%m%d%H%M}", NOW, settled=10)
    assert not is_racy(f"{NOW:%Y%m%d%H%M}", NOW, settled=61)


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        (Stat(4, "202611300820"), Stat(4, "20261130082005"), True),
        (Stat(4, "202611300920"), Stat(4, "20261130082005"), True),
        (Stat(4, "202611300921"), Stat(4, "20261130082005"), False),
        (Stat(4, "202611300920"), Stat(5, "20261130082005"), False),
        (Stat(4, "20261130092005"), Stat(4, "20261130082005"), False),
        (Stat(4, "202612010920"), Stat(4, "20261129082005"), False),
        (Stat(4, "20261201"), Stat(4, "20261130232005"), True),
        (Stat(), Stat(), True),
    ],
)
def test_the_exact_time_may_be_of_another_zone(before: Stat, now: Stat, same: bool) -> None:
    assert is_same_look(before, now) is same


def test_a_version_keeps_the_time_as_the_listing_shows_it() -> None:
    listed, now = Stat(4, "202611200920"), Stat(4, "20261120082005")
    version = version_after(listed, now, "", "", NOW, 0)
    assert version.text == "4:202611200920=20261120082005"
    assert version.time == datetime(2026, 11, 20, 8, 20, 5, tzinfo=UTC)
    assert version.is_current(listed, NOW)
    later = Stat(4, "202611201020")
    assert not version.is_current(later, NOW)
    assert version.may_be_current(later)
    assert not version.may_be_current(Stat(4, "202611200921"))


def test_a_file_that_changed_while_it_was_read_is_fetched_again() -> None:
    before, now = Stat(4, "20261130082005"), Stat(5, "20261130082105")
    assert version_after(before, now, "", "", NOW, 10).text == "5:20261130082105~"


def test_a_file_that_shows_only_its_day_is_fetched_again_when_the_day_is_over() -> None:
    version, listed = Version.parse("4:20261130~"), Stat(4, "20261130")
    assert version is not None
    assert version.is_current(listed, NOW)
    assert not version.is_current(listed, NOW + 3 * DAY)
