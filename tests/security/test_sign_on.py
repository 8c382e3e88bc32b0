"""Sign-in with an identity provider, and attacks on it."""

from __future__ import annotations

import base64
import hmac
import json
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc import jwt
from pydantic import SecretStr
from starlette.responses import JSONResponse, RedirectResponse, Response
from support.dashboard import Browser, Dashboard
from support.identity_provider import CLIENT, CLIENT_SECRET, IdentityProvider, ec, rsa

from core.dashboard.pages import auth, sign_on
from core.errors import NotFound
from core.scopes import Role
from core.service import sessions
from core.service.sign_on import flow, provider
from core.web.request_rates import Rate
from core.web.session_cookie import NAME, SIGN_IN

ROLES = {"ops": Role.OPERATOR, "watchers": Role.VIEWER, "Ann@Example.org": Role.ADMIN}
ANN = {"sub": "ann-1", "groups": ["ops"], "email": "ann@example.org", "email_verified": False}


@dataclass
class SignOn:
    """A dashboard with an identity provider."""

    dashboard: Dashboard
    provider: IdentityProvider
    made: list[provider.Provider] = field(default_factory=list)

    def begin(self, browser: Browser, **params: str) -> httpx2.Response:
        """Start a sign-in, and return the provider's redirect."""
        answer = browser.get(flow.START, **params)
        assert answer.status_code == 303, answer.text
        with httpx2.Client(trust_env=False, timeout=60) as client:
            return client.get(answer.headers["location"])

    def back(self, browser: Browser, redirect: httpx2.Response) -> httpx2.Response:
        """Open the address to which the provider redirects."""
        assert redirect.status_code == 302, redirect.text
        return browser.client.get(redirect.headers["location"])

    def sign_in(self, browser: Browser | None = None, **params: str) -> httpx2.Response:
        browser = browser or self.dashboard.stranger()
        return self.back(browser, self.begin(browser, **params))


@pytest.fixture
def sso(dashboard, identity_provider, monkeypatch) -> SignOn:
    settings = identity_provider.settings(public_url=dashboard.url, oidc_roles=ROLES)
    settings["oidc_client_secret"] = SecretStr(CLIENT_SECRET)
    for name, value in settings.items():
        monkeypatch.setattr(dashboard.backend.settings, name, value)
    monkeypatch.setattr(sign_on, "_starts", Rate(1_000.0))
    monkeypatch.setattr(auth._refusals, "_rate", Rate(1_000.0))
    identity_provider.redirect_uri = dashboard.url + flow.CALLBACK
    identity_provider.person = dict(ANN)
    sso = SignOn(dashboard, identity_provider)

    def make(settings):
        sso.made.append(provider.Provider(settings))
        return sso.made[-1]

    monkeypatch.setattr(auth, "Provider", make)
    return sso


def is_signed_in(browser: Browser) -> bool:
    return browser.get("/accounts").status_code == 200


def acts(conn):
    return conn.execute(
        "SELECT act, actor, channel, target_type, target_id, token_id, user_id, detail"
        " FROM audit ORDER BY id"
    ).fetchall()


# A sign-in
# --------------------------------------------------------------------------------------------------


