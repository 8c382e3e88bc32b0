"""Attacks on connections in the browser: somebody else's link, code, page or form.

Mallory is a user with a token. Victor follows a link of hers, and consents at the provider.
"""

from __future__ import annotations

from contextlib import contextmanager
from html import unescape

import pytest
from support.cloud import PRODUCT, agree, cloud_of, confirm, consent, query
from support.dashboard import Browser, form

from core.log_redaction import install
from core.service import provider_slots


@pytest.fixture
def integrations(provider):
    return (cloud_of(provider),)


@pytest.fixture
def victor(product, provider):
    """Return the browser of the victim, whose account at the provider is `victor`."""
    provider.person = "victor"
    return Browser(product.client(None))


def accounts(conn):
    return conn.execute("SELECT user_id, identity FROM user_integration").fetchall()


def link_of(person, name="cloud"):
    """Start a connection in the dashboard, and return the link to the provider."""
    connect = f"/integrations/{name}/connect"
    fields = form(person.get(connect).text, connect).fields
    page = person.send(f"/integrations/{name}/authorize", fields).text
    return unescape(page.split('class="button primary" href="')[1].split('"')[0])


# A link of the dashboard
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed_in", [False, True], ids=["stranger", "another session"])
def test_a_link_of_the_dashboard_works_in_its_own_session_only(
    product, provider, victor, conn, signed_in
) -> None:
    mallory = product.sign_in("mallory")
    if signed_in:
        victor = product.sign_in("victor")
    back = agree(victor.client, link_of(mallory))
    answer = victor.client.get(back)
    assert (answer.status_code, accounts(conn), provider.exchanges) == (403, [], 0)
    assert "started in another browser" in answer.text
    # The state has been passed on. It is worthless for its owner, too.
    assert (mallory.client.get(back).status_code, accounts(conn)) == (422, [])


def test_a_second_session_of_the_same_user_is_another_browser(product, victor, conn) -> None:
    back = agree(victor.client, link_of(product.sign_in("mallory")))
    assert product.sign_in("mallory").client.get(back).status_code == 403
    assert accounts(conn) == []


def test_signing_out_ends_a_pending_connection(product, victor, conn) -> None:
    mallory = product.sign_in("mallory")
    back = agree(victor.client, link_of(mallory))
    mallory.post("/sign-out")
    assert (mallory.client.get(back).status_code, accounts(conn)) == (403, [])


def test_the_session_that_started_a_connection_finishes_it(product, provider, conn) -> None:
    provider.person, ann = "ann@cloud", product.sign_in("ann")
    answer = ann.client.get(agree(ann.client, link_of(ann)))
    assert answer.headers["location"].startswith(f"{product.url}/integrations/connected?")
    assert accounts(conn) == [("ann", "ann@cloud")]


def test_the_tokens_of_the_response_reach_no_log(product, provider, conn, caplog) -> None:
    install()
    ann = product.sign_in("ann")
    ann.client.get(agree(ann.client, link_of(ann)))
    [token] = provider.tokens
    [line] = [record.getMessage() for record in caplog.records if record.name == "cloud"]
    assert "'access_token': '***'" in line
    assert token not in caplog.text
    assert "Bearer" in line, "only the tokens are removed"


# A link of the API
# --------------------------------------------------------------------------------------------------


def test_consent_alone_connects_nothing(product, victor, conn) -> None:
    """The page names the account and its future owner, and Victor can cancel."""
    back = consent(product.user("mallory"), victor.client)
    page = victor.client.get(back)
    assert (page.status_code, accounts(conn)) == (200, [])
    shown = unescape(page.text)
    assert all(f"<strong>{name}</strong>" in shown for name in ("victor", "mallory"))
    fields = form(page.text, "/oauth/confirm").fields
    assert "Nothing was stored" in victor.send("/oauth/cancel", fields).text
    assert victor.send("/oauth/confirm", fields).status_code == 422
    assert accounts(conn) == []
    assert conn.execute("SELECT count(*) FROM oauth_flow").fetchone() == (0,)


