"""FTPS: three real servers with TLS, and certificates that must not be trusted."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import certificates
import pytest
from certificates import Certificate
from integration_polling_ftp import Config, Credentials, Ftp
from integration_polling_ftp.control import Control, Data
from integration_polling_ftp.errors import Dropped, Untrusted
from integration_polling_ftp.session import Session
from integration_polling_ftp.tls import Tls
from pydantic import SecretStr, ValidationError
from real_servers import RealServer, Security, serve
from test_control import speaking

from core import ConfigurationError, CredentialsInvalid
from core.testing import Harness

AUTHORITY = certificates.authority()
CERTIFICATE = certificates.server(AUTHORITY)
SECURITY = Security(AUTHORITY, CERTIFICATE)


@pytest.fixture(params=["vsftpd", "proftpd", "pure-ftpd"])
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with serve(request.param, tls=SECURITY) as server:
        yield server


def connect(server: RealServer, credentials: dict[str, str] | None = None, **config: Any) -> Any:
    return Harness(Ftp, {**server.config, **config}, {**server.credentials, **(credentials or {})})


def test_the_largest_values_of_all_fields_are_accepted() -> None:
    """The engine accepts 64 KiB of JSON for a config, and for credentials."""
    line = "x" * 64 + "\n"  # as in PEM
    config = Config(host="h" * 253, tls_ca=(line * 1_000)[:48_000])
    one = (line * 500)[:24_000]
    credentials = Credentials(certificate=one, private_key=SecretStr(one), username="u" * 1_000)
    assert len(config.model_dump_json()) < 65_536
    # The dump hides the private key, which is as large as the certificate.
    assert len(credentials.model_dump_json()) + len(json.dumps(one)) < 65_536
    with pytest.raises(ValidationError, match="at most 48000 characters"):
        Config(host="h", tls_ca="x" * 48_001)


def fill(server: RealServer) -> dict[str, bytes]:
    """Write files of many sizes, and return their bytes by path."""
    sizes = {"a": (0, 1, 20_000, 600_000, 4_500_000), "b": (2, 3)}
    wanted = {
        f"/{name}/{size} ä.bin": bytes([size % 251]) * size
        for name, each in sizes.items()
        for size in each
    }
    for path, content in wanted.items():
        file = server.home / path[1:]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    return wanted


def files(harness: Harness[Any, Any]) -> dict[str, bytes]:
    found = harness.content.items()
    return {path: item.content for path, item in found if item.kind == "file"}


@pytest.mark.parametrize("newest", ["1.2", "1.3"])
def test_a_tree_arrives_complete_over_tls(server: RealServer, newest: str) -> None:
    """Some of them require that a data connection resumes the session of the control."""
    wanted = fill(server)
    harness = connect(server, tls_max_version=newest)
    result = harness.sync()
    assert (result.state, dict(result.skipped_items)) == ("succeeded", {}), result.failures
    assert files(harness) == wanted
    assert harness.sync().outputs_saved == 0


def test_an_encrypted_session_uses_epsv_and_is_kept_alive(server: RealServer) -> None:
    """A firewall cannot read the port in an encrypted reply to PASV, and forgets idle sessions."""
    fill(server)
    session = Session(Config(**server.config), Credentials(**server.credentials))
    try:
        session.retrieve("/a/1 ä.bin", len)
        opened = session._client.opened()
        assert (opened.preferred, opened.passive) == ("EPSV", "EPSV")
        connection = opened.control._socket
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    finally:
        session.close()


@pytest.mark.parametrize("name", ["vsftpd", "proftpd"])
def test_a_tree_arrives_complete_over_implicit_tls(name: str) -> None:
    with serve(name, tls=Security(AUTHORITY, CERTIFICATE, implicit=True)) as server:
        wanted = fill(server)
        harness = connect(server)
        assert harness.sync().state == "succeeded"
        assert files(harness) == wanted
        with pytest.raises(Untrusted, match="SHA-256"):
            connect(server, tls_ca="").check()


@pytest.mark.parametrize("name", ["vsftpd", "proftpd"])
def test_a_server_that_requires_session_reuse_refuses_other_sessions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's reply reaches the person."""
    monkeypatch.setattr(Control, "_session", lambda self: None)
    with serve(name, tls=SECURITY) as server:
        fill(server)
        result = connect(server).sync()
        assert result.state != "succeeded"
        if name == "vsftpd":
            assert "522" in str(result.error)