def test_a_person_signs_in_and_is_named_in_the_audit_trail(sso, conn) -> None:
    browser = sso.dashboard.stranger()
    page = browser.get("/sign-in", next="/runs").text
    assert 'href="/sign-in/oidc?next=%2Fruns"' in page
    answer = sso.sign_in(browser, next="/runs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    page = browser.get("/access").text
    assert "ops" not in page
    assert "<strong>operator</strong>" in page
    assert CLIENT_SECRET not in page
    detail = {"issuer": sso.provider.url, "role": "operator"}
    name = "ann@example.org (ann-1)"
    assert acts(conn) == [
        ("sign_in.open", name, "dashboard", "session", "ann-1", None, None, detail)
    ]
    assert conn.execute("SELECT issuer, subject, name, role, token_id FROM session").fetchall() == [
        (sso.provider.url, "ann-1", name, "operator", None)
    ]
    lifetime = conn.execute("SELECT extract(epoch FROM expires_at - created_at) FROM session")
    assert lifetime.fetchone() == (12 * 3600,)


def test_later_acts_of_a_person_name_them(sso, conn) -> None:
    sso.provider.person |= {"email_verified": True}
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    fields = {"scopes": ["content:read"], "name": "made", "days": "7"}
    assert browser.submit("/access", "/access/tokens", fields).status_code == 200
    assert [row[:3] for row in acts(conn)] == [
        ("sign_in.open", "ann@example.org", "dashboard"),
        ("token.create", "ann@example.org", "dashboard"),
    ]
    trail = browser.get("/audit").text
    assert trail.count("ann@example.org") >= 2


def test_a_role_applies_at_the_next_sign_in(sso, conn) -> None:
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    sso.provider.person["groups"] = ["watchers"]
    assert browser.get("/parked").status_code == 200
    before = browser.client.cookies[NAME]
    sso.sign_in(browser)
    assert browser.get("/parked").status_code == 403
    assert browser.client.cookies[NAME] != before
    assert conn.execute("SELECT role FROM session").fetchall() == [("viewer",)]


def test_an_operator_ends_all_sessions_of_one_person(sso, conn) -> None:
    first, second, other = (sso.dashboard.stranger() for _ in range(3))
    sso.sign_in(first)
    sso.sign_in(second)
    sso.provider.person |= {"sub": "bob-1", "email": "bob@example.org"}
    sso.sign_in(other)
    assert [(row["name"], row["sessions"]) for row in sessions.people(conn)] == [
        ("ann@example.org (ann-1)", 2),
        ("bob@example.org (bob-1)", 1),
    ]
    with pytest.raises(NotFound):
        sessions.end_sessions_named(conn, "ann@example.org")
    assert sessions.end_sessions_named(conn, "ann@example.org (ann-1)") == 2
    assert [is_signed_in(one) for one in (first, second, other)] == [False, False, True]
    assert acts(conn)[-1][0] == "sign_in.end"


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["watchers", "ops"]}, "operator"),
        ({"groups": "watchers"}, "viewer"),
        ({"groups": [], "email_verified": True}, "admin"),
        ({"groups": [], "email": "ANN@example.ORG", "email_verified": "true"}, "admin"),
        ({"groups": ["watchers"], "email_verified": True}, "admin"),
    ],
)
def test_claims_give_a_role(sso, conn, claims, role) -> None:
    sso.provider.person |= claims
    assert sso.sign_in().status_code == 303
    assert conn.execute("SELECT role FROM session").fetchall() == [(role,)]


@pytest.mark.parametrize(
    "claims",
    [
        {"groups": []},
        {"groups": None},
        {"groups": {"ops": True}},
        {"groups": ["OPS", 7, None, ["ops"]]},
        {"groups": [], "email_verified": False},
        {"groups": [], "email_verified": "yes"},
        {"groups": [], "email_verified": None},
        # A group can have any name: it is not an e-mail address.
        {"groups": ["Ann@Example.org", "ann@example.org"]},
        {"groups": [], "email": ["ann@example.org"], "email_verified": True},
        {"groups": [], "email": "bob@example.org", "email_verified": True},
    ],
)
def test_a_person_without_a_role_is_refused_in_plain_words(sso, conn, claims) -> None:
    sso.provider.person |= claims
    browser = sso.dashboard.stranger()
    answer = sso.sign_in(browser)
    assert (answer.status_code, "has no role on this server" in answer.text) == (403, True)
    assert not is_signed_in(browser)
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (0,)
    ((act, actor, channel, *_, detail),) = acts(conn)
    assert (act, channel) == ("sign_in.refuse", "browser")
    assert actor.endswith("(ann-1)") or actor in ("bob@example.org", "ann-1")
    reason = {"reason": "sign-on-without-role", "issuer": sso.provider.url}
    assert detail == reason | {"attempts": 1}


@pytest.mark.parametrize(
    ("path", "claims"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["ops"]}}),
        ("https://example.org/roles", {"https://example.org/roles": ["ops"]}),
        ("roles", {"roles": ["ops"]}),
    ],
)
def test_the_claim_of_roles_is_a_setting(sso, conn, monkeypatch, path, claims) -> None:
    monkeypatch.setattr(sso.dashboard.backend.settings, "oidc_roles_claim", path)
    sso.provider.person = claims
    assert sso.sign_in().status_code == 303


