"""The OpenAPI document as a contract: the API refuses parameters that it does not name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from core.field_problems import FieldProblem, entry_of

WRITES = ("post", "patch", "delete")
"""The methods that change something. No route has `PUT`."""


class Contract:
    """The query parameters and the methods of each path.

    Args:
      app: The application whose document is the contract.
      routes: Its routes.
    """

    def __init__(self, app: FastAPI, routes: Iterable[APIRoute]) -> None:
        self._app = app
        self._routes = tuple(routes)

    @cached_property
    def _queries(self) -> Mapping[str, frozenset[str] | None]:
        """The names of query parameters, by operation; None if an operation takes all names."""
        return {operation["operationId"]: _names(operation) for operation in self._operations()}

    def _operations(self) -> Iterator[Mapping[str, Any]]:
        for methods in self._app.openapi()["paths"].values():
            yield from methods.values()

    def check_method(self, request: Request) -> None:
        """Refuse a method that the path lacks, and a path of another form has.

        Raises:
          HTTPException: The path lacks the method.
        """
        path, route = request.scope["path"], request.scope["route"]
        if (
            route.path != path
            and path in self._exact
            and request.method not in self.methods(request)
        ):
            raise HTTPException(405)

    @cached_property
    def _exact(self) -> frozenset[str]:
        """The paths without parameters."""
        return frozenset(route.path for route in self._routes if "{" not in route.path)

    def check_query(self, request: Request) -> None:
        """Refuse query parameters that the route does not have, and those that are sent twice.

        An ignored filter would return the rows of everybody.

        Raises:
          RequestValidationError: There is such a parameter.
        """
        sent = Counter(name for name, _ in request.query_params.multi_items())
        if not sent:
            return
        known = self._queries.get(request.scope["route"].name, frozenset())
        if known is None:
            return
        problems = [
            FieldProblem(("query", name), "unknown", "unknown parameter")
            for name in sent
            if name not in known
        ] or [
            FieldProblem(("query", name), "repeated", "sent more than once")
            for name, number in sent.items()
            if number > 1
        ]
        if problems:
            raise RequestValidationError([entry_of(problem) for problem in problems])

    def methods(self, request: Request) -> list[str]:
        """Return all methods of the path of a request."""
        path = request.scope["path"]
        matching = [route for route in self._routes if route.path_regex.match(path)]
        # `/v1/tasks/retry` also has the form of `/v1/tasks/{task_id}`.
        exact = [route for route in matching if route.path == path]
        found = {method for route in exact or matching for method in route.methods or ()}
        return sorted(found | ({"HEAD"} if "GET" in found else set()))


def _names(operation: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the names of an operation's query parameters; None if one of them has every name."""
    parameters = operation.get("parameters", ())
    queries = [parameter for parameter in parameters if parameter["in"] == "query"]
    if any(parameter["schema"].get("additionalProperties") for parameter in queries):
        return None
    return frozenset(parameter["name"] for parameter in queries)


async def in_document(request: Request) -> None:
    """Check the method and the query parameters of a request, as a dependency of all routes.

    FastAPI calls a function that is not a coroutine in a thread, which takes longer.
    """
    contract: Contract = request.app.state.contract
    contract.check_method(request)
    contract.check_query(request)
