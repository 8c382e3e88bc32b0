"""The dashboard on a real server and port, and HTTP clients that act as browsers.

The clients keep cookies, and send a form with the fields of the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from core.dashboard.app import Site
from core.service.backend import Backend
from support.rest import Api, serving, sharing

Fields = dict[str, Any]


@dataclass
class Form:
    """A form of a page.

    Attributes:
      fields: The values that a browser would send, without those of buttons. Several values of one
        field are a list.
      attributes: The attributes of each input, by its name.
    """

    action: str
    fields: Fields = field(default_factory=dict)
    attributes: dict[str, Mapping[str, str | None]] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._form: Form | None = None
        self._area: str | None = None
        self._select: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name") or ""
        if tag == "form":
            self._form = Form(given.get("action") or "")
            self.found.append(self._form)
        if self._form is None:
            return
        if tag in ("input", "select", "textarea") and name:
            self._form.attributes[name] = given
        if tag == "input" and name and (given.get("type") != "checkbox" or "checked" in given):
            self._add(name, given.get("value") or "")
        elif tag == "textarea":
            self._area, self._form.fields[name] = name, ""
        elif tag == "select":
            self._select = name
        elif (
            tag == "option"
            and self._select
            and ("selected" in given or self._select not in self._form.fields)
        ):
            self._form.fields[self._select] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "textarea" and self._form is not None and self._area is not None:
            self._form.fields[self._area] = self._form.fields[self._area].removeprefix("\n")
            self._area = None
        elif tag == "select":
            self._select = None

    def handle_data(self, data: str) -> None:
        if self._area is not None and self._form is not None:
            self._form.fields[self._area] += data

    def _add(self, name: str, value: str) -> None:
        assert self._form is not None
        if name in self._form.fields:
            before = self._form.fields[name]
            self._form.fields[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            self._form.fields[name] = value


def forms(page: str) -> list[Form]:
    """Return all forms of a page."""
    parser = _Forms()
    parser.feed(page)
    return parser.found


def form(page: str, action: str, having: str = "") -> Form:
    """Return the only form with this action and, if given, a field with the name `having`."""
    (found,) = [
        one
        for one in forms(page)
        if one.action == action and (not having or having in one.attributes)
    ]
    return found


@dataclass
class Browser:
    """A client that acts as a signed-in browser."""

    client: httpx2.Client

    def get(self, path: str, **params: Any) -> httpx2.Response:
        return self.client.get(path, params=params or None)

    def send(self, path: str, fields: Fields | None = None, **headers: str) -> httpx2.Response:
        """Send a form with only these fields."""
        body = urlencode(fields or {}, doseq=True)
        return self.client.post(
            path,
            content=body,
            headers={"Content-Type": "application/x-www-form-urlencoded"} | headers,
        )

    @property
    def csrf(self) -> str:
        """The CSRF token of this session's forms."""
        value: str = form(self.get("/access").text, "/sign-out").fields["csrf"]
        return value

    def post(self, path: str, fields: Fields | None = None) -> httpx2.Response:
        """Send a form as a page of this session does."""
        return self.send(path, {"csrf": self.csrf} | (fields or {}))

    def submit(
        self, page: str, action: str, changes: Fields | None = None, having: str = ""
    ) -> httpx2.Response:
        """Open a page, change fields of a form, and send it; None removes a field."""
        fields = form(self.get(page).text, action, having).fields | (changes or {})
        return self.send(
            action, {name: value for name, value in fields.items() if value is not None}
        )


@dataclass
class Dashboard(Api):
    """A running dashboard, and the browsers that use it."""

    def stranger(self) -> Browser:
        """Return a browser that is not signed in."""
        return Browser(self.client(None))

    def sign_in(self, user: str | None = None, **more: Any) -> Browser:
        """Sign in a user, or without a name an operator, with a token that has these options."""
        browser = self.stranger()
        answer = browser.send("/sign-in", {"token": self.token(user, **more)})
        assert answer.status_code == 303, answer.text
        return browser


@pytest.fixture
def dashboard(backend: Backend) -> Iterator[Dashboard]:
    with serving(backend, lambda rest: Site(sharing(rest))) as url:
        running = Dashboard(backend, url)
        yield running
        for client in running.clients:
            client.close()
