"""A form about an account: as it is shown, and as it was sent, with what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from core.dashboard import forms
from core.dashboard.session import Form
from core.dashboard.wording import sentence, sentences
from core.errors import PollingError
from core.integration.base import Integration
from core.service.accounts import actions as account_actions
from core.service.accounts import validation
from core.service.accounts.validation import InvalidFields

Part = Literal["config", "credentials"]

MAX_INTERVAL_MINUTES = 525_600
UNFIT = 422

_MINUTES = re.compile(r"[0-9]{1,6}")


class Unusable(Exception):
    """What is wrong is noted beside the fields."""


class AccountForm:
    """What a person is asked for.

    Parameters:
      form: What was sent. Default: nothing yet.
      config: What is stored. Default: the fields have their defaults.
      plain: What stands in the plain fields, by name.

    Attributes:
      problems: What is wrong with each field, by its input's name.
      wrong: What is wrong with the whole of it.
      status: Of the answer.
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
        self._stored = config
        self._plain = plain
        self._fields = {
            "config": forms.fields_of(integration.config_model),
            "credentials": forms.fields_of(integration.credentials_model),
        }

    @property
    def config(self) -> list[forms.RenderedField]:
        """The fields of the config."""
        return self._drawn("config", self._stored)

    @property
    def credentials(self) -> list[forms.RenderedField]:
        """The fields of the credentials; what is stored in them is not known here."""
        return self._drawn("credentials", None)

    @property
    def optional_credentials(self) -> list[forms.RenderedField]:
        """The same where they may be left out as a whole: a browser does not ask for them."""
        return [replace(one, field=replace(one.field, required=False)) for one in self.credentials]

    def _drawn(self, part: Part, stored: Mapping[str, Any] | None) -> list[forms.RenderedField]:
        typed = self._form.below(f"{part}.") if self._form is not None else None
        beginning = f"{part}."
        wrong = {
            name.removeprefix(beginning): text
            for name, text in self.problems.items()
            if name.startswith(beginning)
        }
        return forms.render_fields(
            self._fields[part], part, values=stored, typed=typed, problems=wrong
        )

    def text(self, name: str) -> str:
        """What stands in a plain field."""
        return (
            self._form.get(name) if self._form is not None else forms.as_text(self._plain.get(name))
        )

    @contextmanager
    def trying(self) -> Iterator[None]:
        """A context that records errors of the input or of the provider instead of raising them."""
        try:
            yield
        except Unusable:
            self.status = UNFIT
        except InvalidFields as error:
            self._note("credentials" if error.code == "credentials-invalid" else "config", error)
            self.status = UNFIT
        except PollingError as error:
            self.wrong, self.status = sentences(error), error.status

    @property
    def failed(self) -> bool:
        """Whether something is wrong."""
        return self.status >= 400

    def values(self, *parts: Part) -> list[dict[str, Any]]:
        """The values that were sent.

        Raises:
          Unusable: They do not validate.
        """
        found = [self._values(part) for part in parts]
        if self.problems or self.wrong:
            raise Unusable
        return found

    def _values(self, part: Part) -> dict[str, Any]:
        assert self._form is not None
        fields, check = (
            self._fields[part],
            validation.config_of if part == "config" else validation.credentials_of,
        )
        values, unreadable = forms.read(fields, self._form.below(f"{part}."))
        if part == "config":
            # A model that takes any field has more than the form knows.
            known = {one.name for one in fields}
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
            self._note(part, error)
        return values

    def _note(self, part: Part, error: InvalidFields) -> None:
        """Beside the fields; what belongs to none of them, above all."""
        known = {one.name for one in self._fields[part]}
        self.problems |= {
            f"{part}.{name}": text for name, text in error.problems.items() if name in known
        }
        if not known & set(error.problems):
            self.wrong = sentence(error.message)

    def name(self) -> str | None:
        """The account's name, if one was given.

        Raises:
          Unusable: It can be none.
        """
        text = self.text("name").strip()
        if text:
            self._require("name", lambda: account_actions.require_text(name=text))
        return text or None

    def user(self) -> str:
        """Whose account it is.

        Raises:
          Unusable: It can be nobody.
        """
        text = self.text("user").strip() or "default"
        self._require("user", lambda: account_actions.require_text(user=text))
        return text

    def minutes(self) -> int | None:
        """The interval, if one was given.

        Raises:
          Unusable: It can be none.
        """
        text = self.text("interval").strip()
        if not text:
            return None
        if not _MINUTES.fullmatch(text) or not 1 <= int(text) <= MAX_INTERVAL_MINUTES:
            self.problems["interval"] = f"use whole minutes, from 1 to {MAX_INTERVAL_MINUTES:,}"
            raise Unusable
        return int(text)

    def _require(self, name: str, check: Any) -> None:
        try:
            check()
        except PollingError:
            self.problems[name] = "use 1 to 500 characters"
            raise Unusable from None
