"""The form of an account: rendering, submitted values and validation errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from core.accounts import MAX_POLL_INTERVAL_MINUTES
from core.dashboard import forms
from core.dashboard.session import Form
from core.dashboard.wording import sentences
from core.errors import AccountPart, InvalidFields, PollingError
from core.integration.base import Integration
from core.service.accounts import actions as account_actions
from core.service.accounts import validation
from core.states import Deletions

UNPROCESSABLE = 422

_MINUTES = re.compile(r"[0-9]{1,6}")


class InvalidForm(Exception):
    """The form is invalid. Its problems are recorded by field."""


class AccountForm:
    """The config, credentials and plain fields of an account as a form.

    Args:
      integration: The integration whose schemas describe the fields.
      form: The submitted form. Default: no form was submitted.
      config: The stored config. Default: each field has its default value.
      plain: The values of the fields `name`, `user`, `interval` and `deletions`, by name.

    Attributes:
      problems: The problem of each field, by the name of its input.
      wrong: The problem that concerns no single field; None if there is none.
      status: The HTTP status of the response.
    """

    def __init__(
        self,
        integration: Integration,
        form: Form | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        **plain: object,
    ) -> None:
        self.integration = integration
        self.problems: dict[str, str] = {}
        self.wrong: str | None = None
        self.status = 200
        self._form = form
        self._submitted: set[AccountPart] = set()
        self._stored = config
        self._plain = plain
        self._fields = {
            "config": forms.fields_of(integration.config_model),
            "credentials": forms.fields_of(integration.credentials_model),
        }

    @property
    def config(self) -> list[forms.RenderedField]:
        """The fields of the config."""
        return self._render("config", self._stored)

    @property
    def credentials(self) -> list[forms.RenderedField]:
        """The fields of the credentials, without stored values."""
        return self._render("credentials", None)

    @property
    def optional_credentials(self) -> list[forms.RenderedField]:
        """The fields of the credentials, without the mark that a field is required."""
        return [
            replace(field, spec=replace(field.spec, required=False)) for field in self.credentials
        ]

    def _render(
        self, part: AccountPart, stored: Mapping[str, Any] | None
    ) -> list[forms.RenderedField]:
        typed = self._form.below(f"{part}.") if self._form is not None else None
        prefix = f"{part}."
        wrong = {
            name.removeprefix(prefix): text
            for name, text in self.problems.items()
            if name.startswith(prefix)
        }
        return forms.render_fields(
            self._fields[part], part, values=stored, typed=typed, problems=wrong
        )

    def text(self, name: str) -> str:
        """Return the value of a plain field."""
        return (
            self._form.get(name) if self._form is not None else forms.as_text(self._plain.get(name))
        )

    @contextmanager
    def recording_errors(self) -> Iterator[None]:
        """Record input errors and provider errors instead of raising them."""
        try:
            yield
        except InvalidForm:
            self.status = UNPROCESSABLE
        except InvalidFields as error:
            self._record(error)
            self.status = UNPROCESSABLE
        except PollingError as error:
            self.wrong, self.status = sentences(error), error.status

    @property
    def failed(self) -> bool:
        """True if an error was recorded."""
        return self.status >= 400

    def values(self, *parts: AccountPart) -> list[dict[str, Any]]:
        """Return the submitted values of some parts of the form.

        Raises:
          InvalidForm: The values do not validate.
        """
        self._submitted = set(parts)
        values = [self._values(part) for part in parts]
        if self.problems or self.wrong:
            raise InvalidForm
        return values

    def _values(self, part: AccountPart) -> dict[str, Any]:
        assert self._form is not None
        fields, check = (
            self._fields[part],
            validation.config_of if part == "config" else validation.credentials_of,
        )
        values, unreadable = forms.read(fields, self._form.below(f"{part}."))
        if part == "config":
            # The form does not show the extra fields of a model that allows them.
            known = {field.name for field in fields}
            is_open = self.integration.config_model.model_config.get("extra") == "allow"
            values = {
                name: value
                for name, value in (self._stored or {}).items()
                if is_open and name not in known
            } | values
        if unreadable:
            self.problems |= {f"{part}.{name}": text for name, text in unreadable.items()}
            return values
        try:
            check(self.integration, values)
        except InvalidFields as error:
            self._record(error)
        return values

    def _record(self, error: InvalidFields) -> None:
        """Record problems by field. Without a field that was submitted, they concern the form."""
        is_shown = error.part in self._submitted
        shown = {field.name for field in self._fields[error.part]} if is_shown else set()
        self.problems |= {
            f"{error.part}.{name}": text for name, text in error.problems.items() if name in shown
        }
        if not shown & set(error.problems):
            self.wrong = sentences(error)

    def name(self) -> str | None:
        """Return the name of the account; None if the field is empty.

        Raises:
          InvalidForm: The name is invalid.
        """
        text = self.text("name").strip()
        if text:
            self._require("name", lambda: account_actions.require_text(name=text))
        return text or None

    def user(self) -> str:
        """Return the ID of the account's user; `default` if the field is empty.

        Raises:
          InvalidForm: The user ID is invalid.
        """
        text = self.text("user").strip() or "default"
        self._require("user", lambda: account_actions.require_text(user=text))
        return text

    def minutes(self) -> int | None:
        """Return the interval in minutes; None if the field is empty.

        Raises:
          InvalidForm: The interval is invalid.
        """
        text = self.text("interval").strip()
        if not text:
            return None
        if not _MINUTES.fullmatch(text) or not 1 <= int(text) <= MAX_POLL_INTERVAL_MINUTES:
            self.problems["interval"] = f"enter an integer from 1 to {MAX_POLL_INTERVAL_MINUTES:,}"
            raise InvalidForm
        return int(text)

    def deletions(self) -> Deletions | None:
        """Return the treatment of items that disappear at the source; None if nothing is chosen.

        Raises:
          InvalidForm: The choice is invalid.
        """
        text = self.text("deletions")
        if text and text not in list(Deletions):
            self.problems["deletions"] = "choose one of the options"
            raise InvalidForm
        return Deletions(text) if text else None

    def _require(self, name: str, check: Any) -> None:
        try:
            check()
        except PollingError:
            self.problems[name] = "enter 1 to 500 characters"
            raise InvalidForm from None
