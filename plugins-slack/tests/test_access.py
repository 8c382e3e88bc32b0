"""Readable channels, the effect of errors, and the use of limits."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fake_slack import Fake
from fake_slack.server import BOT, HANGS_UP, USER
from integration_polling_slack import Config, Credentials, Slack

from core import (
    ConfigurationError,
    CredentialsInvalid,
    PermanentError,
    Rate,
    RateLimited,
    TransientError,
    Unavailable,
)
from core.testing import Harness


def texts(harness: Harness) -> set[str]:
    return {item.text for item in harness.content.values() if item.kind == "message"}


def channels(harness: Harness) -> dict[str | None, Any]:
    """Return the reason why each channel cannot be read, by the channel's name."""
    rows = [item for item in harness.content.values() if item.kind == "channel"]
    return {item.name: item.metadata["unreadable"] for item in rows}


def posted(fake: Fake, name: str, text: str = "", **fields: Any) -> Any:
    channel = fake.workspace.add_channel(name, **fields)
    fake.workspace.post(channel, text or f"in {name or channel.id}")
    return channel


@pytest.fixture
def many(fake: Fake) -> Fake:
    """A workspace with a channel of every type."""
    posted(fake, "general")
    posted(fake, "random")
    posted(fake, "elsewhere", is_member=False)
    posted(fake, "secret", type="private_channel")
    posted(fake, "", "to you", id="D1", type="im", user="U2")
    posted(fake, "mpdm-ann--björn-1", "to both", id="G9", type="mpim")
    return fake


def test_only_channels_of_the_configured_types_are_read(
    many: Fake, connect: Any, sync: Any
) -> None:
    assert texts(sync_of(connect(), sync)) == {"in general", "in random", "in secret"}
    assert texts(sync_of(connect(types=["im", "mpim"]), sync)) == {"to you", "to both"}
    asked = [call.arguments["types"] for call in many.called("conversations.list")]
    assert asked == ["public_channel,private_channel", "im,mpim"]


def sync_of(harness: Harness, sync: Any) -> Harness:
    sync(harness)
    return harness


def test_channels_can_be_selected_by_name_and_by_id(many: Fake, connect: Any, sync: Any) -> None:
    many.page_cap = 2
    random = next(one for one in many.workspace.channels.values() if one.name == "random")
    harness = sync_of(connect(channels=["#General", random.id, "nowhere"]), sync)
    assert texts(harness) == {"in general", "in random"}
    assert channels(harness) == {"#general": None, "#random": None, "nowhere": "not found"}
    posted(many, "nowhere")
    sync(harness)
    assert channels(harness) == {"#general": None, "#random": None, "#nowhere": None}


def test_a_bot_reads_its_channels_and_users_read_all_public_ones(
    many: Fake, connect: Any, sync: Any
) -> None:
    bot, person = sync_of(connect(), sync), sync_of(connect(USER), sync)
    assert channels(bot)["#elsewhere"] == "not_in_channel"
    assert "in elsewhere" not in texts(bot)
    assert "in elsewhere" in texts(person)


def test_the_bot_joins_channels_only_if_configured(many: Fake, connect: Any, sync: Any) -> None:
    posted(many, "old", is_member=False, is_archived=True)
    sync(connect())
    sync(connect(USER, join_public=True))
    assert not many.called("conversations.join")
    harness = sync_of(connect(join_public=True), sync)
    assert [call.arguments["channel"] for call in many.called("conversations.join")] == ["C0003"]
    assert "in elsewhere" in texts(harness)
    assert channels(harness)["#old"] == "not_in_channel"


def test_a_channel_that_cannot_be_joined_is_shown(many: Fake, connect: Any, sync: Any) -> None:
    many.fail("conversations.join", "method_not_supported_for_channel_type")
    harness = sync_of(connect(join_public=True), sync)
    assert channels(harness)["#elsewhere"] == "method_not_supported_for_channel_type"


