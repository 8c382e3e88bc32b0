"""The network between one program and both servers, which faults cut or silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from support.deployment import Deployment
from support.proxy import Losses, postgres_proxy, postgres_url, redis_proxy, redis_url


class Network:
    """Two proxies: the other programs reach the servers, while this one does not.

    Args:
      deployment: The deployment with the servers.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._down: set[str] = set()
        self._losses = {
            name: Losses(lambda direction, message, name=name: name in self._down, rate=1.0)
            for name in ("postgres", "redis")
        }
        self._stack = ExitStack()

    @contextmanager
    def cut(self, *servers: str, silent: bool) -> Iterator[None]:
        """Lose everything to and from the servers during the block.

        A silent connection stays open afterwards, and nothing arrives on it any more.
        """
        for name in servers:
            self._losses[name].hanging = float(silent)
        self._down |= set(servers)
        try:
            yield
        finally:
            self.heal()

    def heal(self) -> None:
        """Let new messages pass."""
        self._down.clear()

    def variables(self) -> dict[str, str]:
        """Return the environment of the program."""
        return {
            "DATABASE_URL": postgres_url(self._deployment.database_url, self._postgres),
            "REDIS_URL": redis_url(self._redis),
        }

    def __enter__(self) -> Self:
        urls, losses = self._deployment, self._losses
        self._postgres = self._stack.enter_context(
            postgres_proxy(urls.database_url, losses["postgres"])
        )
        self._redis = self._stack.enter_context(redis_proxy(urls.redis_url, losses["redis"]))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
