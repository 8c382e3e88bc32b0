"""SFTP: OpenSSH's server and asyncssh's, host keys, logins, and lost connections."""

from __future__ import annotations

import ast
import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from integration_polling_ftp import Config, Credentials, Ftp, sftp
from integration_polling_ftp import names as stored
from integration_polling_ftp.errors import Dropped, Missing, Untrusted
from integration_polling_ftp.sftp import SftpSession
from integration_polling_ftp.walking import LARGE_BYTES
from pydantic import ValidationError
from real_servers import serve
from ssh_server import PASSWORD, USERNAME, SshServer, serve_ssh
from test_real_servers import ODD, write

from core import ConfigurationError, CredentialsInvalid
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


def test_an_odd_tree_arrives_complete_from_openssh() -> None:
    odd = [*ODD, b"two\nlines", b"\rcarriage\r", b"\x01\x7f"]
    with serve("openssh") as server:
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
        assert files(harness, str(server.home)) == wanted
        again = harness.sync()
        assert (again.outputs_saved, again.skipped_items.total()) == (0, 0)


def test_special_files_and_links_to_directories_are_skipped_by_type() -> None:
    """A reader that opens a pipe would wait for ever."""
    with serve("openssh") as server:
        write(server, b"sub/file", b"1")
        os.mkfifo(server.home / "pipe")
        (server.home / "to pipe").symlink_to("pipe")
        (server.home / "to file").symlink_to("sub/file")
        (server.home / "sub/loop").symlink_to("..")
        (server.home / "broken").symlink_to("nowhere")
        harness = connect(server)
        result = harness.sync()
        assert result.state == "succeeded", result.failures
        assert files(harness, str(server.home)) == {"/sub/file": b"1", "/to file": b"1"}
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
    with pytest.raises(ConfigurationError, match="cannot read the host keys"):
        connect(server, host_key="nonsense").check()


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
    text = key.export_private_key(form, passphrase="open sesame").decode()
    credentials = {"username": USERNAME, "private_key": text, "passphrase": "open sesame"}
    with serve_ssh(tmp_path, methods=("publickey",), user_key=key) as server:
        assert connect(server, credentials).check().id
        for wrong in ({"passphrase": "wrong"}, {"passphrase": ""}, {"private_key": "nonsense"}):
            with pytest.raises(CredentialsInvalid, match="private key"):
                connect(server, {**credentials, **wrong}).check()
        assert server.logins == [USERNAME]


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
        with pytest.raises(Untrusted, match="jump_host_key"):
            connect(server, **{**config, "jump_host_key": ""}).check()
        with pytest.raises(CredentialsInvalid):
            connect(server, {**server.credentials, "jump_password": "wrong"}, **config).check()
        with pytest.raises(Untrusted):
            connect(server, **config, host_key=jump.fingerprint).check()


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


def test_a_server_that_stalls_is_lost(tmp_path: Path) -> None:
    class Stalling(asyncssh.SFTPServer):
        async def read(self, *args: Any) -> bytes:
            await asyncio.sleep(60)
            return b""

    (tmp_path / "file").write_bytes(b"1")
    with serve_ssh(tmp_path, sftp=Stalling) as server:
        config = Config(**{**server.config, "timeout_seconds": 0.5})
        session = SftpSession(config, Credentials(**server.credentials))
        with pytest.raises(Dropped, match="in time"):
            session.retrieve("/file", lambda block: None)
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


def test_the_plugin_calls_only_methods_that_read() -> None:
    reading = {"realpath", "scandir", "stat", "open", "read", "close"}
    tree = ast.parse(Path(sftp.__file__).read_text())
    calls = {
        node.func.attr: node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) in ("client", "self._client", "file")
    }
    assert calls.keys() == reading
    modes = [
        ast.unparse(node.args[1])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._client.open"
    ]
    assert modes == ["'rb'"]


def test_secrets_are_not_in_errors(server: SshServer) -> None:
    with pytest.raises(CredentialsInvalid) as caught:
        connect(server, {"username": USERNAME, "password": PASSWORD * 2}).check()
    assert PASSWORD not in str(caught.value)
