"""Files: rows of their own, streamed and limited in size.

Web pages are rejected, and only Slack gets the token.
"""

from __future__ import annotations

import os
from email.message import Message
from typing import Any
from urllib.error import HTTPError

import pytest
from fake_slack import Fake
from fake_slack.server import BOT, HANGS_UP
from fake_slack.workspace import Channel
from integration_polling_slack import Config
from integration_polling_slack.account import SlackSettings
from integration_polling_slack.files import File, _redirected, obstacle

from core import PermanentError, RateLimited, ResyncOnChange, TransientError
from core.testing import Harness, Item

DATA = os.urandom(700_000)


@pytest.fixture
def channel(fake: Fake) -> Channel:
    return fake.workspace.add_channel("general")


def files(harness: Harness) -> list[Item]:
    return [item for item in harness.content.values() if item.kind == "file"]


def test_a_file_is_kept_with_its_bytes_and_metadata(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    id = fake.workspace.upload(
        channel, DATA, "plan.pdf", mimetype="application/pdf", title="The plan"
    )
    harness = connect(files="all")
    sync(harness)
    [item] = files(harness)
    message = f"{channel.id}:{channel.top[0]}"
    assert item.content == DATA
    assert (item.id, item.parent, item.name, item.content_type) == (
        f"{message}:{id}",
        message,
        "plan.pdf",
        "application/pdf",
    )
    assert item.metadata["title"] == "The plan"
    assert harness.content[message].metadata["files"][0]["name"] == "plan.pdf"


@pytest.mark.parametrize(("mode", "kept"), [("none", 0), ("metadata", 1)])
def test_files_can_be_metadata_only_or_left_out(
    fake: Fake, channel: Channel, connect: Any, sync: Any, mode: str, kept: int
) -> None:
    fake.workspace.upload(channel, DATA)
    harness = connect(files=mode)
    sync(harness)
    assert [item.content for item in files(harness)] == [None] * kept
    assert not fake.called("file")


def test_a_file_is_fetched_once(fake: Fake, channel: Channel, connect: Any, sync: Any) -> None:
    fake.workspace.upload(channel, DATA)
    harness = connect(files="all")
    sync(harness)
    fake.workspace.edit(channel, channel.top[0], "edited")
    sync(harness)
    assert len(fake.called("file")) == 1
    assert files(harness)[0].content == DATA


def test_a_large_file_is_kept_without_content(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA, size=2_000_000)
    fake.workspace.upload(channel, b"x" * 2_000_000, "lies.bin", size=10)
    harness = connect(files="all", max_file_mb=1)
    sync(harness)
    assert [(item.content, item.metadata["skipped"]) for item in files(harness)] == [
        (None, "larger than 1 MB")
    ] * 2
    assert len(fake.called("file")) == 1, "a file with a size over the limit is not fetched"


def test_a_login_page_is_not_kept_as_a_file(fake: Fake, channel: Channel, connect: Any) -> None:
    """Without the scope files:read, Slack sends the login page with HTTP 200."""
    fake.workspace.upload(channel, DATA)
    fake.file_mode = "login"
    harness = connect(files="all")
    result = harness.sync()
    assert [type(parked.error).__name__ for parked in result.parked] == ["Refused"]
    assert "files:read" in str(result.parked[0].error)
    assert not files(harness)


def test_a_file_that_is_a_web_page_is_kept(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, b"<html>ours</html>", "ours.html", mimetype="text/html")
    harness = connect(files="all")
    sync(harness)
    assert files(harness)[0].text == "<html>ours</html>"


def test_a_login_page_in_place_of_a_web_page_is_rejected(
    fake: Fake, channel: Channel, connect: Any
) -> None:
    fake.workspace.upload(channel, b"<html>ours</html>", "ours.html", mimetype="text/html")
    fake.file_mode = "login"
    harness = connect(files="all")
    assert harness.sync().state == "partial"
    assert not files(harness)


@pytest.mark.parametrize("mode", ["redirect", "elsewhere"])
def test_redirects_are_followed_and_only_slack_gets_the_token(
    fake: Fake, channel: Channel, connect: Any, sync: Any, mode: str
) -> None:
    fake.workspace.upload(channel, DATA)
    fake.file_mode = mode
    harness = connect(files="all")
    sync(harness)
    assert files(harness)[0].content == DATA
    first, second = fake.called("file")
    assert first.token == BOT
    assert second.token == (BOT if mode == "redirect" else "")


def test_a_redirect_to_another_scheme_is_rejected(
    fake: Fake, channel: Channel, connect: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    fake.file_mode = "insecure"
    result = connect(files="all").sync()
    assert isinstance(result.parked[0].error, PermanentError)


def test_a_server_error_of_a_download_concerns_only_downloads(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    broken = [(503, b"", {"Retry-After": "9"}), (HANGS_UP, b"", {})]
    answer = fake.file
    fake.file = lambda *request: broken.pop(0) if broken else answer(*request)  # type: ignore[method-assign]
    result = sync(connect(files="all"))
    assert [(error.limit, error.retry_after) for error in result.failures] == [
        ("files", 9.0),
        ("files", None),
    ]


def test_an_interrupted_download_is_resumed(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    fake.file_mode = "cut"
    harness = connect(files="all")
    result = sync(harness)
    assert [type(error) for error in result.failures] == [TransientError]
    assert files(harness)[0].content == DATA
    assert fake.called("file")[1].arguments["range"].startswith("bytes=")


def test_an_expired_token_is_renewed_for_a_download(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    token, refresh = fake.rotate()

    harness = connect(token, refresh, files="all")
    answered = fake.file

    def late(path: str, headers: Any, host: str) -> Any:
        if not fake.called("oauth.v2.access"):
            fake.tokens[token] = "expired"
        return answered(path, headers, host)

    fake.file = late  # type: ignore[method-assign]
    sync(harness)
    assert files(harness)[0].content == DATA
    assert len(fake.called("oauth.v2.access")) == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mode": "external", "url_private": "https://drive.example.com/x"}, "outside Slack"),
        ({"url_private": "https://evil.example.com/files-pri/T1-F0001/a.bin"}, "outside Slack"),
        ({"url_private": "http://slack.com.evil.example/x"}, "outside Slack"),
        ({"mode": "hidden_by_limit"}, "plan"),
        ({"mode": "list"}, "no downloadable content"),
        ({"file_access": "access_denied"}, "access denied"),
        ({"url_private": ""}, "no address"),
    ],
)
def test_a_file_that_cannot_be_fetched_is_kept_without_content(
    fake: Fake, channel: Channel, connect: Any, sync: Any, fields: dict[str, Any], reason: str
) -> None:
    fake.workspace.upload(channel, DATA, **fields)
    harness = connect(files="all")
    sync(harness)
    [item] = files(harness)
    assert item.content is None
    assert reason in str(item.metadata["skipped"])
    assert not fake.called("file")


@pytest.mark.parametrize(
    ("url", "is_slacks"),
    [
        ("https://files.slack.com/files-pri/T1-F1/a", True),
        ("https://acme.slack.com/x", True),
        ("https://slack-files.com/x", True),
        ("http://files.slack.com/x", False),
        ("https://files.slack.com:8443/x", False),
        ("https://files.slack.com@evil.example/x", False),
        ("https://user@files.slack.com/x", False),
        ("https://evil.example\\@slack.com/x", False),
        ("https://notslack.com/x", False),
        ("https://slack.com.evil.example/x", False),
        ("https://[broken", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_only_addresses_of_slack_get_the_token(url: str, is_slacks: bool) -> None:
    settings = SlackSettings(_env_file=None, SLACK_API_URL="https://slack.com/api/")
    assert (obstacle(File(id="F1", message="C1:1.1", url=url), settings, 10) == "") == is_slacks


def test_a_deleted_file_is_marked_deleted(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    id = fake.workspace.upload(channel, DATA)
    fake.workspace.post(channel, "after")
    harness = connect(files="all")
    sync(harness)
    [item] = files(harness)
    channel.messages[channel.top[0]]["files"] = [{"id": id, "mode": "tombstone"}]
    sync(harness)
    assert item.id in harness.deleted


def test_the_files_of_a_deleted_message_are_marked_deleted(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    fake.workspace.post(channel, "after")
    harness = connect(files="all")
    sync(harness)
    fake.workspace.delete(channel, channel.top[0])
    sync(harness)
    assert not files(harness)


def test_a_late_reply_does_not_delete_the_files_of_its_thread(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    harness = connect(files="all")
    sync(harness)
    fake.workspace.post(channel, "nice", thread=channel.top[0])
    sync(harness)
    assert len(files(harness)) == 1


def test_a_file_that_vanished_before_its_download_is_not_kept(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    id = fake.workspace.upload(channel, DATA)
    fake.workspace.files.pop(id)
    harness = connect(files="all")
    sync(harness)
    assert not files(harness)


def test_a_file_of_another_organization_is_fetched(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    """The message has only the file's id."""
    id = fake.workspace.upload(channel, DATA)
    channel.messages[channel.top[0]]["files"] = [{"id": id, "file_access": "check_file_info"}]
    harness = connect(files="all")
    sync(harness)
    assert files(harness)[0].content == DATA
    assert len(fake.called("files.info")) == 1
    del harness.state[f"channel/{channel.id}"]
    sync(harness, "resync")
    assert len(fake.called("file")) == 1


def test_429_of_a_download_blocks_downloads(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    answered, refused = fake.file, [(429, b"", {"Retry-After": "11"})]
    fake.file = lambda *given: refused.pop() if refused else answered(*given)
    [error] = sync(connect(files="all")).failures
    assert isinstance(error, RateLimited)
    assert (error.limit, error.retry_after) == ("files", 11.0)


def test_files_added_to_the_config_are_fetched(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    """A change of the config starts a resync, which fetches only the missing files."""
    fake.workspace.upload(channel, DATA)
    fake.workspace.upload(channel, DATA[1:])
    root, reply = channel.top
    channel.top.remove(reply)
    channel.threads[root] = [reply]
    channel.messages[reply]["thread_ts"] = root
    harness = connect(files="metadata")
    sync(harness)
    for _ in range(2):
        harness._worker._config = Config(files="all")
        del harness.state[f"channel/{channel.id}"]
        sync(harness, "resync")
        assert [item.content for item in files(harness)] == [DATA, DATA[1:]]
    assert len(fake.called("file")) == 2


def test_the_fields_that_start_a_resync_are_marked() -> None:
    marked = {
        name
        for name, one in Config.model_fields.items()
        if any(isinstance(m, ResyncOnChange) for m in one.metadata)
    }
    assert marked == {"since", "files", "max_file_mb"}


@pytest.mark.parametrize(
    ("target", "followed"),
    [
        ("https://cdn.example.com/x", "https://cdn.example.com/x"),
        ("/elsewhere", "https://files.slack.com/elsewhere"),
        (
            "https://cdn.example.com/a name?x=%20&y=\xfc",
            "https://cdn.example.com/a%20name?x=%20&y=%C3%BC",
        ),
        ("http://files.slack.com/x", None),
        ("file:///etc/passwd", None),
        ("https://[broken", None),
    ],
)
def test_redirects_are_followed_only_to_addresses_as_secure(
    target: str, followed: str | None
) -> None:
    url, headers = "https://files.slack.com/files-pri/T1-F1/a", Message()
    headers["Location"] = target
    error = HTTPError(url, 302, "Found", headers, None)
    if followed is None:
        with pytest.raises(PermanentError, match=r"redirects to an (invalid|insecure) address"):
            _redirected(url, error, File(id="F1", message="C1:1.1"))
    else:
        assert _redirected(url, error, File(id="F1", message="C1:1.1")) == followed


@pytest.mark.parametrize("mode", ["metadata", "all"])
def test_a_file_hidden_by_the_plan_keeps_its_row(
    fake: Fake, channel: Channel, connect: Any, sync: Any, mode: str
) -> None:
    """The message has only the file's id."""
    id = fake.workspace.upload(channel, DATA, "plan.pdf")
    harness = connect(files=mode)
    sync(harness)
    before = files(harness)
    channel.messages[channel.top[0]]["files"] = [{"id": id, "mode": "hidden_by_limit"}]
    sync(harness)
    assert files(harness) == before
    del harness.state[f"channel/{channel.id}"]
    sync(harness, "resync")
    assert files(harness) == before


def test_a_file_with_a_non_ascii_address_is_fetched(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA, "Plänę 2.pdf")
    fake.file_mode = "redirect"
    harness = connect(files="all")
    sync(harness)
    assert files(harness)[0].content == DATA


HTML = b"<h1>Roadmap</h1><p>first things first</p>"
CANVAS = {"mimetype": "application/vnd.slack-docs", "filetype": "quip", "title": "Roadmap"}


@pytest.mark.parametrize("mode", ["quip", "canvas", "space", "post"])
def test_canvases_and_posts_are_kept_as_html(
    fake: Fake, channel: Channel, connect: Any, sync: Any, mode: str
) -> None:
    """The size that Slack names of a canvas is not that of its HTML."""
    fake.workspace.upload(channel, HTML, "Roadmap", **{**CANVAS, "mode": mode, "size": 7})
    answered = fake.file

    def as_html(path: str, headers: Any, host: str) -> Any:
        status, body, found = answered(path, headers, host)
        return status, body, {**found, "Content-Type": "text/html; charset=utf-8"}

    fake.file = as_html  # type: ignore[method-assign]
    harness = connect(files="all")
    sync(harness)
    [item] = files(harness)
    assert (item.content, item.content_type, item.name) == (HTML, "text/html", "Roadmap")


def test_a_login_page_in_place_of_a_canvas_is_rejected(
    fake: Fake, channel: Channel, connect: Any
) -> None:
    fake.workspace.upload(channel, HTML, "Roadmap", mode="quip", **CANVAS)
    fake.file_mode = "login"
    harness = connect(files="all")
    assert harness.sync().state == "partial"
    assert not files(harness)


def test_the_canvas_of_a_channel_is_kept_and_updated(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    id = fake.workspace.upload(channel, HTML, "Plans", mode="quip", updated=1, **CANVAS)
    tab = {"type": "canvas", "data": {"file_id": "F0404"}}
    channel.properties = {"canvas": {"file_id": id, "is_empty": False}, "tabs": [tab]}
    channel.messages[channel.top[0]].pop("files")
    harness = connect(files="all")
    sync(harness)
    item = harness.content[f"{channel.id}:{id}"]
    assert (item.content, item.parent, item.name) == (HTML, "canvases", "Plans")
    assert item.metadata["channel"] == channel.id
    missing = harness.content[f"{channel.id}:F0404"]
    assert missing.metadata["skipped"] == "not found, or not visible to the token"
    sync(harness)
    assert len(fake.called("file")) == 1
    fake.workspace.files[id] = ({**fake.workspace.files[id][0], "updated": 2}, HTML + b"!")
    sync(harness)
    assert harness.content[item.id].content == HTML + b"!"
    del harness.state[f"channel/{channel.id}"]
    sync(harness, "resync")
    assert item.id in harness.content, "a sweep of the channel does not concern its canvas"


def test_files_of_forwarded_messages_and_of_blocks_are_kept(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    names = ["own", "old", "shared", "nested", "image", "address"]
    ids = [fake.workspace.upload(channel, name.encode(), name) for name in names]
    own, old, shared, nested = (fake.workspace.files[id][0] for id in ids[:4])
    for ts in list(channel.top):
        fake.workspace.delete(channel, ts)
    fake.workspace.post(
        channel, "look", files=[own], blocks=[
            {"type": "image", "alt_text": "a", "slack_file": {"id": ids[4]}},
            {"type": "section", "accessory": {
                "type": "image", "slack_file": {"url": f"https://x/files-pri/T1-{ids[5]}/a.png"}}},
        ],
        attachments=[
            {"files": [shared]},
            {"message_blocks": [{"message": {"files": [nested, own]}}]},
        ],
    )  # fmt: skip
    fake.workspace.post(channel, "uploaded", subtype="file_share", file=old)
    harness = connect(files="all")
    sync(harness)
    assert sorted(str(item.text) for item in files(harness)) == sorted(names)
    assert len(fake.called("files.info")) == 2


def test_an_edited_snippet_is_fetched_again(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    id = fake.workspace.upload(channel, b"x = 1", "a.py", mode="snippet", edit_timestamp=1)
    harness = connect(files="all")
    sync(harness)
    edited = {**fake.workspace.files[id][0], "edit_timestamp": 2}
    fake.workspace.files[id] = (edited, b"x = 2")
    channel.messages[channel.top[0]]["files"] = [edited]
    sync(harness)
    assert files(harness)[0].text == "x = 2"


@pytest.mark.parametrize(("mode", "downloads"), [("metadata", 0), ("all", 2)])
def test_a_renamed_file_gets_its_new_name(
    fake: Fake, channel: Channel, connect: Any, sync: Any, mode: str, downloads: int
) -> None:
    id = fake.workspace.upload(channel, DATA, "plan.pdf")
    harness = connect(files=mode)
    sync(harness)
    renamed = {**fake.workspace.files[id][0], "name": "Q&amp;A.pdf", "title": "Q&amp;A"}
    fake.workspace.files[id] = (renamed, DATA)
    channel.messages[channel.top[0]]["files"] = [renamed]
    sync(harness)
    [item] = files(harness)
    assert (item.name, item.metadata["title"]) == ("Q&A.pdf", "Q&A")
    assert len(fake.called("file")) == downloads


def test_a_renamed_file_keeps_the_content_that_it_has(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    id = fake.workspace.upload(channel, DATA, "plan.pdf")
    harness = connect(files="all")
    sync(harness)
    harness._worker._config = Config(files="metadata")
    renamed = {**fake.workspace.files[id][0], "title": "New"}
    channel.messages[channel.top[0]]["files"] = [renamed]
    sync(harness)
    [item] = files(harness)
    assert (item.content, item.metadata["title"]) == (DATA, "New")


def test_a_file_of_another_size_keeps_its_row_and_says_so(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, b"four", size=9)
    harness = connect(files="all")
    sync(harness)
    [item] = files(harness)
    assert item.content is None
    assert item.metadata["skipped"] == "Slack sent 4 bytes, but names a size of 9"


def test_a_file_that_slack_refuses_keeps_its_row_if_the_token_has_the_scope(
    fake: Fake, channel: Channel, connect: Any, sync: Any
) -> None:
    fake.workspace.upload(channel, DATA)
    fake.scopes = "channels:read,channels:history,groups:read,groups:history,users:read,files:read"
    fake.file_mode = "login"
    harness = connect(files="all")
    sync(harness)
    assert files(harness)[0].metadata["skipped"] == "access denied"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("missing_scope", "the token lacks the scope files:read"),
        ("access_denied", "access denied"),
        ("file_not_found", "not found, or not visible to the token"),
    ],
)
def test_a_file_of_another_organization_without_access_has_a_row(
    fake: Fake, channel: Channel, connect: Any, sync: Any, error: str, reason: str
) -> None:
    id = fake.workspace.upload(channel, DATA)
    channel.messages[channel.top[0]]["files"] = [{"id": id, "file_access": "check_file_info"}]
    fake.fail("files.info", error, times=9)
    harness = connect()
    sync(harness)
    [item] = files(harness)
    assert (item.content, item.metadata["skipped"]) == (None, reason)
