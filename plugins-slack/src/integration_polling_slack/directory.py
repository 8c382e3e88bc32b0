"""The directory: the workspace and its people; and the calls of Slack's methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ValidationError

from core import (
    AccountIdentity,
    BaseIntegration,
    ConfigurationError,
    Context,
    Limit,
    PermanentError,
    Rate,
    Task,
    TaskOutput,
    TaskResult,
    TransientError,
    task,
)
from integration_polling_slack import api, files, names, organizations, scopes
from integration_polling_slack.account import Config, Credentials, SlackSettings, tokens
from integration_polling_slack.api import Answer
from integration_polling_slack.channels import People, Ref, Restricted, Workspace
from integration_polling_slack.errors import InvalidCursor, TokenExpired, Unreadable
from integration_polling_slack.mrkdwn import unescaped
from integration_polling_slack.names import is_id

MINUTE = 60
TIERS = {
    "users.list": 20,
    "usergroups.list": 20,
    "conversations.list": 20,
    "users.conversations": 50,
    "conversations.join": 50,
    "conversations.info": 50,
    "conversations.members": 100,
    "conversations.history": 50,
    "conversations.replies": 50,
    "files.info": 100,
    "users.info": 100,
    "bots.info": 50,
    "search.messages": 20,
    files.LIMIT: 600,
}
"""Calls a minute of each method, by its tier: https://docs.slack.dev/apis/web-api/rate-limits."""

SLOW = ("conversations.history", "conversations.replies")
"""Methods limited to one call a minute for distributed apps outside the Marketplace."""

PAGE = 200
"""The number of people or channels to request in one call."""

MAX_PAGES = 5_000

MAX_RESTARTS = 3
"""The maximum number of restarts of one list."""

FEW_PAGES = 5
"""The maximum number of pages of people that every run lists; more are listed with the lookback."""

ROUTINE = ("schedule", "hint")
"""The triggers of runs that nobody asked for. They leave less frequent work out."""

WORKSPACE, PEOPLE, ABSENT, FOLLOWED = "workspace", "people", "absent", "followed"
RESTRICTED = "restricted"
"""The partitions of the state."""


NOTICED_FOR = timedelta(days=7)
"""The time for which an answer counts that shows the limits of a distributed app."""


def limits(app_kind: str) -> list[Limit]:
    """Return the limits of an app of this kind: one for each method and workspace."""
    slow = SLOW if app_kind == "distributed" else ()
    return [
        Rate(name, 1 if name in slow else units, MINUTE, by="group")
        for name, units in TIERS.items()
    ]


def message_calls(*, is_distributed: bool) -> int:
    """Return the number of calls a minute that Slack allows for messages."""
    return 1 if is_distributed else TIERS["conversations.history"]


