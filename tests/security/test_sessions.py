"""Attacks on sessions: a stolen, planted or old cookie, and a session that does not end."""

from __future__ import annotations

import httpx2
import pytest
from support.dashboard import Browser

from core.service import sessions, tokens
from core.settings import Settings
from core.web.session_cookie import HOST_NAME, NAME

PUBLIC = "https://polling.example.org"


@pytest.fixture
def public(dashboard, monkeypatch):
    """Return a dashboard behind a proxy that terminates TLS."""
    monkeypatch.setattr(dashboard.backend.settings, "public_url", PUBLIC)
    return dashboard


def with_cookie(dashboard, value, name=NAME) -> Browser:
    """Return another browser that sends this cookie."""
    browser = dashboard.stranger()
    browser.client.headers["Cookie"] = f"{name}={value}"
    return browser


def is_signed_in(browser) -> bool:
    answer = browser.get("/accounts")
    assert answer.status_code == 200 or answer.headers["location"].startswith("/sign-in")
    return answer.status_code == 200


# The cookie
# --------------------------------------------------------------------------------------------------


def test_a_session_is_not_a_token(dashboard, conn) -> None:
    token = dashboard.token("ann")
    browser = dashboard.stranger()
    assert browser.send("/sign-in", {"token": token}).status_code == 303
    cookie = browser.client.cookies[NAME]
    assert token not in cookie
    assert dashboard.client(cookie).get("/v1/user-integrations").status_code == 401
    assert not is_signed_in(with_cookie(dashboard, token))
    stored = str(
        conn.execute("SELECT session::text, encode(digest, 'escape') FROM session").fetchall()
    )
    assert cookie not in stored
    digest = conn.execute("SELECT encode(digest, 'hex') FROM session").fetchone()[0]
    assert not is_signed_in(with_cookie(dashboard, digest))


def test_each_sign_in_opens_a_new_session_and_ends_the_old_one(dashboard) -> None:
    token, browser = dashboard.token("ann"), dashboard.stranger()
    browser.send("/sign-in", {"token": token})
    first = browser.client.cookies[NAME]
    browser.send("/sign-in", {"token": token})
    assert browser.client.cookies[NAME] != first
    assert not is_signed_in(with_cookie(dashboard, first))
    assert is_signed_in(browser)