@pytest.mark.parametrize("name", ["vsftpd", "proftpd", "pure-ftpd"])
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (certificates.server(), "self-signed certificate"),
        (certificates.server(AUTHORITY, expired=True), "certificate has expired"),
        (certificates.server(certificates.authority()), "unable to get local issuer certificate"),
    ],
    ids=["self-signed", "expired", "unknown authority"],
)
def test_a_certificate_that_is_not_trusted_stops_the_account(
    certificate: Certificate, reason: str, name: str
) -> None:
    """The message has the fingerprint, so that a person can compare and pin it."""
    with serve(name, tls=Security(AUTHORITY, certificate)) as server:
        with pytest.raises(Untrusted, match=reason) as caught:
            connect(server).check()
        assert certificate.fingerprint in str(caught.value)
        assert caught.value.field == "tls_fingerprint"
        pinned = connect(server, tls_fingerprint=certificate.fingerprint.lower().replace(":", ""))
        assert pinned.check().id.startswith(f"{server.credentials['username']}@127.0.0.1")
        assert pinned.sync().state == "succeeded"


def test_another_certificate_than_the_pinned_one_stops_the_account() -> None:
    other = certificates.server(AUTHORITY)
    with serve("proftpd", tls=SECURITY) as server:
        with pytest.raises(Untrusted) as caught:
            connect(server, tls_fingerprint=other.fingerprint).check()
        assert other.fingerprint in str(caught.value)
        assert CERTIFICATE.fingerprint in str(caught.value)
        assert caught.value.field == "tls_fingerprint"


def test_a_certificate_for_another_host_is_not_trusted() -> None:
    with (
        serve("proftpd", tls=SECURITY) as server,
        pytest.raises(Untrusted, match="localhost") as caught,
    ):
        connect(server, host="localhost").check()
    assert caught.value.field == "host"


def test_a_server_that_asks_for_a_certificate_gets_that_of_the_account() -> None:
    mine = certificates.client(AUTHORITY)
    shown = {
        "certificate": mine.certificate,
        "private_key": mine.encrypted_key("open sesame"),
        "passphrase": "open sesame",
    }
    with serve("proftpd", tls=Security(AUTHORITY, CERTIFICATE, asks=True)) as server:
        wanted = fill(server)
        with pytest.raises(ConfigurationError, match="TLS"):
            connect(server).check()
        harness = connect(server, shown)
        assert harness.sync().state == "succeeded"
        assert files(harness) == wanted
        with pytest.raises(CredentialsInvalid, match="cannot use the client certificate") as wrong:
            connect(server, {**shown, "passphrase": "wrong"}).check()
        assert wrong.value.field == "certificate"


def test_an_old_version_of_tls_is_refused() -> None:
    old = Security(AUTHORITY, CERTIFICATE, newest="1.2")
    with (
        serve("proftpd", tls=old) as server,
        pytest.raises(ConfigurationError, match="PROTOCOL_VERSION") as caught,
    ):
        connect(server, tls_min_version="1.3").check()
    assert caught.value.field == "tls_min_version"
    with pytest.raises(ValidationError, match="newer"):
        Config(host="h", tls_min_version="1.3", tls_max_version="1.2")


def test_a_server_without_tls_and_one_that_requires_it_are_named() -> None:
    for tls, protocol, reason in (
        (None, "ftps", "support FTPS"),
        (None, "ftps-implicit", "WRONG_VERSION"),
        (SECURITY, "ftp", "550"),
    ):
        with serve("proftpd", tls=tls) as server:
            with pytest.raises(ConfigurationError, match=reason) as caught:
                connect(server, protocol=protocol).check()
            assert caught.value.field == "protocol"


# Servers of the tests' own


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_pem_files())
    return context


def _pem_files() -> tuple[str, str]:
    return str(_FOLDER / "cert"), str(_FOLDER / "key")


_FOLDER = Path()


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cert").write_text(CERTIFICATE.certificate)
    (tmp_path / "key").write_text(CERTIFICATE.key)
    monkeypatch.setitem(globals(), "_FOLDER", tmp_path)


