"""SFTP: OpenSSH's server and asyncssh's, host keys, logins, and lost connections."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from integration_polling_ftp import Config, Credentials, Ftp, ssh_keys
from integration_polling_ftp import names as stored
from integration_polling_ftp.errors import Dropped, Missing, Untrusted
from integration_polling_ftp.sftp import SftpSession
from integration_polling_ftp.walking import LARGE_BYTES
from pydantic import ValidationError
from real_servers import serve
from ssh_server import PASSWORD, USERNAME, SshServer, cutting, serve_ssh
from test_real_servers import ODD, write

from core import ConfigurationError, CredentialsInvalid, RateLimited
from core.egress import Egress, EgressRefused
from core.testing import Harness


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    with serve_ssh(tmp_path) as server:
        yield server


def connect(server: Any, credentials: dict[str, str] | None = None, **config: Any) -> Any:
    return Harness(
        Ftp, {**server.config, **config}, server.credentials if credentials is None else credentials
    )


def files(harness: Any, below: str = "") -> dict[str, bytes]:
    return {
        path.removeprefix(below): item.content
        for path, item in harness.content.items()
        if item.kind == "file"
    }


@pytest.fixture
def session(server: SshServer) -> Iterator[SftpSession]:
    session = SftpSession(Config(**server.config), Credentials(**server.credentials))
    yield session
    session.close()


@pytest.mark.parametrize("name", ["openssh", "proftpd-sftp"])
def test_an_odd_tree_arrives_complete(name: str) -> None:
    odd = [*ODD, b"two\nlines", b"\rcarriage\r", b"\x01\x7f"]
    with serve(name) as server:
        wanted = {}
        for directory in (b"", b"sub dir/", b"caf\xe9 dir/deep/" + b"d/" * 20):
            for number, name in enumerate(odd):
                content = directory + name + os.urandom(number)
                write(server, directory + name, content)
                wanted["/" + stored.to_text((directory + name).decode("latin-1"))] = content
        for size in (0, 300_000, 600_000, LARGE_BYTES + 1_234_567):
            wanted[f"/{size}"] = os.urandom(size)
            write(server, b"%d" % size, wanted[f"/{size}"])
        harness = connect(server)
        first = harness.sync()
        assert (first.state, dict(first.skipped_items)) == ("succeeded", {}), first.failures
        assert files(harness, server.prefix) == wanted
        again = harness.sync()
        assert (again.outputs_saved, again.skipped_items.total()) == (0, 0)


@pytest.mark.parametrize("name", ["openssh", "proftpd-sftp"])
def test_special_files_and_links_to_directories_are_skipped_by_type(name: str) -> None:
    """A reader that opens a pipe would wait for ever."""
    with serve(name) as server:
        write(server, b"sub/file", b"1")
        os.mkfifo(server.home / "pipe")
        (server.home / "to pipe").symlink_to("pipe")
        (server.home / "to file").symlink_to("sub/file")
        (server.home / "sub/loop").symlink_to("..")
        (server.home / "broken").symlink_to("nowhere")
        harness = connect(server)
        result = harness.sync()
        assert result.state == "succeeded", result.failures
        assert files(harness, server.prefix) == {"/sub/file": b"1", "/to file": b"1"}
        skipped = dict(result.skipped_items)
        assert skipped["neither file nor directory"] == 2
        assert skipped["link to a directory"] == 1


def test_a_path_that_may_not_be_read_is_skipped(server: SshServer) -> None:
    if os.geteuid() == 0:
        pytest.skip("the server of this test runs as root, which may read everything")
    (server.home / "open").write_bytes(b"1")
    (server.home / "locked").write_bytes(b"1")
    (server.home / "locked").chmod(0)
    harness = connect(server)
    assert harness.sync().skipped_items.total() == 1
    assert files(harness) == {"/open": b"1"}


def test_changes_and_deletions_are_found(server: SshServer) -> None:
    for name in ("same", "changes", "goes"):
        (server.home / name).write_bytes(b"1")
    harness = connect(server)
    harness.sync()
    (server.home / "goes").unlink()
    (server.home / "changes").write_bytes(b"22")
    result = harness.sync()
    assert (result.outputs_saved, result.outputs_deleted) == (1, 1)
    assert files(harness) == {"/same": b"1", "/changes": b"22"}


# Host keys


def test_an_unknown_host_key_is_shown_and_stops_the_account(server: SshServer) -> None:
    with pytest.raises(Untrusted) as caught:
        connect(server, host_key="").check()
    assert server.fingerprint in str(caught.value)
    assert caught.value.field == "host_key"
    assert server.logins == []


def test_a_changed_host_key_stops_the_account_and_shows_both(server: SshServer) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").get_fingerprint()
    with pytest.raises(Untrusted) as caught:
        connect(server, host_key=other).check()
    assert server.fingerprint in str(caught.value)
    assert other in str(caught.value)
    assert server.logins == []


def test_a_host_key_is_trusted_by_line_of_known_hosts_or_public_key(server: SshServer) -> None:
    public = server.key.export_public_key().decode().strip()
    for line in (public, f"[127.0.0.1]:{server.port} {public}", f"\n# mine\n[*]:* {public}\n"):
        assert connect(server, host_key=line).check().id.startswith("someone@127.0.0.1")
    for line in (f"other.example {public}", f"@revoked * {public}"):
        with pytest.raises(Untrusted):
            connect(server, host_key=line).check()
    with pytest.raises(ConfigurationError, match="cannot read the host keys") as caught:
        connect(server, host_key="nonsense").check()
    assert caught.value.field == "host_key"


@pytest.mark.parametrize("kind", ["ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519"])
def test_a_fingerprint_of_any_of_the_servers_keys_is_trusted(tmp_path: Path, kind: str) -> None:
    """A client sees one kind of key at a time, and a fingerprint does not say its kind."""
    keys = [asyncssh.generate_private_key(each) for each in ("ssh-rsa", "ecdsa-sha2-nistp256")]
    with serve_ssh(tmp_path, keys=tuple(keys)) as server:
        [key] = [each for each in (server.key, *keys) if each.get_algorithm() == kind]
        shown = key.get_fingerprint()
        for pin in (shown, f"2048 {shown} root@host (RSA)", f"SHA256:{'A' * 43}\n{shown}="):
            assert connect(server, host_key=pin).check()
        with pytest.raises(Untrusted) as caught:
            connect(server, host_key=f"SHA256:{'A' * 43}").check()
        assert server.fingerprint in str(caught.value)


def test_a_host_certificate_of_a_trusted_authority_is_accepted(tmp_path: Path) -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    public = authority.export_public_key().decode().strip()
    with serve_ssh(tmp_path, authority=authority) as server:
        assert connect(server, host_key=f"@cert-authority * {public}").check()
        assert connect(server).check()  # the key itself is pinned
        with pytest.raises(Untrusted):
            connect(server, host_key="").check()
    other = asyncssh.generate_private_key("ssh-ed25519")
    with serve_ssh(tmp_path, authority=other) as server, pytest.raises(Untrusted):
        connect(server, host_key=f"@cert-authority * {public}").check()


def test_keys_and_agents_of_the_engines_user_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    folder = tmp_path / "home/.ssh"
    folder.mkdir(parents=True)
    key.write_private_key(folder / "id_ed25519")
    (folder / "config").write_text("Host *\n  IdentityFile ~/.ssh/id_ed25519\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(str(tmp_path / "agent"))
    agent.listen()
    agent.setblocking(False)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    with serve_ssh(tmp_path, methods=("publickey",), user_key=key) as server:
        with pytest.raises(CredentialsInvalid):
            connect(server).check()
        assert server.logins == []
        with pytest.raises(BlockingIOError):
            agent.accept()
        mine = {**server.credentials, "private_key": key.export_private_key().decode()}
        assert connect(server, mine).check()
    agent.close()


def test_files_of_the_engines_user_do_not_matter(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home/.ssh"
    folder.mkdir(parents=True)
    public = server.key.export_public_key().decode()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {public}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(Untrusted):
        connect(server, host_key="").check()


# Logins


def test_a_wrong_password_is_reported(server: SshServer) -> None:
    with pytest.raises(CredentialsInvalid):
        connect(server, {"username": USERNAME, "password": "wrong"}).check()


def test_keyboard_interactive_answers_with_the_password(tmp_path: Path) -> None:
    with serve_ssh(tmp_path, methods=("keyboard-interactive",)) as server:
        assert connect(server).sync().state == "succeeded"
        with pytest.raises(CredentialsInvalid):
            connect(server, {"username": USERNAME, "password": "wrong"}).check()


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_a_key_with_a_passphrase_logs_in(tmp_path: Path, kind: str) -> None:
    key = asyncssh.generate_private_key(kind)
    form = "openssh" if kind == "ssh-ed25519" else "pkcs8-pem"
    options = {"rounds": 16, "ignore_few_rounds": True} if form == "openssh" else {}
    text = key.export_private_key(form, passphrase="open sesame", **options).decode()
    credentials = {"username": USERNAME, "private_key": text, "passphrase": "open sesame"}
    with serve_ssh(tmp_path, methods=("publickey",), user_key=key) as server:
        assert connect(server, credentials).check().id
        for field, value in (
            ("passphrase", "wrong"), ("passphrase", ""),
            ("private_key", "nonsense"), ("certificate", "nonsense"),
        ):  # fmt: skip
            with pytest.raises(CredentialsInvalid, match="cannot read the") as caught:
                connect(server, {**credentials, field: value}).check()
            assert caught.value.field == field
        assert server.logins == [USERNAME]


@pytest.mark.parametrize("kind", ["openssh", "pkcs8-pem"])
def test_a_key_that_takes_long_to_decrypt_is_refused(
    kind: str, server: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can interrupt the work."""
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    text = key.export_private_key(kind, passphrase="open sesame", rounds=50).decode()
    mine = {"username": USERNAME, "private_key": text, "passphrase": "open sesame"}
    monkeypatch.setattr(ssh_keys, "MAX_ROUNDS", 49)
    monkeypatch.setattr(ssh_keys, "MAX_ITERATIONS", 1_000)
    with pytest.raises(CredentialsInvalid, match="rounds"):
        connect(server, mine).check()
    assert server.logins == []