def test_the_userinfo_endpoint_gives_a_role(sso, conn) -> None:
    sso.provider.person = {"sub": "ann-1"}
    sso.provider.userinfo = {"email": "ann@example.org", "email_verified": True}
    assert sso.sign_in().status_code == 303
    assert conn.execute("SELECT name, role FROM session").fetchall() == [
        ("ann@example.org", "admin")
    ]


def test_an_address_is_not_verified_by_another_document(sso, conn) -> None:
    sso.provider.person = {"sub": "ann-1", "email": "ann@example.org"}
    sso.provider.userinfo = {"email": "mallory@example.org", "email_verified": True}
    assert sso.sign_in().status_code == 403
    sso.provider.userinfo |= {"groups": ["ops"]}
    assert sso.sign_in().status_code == 303
    assert conn.execute("SELECT name FROM session").fetchall() == [("mallory@example.org",)]


def test_userinfo_about_somebody_else_is_ignored(sso) -> None:
    sso.provider.person = {"sub": "ann-1"}
    sso.provider.userinfo = {"sub": "root-1", "groups": ["ops"]}
    assert sso.sign_in().status_code == 403


def test_a_name_that_a_person_chose_is_followed_by_the_subject(sso, conn) -> None:
    sso.provider.person |= {"preferred_username": "boss@example.org\u202e\0" + "x" * 999}
    sso.sign_in()
    ((name,),) = conn.execute("SELECT name FROM session").fetchall()
    assert name.startswith("boss@example.orgx")
    assert name.endswith(" (ann-1)")
    assert len(name) < 250


def test_es256_works_and_new_keys_are_found(sso) -> None:
    for key, algorithm in ((rsa(), "RS256"), (ec(), "ES256"), (rsa("rsa-2"), "RS256")):
        sso.provider.key, sso.provider.algorithm = key, algorithm
        age_documents(sso, 60)
        assert sso.sign_in().status_code == 303, algorithm


def age_documents(sso: SignOn, seconds: float) -> None:
    """Let what the server has read from the provider grow older."""
    for made in sso.made:
        for document in (made._keys, made._endpoints):
            if document._value is not None:
                document._value = document._value[0] - seconds, document._value[1]


def test_unknown_keys_are_looked_for_once(sso) -> None:
    assert sso.sign_in().status_code == 303
    sso.provider.published = [sso.provider.key]
    sso.provider.key = rsa("stolen")
    asked = sso.provider.requests["/keys"]
    for _ in range(5):
        assert sso.sign_in().status_code == 403
    assert sso.provider.requests["/keys"] == asked
    age_documents(sso, 60)
    for _ in range(5):
        assert sso.sign_in().status_code == 403
    assert sso.provider.requests["/keys"] == asked + 1


# Attacks
# --------------------------------------------------------------------------------------------------


def refused(sso: SignOn, conn, answer: httpx2.Response, reason: str) -> None:
    assert answer.status_code in (403, 422), answer.text
    assert NAME not in {
        cookie.partition("=")[0] for cookie in answer.headers.get_list("set-cookie")
    }
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (0,)
    ((act, *_, detail),) = acts(conn)
    assert (act, detail["reason"]) == ("sign_in.refuse", reason)
    for secret in (*filter(lambda token: len(token) > 1, sso.provider.issued), CLIENT_SECRET):
        assert secret not in answer.text


def forged(header, claims, signature=b""):
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