@pytest.mark.parametrize("code", ["not_in_channel", "channel_not_found", "is_archived"])
def test_a_channel_that_cannot_be_read_is_skipped_and_shown(
    many: Fake, connect: Any, sync: Any, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The channel's cursor stays, and the other channels are read.

    When the channel becomes readable again, it continues at its cursor.
    """
    harness = sync_of(connect(), sync)
    general = many.workspace.channels["C0001"]
    cursor = harness.state["channel/C0001"]["newest_ts"]
    general.error = code
    many.workspace.post(general, "unseen")
    many.workspace.post(many.workspace.channels["C0002"], "seen")
    assert not sync(harness).parked
    assert "seen" in texts(harness)
    assert "in general" in texts(harness)
    assert channels(harness)["#general"] == code
    assert harness.state["channel/C0001"]["newest_ts"] == cursor
    assert f"channel C0001 skipped: conversations.history: {code}" in caplog.text
    assert sync(harness).outputs_saved == 0
    general.error = ""
    sync(harness)
    assert "unseen" in texts(harness)
    assert channels(harness)["#general"] is None


def test_a_channel_that_becomes_readable_is_read(many: Fake, connect: Any, sync: Any) -> None:
    general = many.workspace.channels["C0001"]
    general.error = "not_in_channel"
    harness = sync_of(connect(), sync)
    assert channels(harness)["#general"] == "not_in_channel"
    general.error = ""
    assert "in general" in texts(sync_of(harness, sync))


@pytest.mark.parametrize("code", ["missing_scope", "never_heard_of"])
def test_permanent_errors_park_one_channel(many: Fake, connect: Any, code: str) -> None:
    many.fail("conversations.history", code, when=lambda arguments: arguments["channel"] == "C0001")
    harness = connect()
    result = harness.sync()
    assert result.state == "partial"
    assert [type(parked.error) for parked in result.parked] == [PermanentError]
    assert code in str(result.parked[0].error)
    assert texts(harness) == {"in random", "in secret"}


def test_the_error_names_the_missing_scope(many: Fake, connect: Any) -> None:
    body = (
        b'{"ok": false, "error": "missing_scope", "needed": "groups:history", "provided":'
        b' "users:read"}'
    )
    many.fail("conversations.history", body=body)
    assert "groups:history" in str(connect().sync().parked[0].error)


@pytest.mark.parametrize(
    "code",
    [
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
    ],
)
def test_transient_errors_are_tried_again(many: Fake, connect: Any, sync: Any, code: str) -> None:
    many.fail("conversations.history", code, times=2)
    result = sync(connect())
    assert [named(error) for error in result.failures] == [("conversations.history", None)] * 2


def named(error: Exception) -> tuple[str | None, float | None]:
    """Return the limit and the pause that `Unavailable` names."""
    assert isinstance(error, Unavailable)
    return error.limit, error.retry_after


@pytest.mark.parametrize("method", ["conversations.history", "users.list", "conversations.list"])
def test_a_server_error_concerns_only_its_method(
    many: Fake, connect: Any, sync: Any, method: str
) -> None:
    """The limit is one of the account's, so the engine holds back only this method's tasks."""
    many.fail(method, status=503, body=b"<html>upstream", Retry_After="7")
    harness = connect()
    [error] = sync(harness).failures
    assert named(error) == (method, 7.0)
    assert method in {limit.name for limit in Slack.limits(Config())}


def test_a_probe_is_one_call(many: Fake) -> None:
    slack = Slack(Config(), Credentials.model_validate({"token": BOT}))
    slack.probe()
    assert [call.method for call in many.calls] == ["auth.test"]


@pytest.mark.parametrize(
    "failure", [{"status": 503}, {"error": "internal_error"}, {"status": HANGS_UP}]
)
def test_a_probe_shows_that_slack_does_not_answer(fake: Fake, failure: dict[str, Any]) -> None:
    fake.fail("auth.test", **failure)
    with pytest.raises(TransientError):
        Slack(Config(), Credentials.model_validate({"token": BOT})).probe()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"<html>upstream</html>"),
        (500, b""),
        (200, b"<html>maintenance</html>"),
        (200, b"[]"),
        (200, b'{"ok": true}'),
    ],
)
def test_invalid_responses_are_tried_again(
    many: Fake, connect: Any, sync: Any, status: int, body: bytes
) -> None:
    many.fail("conversations.history", status=status, body=body)
    result = sync(connect())
    assert len(result.failures) == 1
    assert isinstance(result.failures[0], TransientError), result.failures


@pytest.mark.parametrize(
    "code", ["invalid_auth", "token_revoked", "account_inactive", "not_authed"]
)
def test_credentials_errors_stop_the_account(many: Fake, connect: Any, code: str) -> None:
    harness = connect()
    many.tokens[BOT] = code
    result = harness.sync()
    assert isinstance(result.error, CredentialsInvalid)
    many.tokens[BOT] = "bot"
    assert harness.sync().state == "succeeded"
    assert "in general" in texts(harness)


def test_429_blocks_one_method_until_retry_after(many: Fake, connect: Any, sync: Any) -> None:
    many.workspace.post(
        many.workspace.channels["C0002"], "reply", thread=many.workspace.channels["C0002"].top[0]
    )
    many.fail("conversations.history", "ratelimited", status=429, Retry_After="37")
    harness = connect()
    result = sync(harness)
    [error] = result.failures
    assert isinstance(error, RateLimited)
    assert (error.limit, error.retry_after) == ("conversations.history", 37.0)
    assert harness.clock == 37.0
    assert texts(harness) >= {"in general", "reply"}


def test_ratelimited_with_http_200_is_a_rate_limit(many: Fake, connect: Any, sync: Any) -> None:
    many.fail("users.list", "ratelimited", Retry_After="nonsense")
    [error] = sync(connect()).failures
    assert isinstance(error, RateLimited)
    assert (error.limit, error.retry_after) == ("users.list", None)


def test_a_call_neither_sleeps_nor_retries(
    many: Fake, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("a worker's thread sleeps"))
    many.fail(
        "conversations.history",
        "ratelimited",
        status=429,
        Retry_After="37",
        when=lambda one: one["channel"] == "C0001",
    )
    many.fail("conversations.replies", status=503, body=b"away")
    connect().sync()
    refused = [call for call in many.called("conversations.history") if call.status == 429]
    assert len(refused) == 1


def test_a_lost_connection_is_retried_only_by_the_engine(
    many: Fake, connect: Any, sync: Any
) -> None:
    """The SDK's own retries would sleep, and would make calls without using the budget."""
    many.fail("conversations.history", status=HANGS_UP, body=b"")
    [error] = sync(connect()).failures
    assert isinstance(error, TransientError)
    assert getattr(error, "limit", None) is None, "a lost connection concerns the complete account"


def test_each_method_has_a_limit_per_workspace() -> None:
    for kind, units in (("internal", 50), ("marketplace", 50), ("distributed", 1)):
        limits = {limit.name: limit for limit in Slack.limits(Config(app_kind=kind))}
        assert limits["conversations.history"] == Rate(
            "conversations.history", units, 60, by="group"
        )
        assert limits["conversations.replies"] == Rate(
            "conversations.replies", units, 60, by="group"
        )
        assert limits["users.list"] == Rate("users.list", 20, 60, by="group")


def test_every_call_of_a_tiered_method_has_a_cost(many: Fake, connect: Any, sync: Any) -> None:
    """The tasks' costs equal the number of calls."""
    many.workspace.post(
        many.workspace.channels["C0001"], "reply", thread=many.workspace.channels["C0001"].top[0]
    )
    many.workspace.upload(many.workspace.channels["C0001"], b"bytes")
    harness = connect(files="all", join_public=True)
    sync(harness)
    paid: dict[str, int] = {}
    for task in harness.tasks:
        for name, units in Slack.task_specs[task.type].cost.items():
            paid[name] = paid.get(name, 0) + units
    made = {name: len(many.called("file" if name == "files" else name)) for name in paid}
    assert paid == made
    assert set(paid) >= {
        "conversations.history",
        "conversations.replies",
        "conversations.join",
        "users.list",
        "files",
    }


def test_a_distributed_app_requests_15_messages_a_call(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 15
    channel = fake.workspace.add_channel("general")
    for number in range(100):
        fake.workspace.post(channel, f"message {number}")
    for number in range(40):
        fake.workspace.post(channel, f"reply {number}", thread=channel.top[50])
    harness = connect(app_kind="distributed")
    sync(harness)
    assert len(texts(harness)) == 140
    limits = {
        call.arguments["limit"]
        for name in ("history", "replies")
        for call in fake.called(f"conversations.{name}")
    }
    assert limits == {"15"}


def test_the_group_is_workspace_and_app(many: Fake, connect: Any) -> None:
    identity = connect().check()
    assert (identity.id, identity.name, identity.group) == ("T1:UBOT", "Acme: polling", "T1:A1")
    assert connect(USER).check().group == "T1:1111.2222", (
        "a user's token does not name its app, so it is the operator's"
    )
    many.fail("bots.info", "missing_scope")
    assert connect().check().group == "T1:1111.2222"


def test_scopes_are_checked_when_an_account_is_connected(many: Fake, connect: Any) -> None:
    many.scopes = "users:read,channels:read,channels:history,groups:read"
    with pytest.raises(ConfigurationError, match="groups:history"):
        connect().check()
    assert connect(types=["public"]).check()
    with pytest.raises(ConfigurationError, match="channels:join, files:read"):
        connect(types=["public"], files="all", join_public=True).check()


def test_messages_are_kept_if_people_cannot_be_listed(many: Fake, connect: Any, sync: Any) -> None:
    many.fail("users.list", "missing_scope")
    many.fail("users.info", "missing_scope", times=100)
    many.workspace.post(many.workspace.channels["C0001"], "for <@U2>")
    assert "for @U2" in texts(sync_of(connect(), sync))


def test_messages_are_kept_if_user_groups_cannot_be_listed(
    many: Fake, connect: Any, sync: Any
) -> None:
    many.fail("usergroups.list", "missing_scope")
    assert "in general" in texts(sync_of(connect(), sync))


@pytest.mark.parametrize("method", ["users.list", "conversations.list"])
def test_a_listing_without_an_end_is_parked(many: Fake, connect: Any, method: str) -> None:
    body = (
        b'{"ok": true, "members": [], "channels": [], "response_metadata": {"next_cursor": "same"}}'
    )
    many.fail(method, body=body, times=100)
    result = connect().sync()
    assert "repeats its pages" in str(result.parked[0].error)
    assert len(many.called(method)) == 2


def test_all_pages_of_people_and_channels_are_listed(fake: Fake, connect: Any, sync: Any) -> None:
    fake.page_cap = 10
    for number in range(35):
        fake.workspace.add_user(f"U9{number:03}", f"Person {number}")
        posted(fake, f"channel-{number:02}", f"ask <@U9{number:03}> in <#C{35 - number:04}>")
    harness = sync_of(connect(), sync)
    assert "ask @Person 0 in #channel-34" in texts(harness)
    assert len(texts(harness)) == 35
    assert len([item for item in harness.content.values() if item.kind == "user"]) == 38
    fake.calls.clear()
    sync(harness, "schedule")
    assert len(fake.called("conversations.history")) == 35


@pytest.mark.parametrize("method", ["users.list", "conversations.list"])
def test_a_listing_restarts_if_its_cursor_expires(
    fake: Fake, connect: Any, sync: Any, method: str
) -> None:
    fake.page_cap = 10
    for number in range(25):
        fake.workspace.add_user(f"U9{number:03}", f"Person {number}")
        posted(fake, f"channel-{number:02}", f"ask <@U9{number:03}>")

    def expire(called: str, arguments: dict[str, str]) -> None:
        if called == method and "cursor" in arguments:
            fake.before = None
            fake.cursor_epoch += 1

    fake.before = expire
    harness = sync_of(connect(), sync)
    assert texts(harness) == {f"ask @Person {number}" for number in range(25)}


def test_a_listing_is_parked_if_its_cursor_never_works(many: Fake, connect: Any) -> None:
    many.page_cap = 2
    many.fail(
        "conversations.list",
        "invalid_cursor",
        times=100,
        when=lambda arguments: "cursor" in arguments,
    )
    [parked] = connect().sync().parked
    assert "repeatedly rejected" in str(parked.error)


def test_many_people_are_listed_less_often(fake: Fake, connect: Any, sync: Any) -> None:
    """Some 250 pages would take longer than the time between two runs."""
    fake.page_cap = 5
    posted(fake, "general")
    for number in range(40):
        fake.workspace.add_user(f"U9{number:03}", f"Person {number}")
    harness = sync_of(connect(), sync)
    for trigger, pages in (("schedule", 0), ("manual", 9)):
        fake.calls.clear()
        sync(harness, trigger)
        assert len(fake.called("users.list")) == pages
    harness.state["people"]["listed_at"] = "2020-01-01T00:00:00Z"
    sync(harness, "schedule")
    assert len(fake.called("users.list")) == 18


def test_objects_with_invalid_ids_are_left_out(many: Fake, connect: Any, sync: Any) -> None:
    many.workspace.add_user("../U1", "Mallory")
    many.workspace.add_channel("odd", id="C:1:2")
    many.workspace.add_channel("long", id="C" * 5_000)
    harness = sync_of(connect(), sync)
    assert texts(harness) == {"in general", "in random", "in secret"}
    assert not [id for id in harness.content if "/" in id or len(id) > 100]


@pytest.mark.parametrize("name", ["secret", "random"])
def test_a_channel_that_is_no_longer_listed_is_shown(
    many: Fake, connect: Any, sync: Any, name: str
) -> None:
    """The channel was deleted or has become private, and the bot is not in it.

    The kept messages stay.
    """
    harness = sync_of(connect(), sync)
    channel = next(one for one in many.workspace.channels.values() if one.name == name)
    channel.type, channel.is_member = "private_channel", False
    for _ in range(2):
        sync(harness)
        assert channels(harness)[f"#{name}"] == "channel_not_found"
        assert f"in {name}" in texts(harness)
    channel.is_member = True
    many.workspace.post(channel, "back again")
    sync(harness)
    assert channels(harness)[f"#{name}"] is None
    assert "back again" in texts(harness)


def test_channels_of_a_type_removed_from_the_config_stay_unchanged(
    many: Fake, connect: Any, sync: Any
) -> None:
    harness = sync_of(connect(), sync)
    harness._worker._config = Config(types=["public"])
    sync(harness)
    assert channels(harness)["#secret"] is None


@pytest.mark.parametrize(
    "body", [b'{"ok": true}', b'{"ok": true, "team_id": null, "user_id": "U1"}']
)
def test_a_response_without_an_owner_connects_no_account(
    many: Fake, connect: Any, body: bytes
) -> None:
    many.fail("auth.test", body=body)
    with pytest.raises(TransientError):
        connect().check()


@pytest.mark.parametrize(
    "code",
    [
        "channel_is_limited_access",
        "no_permission",
        "access_denied",
        "is_inactive",
        "restricted_action",
        "ekm_access_denied",
    ],
)
def test_a_refusal_of_one_channel_concerns_this_channel_only(
    many: Fake, connect: Any, sync: Any, code: str
) -> None:
    refused = many.workspace.channels["C0001"]
    refused.error = code
    harness = connect()
    assert "in general" not in texts(sync_of(harness, sync))
    assert harness.content["C0001"].metadata["unreadable"] == code
    assert {"in random", "in secret"} <= texts(harness)


@pytest.mark.parametrize("code", ["no_permission", "restricted_action"])
def test_a_refused_list_of_channels_is_a_failure(many: Fake, connect: Any, code: str) -> None:
    many.fail("conversations.list", code, times=9)
    assert connect().sync().state != "succeeded"


@pytest.mark.parametrize(
    "code", ["two_factor_setup_required", "team_access_not_granted", "user_removed_from_team"]
)
def test_a_refusal_of_the_account_stops_it(many: Fake, connect: Any, code: str) -> None:
    many.fail("auth.test", code, times=9)
    result = connect().sync()
    assert isinstance(result.error, CredentialsInvalid)