def test_a_jump_host_has_a_key_and_a_password_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with serve_ssh(tmp_path) as jump, serve_ssh(tmp_path) as server:
        config = {
            "jump_host": f"{USERNAME}@127.0.0.1:{jump.port}",
            "jump_host_key": jump.fingerprint,
        }
        harness = connect(server, **config)
        assert harness.sync().state == "succeeded"
        assert files(harness) == {"/file": b"1"}
        assert jump.logins
        with pytest.raises(Untrusted, match="jump_host_key") as caught:
            connect(server, **{**config, "jump_host_key": ""}).check()
        assert caught.value.field == "jump_host_key"
        with pytest.raises(CredentialsInvalid):
            connect(server, {**server.credentials, "jump_password": "wrong"}, **config).check()
        with pytest.raises(Untrusted):
            connect(server, **config, host_key=jump.fingerprint).check()


def test_openssh_with_a_changed_key_and_a_key_with_a_passphrase() -> None:
    """A server without a key of the pinned kind ends the connection, and shows no key."""
    other = asyncssh.generate_private_key("ssh-ed25519").get_fingerprint()
    with serve("openssh") as server:
        mine = asyncssh.import_private_key(server.credentials["private_key"])
        shown = asyncssh.import_public_key(server.host_key).get_fingerprint()
        with pytest.raises(Untrusted) as caught:
            connect(server, host_key=other).check()
        assert shown in str(caught.value)
        assert other in str(caught.value)
        rsa = asyncssh.generate_private_key("ssh-rsa")
        public = rsa.export_public_key().decode()
        with pytest.raises(Untrusted, match="another host key") as caught:
            connect(server, host_key=public).check()
        assert shown in str(caught.value)
        assert rsa.get_fingerprint() in str(caught.value)
        assert connect(server, host_key=f"{public}{shown}").check().id
        locked = mine.export_private_key(
            passphrase="open sesame", rounds=16, ignore_few_rounds=True
        ).decode()
        credentials = {**server.credentials, "private_key": locked}
        with pytest.raises(CredentialsInvalid, match="private key"):
            connect(server, credentials).check()
        write(server, b"file", b"1")
        harness = connect(server, {**credentials, "passphrase": "open sesame"})
        assert harness.sync().state == "succeeded"
        assert files(harness, server.prefix) == {"/file": b"1"}


