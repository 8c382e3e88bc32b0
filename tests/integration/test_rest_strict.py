"""The conduct of the API on all routes: strict requests, and the features of HTTP."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx2
import pytest
from pydantic import TypeAdapter, ValidationError
from support.rest import serving

from core import TaskOutput
from core.rest import app as rest_app
from core.rest.app import build
from core.rest.contract import WRITES
from core.scopes import ALL
from core.service.pagination import encode_cursor
from core.web.request_rates import Rate
from core.web.timestamps import StoredTimestamp, Timestamp

NEW = {"integration_domain": "locked", "credentials": {"password": "fine"}}
VALID = {"credentials": {"password": "fine"}}
VALUES = {
    "organization_id": str(uuid4()),
    "subscription_id": str(uuid4()),
    "user_integration_id": str(uuid4()),
    "run_id": str(uuid4()),
    "token_id": str(uuid4()),
    "task_id": 10**12,
    "held_deletion_id": 10**12,
    "content_id": 10**12,
    "user_id": "nobody",
    "integration_domain": "locked",
    "limit_name": "calls",
}
FREE = {"receive_hints"}
"""The routes that take every query parameter: a plugin reads them."""


def operations(api):
    """Yield the method, the path with values, and the operation of every route."""
    for path, methods in build(api.backend).openapi()["paths"].items():
        for method, operation in methods.items():
            yield method, path.format(**VALUES), operation


def code(answer) -> str:
    return answer.json()["code"]


# Requests
# --------------------------------------------------------------------------------------------------


def test_every_route_refuses_a_query_parameter_that_its_document_does_not_name(api) -> None:
    client, seen = api.client(api.token(scopes=ALL)), 0
    for method, path, operation in operations(api):
        if operation["operationId"] in FREE:
            continue
        answer = client.request(method.upper(), path, params={"no_such": "1"})
        assert (answer.status_code, code(answer)) == (422, "invalid-request"), (method, path)
        assert answer.json()["errors"] == [
            {"where": "query.no_such", "message": "unknown parameter"}
        ]
        assert "422" in operation["responses"], operation["operationId"]
        seen += 1
    assert seen > 50
    assert client.get("/openapi.json", params={"no_such": "1"}).status_code == 422


def test_the_filters_that_were_ignored_before_are_refused(api, desk) -> None:
    """`?user=ann` returned the rows of everybody."""
    desk.account("one", user_id="bob")
    assert api.admin.get("/v1/user-integrations", params={"user": "ann"}).status_code == 422
    assert api.admin.get("/v1/user-integrations", params={"user_id": "ann"}).json()["items"] == []
    twice = api.admin.get("/v1/user-integrations?user_id=ann&user_id=bob")
    assert twice.json()["errors"] == [{"where": "query.user_id", "message": "sent more than once"}]


WRONG_TIMES = (
    *("2026-05-01", "1777777777", "2026-05-01T12:00:00", "2026-02-30T12:00:00Z", "now"),
    *("2026-05-01T12:00Z", "20260501T120000Z", "2026-W18-5T12:00:00Z", "\u0662026-05-01T12:00:00Z"),
)


@pytest.mark.parametrize("time", WRONG_TIMES)
def test_a_time_needs_a_date_a_time_and_an_offset(api, time) -> None:
    for name in ("since", "until", "updated_since"):
        answer = api.admin.get("/v1/user-integration-content", params={name: time})
        assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, f"query.{name}")


def test_a_time_may_have_any_offset() -> None:
    times = TypeAdapter(Timestamp)
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    for text in ("2026-05-01T12:00:00Z", "2026-05-01t14:00:00.000+02:00"):
        assert times.validate_python(text) == noon
    with pytest.raises(ValidationError):
        times.validate_python(1_777_777_777)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00+00:01", "0001-12-31T23:59:59-01:00", "0002-01-01T00:00:00+14:00",
        "9999-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "9998-12-31T23:59:59-14:00",
    ],
)  # fmt: skip
def test_a_filter_takes_every_time_and_a_stored_time_is_refused(api, text: str) -> None:
    for name in ("since", "until"):
        answer = api.admin.get("/v1/user-integration-content", params={name: text})
        assert answer.status_code == 200
    with pytest.raises(ValidationError):
        TypeAdapter(StoredTimestamp).validate_python(text)
    assert TypeAdapter(Timestamp).validate_python(text).year in {2, 9998}


def test_a_pause_cannot_end_after_the_last_year(api) -> None:
    place = "/v1/integrations/locked"
    refused = api.admin.post(f"{place}/pause", json={"until": "9999-12-31T23:59:59-14:00"})
    assert refused.status_code == 422
    assert api.admin.get(place).status_code == 200


def test_errors_in_a_config_name_its_fields(api) -> None:
    body = {"integration_domain": "caller", "config": {"port": "x"}, "user_id": "u"}
    answer = api.admin.post("/v1/user-integrations", json=body)
    assert code(answer) == "config-invalid"
    assert {error["where"] for error in answer.json()["errors"]} == {
        "body.config.host",
        "body.config.port",
    }
    unknown = api.admin.post("/v1/tasks/retry", json={"user": "ann"})
    assert unknown.json()["errors"][0]["where"] == "body.user"


def test_a_refused_method_names_all_methods_of_the_path(api) -> None:
    for path, methods in (
        ("/v1/user-integrations", "GET, HEAD, POST"),
        (f"/v1/user-integrations/{uuid4()}", "DELETE, GET, HEAD, PATCH"),
        ("/v1/tokens", "GET, HEAD, POST"),
        ("/v1/users/ann/quotas", "GET, HEAD, PATCH"),
        ("/v1/users/a/b", "DELETE"),
        ("/v1/tasks/retry", "POST"),
    ):
        answer = api.admin.put(path, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_name_in_a_path_is_not_an_id(api) -> None:
    for method, path in (("GET", "/v1/tasks/retry"), ("DELETE", "/v1/user-integrations/check")):
        answer = api.admin.request(method, path, params={"content": "keep"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_no_path_about_a_user_erases_another_one(api, desk) -> None:
    for name in ("ann/quotas", "ann/use", "ann"):
        desk.account(user_id=name)
    for end in ("quotas", "use?days=3"):
        assert api.admin.delete(f"/v1/users/ann/{end}").status_code == 405
    assert api.admin.delete("/v1/users/a%2Fb?now=true").status_code == 200
    assert set(desk.rows("SELECT sync_status FROM user_integration")) == {("active",)}


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nowhere", "/v1/runs/x/y/z"])
def test_an_unknown_path_of_the_api_answers_with_a_problem(dashboard, path) -> None:
    answer = httpx2.get(dashboard.url + path, headers={"Accept": "text/html"})
    assert (answer.status_code, code(answer)) == (404, "address-not-found")


# Keys of writes
# --------------------------------------------------------------------------------------------------


def test_every_write_takes_an_idempotency_key(api) -> None:
    """A key that is too long is refused, so the header is read; its repetition is replayed."""
    client, seen = api.client(api.token(scopes=ALL)), 0
    for method, path, operation in operations(api):
        names = [one["name"] for one in operation.get("parameters", ())]
        if method not in WRITES or operation["operationId"] in FREE:
            assert "Idempotency-Key" not in names
            continue
        assert names.count("Idempotency-Key") == 1, operation["operationId"]
        answer = client.request(method.upper(), path, headers={"Idempotency-Key": "x" * 256})
        assert answer.json()["errors"][0]["where"] == "header.Idempotency-Key", path
        seen += 1
    assert seen > 25


def test_a_repeated_write_of_any_kind_acts_once(api, desk) -> None:
    client = api.client(api.token(scopes=ALL))
    account = client.post("/v1/user-integrations", json={**NEW, "user_id": "u"}).json()["id"]
    place, sent = f"/v1/user-integrations/{account}", []
    for number, (method, path, body) in enumerate(
        [
            ("PATCH", place, {"name": "new"}),
            ("POST", f"{place}/pause", None),
            ("POST", f"{place}/resume", None),
            ("POST", f"{place}/sync", None),
            ("PATCH", "/v1/users/u/quotas", {"accounts": 5}),
            ("POST", "/v1/tokens", {"scopes": ["content:read"]}),
            ("DELETE", f"{place}?content=delete", None),
        ]
    ):
        for _ in range(2):
            answer = client.request(
                method, path, json=body, headers={"Idempotency-Key": f"k{number}"}
            )
            assert answer.status_code < 300, answer.text
            sent.append(answer)
        first, again = sent[-2:]
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.text and again.json()) == (
            first.status_code,
            first.text and first.json(),
        )
        assert again.headers.get("location") == first.headers.get("location")
    assert desk.value("SELECT count(*) FROM api_token") == 2


def test_a_stored_answer_contains_no_secret(api, desk) -> None:
    client = api.client(api.token(scopes=ALL))
    created = client.post(
        "/v1/tokens", json={"scopes": ["content:read"]}, headers={"Idempotency-Key": "k"}
    ).json()
    (answer,) = desk.rows("SELECT answer::text FROM idempotency_key")
    assert created["token"] not in answer[0]
    assert created["token"].removeprefix("polling_") not in answer[0]


def test_a_stored_answer_contains_no_sample_of_an_account(api, desk) -> None:
    client = api.client(api.token(scopes=ALL))
    checked = [
        client.post("/v1/integrations/locked/check", json=VALID, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert checked[0].json() == checked[1].json()
    assert desk.rows("SELECT ARRAY(SELECT jsonb_object_keys(answer)) FROM idempotency_key") == [
        (["sealed"],)
    ]


def test_a_key_without_a_valid_token_is_refused_like_every_request(api, desk) -> None:
    for token in (None, "polling_" + "x" * 43):
        answer = api.client(token).post(
            "/v1/user-integrations", json=NEW, headers={"Idempotency-Key": "k"}
        )
        assert answer.status_code == 401
    reader = api.client(api.token(scopes=["content:read"]))
    refused = reader.post("/v1/user-integrations", json=NEW, headers={"Idempotency-Key": "k"})
    assert code(refused) == "scope-missing"
    assert desk.value("SELECT count(*) FROM idempotency_key") == 0


# Responses
# --------------------------------------------------------------------------------------------------


def test_head_answers_like_get_without_the_body(api, desk) -> None:
    desk.keep(desk.account(), TaskOutput("1", "text" * 1_000_000))
    item = desk.value("SELECT id FROM user_integration_content")
    for path in ("/v1/user-integrations", "/healthz", f"/v1/user-integration-content/{item}/raw"):
        get, head = api.admin.get(path), api.admin.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "etag", "content-length"):
            assert head.headers.get(name) == get.headers.get(name), name
        part = api.admin.head(path, headers={"Range": "bytes=0-4"})
        assert part.status_code == 200, "only GET has ranges"
        assert part.headers.get("content-length") == get.headers.get("content-length")
    assert api.client(None).head("/v1/user-integrations").status_code == 401
    assert api.admin.head(f"/v1/runs/{uuid4()}").status_code == 404


def test_head_works_on_pages(dashboard) -> None:
    answer = httpx2.head(dashboard.url + "/sign-in")
    assert (answer.status_code, answer.content) == (200, b"")


def test_large_json_is_compressed_for_clients_that_ask_for_it(api, desk) -> None:
    for number in range(60):
        desk.account(f"account {number}")
    plain, packed = (
        api.admin.get("/v1/user-integrations?limit=60", headers={"Accept-Encoding": encoding})
        for encoding in ("identity", "br, gzip;q=0.5")
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 4
    assert packed.json() == plain.json()
    assert "Accept-Encoding" in plain.headers["vary"]
    refused = api.admin.get("/v1/user-integrations", headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers


def test_a_long_export_is_compressed_part_by_part(api, desk) -> None:
    desk.keep(desk.account(), *(TaskOutput(str(n), "text" * 2_000) for n in range(500)))
    plain = api.admin.get("/v1/export", headers={"Accept-Encoding": "identity"})
    with api.admin.stream("GET", "/v1/export", headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert len(packed) < len(plain.content) / 10
    assert gzip.decompress(packed) == plain.content


def test_an_unchanged_answer_is_not_sent_again(api, desk) -> None:
    desk.account("one")
    first = api.admin.get("/v1/user-integrations")
    for known in (first.headers["etag"], f'"x", {first.headers["etag"]}', "*"):
        again = api.admin.get("/v1/user-integrations", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["vary"] == first.headers["vary"]
    desk.account("two")
    changed = api.admin.get(
        "/v1/user-integrations", headers={"If-None-Match": first.headers["etag"]}
    )
    assert changed.status_code == 200
    assert changed.headers["etag"] != first.headers["etag"]


def test_a_change_names_the_revision_that_the_client_has_read(api, desk) -> None:
    client = api.client(api.token(scopes=ALL))
    created = client.post("/v1/user-integrations", json={**NEW, "user_id": "ann"})
    place = created.headers["location"]
    read = client.get(place)
    known = read.headers["etag"]
    assert client.get(place, headers={"If-None-Match": known}).status_code == 304
    desk.run(created.json()["id"])
    desk.conn.execute("UPDATE user_integration SET last_sync_at = now(), next_sync_at = now()")
    ran = client.get(place)
    assert ran.headers["etag"] != known, "the response is another one"

    def change(tag, method="PATCH", **more):
        return client.request(method, place, headers={"If-Match": tag} if tag else {}, **more)

    renamed = change(known, json={"name": "new"})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "new"), "runs do not change it"
    for body in ({"name": "newer"}, {}, {"credentials": {"password": "other"}}, {"config": {}}):
        refused = change(known, json=body)
        assert (refused.status_code, code(refused)) == (412, "account-changed-by-others"), body
    for wrong in ('"x"', "x", "", '"', f"{known[:-2]}0"):
        assert change(wrong or '""', json={"name": "x"}).status_code == 412, wrong
    for query in ("content=keep", "content=delete", "content=delete&now=true"):
        answer = client.delete(f"{place}?{query}", headers={"If-Match": known})
        assert answer.status_code == 412, query
    account = client.get(place).json()
    assert (account["name"], account["sync_status"]) == ("new", "active")
    latest = renamed.headers["etag"]
    several = f'"x", {latest.removeprefix("W/")}'
    for tag, body in ((several, {"poll_interval_minutes": 7}), ("*", {"deletions": "keep"}),
                      (None, {"name": "newest"})):  # fmt: skip
        answer = change(tag, json=body)
        assert answer.status_code == 200, tag
        assert answer.headers["etag"] != latest
        latest = answer.headers["etag"]
    both = {"credentials": {"password": "fine"}, "name": "both"}
    answer = change(latest, json=both)
    assert (answer.status_code, answer.json()["name"]) == (200, "both")
    gone = client.delete(f"{place}?content=keep", headers={"If-Match": answer.headers["etag"]})
    assert gone.status_code == 204


def test_a_change_between_the_check_and_the_transaction_is_not_undone(
    api, desk, monkeypatch
) -> None:
    """The provider checks a new config for seconds, while somebody else renames the account."""
    from core.service.accounts import actions

    client = api.client(api.token(scopes=ALL))
    created = client.post("/v1/user-integrations", json={**NEW, "user_id": "ann"})
    place, check = created.headers["location"], actions.check

    def slow(*arguments, **more):
        desk.conn.execute("UPDATE user_integration SET name = 'by another'")
        return check(*arguments, **more)

    monkeypatch.setattr(actions, "check", slow)
    for body in ({"config": {"mood": "bad"}}, {"credentials": {"password": "x"}}):
        desk.conn.execute("UPDATE user_integration SET name = 'me'")
        known = client.get(place).headers["etag"]
        answer = client.patch(place, json=body, headers={"If-Match": known})
        assert answer.status_code == 412, body
    assert client.get(place).json()["config"] == {"name": "me", "mood": "fine"}


@pytest.fixture(params=["row", "blob"])
def stored(desk, request):
    """Keep an item in its row, or in the blob store; return its path and its bytes."""
    data = bytes(range(256)) * (10 if request.param == "row" else 9_000)
    desk.keep(desk.account(), TaskOutput("1", data))
    assert desk.value("SELECT blob_key IS NOT NULL FROM user_integration_content") is (
        request.param == "blob"
    )
    id = desk.value("SELECT id FROM user_integration_content")
    return f"/v1/user-integration-content/{id}/raw", data


def test_a_part_of_an_item_can_be_downloaded(api, stored) -> None:
    path, data = stored
    size = len(data)
    complete = api.admin.get(path)
    assert complete.headers["content-length"] == str(size)
    assert complete.headers["accept-ranges"] == "bytes"
    assert complete.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    for sent, first, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=100-299", 100, 300),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size + 1}", 0, size),
        (f"bytes=10-{10**17}", 10, size),
    ):
        part = api.admin.get(path, headers={"Range": sent, "Accept-Encoding": "gzip"})
        assert (part.status_code, part.content) == (206, data[first:end]), sent
        assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
    for sent in ("bytes=5-1", "items=0-1", "bytes=0-1,5-6", "bytes=-", "bytes=x-"):
        assert api.admin.get(path, headers={"Range": sent}).content == data, sent
    for sent in (f"bytes={size}-", "bytes=-0", f"bytes={10**17}-"):
        beyond = api.admin.get(path, headers={"Range": sent})
        assert (beyond.status_code, code(beyond)) == (416, "range-not-satisfiable")
        assert beyond.headers["content-range"] == f"bytes */{size}"


def test_a_download_continues_only_if_the_bytes_are_the_same(api, stored) -> None:
    path, data = stored
    tag = api.admin.get(path).headers["etag"]
    same = api.admin.get(path, headers={"Range": "bytes=5-", "If-Range": tag})
    other = api.admin.get(path, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (same.status_code, same.content) == (206, data[5:])
    assert (other.status_code, other.content) == (200, data)
    known = api.admin.get(path, headers={"If-None-Match": tag})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)


def test_every_answer_names_its_request(api, caplog, monkeypatch) -> None:
    ids = set()
    for client, path in ((api.admin, "/v1/runs"), (api.client(None), "/v1/runs"),
                         (api.admin, "/nowhere"), (api.client(None), "/healthz")):  # fmt: skip
        ids.add(client.get(path).headers["x-request-id"])
    assert len(ids) == 4
    named = api.admin.get("/nowhere", headers={"X-Request-Id": "from-the_product.7"})
    assert named.headers["x-request-id"] == named.json()["request_id"] == "from-the_product.7"
    for forged in ("a b", "x" * 65, "\u00e9", "a\x01"):
        answer = api.admin.get("/nowhere", headers=[(b"X-Request-Id", forged.encode("latin-1"))])
        assert answer.headers["x-request-id"] != forged


def test_a_line_of_the_log_names_the_request(api, monkeypatch) -> None:
    from core import logs
    from core.service.pagination import PagedQuery

    def broken(*arguments, **more):
        raise RuntimeError

    lines = []

    class Collecting(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    monkeypatch.setattr(PagedQuery, "page", broken)
    handlers = [Collecting(), Collecting()]
    handlers[0].setFormatter(logs._Text(logs.FORMAT))
    handlers[1].setFormatter(logs._json())
    for handler in handlers:
        logging.getLogger("core.web.problems").addHandler(handler)
    try:
        answer = api.admin.get("/v1/user-integrations", headers={"X-Request-Id": "seven"})
    finally:
        for handler in handlers:
            logging.getLogger("core.web.problems").removeHandler(handler)
    assert answer.json()["request_id"] == "seven"
    assert lines[0].endswith("[request seven]")
    assert json.loads(lines[1])["request_id"] == "seven"


def test_a_user_is_told_how_many_requests_are_left(api) -> None:
    headers = api.user("u").get("/v1/runs").headers
    assert headers["ratelimit-limit"] == "1000"
    assert 900 < int(headers["ratelimit-remaining"]) <= 1_000
    assert int(headers["ratelimit-reset"]) >= 0
    rate = Rate(1.0, 10.0)
    assert [rate.take("u") for _ in range(3)] == [True] * 3
    assert rate.left("u") == (10, 7, 3)
    assert "ratelimit-limit" not in api.admin.get("/v1/runs").headers


# Other sites
# --------------------------------------------------------------------------------------------------

PREFLIGHT = {
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "authorization, idempotency-key, if-match",
}


def test_scripts_of_other_sites_may_not_call_the_api(api) -> None:
    answer = api.admin.get("/v1/runs", headers={"Origin": "https://app.example.org"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = api.client(None).options(
        "/v1/runs", headers={"Origin": "https://app.example.org", **PREFLIGHT}
    )
    assert preflight.status_code == 405


def test_scripts_of_allowed_sites_may_call_the_api(backend, monkeypatch) -> None:
    monkeypatch.setattr(backend.settings, "cors_origins", ("https://app.example.org",))
    with serving(backend) as url, httpx2.Client(base_url=url) as client:
        for origin, status in (("https://app.example.org", 200), ("https://evil.example", 400)):
            preflight = client.options("/v1/runs", headers={"Origin": origin, **PREFLIGHT})
            answer = client.get("/v1/runs", headers={"Origin": origin})
            named = answer.headers.get("access-control-allow-origin")
            assert preflight.status_code == status
            assert named == (origin if status == 200 else None)
            assert "access-control-allow-credentials" not in answer.headers


# Listings
# --------------------------------------------------------------------------------------------------


def test_the_document_has_one_name_for_each_thing(api) -> None:
    document = build(api.backend).openapi()
    text = json.dumps(document)
    names = {
        one["name"]
        for methods in document["paths"].values()
        for operation in methods.values()
        for one in operation.get("parameters", ())
    }
    assert not names & {"account", "domain", "run", "task", "deletion", "token", "user"}
    assert "HTTPValidationError" not in text
    assert {tag["name"] for tag in document["tags"]} == set(rest_app.TAGS)


def test_runs_of_all_accounts_are_listed_in_both_orders(api, desk) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    accounts = [desk.account(f"a{n}", user_id="ann" if n % 2 else "bob") for n in range(6)]
    for number, account in enumerate(accounts):
        run = desk.run(account)
        desk.conn.execute(
            "UPDATE sync_run SET started_at = %s WHERE id = %s",
            (start + timedelta(hours=number), run),
        )

    def listed(client, **params) -> list[str]:
        found, after = [], {}
        while True:
            page = client.get("/v1/runs", params={"limit": 2, **params, **after}).json()
            found += [item["user_integration_id"] for item in page["items"]]
            if page["cursor"] is None:
                return found
            after = {"after": page["cursor"]}

    ids = [str(account) for account in accounts]
    assert listed(api.admin) == ids[::-1]
    assert listed(api.admin, order="oldest") == ids
    assert listed(api.admin, order="oldest", user_id="ann") == ids[1::2]
    assert listed(api.user("ann")) == ids[::-1][::2]
    assert listed(api.admin, state="running", order="oldest") == ids
    assert listed(api.admin, integration_domain="nowhere") == []
    assert listed(api.admin, user_integration_id=ids[3]) == [ids[3]]
    between = {"since": "2026-05-01T01:00:00Z", "until": "2026-05-01T04:00:00+00:00"}
    assert listed(api.admin, **between) == ids[1:4][::-1]
    assert listed(api.admin, **between, order="oldest", state="running") == ids[1:4]


def test_parameters_have_their_earlier_names_too(api, desk) -> None:
    accounts = [desk.account(name, user_id="ann") for name in ("a", "b")]
    for account in accounts:
        desk.run(account)
    one = {"account": str(accounts[0])}
    (run,) = api.admin.get("/v1/runs", params=one).json()["items"]
    assert run["user_integration_id"] == str(accounts[0])
    assert api.admin.get("/v1/runs", params={"limit": 5, "domain": "none"}).json()["items"] == []
    both = one | {"user_integration_id": str(accounts[1])}
    answer = api.admin.get("/v1/runs", params=both)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"] == "query.user_integration_id"
    assert api.admin.get("/v1/runs", params={"my-account": "a"}).status_code == 422


def test_stopped_tasks_of_all_accounts_are_listed(api, desk) -> None:
    for name in ("ann", "bob", "ann"):
        run = desk.run(desk.account(f"{name}{uuid4()}", user_id=name))
        desk.conn.execute(
            "UPDATE sync_task SET state = 'parked', reason = 'r', finished_at = now()"
            " WHERE run_id = %s", (run,)
        )  # fmt: skip
    cancelled = desk.run(desk.account("cancelled", user_id="ann"))
    assert api.admin.post(f"/v1/runs/{cancelled}/cancel").status_code == 200
    assert desk.value("SELECT count(*) FROM sync_task WHERE state = 'cancelled'") == 1

    def listed(client, **params):
        return client.get("/v1/tasks", params=params).json()["items"]

    ids = [item["id"] for item in listed(api.admin)]
    assert ids == sorted(ids, reverse=True)
    assert [item["id"] for item in listed(api.admin, order="oldest")] == ids[::-1]
    assert [item["user_id"] for item in listed(api.user("ann"))] == ["ann", "ann"]
    assert len(listed(api.admin, user_id="bob", state="parked")) == 1
    assert listed(api.admin, state="deferred") == []
    assert listed(api.admin, until="2020-01-01T00:00:00Z") == []
    assert api.user("ann").get("/v1/tasks", params={"user_id": "bob"}).status_code == 403


def test_users_are_sorted_and_paged(api, desk) -> None:
    for number, name in enumerate(("ann", "bob", "cid", "dan")):
        desk.conn.execute(
            "INSERT INTO user_day"
            " (user_id, day, polls, tasks, thread_seconds, bytes_in, bytes_kept) VALUES"
            " (%s, (clock_timestamp() AT TIME ZONE 'UTC')::date, 1, %s, 7, 0, 0)",
            (name, number),
        )

    def listed(client, **params):
        found, after = [], {}
        while True:
            page = client.get("/v1/users", params={"limit": 2, **params, **after}).json()
            found += [item["user_id"] for item in page["items"]]
            if page["cursor"] is None:
                return found
            after = {"after": page["cursor"]}

    assert listed(api.admin) == ["ann", "bob", "cid", "dan"]
    assert listed(api.admin, sort="tasks") == ["dan", "cid", "bob", "ann"]
    assert listed(api.admin, sort="user_id") == ["ann", "bob", "cid", "dan"]
    assert listed(api.user("cid"), sort="tasks") == ["cid"]
    assert api.admin.get("/v1/users", params={"sort": "name"}).status_code == 422
    for place in (10**400, 2**63, "7", None, True):
        answer = api.admin.get("/v1/users", params={"after": encode_cursor([place, "ann"])})
        assert (answer.status_code, code(answer)) == (422, "cursor-invalid"), place


def test_held_deletions_are_listed_in_both_orders_and_by_time(api, desk) -> None:
    account = desk.account()
    run = desk.run(account)
    desk.keep(account, TaskOutput("1", "x"), TaskOutput("2", "y"))
    first, second = desk.hold(account, run, "1"), desk.hold(account, run, "2", parent="p")
    desk.conn.execute("UPDATE held_deletion SET created_at = '2026-05-01' WHERE id = %s", (first,))

    def listed(**params):
        answer = api.admin.get("/v1/held-deletions", params=params).json()
        return [item["id"] for item in answer["items"]]

    assert listed() == [second, first]
    assert listed(order="oldest") == [first, second]
    assert listed(until="2026-05-02T00:00:00Z") == [first]
    assert listed(since="2026-05-02T00:00:00Z") == [second]


# Actions on many accounts
# --------------------------------------------------------------------------------------------------


def test_all_accounts_of_a_user_are_paused_resumed_and_synced(api, desk) -> None:
    mine = [desk.account(f"a{n}", user_id="ann") for n in range(3)]
    other = desk.account("b", user_id="bob")
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'disconnected' WHERE id = %s", (mine[0],)
    )

    def act(client, what, **body):
        return client.post(f"/v1/user-integrations/{what}", json=body)

    paused = act(api.admin, "pause", user_id="ann").json()
    assert paused == {"done": 2, "refused": 1, "more": False, "cursor": None}
    states = dict(desk.rows("SELECT id, sync_status FROM user_integration"))
    assert [states[id] for id in (*mine, other)] == ["disconnected", "paused", "paused", "active"]
    assert act(api.user("ann"), "resume", sync_status="paused").json()["done"] == 2
    assert act(api.user("bob"), "sync", integration_domain="shop").json()["done"] == 1
    assert desk.rows("SELECT user_integration_id FROM sync_run") == [(other,)]
    assert code(act(api.admin, "pause")) == "accounts-not-selected"
    assert act(api.user("bob"), "pause", user_id="ann").status_code == 403


def test_all_accounts_are_checked_resynced_and_disconnected(api, desk, backend) -> None:
    client = api.client(api.token(scopes=ALL))
    ids = {}
    for name, password in (("fine", "fine"), ("other", "wrong")):
        body = {**NEW, "user_id": "ann", "config": {"name": name}}
        ids[name] = client.post("/v1/user-integrations", json=body).json()["id"]
        sealed = backend.vault.seal_json({"password": password})
        desk.conn.execute(
            "UPDATE user_integration SET credentials = %s WHERE id = %s", (sealed, ids[name])
        )
    desk.account("b", user_id="bob")

    def act(what, client=client, **body):
        return client.post(f"/v1/user-integrations/{what}", json={"user_id": "ann", **body})

    everything = {"more": False, "cursor": None}
    assert act("check").json() == {"done": 1, "refused": 1} | everything
    assert act("resync").json() == {"done": 2, "refused": 0} | everything
    resyncs = desk.rows("SELECT user_integration_id::text FROM sync_run WHERE complete")
    assert {id for (id,) in resyncs} == set(ids.values())
    assert act("disconnect", api.user("bob")).status_code == 403
    assert act("disconnect").json() == {"done": 2, "refused": 0} | everything
    states = dict(desk.rows("SELECT user_id, array_agg(DISTINCT sync_status) FROM user_integration"
                            " GROUP BY 1"))  # fmt: skip
    assert states == {"ann": ["disconnected"], "bob": ["active"]}
    acts = desk.rows("SELECT act, count(*) FROM audit WHERE act LIKE '%%disconnect' GROUP BY 1")
    assert acts == [("account.disconnect", 2)]
    assert act("resync").json() == {"done": 0, "refused": 2} | everything


def test_a_request_acts_on_a_bounded_number_of_accounts(api, desk, monkeypatch) -> None:
    from core.service.accounts import bulk

    monkeypatch.setattr(bulk, "MAX_BULK_ACCOUNTS", 2)
    for number in range(5):
        desk.account(f"a{number}", user_id="ann")
    done, after = [], {}
    while True:
        answer = api.admin.post(
            "/v1/user-integrations/pause", json={"user_id": "ann"}, params=after
        ).json()
        done.append(answer["done"])
        if not answer["more"]:
            break
        after = {"after": answer["cursor"]}
    assert done == [2, 2, 1]


# The feed
# --------------------------------------------------------------------------------------------------


def test_the_feed_carries_texts_on_request(api, desk) -> None:
    account = desk.account(user_id="ann")
    desk.keep(account, TaskOutput("1", "a text"), TaskOutput("2", b"\0"))
    plain = api.user("ann").get("/v1/changes").json()["changes"]
    assert all("text" not in change["content"] for change in plain)
    full = api.user("ann").get("/v1/changes", params={"include": "content"}).json()["changes"]
    texts = {one["content"]["external_id"]: one["content"] for one in full}
    assert (texts["1"]["text"], texts["1"]["truncated"]) == ("a text", False)
    assert texts["2"]["text"] is None
    assert api.user("ann").get("/v1/changes", params={"include": "x"}).status_code == 422


def test_a_user_is_told_that_an_account_was_erased(api, desk) -> None:
    account = desk.account(user_id="ann")
    desk.keep(account, TaskOutput("1", "a text"))
    ann, bob = api.user("ann"), api.user("bob")
    cursors = [client.get("/v1/changes").json()["cursor"] for client in (ann, bob)]
    place = f"/v1/user-integrations/{account}?content=delete&now=true"
    assert ann.delete(place).status_code == 204
    told, untold = (
        client.get("/v1/changes", params={"after": cursor}).json()["changes"]
        for client, cursor in zip((ann, bob), cursors, strict=True)
    )
    assert [(one["change"], one["user_integration_id"]) for one in told] == [
        ("erased", str(account))
    ]
    assert untold == []


def test_erasing_a_user_removes_the_name_from_erased_accounts(api, desk) -> None:
    desk.account(user_id="ann")
    assert api.admin.delete("/v1/users/ann?now=true").json()["accounts"] == 1
    assert desk.rows("SELECT user_id FROM erased_account") == [(None,)]