def test_a_product_that_names_its_signed_in_user_connects_nothing_for_another(
    product, provider, victor, conn
) -> None:
    back = consent(product.user("mallory"), victor.client, redirect_to=PRODUCT)
    there = victor.client.get(back).headers["location"]
    assert accounts(conn) == []
    code = {"connect_code": query(there)["connect_code"]}
    answer = product.admin.post("/v1/oauth/redeem", json=code | {"user_id": "victor"})
    assert (answer.status_code, answer.json()["code"]) == (403, "connect-code-of-another-user")
    assert (accounts(conn), provider.exchanges) == ([], 0)
    # Mallory may have seen it in the meantime.
    assert product.user("mallory").post("/v1/oauth/redeem", json=code).status_code == 422
    assert accounts(conn) == []


def test_the_code_of_one_user_is_worthless_for_the_token_of_another(
    product, victor, provider, conn
) -> None:
    back = consent(product.user("victor"), victor.client, redirect_to=PRODUCT)
    code = {"connect_code": query(victor.client.get(back).headers["location"])["connect_code"]}
    mallory = product.user("mallory")
    answers = [
        mallory.post("/v1/oauth/redeem", json=code | more) for more in ({"user_id": "victor"}, {})
    ]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert (accounts(conn), provider.exchanges) == ([], 0)


def test_an_operator_has_to_name_the_user(product, victor, conn) -> None:
    back = consent(product.admin, victor.client, user_id="victor", redirect_to=PRODUCT)
    code = {"connect_code": query(victor.client.get(back).headers["location"])["connect_code"]}
    assert product.admin.post("/v1/oauth/redeem", json=code).status_code == 422
    answer = product.admin.post("/v1/oauth/redeem", json=code | {"user_id": "victor"})
    assert (answer.status_code, accounts(conn)) == (201, [("victor", "victor")])
    assert product.admin.post(
        "/v1/oauth/redeem", json=code | {"user_id": "victor"}
    ).status_code == 422  # fmt: skip


def test_a_code_for_the_product_is_not_a_confirmation(product, victor, conn) -> None:
    """A confirmation would bypass the product, which names its signed-in user."""
    back = consent(product.user("mallory"), victor.client, redirect_to=PRODUCT)
    code = query(victor.client.get(back).headers["location"])["connect_code"]
    assert victor.send("/oauth/confirm", {"code": code}).status_code == 422
    assert accounts(conn) == []


def test_a_confirmation_is_not_a_code_for_the_product(product, victor, conn) -> None:
    page = victor.client.get(consent(product.user("mallory"), victor.client))
    code = {"connect_code": form(page.text, "/oauth/confirm").fields["code"]}
    assert product.user("mallory").post("/v1/oauth/redeem", json=code).status_code == 422
    assert accounts(conn) == []


def test_a_form_of_another_site_confirms_nothing(product, victor, conn) -> None:
    page = victor.client.get(consent(product.user("mallory"), victor.client))
    fields = form(page.text, "/oauth/confirm").fields
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
        assert victor.send("/oauth/confirm", fields, **headers).status_code == 403
    assert accounts(conn) == []
    assert "Account connected" in victor.send("/oauth/confirm", fields).text
    assert accounts(conn) == [("mallory", "victor")]


# In the second case, the clock of the database was set back by a day.
@pytest.mark.parametrize("expires_at", ["now() - interval '1 s'", "now() + interval '1 day'"])
@pytest.mark.parametrize("redirect_to", [None, PRODUCT])
def test_a_late_confirmation_connects_nothing(
    product, victor, conn, redirect_to, expires_at
) -> None:
    mallory = product.user("mallory")
    more = {"redirect_to": redirect_to} if redirect_to else {}
    answer = victor.client.get(consent(mallory, victor.client, **more))
    conn.execute(f"UPDATE oauth_flow SET expires_at = {expires_at}")
    if redirect_to:
        code = {"connect_code": query(answer.headers["location"])["connect_code"]}
        assert mallory.post("/v1/oauth/redeem", json=code).status_code == 422
    else:
        fields = form(answer.text, "/oauth/confirm").fields
        assert victor.send("/oauth/confirm", fields).status_code == 422
    assert accounts(conn) == []


def test_what_waits_for_a_confirmation_is_encrypted(product, victor, provider, conn) -> None:
    mallory, rows = product.user("mallory"), "SELECT oauth_flow::text FROM oauth_flow"
    back = consent(mallory, victor.client, redirect_to=PRODUCT)
    there = victor.client.get(back).headers["location"]
    stored = str(conn.execute(rows).fetchall())
    assert query(back)["code"] not in stored
    assert query(there)["connect_code"] not in stored
    victor.client.get(consent(mallory, victor.client))
    (token,) = provider.tokens
    assert token not in str(conn.execute(rows).fetchall())


