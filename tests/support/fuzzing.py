"""Hooks of schemathesis: `SCHEMATHESIS_HOOKS=support.fuzzing`.

They give requests what a document cannot describe: the ids of objects that exist, and keys and
cursors as a client uses them. Requests that are meant to be invalid stay as they are.
"""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import uuid4

import schemathesis

KNOWN: dict[str, list[Any]] = json.loads(os.environ.get("FUZZING_KNOWN", "{}"))
"""The ids of objects that exist, by the name of the parameter in a path."""

OWN_TOKEN = os.environ.get("FUZZING_TOKEN_ID", "")

_number = 0


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Complete a request."""
    global _number
    _number += 1
    path = case.path_parameters
    if path and path.get("token_id") == OWN_TOKEN:
        path["token_id"] = str(uuid4())  # the other requests need it
    if case.query:
        case.query.pop("wait", None)  # there is no time to wait
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"key-{_number}"  # one key is for one request
    if case.query:
        case.query.pop("after", None)  # only the server makes cursors
    for name, value in (path or {}).items():
        if value in {None, "None"}:  # a link from an object whose field is null
            path[name] = str(uuid4())
    if path and case.method != "DELETE" and _number % 3:
        for name in path.keys() & KNOWN.keys():
            path[name] = KNOWN[name][_number % len(KNOWN[name])]