def test_openssh_is_a_jump_host_for_proftpd() -> None:
    """The jump host takes the key, and the server the password of another user."""
    with serve("openssh") as jump, serve("proftpd-sftp") as server:
        write(server, b"file", b"1" * LARGE_BYTES)
        config = {
            "jump_host": f"{jump.credentials['username']}@127.0.0.1:{jump.port}",
            "jump_host_key": jump.host_key,
        }
        credentials = {**server.credentials, "private_key": jump.credentials["private_key"]}
        harness = connect(server, credentials, **config)
        assert harness.sync().state == "succeeded"
        assert files(harness) == {"/file": b"1" * LARGE_BYTES}
        with pytest.raises(Untrusted, match="jump_host_key"):
            connect(server, credentials, **{**config, "jump_host_key": server.host_key}).check()
        with pytest.raises(Untrusted):
            connect(server, credentials, **config, host_key=jump.host_key).check()
        with pytest.raises(CredentialsInvalid):
            connect(server, {**credentials, "password": "wrong"}, **config).check()


@pytest.mark.parametrize("text", ["user@", "host:99999", "host:22/path", "a\nb"])
def test_an_invalid_jump_host_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Config(host="h", jump_host=text)


def test_weak_algorithms_are_used_only_by_option(tmp_path: Path) -> None:
    with serve_ssh(tmp_path, encryption_algs=["aes128-cbc"], mac_algs=["hmac-sha1"]) as server:
        with pytest.raises((ConfigurationError, Dropped)):  # either side may end the connection
            connect(server).check()
        assert connect(server, legacy_algorithms=True).sync().state == "succeeded"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_account_for_public_hosts_opens_no_private_connection(
    server: SshServer, host: str
) -> None:
    egress = Egress()
    with egress.for_account(public_only=True), pytest.raises(EgressRefused):
        connect(server, host=host).check()
    egress.close()
    assert server.logins == []