def test_many_sign_ins_with_one_token_do_not_fill_the_table(dashboard, conn, monkeypatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    token, other = dashboard.token("mallory"), dashboard.sign_in("ann")
    browsers = []
    for _ in range(6):
        browsers.append(dashboard.stranger())
        browsers[-1].send("/sign-in", {"token": token})
    assert [is_signed_in(browser) for browser in browsers] == [False] * 3 + [True] * 3
    assert is_signed_in(other)
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (4,)


def test_a_chosen_session_id_is_not_adopted(dashboard) -> None:
    """Session fixation: the attacker plants an id, and the victim signs in with it."""
    browser = with_cookie(dashboard, "chosen-by-mallory")
    assert browser.send("/sign-in", {"token": dashboard.token("ann")}).status_code == 303
    assert not is_signed_in(with_cookie(dashboard, "chosen-by-mallory"))


def test_a_sibling_subdomain_cannot_plant_a_session(public) -> None:
    """A sibling may set cookies for the common domain, but none that begins with `__Host-`."""
    mallory = public.stranger()
    answer = mallory.send("/sign-in", {"token": public.token("mallory")})
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert (name, "domain" in rest.lower()) == (HOST_NAME, False)
    session = rest.partition(";")[0]
    assert is_signed_in(with_cookie(public, session, HOST_NAME))
    for planted in (NAME, HOST_NAME.lower(), f"{NAME}={session}; {NAME}"):
        assert not is_signed_in(with_cookie(public, session, planted))
    both = public.stranger()
    both.client.headers["Cookie"] = f"{NAME}={session}; {HOST_NAME}=of-the-victim"
    assert not is_signed_in(both)


@pytest.mark.parametrize("after", [b"", b"\xa0", b" "])
def test_a_name_that_only_looks_like_ours_names_no_session(public, conn, after) -> None:
    """A browser sees no prefix in such a name, and lets a sibling subdomain set it."""
    session = sessions.open_session(conn, public.token("mallory"))
    own, value = HOST_NAME.encode() + b"=of-the-victim; ", b"=" + session.encode()
    for before in (b"\xa0", b"\x85", b"=", b"$Version=1, "):
        planted = before + HOST_NAME.encode() + after + value
        for cookies in (planted, own + planted):
            victim = public.stranger()
            victim.client.headers = httpx2.Headers([(b"Cookie", cookies)])
            assert not is_signed_in(victim), cookies


def test_two_cookies_of_one_name_name_no_session(public, conn) -> None:
    """No browser stores two with this prefix: another program added one."""
    session = sessions.open_session(conn, public.token("mallory"))
    for cookies in (f"{session}; {HOST_NAME}=other", f"other; {HOST_NAME}={session}"):
        assert not is_signed_in(with_cookie(public, cookies, HOST_NAME))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Serve every host: these tests are about cookies."""
    return settings.model_copy(update={"allowed_hosts": ("*",)})


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "polling.example.org"},
        {"Host": "10.0.0.7:8080", "Origin": "http://10.0.0.7:8080"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Forwarded-Proto": "http"},
        {"Forwarded": "for=203.0.113.7"},
        {"Host": "127.0.0.1.example.org", "Origin": "http://127.0.0.1.example.org"},
        {"Host": "["},
    ],
)
def test_without_https_nobody_signs_in_over_a_network(dashboard, conn, headers) -> None:
    answer = dashboard.stranger().send("/sign-in", {"token": dashboard.token("ann")}, **headers)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "HTTPS" in answer.text
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (0,)


@pytest.mark.parametrize("host", ["localhost:1", "127.8.8.8", "[::1]:8080", "app.localhost"])
def test_a_person_signs_in_at_a_loopback_address_without_https(dashboard, host) -> None:
    answer = dashboard.stranger().send("/sign-in", {"token": dashboard.token("ann")}, Host=host)
    assert answer.headers["set-cookie"].startswith(f"{NAME}=")


# Its end
# --------------------------------------------------------------------------------------------------


def test_a_copied_cookie_is_worthless_after_sign_out(dashboard) -> None:
    browser = dashboard.sign_in("ann")
    copy = with_cookie(dashboard, browser.client.cookies[NAME])
    assert is_signed_in(copy)
    assert browser.post("/sign-out").status_code == 303
    assert not is_signed_in(copy)


# In the second case, the clock of the database was set back.
@pytest.mark.parametrize("expires_at", ["now()", "now() + interval '12 hours 1 second'"])
def test_the_server_ends_a_session_after_twelve_hours(dashboard, conn, expires_at) -> None:
    browser = dashboard.sign_in("ann")
    copy = with_cookie(dashboard, browser.client.cookies[NAME])
    lifetime = conn.execute("SELECT extract(epoch FROM expires_at - created_at) FROM session")
    assert lifetime.fetchone() == (12 * 3600,)
    conn.execute(f"UPDATE session SET expires_at = {expires_at}")
    assert not is_signed_in(copy)
    csrf = {"csrf": "x"}
    assert copy.send("/sign-out", csrf).status_code == 401


@pytest.mark.parametrize("end", ["revoked_at", "expires_at"])
def test_a_session_ends_with_its_token(dashboard, conn, end) -> None:
    browser, other = dashboard.sign_in("ann"), dashboard.sign_in("bob")
    conn.execute(f"UPDATE api_token SET {end} = now() WHERE user_id = 'ann'")
    assert (is_signed_in(browser), is_signed_in(other)) == (False, True)


def test_signing_out_everywhere_ends_all_sessions_of_the_user_alone(dashboard) -> None:
    first, second, bob = (dashboard.sign_in(name) for name in ("ann", "ann", "bob"))
    operator = dashboard.sign_in()
    assert first.send("/sign-out-everywhere", {"csrf": bob.csrf}).status_code == 403
    assert is_signed_in(second)
    assert first.post("/sign-out-everywhere").status_code == 303
    assert [is_signed_in(one) for one in (first, second, bob, operator)] == [
        False, False, True, True
    ]  # fmt: skip


def test_signing_out_everywhere_leaves_the_sessions_of_other_operators(dashboard) -> None:
    token, other = dashboard.token(), dashboard.sign_in()
    browsers = [dashboard.stranger() for _ in range(2)]
    for browser in browsers:
        browser.send("/sign-in", {"token": token})
    browsers[0].post("/sign-out-everywhere")
    assert [is_signed_in(one) for one in (*browsers, other)] == [False, False, True]


def test_erasing_a_user_ends_their_sessions(dashboard, conn) -> None:
    browser = dashboard.sign_in("ann")
    assert dashboard.admin.delete("/v1/users/ann?now=true").status_code == 200
    assert not is_signed_in(browser)
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (0,)


def test_the_leader_deletes_sessions_that_have_ended(dashboard, conn) -> None:
    from core.ledger.pruning import prune

    dashboard.sign_in("ann"), dashboard.sign_in("bob")
    conn.execute(
        "UPDATE session s SET expires_at = now() - interval '2 hours' FROM api_token t"
        " WHERE t.id = s.token_id AND t.user_id = 'ann'"
    )
    prune(conn)
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (1,)


def test_a_revoked_token_opens_no_session(dashboard, conn) -> None:
    token = dashboard.token("ann")
    tokens.revoke(conn, conn.execute("SELECT id FROM api_token").fetchone()[0])
    assert dashboard.stranger().send("/sign-in", {"token": token}).status_code == 401
    assert conn.execute("SELECT count(*) FROM session").fetchone() == (0,)
