"""The config and credentials of an account."""

from __future__ import annotations

import codecs
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
)

from core import Destination


def _one_line(text: str) -> str:
    if any(character in text for character in "\r\n\0"):
        raise ValueError("must not contain a line break or a NUL")
    return text


def _secret_line(secret: SecretStr) -> SecretStr:
    _one_line(secret.get_secret_value())
    return secret


def _absolute(path: str) -> str:
    """Return a path that starts with `/` and does not end with one; empty parts are removed."""
    parts = [part for part in _one_line(path).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("'..' is not allowed in a path")
    return "/" + "/".join(parts)


def _charset(name: str) -> str:
    """Return a charset's canonical name, if it contains ASCII: paths have slashes."""
    try:
        codec = codecs.lookup(name)
        plain = codec.name if "/a~".encode(codec.name) == b"/a~" else ""
    except (LookupError, ValueError):
        plain = ""
    if not plain:
        raise ValueError("unknown charset, or one without ASCII")
    return plain


class Config(BaseModel, extra="forbid"):
    """The address of the server, and the files to keep."""

    host: Annotated[str, Destination(), AfterValidator(_one_line)] = Field(
        min_length=1, description="Host name or IP address of the server"
    )
    port: Annotated[int, Destination()] = Field(
        21, ge=1, le=65535, description="TCP port of the server"
    )
    root: Annotated[str, AfterValidator(_absolute)] = Field(
        "/", description="Directory to copy, with everything below it"
    )
    encoding: Annotated[str, AfterValidator(_charset)] = Field(
        "utf-8",
        max_length=40,
        description=(
            "Charset of the file names, such as cp932, gbk or cp1251. Bytes that it lacks are"
            " stored as %XX"
        ),
    )
    max_connections: PositiveInt = Field(
        4, description="Maximum number of connections at a time, over all workers"
    )
    timeout_seconds: PositiveFloat = Field(
        30,
        title="Timeout (seconds)",
        description="A connection counts as lost after this time without a response",
    )
    quiet_seconds: NonNegativeFloat = Field(
        0,
        title="Quiet time (seconds)",
        description=(
            "Skip files that changed less than this number of seconds ago. They may still be"
            " growing. A later run fetches them"
        ),
    )


class Credentials(BaseModel, extra="forbid"):
    """A login. The default, `anonymous` with any password, is for public servers (RFC 1635)."""

    username: Annotated[str, AfterValidator(_one_line)] = Field(
        "anonymous", description="Login name"
    )
    password: Annotated[SecretStr, AfterValidator(_secret_line)] = Field(
        SecretStr("anonymous@"), description="Password. FTP sends it unencrypted"
    )
