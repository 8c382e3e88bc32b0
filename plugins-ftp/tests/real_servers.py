"""vsftpd, ProFTPD, pure-ftpd and OpenSSH, started on high ports from unpacked packages of Debian.

`tools/ftp-servers.sh` unpacks them, and `.ci/run` calls it. Without them, their tests are skipped
on a developer's machine, and fail in CI.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from certificates import Certificate
from support.ports import free_port
from support.waiting import until

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("POLLING_TEST_FTP_SERVERS", ROOT / ".cache/ftp-servers"))
USER, PASSWORD = "u", "p"
PASSWORD_HASH = (
    "$6$rounds=1000$integrationpoll$"
    "4BkZ3nEIMYgrM.j/mjSx7jjoJ.5KA0NAHVC4n2GKyPNs7D.fE14WWuAxXdKHgL5PgrZHCU3vql/ERCT0QsVUF."
)
"""The hash of the password by SHA-512 crypt, which all these servers read."""
NOBODY = 65534

Started = tuple[list[str], dict[str, str]]
"""The command of a server, and the credentials for it."""


@dataclass
class RealServer:
    """A running server.

    Attributes:
      home: The folder that it serves as `/`.
      pids: Returns the ids of its processes, sessions included.
    """

    name: str
    home: Path
    port: int
    credentials: dict[str, str]
    process: subprocess.Popen[bytes]
    tls: Security | None = None
    host_key: str = ""

    @property
    def prefix(self) -> str:
        """The path of the folder, as clients see it: OpenSSH serves the complete file system."""
        return str(self.home) if self.name == "openssh" else ""

    @property
    def config(self) -> dict[str, Any]:
        config = {"host": "127.0.0.1", "port": self.port, "timeout_seconds": 10}
        if self.tls:
            protocol = "ftps-implicit" if self.tls.implicit else "ftps"
            config |= {"protocol": protocol, "tls_ca": self.tls.authority.certificate}
        if self.host_key:
            config |= {"protocol": "sftp", "host_key": self.host_key, "root": self.prefix}
        return config


@dataclass(frozen=True)
class Security:
    """A server's TLS. It requires encryption of both connections.

    Attributes:
      authority: Signs the certificates of clients.
      certificate: The server's certificate.
      implicit: True to encrypt from the first byte.
      asks: True to require a certificate of the client.
      newest: The newest version of TLS. Default: 1.3.
    """

    authority: Certificate
    certificate: Certificate
    implicit: bool = False
    asks: bool = False
    newest: str = "1.3"


PROGRAMS = {
    "vsftpd": "usr/sbin/vsftpd",
    "proftpd": "usr/lib/proftpd/mod_tls.so",
    "pure-ftpd": "usr/sbin/pure-ftpd",
    "openssh": "usr/sbin/sshd",
    "proftpd-sftp": "usr/lib/proftpd/mod_sftp.so",
}


def require(name: str) -> None:
    """Skip the test if the server is not unpacked; in CI, fail."""
    if (FOLDER / PROGRAMS[name]).exists():
        return
    message = f"{name} is not unpacked: run tools/ftp-servers.sh"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def serve(name: str, limit: int = 0, tls: Security | None = None) -> Iterator[RealServer]:
    """Run a server over an empty folder.

    Args:
      name: A key of `STARTS`.
      limit: The number of connections that it allows. Default: many.
      tls: Its TLS. Default: it speaks plain FTP.
    """
    require(name)
    if not name.startswith("proftpd") and os.geteuid() != 0:
        pytest.skip(f"{name} runs only as root")
    folder = Path(tempfile.mkdtemp(prefix="ftp-"))
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir(mode=0o755)
    port = free_port()
    if tls:
        for file, pem in (("cert", tls.certificate.certificate), ("key", tls.certificate.key),
                ("both", tls.certificate.key + tls.certificate.certificate),
                ("ca", tls.authority.certificate)):  # fmt: skip
            (folder / file).write_text(pem)
            (folder / file).chmod(0o600)
    command, credentials = STARTS[name](folder, home, port, limit, tls)
    log = (folder / "log").open("wb")
    # OpenSSH runs as root only if a user "sshd" exists, so it runs as another one.
    user = NOBODY if name == "openssh" and os.geteuid() == 0 else None
    process = subprocess.Popen(
        command, env=_environment(), stdout=log, stderr=log, start_new_session=True, user=user
    )
    try:
        implicit = tls is not None and tls.implicit
        until(lambda: _answers(port, silent=implicit), f"{name} answers", 10)
        key = folder / "host_key.pub"
        host_key = key.read_text() if key.exists() else ""
        yield RealServer(name, home, port, credentials, process, tls, host_key)
    finally:
        process.terminate()
        process.wait(10)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int, *, silent: bool = False) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            return silent or connection.recv(3) in (b"220", b"SSH")
    except OSError:
        return False


def _environment() -> dict[str, str]:
    machine = os.uname().machine
    paths = [FOLDER / f"{lib}/{machine}-linux-gnu" for lib in ("usr/lib", "lib")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, paths))}


def program(path: str) -> str:
    """Return the path of an unpacked program."""
    return str(FOLDER / path)


def _vsftpd(folder: Path, home: Path, port: int, limit: int, tls: Security | None) -> Started:
    empty = folder / "empty"
    empty.mkdir(mode=0o555)
    settings: Mapping[str, object] = {
        "listen": "YES", "listen_ipv6": "NO", "listen_port": port, "listen_address": "127.0.0.1",
        "background": "NO", "anonymous_enable": "YES", "local_enable": "NO", "anon_root": home,
        "no_anon_password": "YES", "secure_chroot_dir": empty,
        "seccomp_sandbox": "NO", "max_clients": limit, "anon_world_readable_only": "NO",
        "ftp_username": "bin",
    }  # fmt: skip
    if tls:
        settings = {**settings, "ssl_enable": "YES", "allow_anon_ssl": "YES",
            "force_anon_logins_ssl": "YES", "force_anon_data_ssl": "YES", "ssl_ciphers": "HIGH",
            "rsa_cert_file": folder / "both", "rsa_private_key_file": folder / "both",
            "require_ssl_reuse": "YES", "implicit_ssl": "YES" if tls.implicit else "NO",
            "require_cert": "YES" if tls.asks else "NO",
            "validate_cert": "YES" if tls.asks else "NO",
            "ca_certs_file": folder / "ca"}  # fmt: skip
    config = folder / "vsftpd.conf"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    config.chmod(0o600)
    return [program("usr/sbin/vsftpd"), str(config)], {
        "username": "anonymous",
        "password": "anonymous@",
    }


def _proftpd(folder: Path, home: Path, port: int, limit: int, tls: Security | None) -> Started:
    uid, gid = os.getuid(), os.getgid()
    users = folder / "passwd"
    users.write_text(f"{USER}:{PASSWORD_HASH}:{uid}:{gid}::{home}:/bin/sh\n")
    users.chmod(0o600)
    group = folder / "group"
    group.write_text(f"g:x:{gid}:\n")
    group.chmod(0o600)
    config = folder / "proftpd.conf"
    config.write_text(
        "\n".join(
            (
                "ServerName test",
                "ServerType standalone",
                "DefaultServer on",
                "DefaultAddress 127.0.0.1",
                "UseIPv6 off",
                f"Port {port}",
                f"User {pwd.getpwuid(uid).pw_name}",
                f"Group {grp.getgrgid(gid).gr_name}",
                "RootLogin on",
                "RequireValidShell off",
                "AuthOrder mod_auth_file.c",
                f"AuthUserFile {users}",
                f"AuthGroupFile {group}",
                f"PidFile {folder}/pid",
                f"ScoreboardFile {folder}/scoreboard",
                f"SystemLog {folder}/system.log",
                "WtmpLog off",
                "TransferLog none",
                "UseReverseDNS off",
                "DefaultRoot ~",
                "ShowSymlinks on",
                f"{f'MaxClientsPerUser {limit}' if limit else ''}",
                *(_proftpd_tls(folder, tls) if tls else ()),
            )
        )
        + "\n"
    )
    return [program("usr/sbin/proftpd"), "-n", "-q", "-c", str(config)], {
        "username": USER,
        "password": PASSWORD,
    }


def _proftpd_tls(folder: Path, tls: Security) -> Iterator[str]:
    """ProFTPD requires session reuse by default."""
    yield f"ModulePath {FOLDER.resolve() / 'usr/lib/proftpd'}"
    yield "LoadModule mod_tls.c"
    yield "TLSEngine on"
    yield "TLSRequired on"
    yield f"TLSLog {folder}/tls.log"
    yield f"TLSECCertificateFile {folder}/cert"
    yield f"TLSECCertificateKeyFile {folder}/key"
    yield f"TLSCACertificateFile {folder}/ca"
    yield f"TLSVerifyClient {'on' if tls.asks else 'off'}"
    yield f"TLSProtocol TLSv1.2 {'TLSv1.3' if tls.newest == '1.3' else ''}"
    if tls.implicit:
        yield "TLSOptions UseImplicitSSL"


def _pure_ftpd(folder: Path, home: Path, port: int, limit: int, tls: Security | None) -> Started:
    users, database = folder / "passwd", folder / "pdb"
    # The hash that pure-pw would choose costs over a second of CPU time at each login.
    users.write_text(f"{USER}:{PASSWORD_HASH}:{NOBODY}:{NOBODY}::{home}/./::::::::::::\n")
    make = [program("usr/bin/pure-pw"), "mkdb", str(database), "-f", str(users)]
    subprocess.run(make, check=True, env=_environment(), capture_output=True)
    command = [program("usr/sbin/pure-ftpd"), "-S", f"127.0.0.1,{port}", "-l",
        f"puredb:{database}", "-E", "-H", "-A", "-L", "1000000:100", "-g", str(folder / "pid"),
        "-C", str(limit or 100), "-c", "100"]  # fmt: skip
    if tls:
        command += ["-Y", "3", "-2", f"{folder}/cert,{folder}/key"]
    return command, {"username": USER, "password": PASSWORD}


def _openssh(folder: Path, home: Path, port: int, limit: int, tls: Security | None) -> Started:
    """The server's user logs in with a key. Only root can check passwords."""
    user = pwd.getpwuid(NOBODY if os.geteuid() == 0 else os.getuid())
    key = asyncssh.generate_private_key("ssh-ed25519")
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    host_key.write_private_key(folder / "host_key")
    host_key.write_public_key(folder / "host_key.pub")
    (folder / "host_key").chmod(0o600)
    os.chown(folder / "host_key", user.pw_uid, -1)
    key.write_public_key(folder / "authorized")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM yes\n"
        f"PasswordAuthentication no\nSubsystem sftp internal-sftp\n"
        f"MaxStartups {limit or 100}\n"
    )
    config.chmod(0o644)
    command = [str(FOLDER.resolve() / "usr/sbin/sshd"), "-D", "-e", "-f", str(config)]
    private = key.export_private_key().decode()
    return command, {"username": user.pw_name, "private_key": private}


def _proftpd_sftp(folder: Path, home: Path, port: int, limit: int, tls: Security | None) -> Started:
    """ProFTPD with its module for SFTP, which has nothing in common with OpenSSH."""
    key = asyncssh.generate_private_key("ssh-rsa")
    key.write_private_key(folder / "key", "pkcs1-pem")
    (folder / "key").chmod(0o600)
    key.write_public_key(folder / "host_key.pub")
    command, credentials = _proftpd(folder, home, port, limit, tls)
    with (folder / "proftpd.conf").open("a") as config:
        config.write(
            f"ModulePath {FOLDER.resolve() / 'usr/lib/proftpd'}\nLoadModule mod_sftp.c\n"
            f"SFTPEngine on\nSFTPLog {folder}/sftp.log\nSFTPHostKey {folder}/key\n"
            "SFTPAuthMethods password\n"
        )
    return command, credentials


STARTS = {
    "vsftpd": _vsftpd,
    "proftpd": _proftpd,
    "pure-ftpd": _pure_ftpd,
    "openssh": _openssh,
    "proftpd-sftp": _proftpd_sftp,
}
