"""The config and credentials of an account."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic.config import JsonDict

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


def _fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint as pairs of digits, from any common form of it."""
    digits = re.sub(r"[\s:]", "", text.strip().lower().removeprefix("sha256"))
    if digits and not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("must be a SHA-256 fingerprint: 64 hexadecimal digits")
    return ":".join(re.findall("..", digits)).upper()


PORTS = {"ftp": 21, "ftps": 21, "ftps-implicit": 990}
"""The default TCP port of each protocol."""


class Config(BaseModel, extra="forbid"):
    """The address of the server, and the files to keep."""

    host: Annotated[str, Destination(), AfterValidator(_one_line)] = Field(
        min_length=1, description="Host name or IP address of the server"
    )
    protocol: Annotated[Literal["ftp", "ftps", "ftps-implicit"], Destination()] = Field(
        "ftp",
        description=(
            "ftp is not encrypted. ftps encrypts with TLS after the greeting; ftps-implicit"
            " encrypts from the first byte"
        ),
    )
    port: Annotated[int | None, Destination()] = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port of the server. Default: the protocol's, 21 or 990",
    )
    root: Annotated[str, AfterValidator(_absolute)] = Field(
        "/", description="Directory to copy, with everything below it"
    )
    encoding: Annotated[str, AfterValidator(_charset)] = Field(
        "utf-8",
        max_length=40,
        description=(
            "Charset of the file names, such as cp932, gbk or cp1251. Bytes that are invalid in it"
            " are stored as %XX"
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
    tls_ca: Annotated[str, Destination()] = Field(
        "",
        max_length=48_000,
        title="TLS authorities",
        description=(
            "Certificates, in PEM, of the authorities that may sign the server's certificate."
            " Default: the authorities that the system trusts"
        ),
    )
    tls_fingerprint: Annotated[str, Destination(), AfterValidator(_fingerprint)] = Field(
        "",
        title="TLS fingerprint",
        description=(
            "SHA-256 of the server's certificate. Exactly this certificate is trusted, also if it"
            " is self-signed or has expired"
        ),
    )
    tls_min_version: Literal["1.2", "1.3"] = Field(
        "1.2", title="Oldest TLS version", description="Oldest version of TLS to use"
    )
    tls_max_version: Literal["1.2", "1.3"] = Field(
        "1.3",
        title="Newest TLS version",
        description="Newest version of TLS to use, for servers that fail with TLS 1.3",
    )

    @property
    def effective_port(self) -> int:
        """The TCP port to connect to."""
        return self.port or PORTS[self.protocol]

    @model_validator(mode="after")
    def _check_versions(self) -> Self:
        if self.tls_min_version > self.tls_max_version:
            raise ValueError("tls_min_version is newer than tls_max_version")
        return self


NOT_PROMPTED: JsonDict = {"prompt": False}
"""Excludes fields from the prompts on a terminal. A text in PEM has several lines."""


class Credentials(BaseModel, extra="forbid"):
    """A login. The default, `anonymous` with any password, is for public servers (RFC 1635)."""

    username: Annotated[str, AfterValidator(_one_line)] = Field(
        "anonymous", description="Login name"
    )
    password: Annotated[SecretStr, AfterValidator(_secret_line)] = Field(
        SecretStr("anonymous@"), description="Password. The protocol ftp sends it unencrypted"
    )
    certificate: str = Field(
        "",
        max_length=24_000,
        title="Client certificate",
        description="Certificate with its chain, in PEM, if the server requires one of the client",
        json_schema_extra=NOT_PROMPTED,
    )
    private_key: SecretStr | None = Field(
        None,
        max_length=24_000,
        title="Private key",
        description="Private key of the certificate, in PEM",
        json_schema_extra=NOT_PROMPTED,
    )
    passphrase: SecretStr | None = Field(
        None,
        description="Passphrase of the private key, if it is encrypted",
        json_schema_extra=NOT_PROMPTED,
    )


def secret(value: SecretStr | None) -> str:
    """Return the text of a secret; empty if there is none."""
    return "" if value is None else value.get_secret_value()