def encrypted(replies: dict[bytes, bytes], got: list[bytes]) -> Callable[[socket.socket], None]:
    """Return a server that answers AUTH, and then these replies over TLS."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        got.append(connection.recv(100))
        connection.sendall(b"234 ok\r\n")
        with (
            suppress(OSError),
            server_context().wrap_socket(connection, server_side=True) as secure,
        ):
            for line in secure.makefile("rb"):
                got.append(line.strip())
                secure.sendall(replies.get(line.split()[0].upper(), b"230 ok\r\n"))

    return talk


def session(port: int, **config: Any) -> Session:
    pin = CERTIFICATE.fingerprint
    found = {"protocol": "ftps", "tls_fingerprint": pin, "timeout_seconds": 2, **config}
    return Session(Config(host="127.0.0.1", port=port, **found), Credentials(username="me"))


@pytest.mark.usefixtures("pem")
def test_the_login_is_encrypted_and_unencrypted_data_are_refused() -> None:
    got: list[bytes] = []
    with (
        speaking(encrypted({b"PROT": b"536 no\r\n"}, got)) as port,
        pytest.raises(ConfigurationError, match="does not encrypt data connections"),
    ):
        session(port).ping()
    assert got[:2] == [b"AUTH TLS\r\n", b"USER me"]
    assert got[-1] == b"PROT P"


@pytest.mark.usefixtures("pem")
def test_nothing_is_sent_to_a_server_that_is_not_trusted() -> None:
    got: list[bytes] = []
    with speaking(encrypted({}, got)) as port:
        with pytest.raises(Untrusted):
            session(port, tls_fingerprint="ab" * 32).ping()
        with pytest.raises(Untrusted):
            session(port, tls_fingerprint="").ping()
    assert set(got) == {b"AUTH TLS\r\n"}


def test_bytes_before_the_handshake_are_refused() -> None:
    """An attacker could write replies that the client would read after the handshake."""

    def inject(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        connection.recv(100)
        connection.sendall(b"234 ok\r\n230 injected\r\n")

    with speaking(inject) as port, pytest.raises(Dropped, match="unencrypted bytes"):
        session(port).ping()


@pytest.mark.parametrize("farewell", [True, False])
@pytest.mark.usefixtures("pem")
def test_a_transfer_that_ends_without_a_farewell_is_noticed_and_read(
    farewell: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some builds of Python take a connection that was cut for its end, unless told otherwise."""
    create = ssl.create_default_context

    def lenient() -> ssl.SSLContext:
        context = create()
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        return context

    monkeypatch.setattr(ssl, "create_default_context", lenient)
    ours, theirs = socket.socketpair()

    def send() -> None:
        with suppress(OSError), server_context().wrap_socket(theirs, server_side=True) as secure:
            secure.sendall(b"bytes" * 1000)
            if farewell:
                secure.unwrap()

    thread = threading.Thread(target=send)
    thread.start()
    config = Config(host="h", protocol="ftps", tls_fingerprint=CERTIFICATE.fingerprint)
    ours.settimeout(5)
    data = Data(ours, Tls(config, Credentials()), None)
    data.secure()
    assert b"".join(map(bytes, data.blocks(bytearray(1000)))) == b"bytes" * 1000
    data.close()
    thread.join()
    assert data.is_closed == farewell


def test_a_listing_that_breaks_off_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker can cut a connection, but cannot forge the farewell that this server sends."""
    blocks = Data.blocks

    def broken(self: Data, buffer: bytearray) -> Iterator[memoryview]:
        yield from blocks(self, buffer)
        self.is_closed = False

    with serve("pure-ftpd", tls=SECURITY) as server:
        wanted = fill(server)
        harness = connect(server)
        harness.sync()
        monkeypatch.setattr(Data, "blocks", broken)
        connection = Session(Config(**server.config), Credentials(**server.credentials))
        assert len(list(connection.entries("/a"))) >= 5, "a server that never says farewell"
        connection._client._closes_properly = True
        with pytest.raises(Dropped, match="broke off"):
            list(connection.entries("/a"))
        connection.close()
        assert files(harness) == wanted
