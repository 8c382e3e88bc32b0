"""The token endpoint: tokens, rotation, revocation and refusals."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.auth import jwt

CLIENT_ID, CLIENT_SECRET = "1234567-tests.apps.googleusercontent.com", "client-secret-of-the-tests"

Answer = tuple[int, dict[str, Any]]


@dataclass
class Tokens:
    """The valid tokens, and the answers of the token endpoint.

    Attributes:
      rotate: Every refresh token works once, and its use returns a new one.
      seconds: The lifetime of an access token in seconds.
      certificates: Public keys of service accounts, by client address, as PEM.
      refreshes: The number of access tokens that the endpoint has issued.
      refusal: The answer to every request, if it is set.
    """

    rotate: bool = False
    seconds: float = 3600
    certificates: dict[str, bytes] = field(default_factory=dict)
    refreshes: int = 0
    refusal: Answer | None = None
    delay: float = 0
    subjects: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._access: dict[str, float] = {}
        self._refresh: set[str] = set()

    def new_refresh_token(self) -> str:
        token = f"1//refresh-{secrets.token_urlsafe(24)}"
        self._refresh.add(token)
        return token

    def new_access_token(self) -> str:
        token = f"ya29.access-{secrets.token_urlsafe(24)}"
        self._access[token] = time.monotonic() + self.seconds
        return token

    def expire_access_tokens(self) -> None:
        self._access.clear()

    def revoke(self) -> None:
        """Revoke the consent: all tokens become invalid."""
        self._access.clear()
        self._refresh.clear()

    def admits(self, authorization: str) -> bool:
        kind, _, token = authorization.partition(" ")
        return kind == "Bearer" and self._access.get(token, 0) > time.monotonic()

    def answer(self, form: Mapping[str, str]) -> Answer:
        """Answer a request to the token endpoint."""
        time.sleep(self.delay)
        if self.refusal is not None:
            return self.refusal
        if form.get("grant_type") == "refresh_token":
            return self._refreshed(form)
        return self._asserted(form.get("assertion", ""))

    def _refreshed(self, form: Mapping[str, str]) -> Answer:
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return 401, {
                "error": "invalid_client",
                "error_description": "The OAuth client was not found.",
            }
        with self._lock:
            token = form.get("refresh_token", "")
            if token not in self._refresh:
                return 400, {
                    "error": "invalid_grant",
                    "error_description": "Token has been expired or revoked.",
                }
            given = self._given()
            if self.rotate:
                self._refresh.discard(token)
                given["refresh_token"] = self.new_refresh_token()
        return 200, given

    def _asserted(self, assertion: str) -> Answer:
        try:
            claims = jwt.decode(
                assertion, self.certificates, audience="https://oauth2.googleapis.com/token"
            )
        except Exception as error:  # noqa: BLE001  the assertion may be invalid in any way
            return 400, {"error": "invalid_grant", "error_description": f"Invalid JWT: {error}"}
        self.subjects.append(claims["sub"])
        return 200, self._given()

    def _given(self) -> dict[str, Any]:
        self.refreshes += 1
        return {
            "access_token": self.new_access_token(),
            "expires_in": int(self.seconds),
            "token_type": "Bearer",
        }