class Directory(BaseIntegration[Config, Credentials]):
    """The tasks that run before any message: messages refer to people and channels."""

    _settings: SlackSettings | None = None

    @classmethod
    def limits(cls, config: Config) -> Sequence[Limit]:
        """Return the limits of the account's kind of app."""
        return limits(config.app_kind)

    @property
    def settings(self) -> SlackSettings:
        """The operator's settings.

        Raises:
          ConfigurationError: A setting is invalid. The error does not repeat its value.
        """
        if self._settings is None:
            try:
                self._settings = SlackSettings()
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False, include_context=False)[
                    0
                ]
                raise ConfigurationError(
                    f"{first['loc'][0]} cannot be used: {first['msg']}"
                ) from None
        return self._settings

    def check(self) -> AccountIdentity:
        """Test the token, and check that it has the scopes that the config needs.

        Returns:
          The id `team:user`, and the workspace and app as group.

        Raises:
          CredentialsInvalid: Slack rejects the token.
          ConfigurationError: A scope is missing, or the workspace of an organization.
          TransientError: Slack cannot be reached.
        """
        answer = self._ask("auth.test")
        found = answer.data
        granted = scopes.granted(answer.headers)
        if granted and (lacking := scopes.needed(self.config) - granted):
            raise ConfigurationError(
                f"the token lacks the scopes {', '.join(sorted(lacking))}: add them to the app,"
                " and reinstall it"
            )
        user = found.get("user_id")
        if not is_id(found.get("team_id")) or not is_id(user):
            raise TransientError("auth.test: the response does not name the token's owner")
        team, name = self._team(found)
        name, group = f"{name}: {found.get('user')}", f"{team}:{self._app(found)}"
        facts = [self._notice(found), scopes.NO_REACTIONS if self._lacks_reactions(granted) else ""]
        notice = ". ".join(filter(None, facts)) or None
        return AccountIdentity(f"{team}:{user}", name, group, notice)

    def _team(self, owner: Mapping[str, Any]) -> tuple[str, str]:
        """Return the id and the name of the workspace, and complete the config.

        Args:
          owner: The response of `auth.test`.
        """
        if not owner.get("is_enterprise_install"):
            return organizations.of_workspace(owner, self.config.team)
        team, name = organizations.workspace(self._ask, self.config.team)
        self.config = self.config.model_copy(update={"team": team})
        return team, name

    def _lacks_reactions(self, granted: Collection[str]) -> bool:
        """Return True if a token with these scopes gets events, and none of reactions."""
        return (
            bool(granted) and self.settings.receives_events and not {*granted} >= scopes.REACTIONS
        )

    def _notice(self, owner: Mapping[str, Any]) -> str | None:
        """Return the facts that a person must know at connect; None if there are none.

        Args:
          owner: The response of `auth.test`.

        Raises:
          ConfigurationError: The config names channels that do not exist.
        """
        raise NotImplementedError

    def probe(self) -> None:
        """Test the token, with one call.

        Raises:
          TransientError: Slack does not answer.
        """
        self._ask("auth.test")

    def _app(self, found: Any) -> str:
        """Return the app's id. A user's token does not name its app: then it is the operator's."""
        if isinstance(found.get("bot_id"), str):
            try:
                bot = self._ask("bots.info", bot=found["bot_id"]).data.get("bot")
            except (PermanentError, Unreadable):
                bot = None
            if isinstance(bot, dict) and bot.get("app_id"):
                return str(bot["app_id"])
        return self.settings.client_id or "app"

    def refresh(self) -> Credentials:
        """Renew the token; see `api.renew`.

        Raises:
          ConfigurationError: The operator's OAuth client is not set.
        """
        if self.credentials.refresh_token is not None and not self.settings.client_id:
            raise ConfigurationError(
                "the token cannot be renewed: set SLACK_CLIENT_ID and SLACK_CLIENT_SECRET"
            )
        return api.renew(self.settings, self.credentials)

    @classmethod
    def oauth_parameters(cls, config: Config) -> Mapping[str, str]:
        """Request the scopes that the config and events need, for a bot or for a person."""
        return scopes.requested(config, with_events=SlackSettings().receives_events)

    @classmethod
    def credentials_from_oauth(cls, token: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the bot's or user's tokens. The engine rejects an empty result."""
        return tokens(token)

    def start(self, ctx: Context) -> TaskResult:
        """Read the workspace first."""
        return TaskResult(tasks=[self.get_workspace.task()])

    # Workspace, people and channels
    # ----------------------------------------------------------------------------------------------

    @task
    def get_workspace(self, ctx: Context) -> TaskResult:
        """Read the token's owner, and the workspace's address for links to messages."""
        answer = self._call(ctx, "auth.test")
        found = answer.data
        url = found.get("url") if isinstance(found.get("url"), str) else ""
        before = ctx.state(WORKSPACE, Workspace)
        moved = before.moved if before else {}
        here = Workspace(
            url=url, is_bot="bot_id" in found, moved=moved,
            lacks_reactions=self._lacks_reactions(scopes.granted(answer.headers)),
            searches="bot_id" not in found and scopes.granted(answer.headers) >= scopes.SEARCH,
        )  # fmt: skip
        state: dict[str, BaseModel | None] = {WORKSPACE: here} if before != here else {}
        if ctx.run.complete:
            state |= names.no_strangers()
        people = ctx.state(PEOPLE, People)
        known = (
            people is not None
            and people.pages > FEW_PAGES
            and not self._is_due(ctx, people.listed_at)
        )
        return TaskResult(
            state=state, tasks=[self._list_channels(ctx) if known else self.get_users.task()]
        )

    def _is_due(self, ctx: Context, last: datetime | None) -> bool:
        """Return True if the less frequent work is due: always, unless the run is a routine one."""
        return (
            ctx.run.complete
            or ctx.run.trigger not in ROUTINE
            or last is None
            or ctx.now >= last + timedelta(hours=self.config.lookback_hours)
        )

    @task(cost={"users.list": 1})
    def get_users(
        self, ctx: Context, cursor: str = "", page: int = 0, restarts: int = 0
    ) -> TaskResult:
        """List a page of the people, before any message that mentions them.

        Args:
          ctx: The task's context.
          cursor: The cursor of the page. Default: the first page.
          page: The number of the page. Default: 0.
          restarts: The number of restarts so far. Default: 0.
        """
        try:
            answer = self._call(ctx, "users.list", cursor=cursor, limit=PAGE)
        except InvalidCursor:
            return TaskResult(tasks=[self.get_users.task(restarts=one_more(restarts))])
        except PermanentError as error:
            ctx.log.warning("cannot list people; the names known so far stay: %s", error)
            return TaskResult(tasks=[self.get_usergroups.task()])
        users = [user for user in answer.items("members") if is_id(user.get("id"))]
        output, found = (
            [user_row(user) for user in users],
            {user["id"]: names.of_user(user) for user in users},
        )
        if "mpim" in self.config.types:
            # Group messages are named by the handles of their people.
            found |= {names.handle(str(user.get("name"))): names.of_user(user) for user in users}
        bots = {user["id"] for user in users if user.get("is_bot") is not False}
        state = names.changed(ctx, found, bots=bots)
        if more := self._next_page(answer, cursor, page):
            return TaskResult(
                output, [self.get_users.task(cursor=more, page=page + 1, restarts=restarts)], state
            )
        if page + 1 > FEW_PAGES:
            state[PEOPLE] = People(listed_at=ctx.now, pages=page + 1)
        return TaskResult(output, [self.get_usergroups.task()], state)

    @task(cost={"usergroups.list": 1})
    def get_usergroups(self, ctx: Context) -> TaskResult:
        """Fetch the names of user groups. Without the scope, mentions keep the message's name."""
        try:
            groups = self._call(ctx, "usergroups.list", include_disabled=True).items("usergroups")
        except PermanentError as error:
            ctx.log.info("cannot list user groups; mentions keep the message's names: %s", error)
            groups = []
        handles = {
            one["id"]: f"@{one.get('handle') or one.get('name')}"
            for one in groups
            if is_id(one.get("id"))
        }
        return TaskResult(state=names.changed(ctx, handles), tasks=[self._list_channels(ctx)])

    def _list_channels(self, ctx: Context) -> Task:
        """Return the task that lists the channels."""
        raise NotImplementedError

    def _channel_task(self, channel: Ref, fresh_within: int | None = None) -> Task:
        """Return the task that reads a channel; see `Looks.fresh_within`."""
        raise NotImplementedError

    def _is_distributed(self, ctx: Context) -> bool:
        """Return True if Slack limits the app as a distributed one."""
        is_known = self.config.app_kind != "internal"
        noticed = None if is_known else ctx.state(RESTRICTED, Restricted)
        is_noticed = noticed is not None and ctx.now < noticed.noticed_at + NOTICED_FOR
        return is_noticed or self.config.app_kind == "distributed"

    def _workspace(self, ctx: Context) -> Workspace:
        return ctx.state(WORKSPACE, Workspace) or Workspace()

    # Calls
    # ----------------------------------------------------------------------------------------------

    def _ask(self, method: str, **arguments: Any) -> Answer:
        if method in organizations.NEEDS_TEAM:
            arguments["team_id"] = self.config.team
        try:
            return api.call(self.settings, self.credentials.token, method, **arguments)
        except TokenExpired:
            if self.credentials.refresh_token is None:
                raise api.not_renewable() from None
            raise

    def _call(self, ctx: Context, method: str, **arguments: Any) -> Answer:
        """Call a method. If the token has expired, renew it and call once more.

        Raises:
          TransientError: The new token has expired too, which does not make the refresh token
            invalid.
        """
        try:
            return self._ask(method, **arguments)
        except TokenExpired:
            ctx.refresh_credentials()
        if method in TIERS:
            ctx.charge(method)
        try:
            return self._ask(method, **arguments)
        except TokenExpired as error:
            raise TransientError(f"{error}, immediately after the renewal") from None

    def _next_page(self, answer: Answer, cursor: str, page: int) -> str:
        """Return the cursor of the next page of a list; empty on the last page.

        Raises:
          PermanentError: The list does not end.
        """
        if answer.cursor and (answer.cursor == cursor or page >= MAX_PAGES):
            raise PermanentError("the list does not end: Slack repeats its pages")
        return answer.cursor


def one_more(restarts: int) -> int:
    """Return the number of restarts of a list, after one more.

    Raises:
      PermanentError: The maximum is reached.
    """
    if restarts >= MAX_RESTARTS:
        raise PermanentError("Slack repeatedly rejected its own cursor")
    return restarts + 1


def user_row(user: Mapping[str, Any]) -> TaskOutput:
    """Return the row of a person or bot.

    It omits fields that need more scopes, such as the email address.
    """
    profile = user["profile"] if isinstance(user.get("profile"), dict) else {}
    said = {
        "name": user.get("name"),
        "real_name": user.get("real_name") or profile.get("real_name"),
    }
    said |= {
        "display_name": profile.get("display_name"),
        "title": profile.get("title"),
        "tz": user.get("tz"),
    }
    flags = {key: bool(user.get(key)) for key in ("deleted", "is_bot")}
    texts = {
        key: unescaped(value)[:1_000]
        for key, value in said.items()
        if isinstance(value, str) and value
    }
    return TaskOutput(
        user["id"],
        kind="user",
        parent="users",
        name=names.of_user(user)[:200],
        metadata={**texts, **flags},
    )
