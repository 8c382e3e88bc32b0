"""What an account is connected with."""

from __future__ import annotations

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
        raise ValueError("it must be one line")
    return text


def _secret_line(secret: SecretStr) -> SecretStr:
    _one_line(secret.get_secret_value())
    return secret


def _absolute(path: str) -> str:
    """From `/`, without a slash at the end."""
    parts = [part for part in _one_line(path).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("'..' is not allowed in a path")
    return "/" + "/".join(parts)


class Config(BaseModel, extra="forbid"):
    """Where the server is, and what of it to keep."""

    host: Annotated[str, Destination(), AfterValidator(_one_line)] = Field(
        min_length=1, description="Name or address of the server"
    )
    port: Annotated[int, Destination()] = Field(21, ge=1, le=65535)
    root: Annotated[str, AfterValidator(_absolute)] = Field(
        "/", description="The directory to keep a copy of"
    )
    max_connections: PositiveInt = Field(
        4, description="Connections at once, of all workers together"
    )
    timeout_seconds: PositiveFloat = Field(30, description="How long the server may be silent")
    quiet_seconds: NonNegativeFloat = Field(
        0,
        description="Leave files alone that changed less than this ago: they may still be growing",
    )


class Credentials(BaseModel, extra="forbid"):
    """A login; `anonymous` with any password for a public server."""

    username: Annotated[str, AfterValidator(_one_line)] = "anonymous"
    password: Annotated[SecretStr, AfterValidator(_secret_line)] = SecretStr("anonymous@")
