"""The token endpoint: tokens, rotation, revocation and refusals."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from google.auth import jwt

from support.gmail.answers import Answer

CLIENT_ID, CLIENT_SECRET = "1234567-tests.apps.googleusercontent.com", "client-secret-of-the-tests"

SCOPE = "https://www.googleapis.com/auth/gmail.readonly"


@dataclass
class Tokens:
    """The valid tokens, and the answers of the token endpoint.

    Attributes:
      rotate: Every refresh token works once, and its use returns a new one.
      seconds: The lifetime of an access token in seconds.
      certificates: Public keys of service accounts, by their ID, as PEM.
      refreshes: The number of access tokens that the endpoint has issued.
      refusal: The answer to every request, if it is set.
      headers: Headers of every answer, such as `Date`.
      kind: The type of the OAuth client: `installed` (Desktop app) or `web`.
      denied: The `error` with which the consent screen answers, if it is set.
      subjects: The users for whom service accounts have got tokens, in order; empty for themselves.
      delegated: The scopes of the domain-wide delegation. Default: all.
      addresses: The users of the Workspace. Default: every address is one.
      testing: The app is in testing: refresh tokens expire after seven days.
    """

    rotate: bool = False
    seconds: float = 3600
    certificates: dict[str, bytes] = field(default_factory=dict)
    refreshes: int = 0
    refusal: Answer | None = None
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "installed"
    denied: str | None = None
    testing: bool = False
    delay: float = 0
    subjects: list[str] = field(default_factory=list)
    delegated: set[str] | None = None
    addresses: set[str] | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._access: dict[str, float] = {}
        self._subjects: dict[str, str] = {}
        self._refresh: set[str] = set()
        self._codes: dict[str, dict[str, str]] = {}

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

    def subject(self, authorization: str) -> str:
        """Return the user for whom a service account has got this token; empty without one."""
        return self._subjects.get(authorization.partition(" ")[2], "")

    def consent(self, asked: Mapping[str, str]) -> str:
        """Return the address to which the consent screen redirects; the person always agrees."""
        redirect = asked.get("redirect_uri", "")
        if asked.get("client_id") != CLIENT_ID:
            return _error_page("invalid_client")
        if self.kind == "web" or not redirect.startswith("http://127.0.0.1:"):
            return _error_page("redirect_uri_mismatch")
        if self.denied is not None:
            return f"{redirect}/?{urlencode({'error': self.denied, 'state': asked['state']})}"
        code = f"4/0{secrets.token_urlsafe(24)}"
        self._codes[code] = dict(asked)
        return f"{redirect}/?{urlencode({'state': asked['state'], 'code': code, 'scope': SCOPE})}"

    def answer(self, form: Mapping[str, str]) -> Answer:
        """Answer a request to the token endpoint."""
        time.sleep(self.delay)
        if self.refusal is not None:
            return self.refusal
        if form.get("grant_type") == "refresh_token":
            return self._refreshed(form)
        if form.get("grant_type") == "authorization_code":
            return self._exchanged(form)
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

    def _exchanged(self, form: Mapping[str, str]) -> Answer:
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client", "error_description": "Unauthorized"}
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked.get("code_challenge") != challenge:
            return 400, {"error": "invalid_grant", "error_description": "Malformed auth code."}
        if asked["redirect_uri"] != form.get("redirect_uri"):
            return 400, {"error": "redirect_uri_mismatch", "error_description": "Bad Request"}
        return 200, self._given() | {"refresh_token": self.new_refresh_token(), "scope": SCOPE}

    def _asserted(self, assertion: str) -> Answer:
        try:
            claims = jwt.decode(
                assertion, self.certificates, audience="https://oauth2.googleapis.com/token"
            )
        except Exception as error:  # noqa: BLE001  the assertion may be invalid in any way
            return 400, {"error": "invalid_grant", "error_description": f"Invalid JWT: {error}"}
        subject = claims.get("sub", "")
        if subject and self.delegated is not None and claims["scope"] not in self.delegated:
            return 401, {
                "error": "unauthorized_client",
                "error_description": "Client is unauthorized",
            }
        if subject and self.addresses is not None and subject not in self.addresses:
            return 400, {"error": "invalid_grant", "error_description": "Invalid email or User ID"}
        self.subjects.append(subject)
        given = self._given()
        self._subjects[given["access_token"]] = subject
        return 200, given

    def _given(self) -> dict[str, Any]:
        self.refreshes += 1
        return {
            "access_token": self.new_access_token(),
            "expires_in": int(self.seconds),
            "token_type": "Bearer",
        } | ({"refresh_token_expires_in": 604_799} if self.testing else {})


def _error_page(code: str) -> str:
    """Return the address of the page that Google shows for a client that it does not accept.

    The parameter is a protocol buffer; its first field is the code.
    """
    message = bytes([10, len(code)]) + code.encode() + b"\x12\x05Error"
    shown = base64.urlsafe_b64encode(message).decode()
    return f"/signin/oauth/error?{urlencode({'authError': shown, 'flowName': 'GeneralOAuthFlow'})}"
