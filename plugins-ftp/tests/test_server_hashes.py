"""Hashes that servers compute: they prove downloads, and a hostile one stops nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import real_servers
from certificates import authority
from certificates import server as certified
from integration_polling_ftp import Config, Credentials, Ftp, names
from integration_polling_ftp.connection import Connection
from integration_polling_ftp.control import Reply
from integration_polling_ftp.server_hashes import HEX_DIGITS, MISMATCH, Method, methods
from integration_polling_ftp.session import Session
from integration_polling_ftp.sftp import SftpSession
from integration_polling_ftp.sftp_protocol import Extension, Request
from integration_polling_ftp.sftp_protocol import Reply as SftpReply
from integration_polling_ftp.ssh_commands import command
from real_servers import Security, serve
from ssh_server import serve_ssh
from test_sftp_protocol import Hostile, number, packet, string

from core.testing import Harness

SIZE = 4_500_000
"""A size with a download of its own."""

COMMANDS = {
    "sha256": ("XSHA256",), "sha512": ("XSHA512",), "sha1": ("XSHA1", "XSHA"),
    "md5": ("XMD5", "MD5"), "crc32": ("XCRC",),
}  # fmt: skip


def digest(algorithm: str, content: bytes) -> str:
    if algorithm == "crc32":
        return f"{zlib.crc32(content):08x}"
    return hashlib.new(algorithm, content).hexdigest()


def kept(harness: Harness) -> dict[str, Any]:
    return {path: item.content for path, item in harness.content.items() if item.kind == "file"}


def proofs(harness: Harness) -> dict[str, str]:
    found = {path: item.metadata.get("server_hash") for path, item in harness.content.items()}
    return {path: str(proof) for path, proof in found.items() if proof}


def connect(server: Any, **config: Any) -> Harness:
    return Harness(Ftp, {**server.config, **config}, server.credentials)


def session_of(server: Any, **config: Any) -> Connection:
    whole = Config(**{**server.config, **config})
    kind = SftpSession if whole.protocol == "sftp" else Session
    return kind(whole, Credentials(**server.credentials))


# Replies


@pytest.mark.parametrize("algorithm", HEX_DIGITS)
def test_each_command_is_read(algorithm: str) -> None:
    content = b"hello"
    wanted = f"{algorithm}:{digest(algorithm, content)}"
    name = {"sha256": "SHA-256", "sha512": "SHA-512", "sha1": "SHA-1"}.get(algorithm, algorithm)
    digits = digest(algorithm, content).upper()
    [method] = methods({"HASH": f"{name.upper()}*;SHA-999"})
    for end in (4, 5):
        for head in ("", "213-Computing\n"):
            reply = Reply("213", f"{head}213 {name.upper()} 0-{end} {digits} /a b 1")
            assert method.read(reply, "/a b 1", 5) == wanted
    for command_ in COMMANDS[algorithm]:
        [method] = methods({command_: ""})
        for form in ("{}", "/a {}", "Computed value: {}.", '"/a" {}'):
            text = form.format(digits)
            assert method.read(Reply("250", f"250 {text}"), "/a", 5) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "213 SHA-256 0-5 {md5} /a",  # another length
        "213 MD5 0-5 {md5} /a",  # another algorithm
        "213 SHA-256 1-5 {sha256} /a",  # other bytes
        "213 SHA-256 0-3 {sha256} /a",
        "213 SHA-256 0-6 {sha256} /a",
        "213 SHA-256 {sha256} /a",
        "213 {sha256}",
        "250 SHA-256 0-5 {sha256} /a",
        "213 SHA-256 0-5 {sha256}0 /a",
        "213 SHA-256 0-5 " + "z" * 64,
        "213 SHA-256 0-" + "9" * 4_000 + " {sha256} /a",
        "213",
        "",
    ],
)  # fmt: skip
def test_a_reply_to_hash_that_means_something_else_is_no_hash(text: str) -> None:
    values = {name: digest(name, b"hello") for name in ("md5", "sha256")}
    reply = Reply(text[:3], text.format(**values))
    assert Method("sha256", "HASH", "SHA-256").read(reply, "/a", 5) == ""


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        ("sha1", "250 {md5}"),
        ("md5", "250 {sha1}"),
        ("md5", "200 {md5}"),
        ("md5", "250 {md5} {other}"),
        ("md5", "250 OK"),
        ("crc32", "250 12345678 87654321"),
        ("crc32", "250 x12345678"),
    ],
)
def test_a_reply_without_one_hash_is_no_hash(algorithm: str, text: str) -> None:
    values = {name: digest(name, b"hello") for name in ("md5", "sha1")}
    reply = Reply(text[:3], text.format(**values, other=digest("md5", b"other")))
    [method] = methods({COMMANDS[algorithm][0]: ""})
    assert method.read(reply, "/a", 5) == ""


def test_a_name_that_looks_like_a_hash_is_not_one() -> None:
    wire = "/" + digest("md5", b"name")
    method = Method("md5", "MD5")
    assert method.read(Reply("251", f"251 {wire} done"), wire, 5) == ""
    wanted = digest("md5", b"hello")
    assert method.read(Reply("251", f"251 {wire} {wanted}"), wire, 5) == f"md5:{wanted}"


def test_commands_that_take_ranges_get_no_names_with_spaces() -> None:
    """ProFTPD reads `XCRC /a 1 2` as the bytes 1 to 2 of `/a`."""
    assert not Method("crc32", "XCRC").can_name("/a 1 2")
    assert not Method("crc32", "XCRC").can_name('/a"b')
    assert Method("crc32", "HASH", "CRC32").can_name("/a 1 2")


def test_the_strongest_algorithm_comes_first() -> None:
    found = methods({"XCRC": "", "HASH": "MD5*;SHA-1", "XSHA256": "", "XMD5": ""})
    assert [f"{each.command} {each.algorithm}" for each in found] == [
        "XSHA256 sha256", "HASH sha1", "HASH md5", "XMD5 md5", "XCRC crc32",
    ]  # fmt: skip
    assert methods({"MLST": "", "HASH": "WHIRLPOOL;"}) == []


# A server of pyftpdlib with commands of its own


Answer = Callable[[str, Path], str | None]
"""Returns the reply to a command about a file; None for no reply at all."""


def hashing(server: Any, features: tuple[str, ...], answer: Answer) -> None:
    """Let a server announce features, and answer their commands."""

    def method(verb: str) -> Any:
        def respond(self: Any, path: str) -> None:
            reply = answer(verb, Path(path))
            if reply is not None:
                self.respond(reply)

        return respond

    def feat(self: Any, line: str) -> None:
        lines = "".join(f" {each}\r\n" for each in (*features, "MLST size*;"))
        self.push(f"211-Features:\r\n{lines}211 End\r\n")

    for verb in {each.split()[0] for each in features}:
        server.handler.proto_cmds[verb] = {"perm": "r", "auth": True, "arg": True, "help": ""}
        setattr(server.handler, f"ftp_{verb}", method(verb))
    server.handler.ftp_FEAT = feat
    server.handler.ftp_OPTS = lambda self, line: self.respond("200 OK")


def of_file(algorithm: str, form: str = "250 {0}", other: bytes | None = None) -> Answer:
    """Answer with the hash of a file, or of other bytes."""

    def answer(verb: str, file: Path) -> str:
        content = file.read_bytes()
        hashed = content if other is None else other
        return form.format(digest(algorithm, hashed), len(content), file)

    return answer


@pytest.mark.parametrize("algorithm", HEX_DIGITS)
def test_downloads_are_proven_and_refused(facts_server: Any, algorithm: str) -> None:
    verb = COMMANDS[algorithm][0]
    hashing(facts_server, (verb,), of_file(algorithm))
    facts_server.write("a", b"a" * SIZE)
    facts_server.write("small", b"s")
    harness = connect(facts_server)
    assert dict(harness.sync().skipped_items) == {}
    assert proofs(harness) == {"/a": algorithm}
    hashing(facts_server, (verb,), of_file(algorithm, other=b"other"))
    facts_server.write("a", b"b" * SIZE)
    result = harness.sync()
    assert (result.state, dict(result.skipped_items)) == ("succeeded", {MISMATCH: 1})
    assert kept(harness)["/a"] == b"a" * SIZE, "the kept version stays"
    retrieved = len(facts_server.sent("RETR"))
    harness.sync()
    assert len(facts_server.sent("RETR")) == retrieved, "it waits before the next try"
    hashing(facts_server, (verb,), of_file(algorithm))
    facts_server.write("a", b"c" * SIZE)
    assert dict(harness.sync().skipped_items) == {}
    assert kept(harness)["/a"] == b"c" * SIZE


def test_hash_selects_its_algorithm(facts_server: Any) -> None:
    hashing(facts_server, ("HASH MD5*;SHA-256",), of_file("sha256", "213 SHA-256 0-{1} {0} {2}"))
    facts_server.write("a b", b"a" * SIZE)
    harness = connect(facts_server)
    harness.sync()
    assert proofs(harness) == {"/a b": "sha256"}
    assert "OPTS HASH SHA-256" in facts_server.commands


@pytest.mark.parametrize(
    "form",
    ["500 unknown", "502 not implemented", "550 no", "450 busy", "250 nothing", "213 MD5 0-9 12",
     "250 0", "553 too large"],
)  # fmt: skip
def test_a_server_that_gives_no_hash_stops_nothing(facts_server: Any, form: str) -> None:
    hashing(facts_server, ("XSHA256",), of_file("sha256", form))
    for name in "ab":
        facts_server.write(name, b"a" * SIZE)
    harness = connect(facts_server)
    result = harness.sync()
    assert (result.state, dict(result.skipped_items)) == ("succeeded", {})
    assert (set(kept(harness)), proofs(harness)) == ({"/a", "/b"}, {})
    if form[0] == "5" and form[1] == "0":
        assert len(facts_server.sent("XSHA256")) == 1, "it is not asked again"


def test_the_next_command_is_tried(facts_server: Any) -> None:
    def answer(verb: str, file: Path) -> str | None:
        return of_file("md5")(verb, file) if verb == "XMD5" else "502 no"

    hashing(facts_server, ("XSHA256", "XMD5"), answer)
    facts_server.write("a", b"a" * SIZE)
    session = session_of(facts_server)
    assert session.hash("/a", SIZE) == f"md5:{digest('md5', b'a' * SIZE)}"
    assert session.hash_algorithm == "md5"
    session.close()


def test_a_hash_that_never_comes_costs_one_timeout(facts_server: Any) -> None:
    hashing(facts_server, ("XSHA256",), lambda verb, file: None)
    for name in "abc":
        facts_server.write(name, b"a" * SIZE)
    harness = connect(facts_server, timeout_seconds=1, max_connections=1)
    result = harness.sync()
    assert (result.state, dict(result.skipped_items)) == ("succeeded", {})
    assert (set(kept(harness)), proofs(harness)) == ({"/a", "/b", "/c"}, {})
    assert len(facts_server.sent("XSHA256")) <= len(result.runs) * 3


def test_a_server_that_only_promises_a_hash_is_left(facts_server: Any) -> None:
    """It sends preliminary replies, each within the timeout."""
    ended = threading.Event()

    def promise(self: Any, line: str) -> None:
        self.push("150 still computing\r\n")
        if not ended.is_set():
            facts_server.loop.call_later(0.2, promise, self, line)

    hashing(facts_server, ("XSHA256",), lambda verb, file: None)
    facts_server.handler.ftp_XSHA256 = promise
    facts_server.write("a", b"a" * SIZE)
    session = session_of(facts_server, timeout_seconds=0.5)
    try:
        assert session.hash("/a", SIZE) == ""
        assert session.hash_algorithm == ""
        assert session.stat("/a").size == SIZE, "the connection opens again"
    finally:
        ended.set()
        session.close()


def test_a_file_that_takes_too_long_to_hash_is_not_asked_for(facts_server: Any) -> None:
    hashing(facts_server, ("XSHA256",), of_file("sha256"))
    facts_server.write("a", b"a")
    session = session_of(facts_server, timeout_seconds=1)
    assert session.hash("/a", 50 * 1024**2 + 1) == ""
    assert not facts_server.sent("XSHA256")
    session.close()


def test_without_server_hashes_the_server_is_not_asked(facts_server: Any) -> None:
    hashing(facts_server, ("XSHA256",), of_file("sha256", other=b"other"))
    facts_server.write("a", b"a" * SIZE)
    harness = connect(facts_server, server_hashes=False)
    assert dict(harness.sync().skipped_items) == {}
    assert not facts_server.sent("XSHA256")


def test_a_checksum_file_decides_alone(facts_server: Any) -> None:
    hashing(facts_server, ("XSHA256",), of_file("sha256", other=b"other"))
    facts_server.write("a", b"a" * SIZE)
    facts_server.write("a.md5", digest("md5", b"a" * SIZE).encode())
    harness = connect(facts_server)
    assert dict(harness.sync().skipped_items) == {}
    assert not facts_server.sent("XSHA256")


# Real servers


@pytest.fixture
def digesting(monkeypatch: pytest.MonkeyPatch) -> None:
    """ProFTPD with mod_digest."""
    for name in ("proftpd", "proftpd-sftp"):
        start = real_servers.STARTS[name]

        def with_digest(*args: Any, start: Any = start) -> Any:
            command_, credentials = start(*args)
            folder = real_servers.FOLDER.resolve() / "usr/lib/proftpd"
            with (args[0] / "proftpd.conf").open("a") as config:
                config.write(f"ModulePath {folder}\nLoadModule mod_digest.c\n")
            return command_, credentials

        monkeypatch.setitem(real_servers.STARTS, name, with_digest)


@pytest.fixture(scope="module")
def tls() -> Security:
    root = authority()
    return Security(root, certified(root))


@pytest.mark.usefixtures("digesting")
@pytest.mark.parametrize("encrypted", [False, True], ids=["ftp", "ftps"])
def test_proftpd_hashes_in_each_way(
    encrypted: bool, tls: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(SIZE)
    files = ("a", "a b 1", "ü\udcff", "it's")
    with serve("proftpd", tls=tls if encrypted else None) as server:
        for name in files:
            (server.home / name).write_bytes(content)
        (server.home / "empty").write_bytes(b"")
        (server.home / "d").mkdir()
        session = session_of(server)
        assert isinstance(session, Session)
        session.ping()
        for method in list(session._client.opened().hashes):
            session._client.opened().hashes[:] = [method]
            wanted = f"{method.algorithm}:{digest(method.algorithm, content)}"
            assert session.hash("/a", SIZE) == wanted, method
        session.close()
        session = session_of(server)
        for name in ("a", "a b 1", "ü%FF", "it's"):
            assert session.hash(f"/{name}", SIZE) == f"sha256:{digest('sha256', content)}"
        assert session.hash("/empty", 0) == f"sha256:{digest('sha256', b'')}"
        for path in ("/d", "/none"):
            assert session.hash(path, SIZE) == ""
        session.close()
        harness = connect(server, settle_seconds=0)
        assert dict(harness.sync().skipped_items) == {}
        assert set(proofs(harness).values()) == {"sha256"}
        assert len(proofs(harness)) == len(files)


@pytest.mark.usefixtures("digesting")
def test_mod_sftp_hashes_with_check_file() -> None:
    content = os.urandom(SIZE)
    with serve("proftpd-sftp") as server:
        for name in ("a", "a b 1", "it's\n"):
            (server.home / name).write_bytes(content)
        (server.home / "d").mkdir()
        session = session_of(server)
        for name in ("a", "a b 1", "it's%0A"):
            assert session.hash(f"/{name}", SIZE) == f"sha256:{digest('sha256', content)}"
        for path in ("/d", "/none"):
            assert session.hash(path, SIZE) == ""
        session.close()
        harness = connect(server, settle_seconds=0)
        assert dict(harness.sync().skipped_items) == {}
        assert len(proofs(harness)) == 3


@pytest.mark.parametrize("name", ["vsftpd", "pure-ftpd", "openssh"])
def test_servers_without_hashes_are_copied(name: str) -> None:
    with serve(name) as server:
        (server.home / "a").write_bytes(b"a" * SIZE)
        harness = connect(server, settle_seconds=0)
        result = harness.sync()
        assert (result.state, proofs(harness)) == ("succeeded", {})
        assert len(kept(harness)) == 1


NAMES = ["a", "a b 1", "it's $HOME `id`;&|<>*", "-c", '"', "ü", "~"]
UNSAFE_NAMES = ["back\\slash", "line\nfeed", "bang!"]


def proven(session: Connection, prefix: str, content: bytes) -> None:
    for name in NAMES:
        wanted = f"sha256:{digest('sha256', content)}"
        assert session.hash(f"{prefix}/{name}", len(content)) == wanted, name
    for name in (*UNSAFE_NAMES, "none"):
        assert session.hash(f"{prefix}/{names.from_user(name)}", len(content)) == "", name


def test_openssh_hashes_with_its_shell_if_the_account_permits_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shells = ("/bin/sh", "/bin/bash", "/bin/dash")
    users = [each.pw_uid for each in pwd.getpwall() if each.pw_uid and each.pw_shell in shells]
    if not users or os.geteuid() != 0:
        pytest.skip("needs root, and another user with a shell")
    monkeypatch.setattr(real_servers, "NOBODY", users[0])
    content = os.urandom(5_000)
    with serve("openssh") as server:
        for name in (*NAMES, *UNSAFE_NAMES):
            (server.home / name).write_bytes(content)
        session = session_of(server)
        assert session.hash(f"{server.prefix}/a", len(content)) == ""
        session.close()
        session = session_of(server, sha256sum=True)
        proven(session, server.prefix, content)
        session.close()


@pytest.mark.parametrize("program", ["sh", "bash", "dash"])
def test_shells_find_each_name(tmp_path: Path, program: str) -> None:
    if not (found := shutil.which(program)):
        pytest.skip(f"{program} is not installed")
    content = os.urandom(5_000)
    for name in (*NAMES, *UNSAFE_NAMES):
        (tmp_path / name).write_bytes(content)

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        shell = await asyncio.create_subprocess_exec(
            found, "-c", process.command or "", stdout=asyncio.subprocess.PIPE
        )
        process.stdout.write((await shell.communicate())[0])
        process.exit(shell.returncode or 0)

    with shell_server(tmp_path, run) as server:
        session = session_of(server, sha256sum=True)
        session.ping()
        hashes = [session.hash(f"{tmp_path}/{name}", len(content)) for name in NAMES]
        assert hashes == [f"sha256:{digest('sha256', content)}"] * len(NAMES)
        session.close()


# Hostile shells and SFTP servers


def test_the_command_protects_every_path() -> None:
    assert command(b"/a b") == b"sha256sum <'/a b'"
    assert command(b"/it's; rm -rf /") == rb"sha256sum <'/it'\''s; rm -rf /'"
    for path in (b"a", b"-c", b"/a\\b", b"/a\nb", b"/a\0", b"/a!b", b"/\x7f", b""):
        assert command(path) is None


Shell = Callable[[asyncssh.SSHServerProcess[bytes]], Any]


@contextmanager
def shell_server(tmp_path: Path, run: Shell) -> Iterator[Any]:
    with serve_ssh(tmp_path, process_factory=run, encoding=None) as server:
        yield server


OUTPUTS = [
    (b"", 0), (b"0" * 64, 0), (b"0" * 63 + b"  -\n", 0), (b"0" * 64 + b"  -\n", 1),
    (b"Welcome!\n" + b"0" * 64 + b"  -\n", 0), (b"0" * 64 + b"  -\nmore\n", 0),
    (b"\\" + b"0" * 64 + b"  -\n", 0), (b"x" * 5_000_000, 0), (b"\xff" * 70, 0),
]  # fmt: skip


@pytest.mark.parametrize(("output", "status"), OUTPUTS)
def test_a_shell_that_prints_something_else_stops_nothing(
    tmp_path: Path, output: bytes, status: int
) -> None:
    (tmp_path / "a").write_bytes(b"a" * SIZE)

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stderr.write(b"warning\n")
        process.stdout.write(output)
        process.exit(status)

    with shell_server(tmp_path, run) as server:
        harness = connect(server, root="/", sha256sum=True, settle_seconds=0)
        result = harness.sync()
        assert (result.state, dict(result.skipped_items), proofs(harness)) == ("succeeded", {}, {})
        harness.close()


@pytest.mark.parametrize(("offset", "found"), [(0, "sha256"), (1, "")])
def test_a_shell_that_prints_a_hash_proves_or_refuses(
    tmp_path: Path, offset: int, found: str
) -> None:
    (tmp_path / "a b").write_bytes(b"a" * SIZE)
    commands = []

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        commands.append(process.command)
        process.stdout.write(digest("sha256", b"a" * (SIZE - offset)).encode() + b"  -\n")
        process.exit(0)

    with shell_server(tmp_path, run) as server:
        harness = connect(server, root="/", sha256sum=True, settle_seconds=0)
        result = harness.sync()
        harness.close()
    assert commands == ["sha256sum <'/a b'"]
    assert (set(proofs(harness).values()) or {""}) == {found}
    assert dict(result.skipped_items) == ({} if found else {MISMATCH: 1})


def test_a_shell_that_never_ends_costs_one_timeout(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"a" * SIZE)
    commands = []

    async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
        commands.append(process.command)
        await process.wait_closed()

    with shell_server(tmp_path, run) as server:
        session = session_of(server, sha256sum=True, timeout_seconds=0.5)
        assert session.hash("/a", SIZE) == session.hash("/b", SIZE) == ""
        assert len(commands) == 1
        assert session.stat("/a").size == SIZE, "the connection opens again"
        session.close()


def test_a_server_without_a_shell_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * SIZE)
    with serve_ssh(tmp_path) as server:
        harness = connect(server, root="/", sha256sum=True, settle_seconds=0)
        assert harness.sync().state == "succeeded"
        harness.close()
    assert set(kept(harness)) == {"/a"}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (string(b"sha256") + b"h" * 32, b"h" * 32),
        (string(b"check-file") + string(b"sha256") + b"h" * 32, b"h" * 32),
        (string(b"md5") + b"h" * 16, b""),
        (string(b"sha256") + b"h" * 64, b""),
        (string(b"check-file") + string(b"md5") + b"h" * 32, b""),
        (string(b"sha256") + b"h" * 31, b""),
        (string(b"sha256"), b""),
        (b"", b""),
        (number(2**31) + b"sha256", b""),
    ],
)
def test_only_a_complete_hash_of_check_file_counts(
    tmp_path: Path, fields: bytes, found: bytes
) -> None:
    class Checking(Hostile):
        def __call__(self, kind: int, number_: bytes, body: bytes) -> bytes:
            if kind == Request.EXTENDED:
                name = string(Extension.CHECK_FILE.value)
                asked = string(b"/a") + string(b"sha256") + number(0, 8) * 2 + number(0)
                assert body == name + asked
                return packet(SftpReply.EXTENDED, number_ + fields)
            return super().__call__(kind, number_, body)

    with serve_ssh(tmp_path, answer=Checking(Request.CLOSE, b"")) as server:
        session = session_of(server)
        assert session.hash("/a", 5) == (f"sha256:{found.hex()}" if found else "")
        session.ping()
        session.close()