NOW = time.time()
WRONG_CLAIMS = {
    "issuer": {"iss": "https://evil.example.org"},
    "issuer with a slash": {"iss": "{url}/"},
    "audience": {"aud": "another"},
    "audiences without this one": {"aud": ["another", "third"]},
    "audience of others, too": {"aud": [CLIENT, "another"]},
    "authorized party": {"aud": [CLIENT, "another"], "azp": "another"},
    "authorized party alone": {"azp": "another"},
    "nonce": {"nonce": "another"},
    "no nonce": {"nonce": None},
    "expired": {"exp": 1_000},
    "just expired": {"exp": int(NOW) - 90},
    "expiry": {"exp": None},
    "expiry as text": {"exp": "9999999999"},
    "endless": {"exp": float("inf")},
    "from the future": {"iat": int(NOW) + 3_000},
    "no time": {"iat": None},
    "not yet valid": {"nbf": int(NOW) + 3_000},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "long subject": {"sub": "x" * 256},
    "subject as a list": {"sub": ["ann-1"]},
    "hash of another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.parametrize("wrong", WRONG_CLAIMS)
def test_an_id_token_with_a_wrong_claim_is_refused(sso, conn, wrong) -> None:
    def change(claims):
        for name, value in WRONG_CLAIMS[wrong].items():
            if value is None:
                del claims[name]
            else:
                claims[name] = value.format(url=claims["iss"]) if name == "iss" else value

    sso.provider.change = change
    refused(sso, conn, sso.sign_in(), "sign-on-answer-invalid")


def test_clocks_may_differ_by_a_minute(sso) -> None:
    for name, seconds in (("exp", -30), ("iat", 30), ("nbf", 30)):
        sso.provider.change = lambda claims, name=name, seconds=seconds: claims.update(
            {name: int(time.time()) + seconds}
        )
        assert sso.sign_in().status_code == 303, name


def with_hmac(secret, sso, claims):
    """Sign with HMAC, for servers that take the algorithm from the token."""
    unsigned = forged({"alg": "HS256", "kid": sso.provider.key.kid}, claims).rstrip(".")
    digest = hmac.digest(secret, unsigned.encode(), "sha256")
    return f"{unsigned}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def hmac_with_the_public_key(sso, claims):
    return with_hmac(sso.provider.key.as_pem(private=False), sso, claims)


def hmac_with_the_client_secret(sso, claims):
    return with_hmac(CLIENT_SECRET.encode(), sso, claims)


FORGERIES = {
    "none": lambda sso, claims: forged({"alg": "none"}, claims),
    "None with a key": lambda sso, claims: forged({"alg": "None", "kid": "rsa-1"}, claims),
    "HMAC with the public key": hmac_with_the_public_key,
    "HMAC with the secret": hmac_with_the_client_secret,
    "no signature": lambda sso, claims: forged({"alg": "RS256", "kid": "rsa-1"}, claims),
    "another key": lambda sso, claims: jwt.encode(
        {"alg": "RS256", "kid": "rsa-1"}, claims, rsa("stolen")
    ),
    "a key of its own": lambda sso, claims: jwt.encode(
        {"alg": "RS256", "jwk": rsa("own").as_dict(private=False)}, claims, rsa("own")
    ),
    "another algorithm": lambda sso, claims: jwt.encode(
        {"alg": "PS256", "kid": "rsa-1"}, claims, sso.provider.key, algorithms=["PS256"]
    ),
    "not a token": lambda sso, claims: "x",
    "empty": lambda sso, claims: "",
    "a list": lambda sso, claims: forged({"alg": "RS256"}, [claims]),
    "deep": lambda sso, claims: "[" * 100_000,
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_id_token_is_refused(sso, conn, name) -> None:
    sso.provider.sign = lambda claims: FORGERIES[name](sso, claims)
    refused(sso, conn, sso.sign_in(), "sign-on-answer-invalid")


def test_a_token_of_another_sign_in_is_refused(sso, conn) -> None:
    """The nonce binds an ID token to its sign-in."""
    sso.sign_in()
    (stolen,) = sso.provider.issued
    conn.execute("DELETE FROM session")
    conn.execute("DELETE FROM audit")
    sso.provider.sign = lambda claims: stolen
    refused(sso, conn, sso.sign_in(), "sign-on-answer-invalid")


def test_a_redirect_works_once(sso, conn) -> None:
    browser = sso.dashboard.stranger()
    cookie = None
    redirect = sso.begin(browser)
    cookie = browser.client.cookies[SIGN_IN]
    assert sso.back(browser, redirect).status_code == 303
    conn.execute("DELETE FROM session")
    conn.execute("DELETE FROM audit")
    refused(sso, conn, sso.back(browser, redirect), "sign-on-outdated")
    # With a copy of the cookie, the provider refuses the code.
    conn.execute("DELETE FROM audit")
    copy = sso.dashboard.stranger()
    copy.client.headers["Cookie"] = f"{SIGN_IN}={cookie}"
    refused(sso, conn, sso.back(copy, redirect), "sign-on-refused")


def test_a_redirect_works_in_the_browser_that_began(sso, conn) -> None:
    """An attacker could else sign a person in as the attacker."""
    mallory, ann = sso.dashboard.stranger(), sso.dashboard.stranger()
    redirect = sso.begin(mallory)
    refused(sso, conn, sso.back(ann, redirect), "sign-on-outdated")
    conn.execute("DELETE FROM audit")
    sso.begin(ann)  # this browser has begun a sign-in of its own
    refused(sso, conn, sso.back(ann, redirect), "sign-on-outdated")
    assert sso.provider.requests.get("/token") is None


@pytest.mark.parametrize("change", ["", "x", "\udcff", "\u00e9"])
def test_a_wrong_state_is_refused(sso, conn, change) -> None:
    browser = sso.dashboard.stranger()
    location = sso.begin(browser).headers["location"]
    params = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    state = params["state"] + change if change else ""
    answer = browser.get(
        flow.CALLBACK, **params | {"state": state.encode("utf-8", "replace").decode()}
    )
    refused(sso, conn, answer, "sign-on-outdated")


@pytest.mark.parametrize("value", ["", "x", "gAAAAABx", "{}"])
def test_a_wrong_cookie_is_refused(sso, conn, value) -> None:
    browser = sso.dashboard.stranger()
    redirect = sso.begin(browser)
    browser.client.cookies.clear()
    browser.client.headers["Cookie"] = f"{SIGN_IN}={value}"
    refused(sso, conn, sso.back(browser, redirect), "sign-on-outdated")


def test_a_cookie_of_another_kind_is_refused(sso, conn) -> None:
    """Everything that the vault encrypts has the same key."""
    for text in ("[]", "{}", '{"issuer": 1}', "7"):
        conn.execute("DELETE FROM audit")
        browser = sso.dashboard.stranger()
        redirect = sso.begin(browser)
        browser.client.cookies.clear()
        sealed = sso.dashboard.backend.vault.seal_text(text)
        browser.client.headers["Cookie"] = f"{SIGN_IN}={sealed}"
        refused(sso, conn, sso.back(browser, redirect), "sign-on-outdated")


@pytest.mark.parametrize("seconds", [-61, 601])
def test_a_sign_in_lasts_ten_minutes(sso, conn, monkeypatch, seconds) -> None:
    browser = sso.dashboard.stranger()
    redirect = sso.begin(browser)
    now = time.time()
    monkeypatch.setattr(flow.time, "time", lambda: now + seconds)
    refused(sso, conn, sso.back(browser, redirect), "sign-on-outdated")


def test_the_cookie_says_nothing_and_belongs_to_this_host(sso, monkeypatch) -> None:
    browser = sso.dashboard.stranger()
    answer = browser.get(flow.START, next="/runs?account=secret-name")
    (cookie,) = answer.headers.get_list("set-cookie")
    assert cookie.startswith(f"{SIGN_IN}=")
    assert {"HttpOnly", "SameSite=lax", "Max-Age=600", "Path=/"} <= set(cookie.split("; "))
    params = parse_qs(urlsplit(answer.headers["location"]).query)
    for secret in (params["state"][0], params["nonce"][0], "secret-name"):
        assert secret not in cookie
    monkeypatch.setattr(sso.dashboard.backend.settings, "public_url", "https://polling.example.org")
    (cookie,) = browser.get(flow.START).headers.get_list("set-cookie")
    assert cookie.startswith(f"__Host-{SIGN_IN}=")
    assert "Secure" in cookie


def test_an_answer_of_another_provider_is_refused(sso, conn) -> None:
    """Mix-up (RFC 9207): the parameter `iss` names the provider that has answered."""
    for iss in ("https://evil.example.org", None):
        conn.execute("DELETE FROM audit")
        browser = sso.dashboard.stranger()
        location = sso.begin(browser).headers["location"]
        params = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        if iss is None:
            del params["iss"]
        else:
            params["iss"] = iss
        answer = browser.get(flow.CALLBACK, **params)
        refused(sso, conn, answer, "sign-on-answer-invalid")
    assert sso.provider.requests.get("/token") is None


def test_a_provider_need_not_name_itself(sso) -> None:
    sso.provider.metadata = {"authorization_response_iss_parameter_supported": False}
    browser = sso.dashboard.stranger()
    location = sso.begin(browser).headers["location"]
    params = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    del params["iss"]
    assert browser.get(flow.CALLBACK, **params).status_code == 303


@pytest.mark.parametrize("error", ["access_denied", "<b>login_required</b>", "x" * 200])
def test_a_refusal_of_the_provider_is_shown(sso, conn, error) -> None:
    browser = sso.dashboard.stranger()
    location = sso.begin(browser).headers["location"]
    params = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    del params["code"]
    answer = browser.get(flow.CALLBACK, **params, error=error)
    refused(sso, conn, answer, "sign-on-refused")
    assert "<b>" not in answer.text
    assert ("access_denied" in answer.text) is (error == "access_denied")


ELSEWHERE = (
    "https://evil.example.org", "//evil.example.org", "/\\evil.example.org", "javascript:x",
    "/%0d%0aX:y\r\nX: y", "x" * 1_500, "/" + "x" * 1_500, "/\u202e", "",
)  # fmt: skip


def test_no_sign_in_leads_to_another_site(sso) -> None:
    for next_path in ELSEWHERE:
        answer = sso.sign_in(next=next_path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/"), next_path


def test_a_sign_in_ends_the_session_before(sso) -> None:
    browser = sso.dashboard.sign_in("bob")
    before = browser.client.cookies[NAME]
    sso.sign_in(browser)
    copy = sso.dashboard.stranger()
    copy.client.headers["Cookie"] = f"{NAME}={before}"
    assert not is_signed_in(copy)
    assert is_signed_in(browser)


def test_without_https_nobody_signs_in_over_a_network(sso) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7"}
    answer = sso.dashboard.stranger().client.get(flow.START, headers=headers)
    assert (answer.status_code, "HTTPS" in answer.text) == (403, True)


# The provider
# --------------------------------------------------------------------------------------------------


def still_works(sso: SignOn) -> None:
    """A person signs in with a token."""
    browser = sso.dashboard.sign_in("bob")
    assert is_signed_in(browser)


BROKEN = {
    "an error": lambda request: Response(status_code=500),
    "not JSON": lambda request: Response("<html>"),
    "a list": lambda request: JSONResponse([]),
    "nothing": lambda request: JSONResponse({}),
    "deep": lambda request: Response("[" * 100_000, media_type="application/json"),
    "too much": lambda request: Response(b" " * 300_000 + b"{}", media_type="application/json"),
    "compressed": lambda request: Response(
        b"{}", media_type="application/json", headers={"Content-Encoding": "gzip"}
    ),
    "a redirect": lambda request: RedirectResponse("/authorize", 302),
}


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_a_broken_answer_is_an_error_in_plain_words(sso, monkeypatch, path) -> None:
    monkeypatch.setattr(provider, "FAILURE_SECONDS", 0.0)
    for name, answer in BROKEN.items():
        sso.provider.answers[path] = answer
        browser = sso.dashboard.stranger()
        response = browser.get(flow.START)
        if path != "/.well-known/openid-configuration":
            with httpx2.Client(trust_env=False) as client:
                redirect = client.get(response.headers["location"])
            response = sso.back(browser, redirect)
        is_refusal = name == "nothing" and path != "/.well-known/openid-configuration"
        assert response.status_code == (403 if is_refusal else 502), (name, response.text)
        words = (
            "not valid for this sign-in" if is_refusal else "the identity provider is not available"
        )
        assert words in response.text.lower(), name
        assert 'name="token"' in response.text
        assert not is_signed_in(browser)
        age_documents(sso, 7_200)
    still_works(sso)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_a_hanging_provider_holds_nobody_else_up(sso, monkeypatch, path) -> None:
    monkeypatch.setattr(provider, "CALL_SECONDS", 0.5)
    sso.provider.hangs.add(path)
    browser = sso.dashboard.stranger()
    response = browser.get(flow.START)
    if path != "/.well-known/openid-configuration":
        with httpx2.Client(trust_env=False) as client:
            redirect = client.get(response.headers["location"])
        response = sso.back(browser, redirect)
    assert (response.status_code, "TimeoutError" in response.text) == (502, True)
    still_works(sso)


def test_a_provider_that_is_down_is_asked_again_later(sso, monkeypatch) -> None:
    sso.provider.answers["/.well-known/openid-configuration"] = BROKEN["an error"]
    browser = sso.dashboard.stranger()
    for _ in range(5):
        assert browser.get(flow.START).status_code == 502
    assert sso.provider.requests["/.well-known/openid-configuration"] == 1
    del sso.provider.answers["/.well-known/openid-configuration"]
    monkeypatch.setattr(provider, "FAILURE_SECONDS", 0.0)
    assert sso.sign_in(browser).status_code == 303


def test_too_many_sign_ins_are_refused(sso, monkeypatch) -> None:
    monkeypatch.setattr(provider, "MAX_CALLS", 0)
    answer = sso.dashboard.stranger().get(flow.START)
    assert (answer.status_code, "too many sign-ins" in answer.text.lower()) == (503, True)
    monkeypatch.setattr(provider, "MAX_CALLS", 1)
    assert sso.sign_in().status_code == 303


def test_one_address_cannot_flood_the_provider(sso, monkeypatch) -> None:
    monkeypatch.setattr(sign_on, "_starts", Rate(0.01, 200.0))
    browser = sso.dashboard.stranger()
    statuses = [browser.get(flow.START).status_code for _ in range(4)]
    assert statuses == [303, 303, 303, 429]


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example.org"},
        {"issuer": "{url}/"},
        {"issuer": None},
        {"authorization_endpoint": "http://evil.example.org/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "http://10.0.0.1/token"},
        {"token_endpoint": None},
        {"token_endpoint": "https://user:password@evil.example.org"},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)
def test_a_wrong_discovery_document_is_refused(sso, metadata) -> None:
    sso.provider.metadata = {
        name: value and value.format(url=sso.provider.url) for name, value in metadata.items()
    }
    answer = sso.dashboard.stranger().get(flow.START)
    assert answer.status_code == 502
    assert "discovery document" in answer.text


def test_a_public_client_sends_no_secret(sso, monkeypatch) -> None:
    bodies = []
    monkeypatch.setattr(sso.dashboard.backend.settings, "oidc_client_secret", None)
    sso.provider.answers["/token"] = lambda request: (
        bodies.append(request.headers.get("authorization")) or JSONResponse({"error": "x"}, 400)
    )
    sso.sign_in()
    assert bodies == [None]


def test_a_provider_may_take_the_secret_in_the_body(sso) -> None:
    sso.provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    seen = []
    sso.provider.answers["/token"] = lambda request: (
        seen.append(request.headers.get("authorization")) or JSONResponse({"error": "x"}, 400)
    )
    sso.sign_in()
    assert seen == [None]


def test_unusable_keys_are_left_out(sso) -> None:
    good = sso.provider.key.as_dict(private=False)
    secret = base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")
    sso.provider.answers["/keys"] = lambda request: JSONResponse(
        {
            "keys": [
                7,
                {"kty": "oct", "k": secret, "kid": "rsa-1"},
                {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "rsa-1"},
                {"kty": "AKP", "kid": "rsa-1"},
                good | {"use": "enc", "kid": "rsa-1", "n": good["n"]},
                good,
            ]
        }
    )
    assert sso.sign_in().status_code == 303


# Without settings
# --------------------------------------------------------------------------------------------------


def test_without_a_provider_nothing_of_it_is_shown(dashboard) -> None:
    stranger = dashboard.stranger()
    assert "oidc" not in stranger.get("/sign-in").text
    for path in (flow.START, flow.CALLBACK):
        answer = stranger.get(path)
        assert (answer.status_code, "no identity provider" in answer.text) == (404, True)


def test_without_a_public_address_the_error_is_plain(sso, monkeypatch) -> None:
    monkeypatch.setattr(sso.dashboard.backend.settings, "public_url", None)
    answer = sso.dashboard.stranger().get(flow.START)
    assert (answer.status_code, "does not know its public address" in answer.text) == (409, True)
    assert "POLLING_" not in answer.text


def test_sessions_end_with_the_setting_of_their_provider(sso, monkeypatch) -> None:
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    assert is_signed_in(browser)
    for issuer in (None, "https://other.example.org"):
        monkeypatch.setattr(sso.dashboard.backend.settings, "oidc_issuer", issuer)
        assert not is_signed_in(browser)


# The end of a session
# --------------------------------------------------------------------------------------------------


def test_signing_out_ends_the_session_here_and_at_the_provider(sso, conn) -> None:
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    answer = browser.post("/sign-out")
    assert answer.status_code == 200
    url = answer.text.split('content="0; url=')[1].split('"')[0].replace("&amp;", "&")
    assert url.startswith(f"{sso.provider.url}/logout?")
    assert parse_qs(urlsplit(url).query) == {
        "client_id": [CLIENT], "post_logout_redirect_uri": [f"{sso.dashboard.url}/sign-in"],
    }  # fmt: skip
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (0,)
    assert NAME not in browser.client.cookies
    assert not is_signed_in(browser)


@pytest.mark.parametrize("end", [None, "javascript:alert(1)", "http://evil.example.org"])
def test_a_provider_without_an_end_of_sessions_is_left_alone(sso, end) -> None:
    sso.provider.metadata = {"end_session_endpoint": end}
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    answer = browser.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


def test_signing_out_does_not_wait_for_a_hanging_provider(sso, monkeypatch) -> None:
    monkeypatch.setattr(auth, "SIGN_OUT_SECONDS", 0.3)
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    age_documents(sso, 7_200)
    sso.provider.hangs.add("/.well-known/openid-configuration")
    assert browser.post("/sign-out").headers["location"] == "/sign-in"
    assert not is_signed_in(browser)


def test_signing_out_everywhere_ends_the_sessions_of_one_person(sso) -> None:
    first, second = sso.dashboard.stranger(), sso.dashboard.stranger()
    sso.sign_in(first), sso.sign_in(second)
    sso.provider.person |= {"sub": "bob-1"}
    bob, token = sso.dashboard.stranger(), sso.dashboard.sign_in()
    sso.sign_in(bob)
    assert first.post("/sign-out-everywhere").status_code == 303
    assert [is_signed_in(one) for one in (first, second, bob, token)] == [False, False, True, True]


def test_many_sign_ins_of_one_person_do_not_fill_the_table(sso, conn, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    browsers = [sso.dashboard.stranger() for _ in range(4)]
    for browser in browsers:
        sso.sign_in(browser)
    assert [is_signed_in(browser) for browser in browsers] == [False, False, True, True]
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (2,)


def test_an_unknown_role_allows_nothing(sso, conn) -> None:
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    conn.execute("UPDATE session SET role = 'emperor'")
    assert browser.get("/accounts").status_code == 403
    assert "unknown" in browser.get("/access").text


def test_an_ended_session_creates_no_token(sso, conn) -> None:
    sso.provider.person |= {"email_verified": True}
    browser = sso.dashboard.stranger()
    sso.sign_in(browser)
    fields = {"csrf": browser.csrf, "scopes": "content:read", "days": "7"}
    conn.execute("DELETE FROM session")
    assert browser.send("/access/tokens", fields).status_code == 401
    assert conn.execute("SELECT count(*) FROM api_token").fetchone() == (0,)


def test_the_log_has_no_secret(sso, caplog) -> None:
    caplog.set_level("DEBUG")
    sso.sign_in()
    sso.provider.change = lambda claims: claims.update(nonce="another")
    sso.sign_in()
    sso.provider.answers["/token"] = BROKEN["an error"]
    sso.sign_in()
    # The browser and the provider of this test log in the same process.
    ours = ("core.", "authlib", "joserfc", "asyncio")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(ours)]
    assert lines
    for secret in (CLIENT_SECRET, *sso.provider.issued, *sso.provider.used):
        assert secret not in "\n".join(lines)
