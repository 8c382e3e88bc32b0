"""`If-Match`: change an account only if it still has the revision that the client has read.

The validator of an account is `W/"DIGEST.REVISION"`. The digest is that of the response, for
`If-None-Match`; a response to a change has none. The revision is that of
`core.service.accounts.revision`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated

from fastapi import Depends, Header, Response

from core.service.accounts.revision import ANY
from core.web.dependencies import NO_NUL

# A proxy that compresses responses makes validators weak, so both forms are accepted.
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"', re.ASCII)


def _known_revisions(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            max_length=2_000,
            pattern=NO_NUL,
            description=(
                "The `ETag` of the account that the client has read. If somebody has changed the"
                " account since, the response is 412, and nothing changes. Runs do not change it"
            ),
        ),
    ] = None,
) -> Collection[str] | None:
    if if_match is None:
        return None
    if if_match.strip() == ANY:
        return (ANY,)
    return {tag.rpartition(".")[2] for tag in _TAG.findall(if_match)}


KnownRevisions = Annotated[Collection[str] | None, Depends(_known_revisions)]
"""The revisions of which an account has to have one; None for a request without this condition."""


def set_revision(response: Response, revision: str) -> None:
    """Name the revision of an account in its response."""
    response.headers["ETag"] = f'W/"{revision}"'
