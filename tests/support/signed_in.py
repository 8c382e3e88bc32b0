"""A signed-in client that opens pages and presses buttons, and checks the status of each answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2

from core.service import sessions
from core.web import session_cookie
from support.dashboard import Browser, Dashboard


@dataclass
class Person:
    """A user of the dashboard, through an HTTP client."""

    browser: Browser

    @property
    def client(self) -> httpx2.Client:
        return self.browser.client

    @property
    def csrf(self) -> str:
        """The CSRF token of this session's forms."""
        return sessions.csrf_of(self.client.cookies[session_cookie.NAME])

    def get(self, path: str, status: int = 200, **params: Any) -> httpx2.Response:
        answer = self.browser.get(path, **params)
        assert answer.status_code == status, answer.text
        return answer

    def post(self, path: str, status: int = 303, **fields: Any) -> httpx2.Response:
        """Press a button of the form `act`."""
        answer = self.browser.send(path, {"csrf": self.csrf, **fields})
        assert answer.status_code == status, answer.text
        return answer


def signed_in(dashboard: Dashboard, user: str | None = None, **more: Any) -> Person:
    """Sign in a user, or without a name an operator, with a token that has these options."""
    return Person(dashboard.sign_in(user, **more))
