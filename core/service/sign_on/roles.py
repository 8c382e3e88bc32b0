"""The role and the name of a person, from the claims of the identity provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.scopes import Role
from core.settings import Settings

MAX_NAME_CHARS = 200

Claims = Mapping[str, Any]


def role_of(settings: Settings, claims: Claims) -> Role | None:
    """Return the first role of a person in the order of `Role`; None if no setting names them.

    A setting with an `@` names an e-mail address, and counts only if the provider has verified it.
    Any other setting names a value of the claim `POLLING_OIDC_ROLES_CLAIM`.
    """
    values, email = set(_values(claims, settings.oidc_roles_claim)), verified_email(claims)
    found = {
        role
        for name, role in settings.oidc_roles.items()
        if (name.casefold() == email if "@" in name else name in values)
    }
    return next((role for role in Role if role in found), None)


def verified_email(claims: Claims) -> str | None:
    """Return the e-mail address, in lower case; None if the provider has not verified it."""
    email = claims.get("email")
    # Some providers send the text "true".
    if isinstance(email, str) and claims.get("email_verified") in (True, "true"):
        return email.casefold()
    return None


def name_of(claims: Claims) -> str:
    """Return the name of a person for people.

    A person may choose any other name than the verified e-mail address, so the subject follows it.
    """
    if (email := verified_email(claims)) is not None:
        return _readable(email)
    chosen = (claims.get(name) for name in ("preferred_username", "name", "email"))
    name = next((text for text in chosen if isinstance(text, str) and text), None)
    subject = _readable(claims["sub"])
    return subject if name is None else f"{_readable(name)} ({subject})"


def _values(claims: Claims, path: str) -> Iterator[str]:
    """Yield the texts of a claim. Its name may have dots, or they lead into objects."""
    found: Any = claims.get(path)
    if found is None:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
    values = found if isinstance(found, list) else [found]
    yield from (value for value in values if isinstance(value, str))


def _readable(text: str) -> str:
    return "".join(char for char in text if char.isprintable())[:MAX_NAME_CHARS]