# What the product and the person see
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "connect_code", "user_integration_id", "error", "ERROR", "%65rror", "error%5B%5D",
        "error[0]", "error.x", "%20error", "a=1;connect_code", "a=1&connect_code", "connect.code",
        "connect+code", "user%20integration.id[]",
    ],
)  # fmt: skip
def test_the_query_of_the_product_cannot_shadow_the_result(product, conn, name) -> None:
    body = {"redirect_to": f"{PRODUCT}?{name}=of-mallory"}
    answer = product.user("mallory").post("/v1/oauth/cloud/authorize", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "redirect-shadows-result")
    assert conn.execute("SELECT count(*) FROM oauth_flow").fetchone() == (0,)


def test_other_parameters_of_the_product_stay(product, victor) -> None:
    redirect_to = f"{PRODUCT}?a=1&terror=2&code=3&state="
    back = consent(product.user("mallory"), victor.client, redirect_to=redirect_to)
    there = query(victor.client.get(back).headers["location"])
    assert [there.get(name) for name in ("a", "terror", "code")] == ["1", "2", "3"]
    assert there["connect_code"]


@pytest.mark.parametrize(
    "address",
    ["", "?state=made-up&code=x", "?code=x", "?state=%00", "?state=" + "x" * 5_000, "?error=x"],
)
def test_a_person_sees_a_page(product, victor, address) -> None:
    answer = victor.client.get(f"/v1/oauth/callback{address}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_person_sees_a_page_when_the_provider_fails(product, victor, provider) -> None:
    provider.broken = True
    answer = confirm(victor.client, consent(product.user("mallory"), victor.client))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "The provider is unavailable" in answer.text


def test_names_cannot_write_into_the_question(product, victor, provider) -> None:
    provider.person = "<b>victor</b>" + "x" * 5_000
    page = victor.client.get(consent(product.user("<i>mallory</i>"), victor.client)).text
    assert "<b>" not in page
    assert "<i>" not in page
    assert len(page) < 5_000


# Many sign-ins of one user
# --------------------------------------------------------------------------------------------------


def test_calls_to_the_provider_count_for_the_user_who_started(product, victor, conn) -> None:
    """Mallory can pass links on to many browsers, or through the backend of a product."""
    slots, queues = product.backend.provider_slots, product.backend.queues

    @contextmanager
    def busy():
        with slots.slot(queues, "mallory"), slots.slot(queues, "mallory"):
            yield

    mallory = product.user("mallory")
    back = consent(mallory, victor.client)
    with busy():
        assert victor.client.get(back).status_code == 429
    page = victor.client.get(back)
    assert page.status_code == 200, "the refusal does not use the link up"
    fields = form(page.text, "/oauth/confirm").fields
    with busy():
        assert victor.send("/oauth/confirm", fields).status_code == 429
        ann = consent(product.user("ann"), victor.client)
        assert victor.client.get(ann).status_code == 200, "others go on"
    assert victor.send("/oauth/confirm", fields).status_code == 200
    back = consent(mallory, victor.client, redirect_to=PRODUCT)
    code = query(victor.client.get(back).headers["location"])["connect_code"]
    body = {"connect_code": code, "user_id": "mallory"}
    with busy():
        assert product.admin.post("/v1/oauth/redeem", json=body).status_code == 429
    assert product.admin.post("/v1/oauth/redeem", json=body).status_code == 201


def test_the_sign_ins_that_a_user_starts_are_bounded(product, conn, monkeypatch) -> None:
    """Each is stored for ten minutes, with its config."""
    monkeypatch.setattr(provider_slots, "MAX_SIGN_INS_PER_HOUR", 3)
    mallory, start = product.user("mallory"), "/v1/oauth/cloud/authorize"
    answers = [mallory.post(start, json={}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201] * 3 + [429] * 2
    assert answers[-1].json()["code"] == "sign-ins-exhausted"
    again = product.user("mallory").post(start, json={})  # another token does not help
    assert again.status_code == 429
    assert product.user("ann").post(start, json={}).status_code == 201
    assert conn.execute("SELECT count(*) FROM oauth_flow").fetchone() == (4,)
    operator = product.admin
    for _ in range(5):
        assert operator.post(start, json={"user_id": "mallory"}).status_code == 201