# Connections


def test_the_default_root_is_the_directory_after_the_login(tmp_path: Path) -> None:
    class Home(asyncssh.SFTPServer):
        def realpath(self, path: bytes) -> bytes:
            return b"/home/someone" if path == b"." else bytes(super().realpath(path))

    (tmp_path / "home/someone/sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"of another user")
    (tmp_path / "home/someone/sub/file").write_bytes(b"1")
    with serve_ssh(tmp_path, sftp=Home) as server:
        harness = connect(server)
        assert harness.check().id == f"someone@127.0.0.1:{server.port}/home/someone"
        assert harness.sync().state == "succeeded"
        assert files(harness) == {"/home/someone/sub/file": b"1"}
        everything = connect(server, root="/")
        assert everything.sync().state == "succeeded"
        assert files(everything).keys() == {"/secret", "/home/someone/sub/file"}


def test_a_limit_of_the_server_blocks_the_limit_connections(
    tmp_path: Path, session: SftpSession, server: SshServer
) -> None:
    session.ping()
    server.limit = 1
    with closing(SftpSession(Config(**server.config), Credentials(**server.credentials))) as second:
        with pytest.raises(RateLimited, match="too many connections") as caught:
            second.ping()
        assert caught.value.limit == "connections"
    session.ping()
    assert len(server.logins) == 2


def test_an_error_of_the_local_disk_is_not_one_of_the_network(
    server: SshServer, session: SftpSession
) -> None:
    (server.home / "file").write_bytes(bytes(100))

    def full(block: memoryview) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        session.retrieve("/file", full)
    with pytest.raises(OSError, match="No space"):
        list(session.retrieve_many([("/file", full)]))


def test_a_connection_cut_at_any_byte_loses_nothing(server: SshServer) -> None:
    """The run continues over a new connection, and every file is complete."""
    wanted = {f"/{number}": os.urandom(number * 7_000) for number in range(30)}
    for path, content in wanted.items():
        (server.home / path[1:]).write_bytes(content)
    for cut in (3_000, 20_000, 100_000, 1_000_000):
        with cutting(server.port, cut) as port:
            harness = connect(server, port=port)
            assert harness.sync().state == "succeeded"
            harness.close()
        assert files(harness) == wanted


def test_a_connection_dropped_while_idle_is_opened_again(
    server: SshServer, session: SftpSession
) -> None:
    (server.home / "file").write_bytes(b"bytes")
    blocks: list[bytes] = []
    for operation in (
        lambda: list(session.entries("/")),
        lambda: session.stat("/file"),
        lambda: session.retrieve("/file", lambda block: blocks.append(bytes(block))),
        lambda: list(session.retrieve_many([("/file", blocks.append)])),
        lambda: session.stats(["/file", "/none"]),
    ):
        operation()
        server.drop_connections()
        operation()
    assert len(server.logins) == 6


def test_a_connection_dropped_within_a_transfer_is_transient(
    server: SshServer, session: SftpSession
) -> None:
    (server.home / "file").write_bytes(bytes(20_000_000))
    with pytest.raises(Dropped):
        session.retrieve("/file", lambda block: server.drop_connections())
    jobs = [("/file", lambda block: server.drop_connections())] * 2
    with pytest.raises(Dropped):
        list(session.retrieve_many(jobs))
    assert session.stat("/file").size == 20_000_000


@pytest.mark.parametrize("stalling", ["read", "scandir", "stat", "close"])
@pytest.mark.filterwarnings(  # asyncssh's server leaves the file of a lost session open
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_server_that_stalls_is_lost(tmp_path: Path, stalling: str) -> None:
    """The cleanup of an operation must not wait for the server either."""

    class Stalling(asyncssh.SFTPServer):
        pass

    async def wait(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def some(*_: Any) -> AsyncIterator[asyncssh.SFTPName]:
        yield asyncssh.SFTPName(b"1", b"", asyncssh.SFTPAttrs())
        await wait()

    setattr(Stalling, stalling, some if stalling == "scandir" else wait)
    (tmp_path / "file").write_bytes(b"1")
    with serve_ssh(tmp_path, sftp=Stalling) as server:
        config = Config(**{**server.config, "timeout_seconds": 0.5})
        session = SftpSession(config, Credentials(**server.credentials))
        operations: dict[str, Callable[[], Any]] = {
            "read": lambda: session.retrieve("/file", lambda block: None),
            "scandir": lambda: list(session.entries("/")),
            "stat": lambda: session.stats(["/file"]),
        }
        if stalling == "close":  # nothing waits for it
            session.retrieve("/file", lambda block: None)
        else:
            with pytest.raises(Dropped, match="in time"):
                operations[stalling]()
        session.close()


def test_an_offset_and_a_missing_file(server: SshServer, session: SftpSession) -> None:
    content = os.urandom(3_000_000)
    (server.home / "file").write_bytes(content)
    for offset in (0, 1, 2_999_999, 3_000_000):
        blocks: list[bytes] = []
        session.retrieve("/file", lambda block, to=blocks: to.append(bytes(block)), offset)
        assert b"".join(blocks) == content[offset:]
    with pytest.raises(Missing):
        session.retrieve("/none", lambda block: None)
    outcomes = dict(session.retrieve_many([("/none", len), ("/file", len)]))
    assert isinstance(outcomes["/none"], Missing)
    assert outcomes["/file"] is None
    with pytest.raises(Missing):
        session.enter("/none")
    with pytest.raises(Missing, match="not a directory"):
        session.enter("/file")


def test_secrets_are_not_in_errors(server: SshServer) -> None:
    with pytest.raises(CredentialsInvalid) as caught:
        connect(server, {"username": USERNAME, "password": PASSWORD * 2}).check()
    assert PASSWORD not in str(caught.value)
