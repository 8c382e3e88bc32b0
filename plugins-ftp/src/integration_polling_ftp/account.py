"""The config and credentials of an account."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic.config import JsonDict

from core import Destination, ResyncOnChange
from integration_polling_ftp.addresses import host_of, split
from integration_polling_ftp.proxies import Proxy


def _one_line(text: str) -> str:
    if any(character in text for character in "\r\n\0"):
        raise ValueError("must not contain a line break or a NUL")
    return text


def _secret_line(secret: SecretStr) -> SecretStr:
    _one_line(secret.get_secret_value())
    return secret


def _optional_line(secret: SecretStr | None) -> SecretStr | None:
    return None if secret is None else _secret_line(secret)


def _absolute(path: str) -> str:
    """Return a path that starts with `/` and does not end with one; empty parts are removed.

    An empty path stays empty.
    """
    if not path.strip():
        return ""
    parts = [part for part in _one_line(path).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("'..' is not allowed in a path")
    return "/" + "/".join(parts)


MAX_GLOBS = 100
MAX_GLOB_CHARS = 1_000
MAX_NAME_CHARS = 255
"""The number of globs in a list, the length of each, and that of a name."""


def _globs(globs: tuple[str, ...]) -> tuple[str, ...]:
    """Return globs without empty ones. A glob is relative to the root."""
    for glob in globs:
        if len(_one_line(glob)) > MAX_GLOB_CHARS:
            raise ValueError(f"a glob has over {MAX_GLOB_CHARS:,} characters")
        if glob.strip() and not any(part not in ("", ".", "..") for part in glob.split("/")):
            raise ValueError("a glob needs a name, such as *.csv")
        if ".." in glob.split("/"):
            raise ValueError("'..' is not allowed in a glob")
    return tuple(glob for glob in globs if glob.strip())


UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".tmp")
"""Suffixes of files that browsers and clients have not written completely."""


def _suffixes(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    for suffix in suffixes:
        if "/" in _one_line(suffix) or len(suffix) > MAX_NAME_CHARS:
            raise ValueError("a suffix is the end of a name, such as .part")
    return tuple(suffix for suffix in suffixes if suffix.strip())


def _marker(text: str) -> str:
    if "/" in _one_line(text) or text.count("*") > 1 or text.strip() == "*":
        raise ValueError("must be a name, with one * for the name of the file, such as *.done")
    return text.strip()


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


@dataclass(frozen=True, slots=True)
class Jump:
    """A server to connect through."""

    host: str
    port: int
    username: str

    @classmethod
    def of(cls, text: str, username: str) -> Jump:
        """Read `user@host:port`, with a default for the user, and 22 for the port.

        Raises:
          ValueError: The text has no host, or an invalid port.
        """
        user, _, address = text.rpartition("@")
        parts = urlsplit(f"//{address}")
        if not parts.hostname or parts.path or parts.query:
            raise ValueError("must be user@host:port")
        return cls(parts.hostname, parts.port or 22, user or username)


def _jump(text: str) -> str:
    if text:
        Jump.of(_one_line(text), "")
    return text


def _proxy(text: str) -> str:
    Proxy.of(_one_line(text))
    return text


PORTS = {"ftp": 21, "ftps": 21, "ftps-implicit": 990, "sftp": 22}
"""The default TCP port of each protocol."""


class Config(BaseModel, extra="forbid"):
    """The address of the server, and the files to keep."""

    host: Annotated[str, Destination(), AfterValidator(_one_line), AfterValidator(host_of)] = Field(
        min_length=1,
        description=(
            "Host name or IP address of the server, or an address such as"
            " sftp://files.example.org:2222/out, which also sets protocol, port and root"
        ),
    )
    protocol: Annotated[Literal["ftp", "ftps", "ftps-implicit", "sftp", "auto"], Destination()] = (
        Field(
            "ftp",
            description=(
                "ftp is not encrypted. ftps encrypts with TLS after the greeting; ftps-implicit"
                " encrypts from the first byte. sftp is the file transfer of SSH. auto finds the"
                " encrypted one that the server speaks"
            ),
        )
    )
    port: Annotated[int | None, Destination()] = Field(
        None,
        ge=1,
        le=65535,
        description=(
            "TCP port of the server. Default: 21 for ftp and ftps, 990 for ftps-implicit, and"
            " 22 for sftp"
        ),
    )
    root: Annotated[str, AfterValidator(_absolute)] = Field(
        "",
        description=(
            "Directory to copy, with everything below it. Default: the directory after the login"
        ),
    )
    include: Annotated[tuple[str, ...], ResyncOnChange(), AfterValidator(_globs)] = Field(
        (),
        max_length=MAX_GLOBS,
        description=(
            "Copy only files that match one of these globs, below the root, such as *.csv or"
            " reports/**/*.pdf. Empty: copy all files"
        ),
    )
    exclude: Annotated[tuple[str, ...], ResyncOnChange(), AfterValidator(_globs)] = Field(
        (),
        max_length=MAX_GLOBS,
        description=(
            "Do not copy files or directories that match one of these globs, such as tmp/ or *.bak"
        ),
    )
    min_bytes: Annotated[NonNegativeInt, ResyncOnChange()] = Field(
        0, title="Smallest size (bytes)", description="Copy only files of at least this size"
    )
    max_bytes: Annotated[NonNegativeInt | None, ResyncOnChange()] = Field(
        None,
        title="Largest size (bytes)",
        description="Copy only files of at most this size. Default: any size",
    )
    modified_after: Annotated[date | None, ResyncOnChange()] = Field(
        None,
        title="Modified after",
        description="Copy only files that changed on this day (UTC) or later. Default: all files",
    )
    max_depth: Annotated[int | None, ResyncOnChange()] = Field(
        None,
        ge=0,
        le=64,
        title="Levels",
        description=(
            "Copy this many levels of directories below the root. With 0, copy only the root's own"
            " files. Default: 64"
        ),
    )
    hidden: Annotated[bool, ResyncOnChange()] = Field(
        True,
        title="Hidden files",
        description="Copy files and directories whose names begin with a dot too",
    )
    follow_links: Annotated[bool, ResyncOnChange()] = Field(
        True,
        title="Follow links",
        description=(
            "Copy links to files too, with the content of the file. Some servers do not show which"
            " files are links"
        ),
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
    settle_seconds: float = Field(
        10,
        ge=0,
        le=3600,
        title="Settling time (seconds)",
        description=(
            "After this number of seconds, look again at files that changed within the last 26"
            " hours, and fetch only files whose size and time did not change. 0: fetch them without"
            " a second look"
        ),
    )
    unfinished_suffixes: Annotated[tuple[str, ...], ResyncOnChange(), AfterValidator(_suffixes)] = (
        Field(
            UNFINISHED,
            max_length=MAX_GLOBS,
            title="Suffixes of unfinished files",
            description=(
                "Do not copy files whose names end with one of these. Programs use them while they"
                " upload, and rename the file afterwards"
            ),
        )
    )
    ready_marker: Annotated[str, AfterValidator(_marker)] = Field(
        "",
        max_length=255,
        title="Ready marker",
        description=(
            "Fetch a file only when another one shows that it is complete: *.done for the file"
            " report.csv.done beside report.csv, or a name such as _SUCCESS for a directory"
        ),
    )
    checksum_files: bool = Field(
        True,
        title="Checksum files",
        description=(
            "Compare new and changed files with the checksum files beside them, such as SHA256SUMS"
            " or report.csv.md5, and do not copy files that differ"
        ),
    )
    server_hashes: bool = Field(
        True,
        title="Server hashes",
        description=(
            "Compare each download of at least 4 MiB with the hash that the server computes, if it"
            " can, and do not copy files that differ"
        ),
    )
    verify_percent: float = Field(
        0,
        ge=0,
        le=50,
        title="Verification (%)",
        description=(
            "Share of the time in which scheduled runs use one connection to compare copied files"
            " with the server, although their size and time did not change. 0: do not compare them"
        ),
    )
    growing: bool = Field(
        False,
        title="Growing files",
        description=(
            "Copy files that grow between the two looks too, such as log files. Only the rest of a"
            " file is fetched when it has grown"
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
        description="Newest version of TLS to use. Lower it if the server fails with TLS 1.3",
    )

    host_key: Annotated[str, Destination()] = Field(
        "",
        max_length=24_000,
        title="Host key",
        description=(
            "For sftp: the server's host keys, one a line. A fingerprint (SHA256:…), a public key,"
            " or a line of known_hosts"
        ),
    )
    jump_host: Annotated[str, Destination(), AfterValidator(_jump)] = Field(
        "",
        max_length=1_000,
        title="Jump host",
        description="For sftp: the server to connect through, as user@host:port",
    )
    jump_host_key: Annotated[str, Destination()] = Field(
        "",
        max_length=24_000,
        title="Host key of the jump host",
        description="For sftp: the jump host's own host keys, in one of the forms of the host key",
    )
    legacy_algorithms: Annotated[bool, Destination()] = Field(
        False,
        title="Legacy algorithms",
        description="For sftp: also use weak algorithms, for old servers (CBC, SHA-1, ssh-rsa)",
    )

    sha256sum: bool = Field(
        False,
        title="Run sha256sum",
        description=(
            "For sftp: run the command sha256sum in the server's shell to compute hashes. The shell"
            " must have the same paths as SFTP"
        ),
    )

    proxy: Annotated[str, Destination(), AfterValidator(_proxy)] = Field(
        "",
        max_length=1_000,
        description=(
            "Proxy for all connections to the server, as socks5://user@host:port or"
            " http://user@host:port (HTTP CONNECT). Default: connect directly"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _split_address(cls, values: object) -> object:
        return split(values) if isinstance(values, Mapping) else values

    @property
    def effective_port(self) -> int:
        """The TCP port to connect to; 0 until the protocol is known."""
        return self.port or PORTS.get(self.protocol, 0)

    @model_validator(mode="after")
    def _check_versions(self) -> Self:
        if self.tls_min_version > self.tls_max_version:
            raise ValueError("tls_min_version is newer than tls_max_version")
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.max_bytes is not None and self.min_bytes > self.max_bytes:
            raise ValueError("min_bytes is larger than max_bytes")
        return self


NOT_PROMPTED: JsonDict = {"prompt": False}
"""Excludes fields from the prompts on a terminal. A text in PEM has several lines."""

ANONYMOUS_PASSWORD = "anonymous@"  # noqa: S105  it is public (RFC 1635)
"""The password of an account without one."""


class Credentials(BaseModel, extra="forbid"):
    """A login. The default, `anonymous` with any password, is for public servers (RFC 1635)."""

    username: Annotated[str, AfterValidator(_one_line)] = Field(
        "anonymous", description="Login name"
    )
    password: Annotated[SecretStr, AfterValidator(_secret_line)] = Field(
        SecretStr(ANONYMOUS_PASSWORD), description="Password. The protocol ftp sends it unencrypted"
    )
    account: Annotated[SecretStr | None, AfterValidator(_optional_line)] = Field(
        None,
        max_length=1_000,
        title="ACCT account",
        description="For ftp and ftps: account for the command ACCT, if the server requires one",
        json_schema_extra=NOT_PROMPTED,
    )
    certificate: str = Field(
        "",
        max_length=24_000,
        title="Client certificate",
        description=(
            "For ftps: your certificate and its chain, in PEM, if the server asks the client for a"
            " certificate. For sftp: certificate of the private key, as OpenSSH writes it"
        ),
        json_schema_extra=NOT_PROMPTED,
    )
    private_key: SecretStr | None = Field(
        None,
        max_length=24_000,
        title="Private key",
        description="For ftps: key of the certificate, in PEM. For sftp: key to log in with",
        json_schema_extra=NOT_PROMPTED,
    )
    passphrase: SecretStr | None = Field(
        None,
        description="Passphrase of the private key, if it is encrypted",
        json_schema_extra=NOT_PROMPTED,
    )
    jump_password: SecretStr | None = Field(
        None,
        description="Password for the jump host. Default: the same as for the server",
        json_schema_extra=NOT_PROMPTED,
    )
    proxy_password: SecretStr | None = Field(
        None,
        max_length=1_000,
        title="Password of the proxy",
        description="Password for the proxy, if it asks for one",
        json_schema_extra=NOT_PROMPTED,
    )


def proxy_of(config: Config, credentials: Credentials) -> Proxy | None:
    """Return the account's proxy; None if it has none."""
    return Proxy.of(config.proxy, secret(credentials.proxy_password))


def secret(value: SecretStr | None) -> str:
    """Return the text of a secret; empty if there is none."""
    return "" if value is None else value.get_secret_value()
