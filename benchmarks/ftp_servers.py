"""vsftpd, ProFTPD and OpenSSH for the benchmark `ftp`, and the connections that they have.

`tools/ftp-servers.sh --peers` unpacks them and the peers from Debian's packages.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pwd
import random
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncssh
from integration_polling_ftp import Credentials
from pydantic import SecretStr

from benchmarks.processes import ROOT, ended, program, wait_until

FOLDER = Path(os.environ.get("POLLING_TEST_FTP_SERVERS", ROOT / ".cache/ftp-servers"))
_NUMBERS = itertools.count()
WATCH_SECONDS = 0.005

SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NO_COOKIE = 4, 20, 0xFFFFFFFF
NLM_F_REQUEST_DUMP, NLMSG_ERROR, NLMSG_DONE = 0x301, 2, 3
ESTABLISHED = 1 << 1
"""Constants of Linux: `sock_diag(7)`, `netlink(7)` and `tcp_states.h`."""

HEADER = struct.Struct("=IHHII")
"""The header of a netlink message: size, type, flags, number and port."""

SERVERS = ("vsftpd", "proftpd")
SSH = "openssh"
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. FTP has anonymous access, and SSH takes a key.

    Attributes:
      home: The folder that it serves. FTP shows it as `/`.
      host: The address at which clients reach it.
      certificate: Its certificate, in PEM; empty for plain FTP and SSH.
      username: The user that logs in.
      key: The file of the user's private key; None for FTP.
      host_key: The server's public key; empty for FTP.
    """

    name: str
    home: Path
    host: str
    port: int
    certificate: str = ""
    username: str = "anonymous"
    key: Path | None = None
    host_key: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """The config of an account for this server."""
        config: dict[str, Any] = {"host": self.host, "port": self.port}
        if self.certificate:
            pin = ssl.PEM_cert_to_DER_cert(self.certificate)
            config |= {"protocol": "ftps", "tls_fingerprint": hashlib.sha256(pin).hexdigest()}
        if self.key is not None:
            config |= {"protocol": "sftp", "host_key": self.host_key, "root": str(self.home)}
        return config

    @property
    def credentials(self) -> Credentials | None:
        """The credentials of an account for this server; None for the default ones."""
        if self.key is None:
            return None
        return Credentials(username=self.username, private_key=SecretStr(self.key.read_text()))


def unpacked(name: str) -> str:
    """Return the path of a program: one from the unpacked packages, or an installed one."""
    for folder in ("usr/bin", "usr/sbin"):
        if (path := FOLDER / folder / name).exists():
            return str(path)
    if (installed := shutil.which(name)) is None:
        raise RuntimeError(f"no {name}: run tools/ftp-servers.sh --peers")
    return installed


def environment() -> dict[str, str]:
    """Return the variables with which unpacked programs find their libraries."""
    machine = os.uname().machine
    paths = [FOLDER / f"{lib}/{machine}-linux-gnu" for lib in ("usr/lib", "lib")]
    return {"LD_LIBRARY_PATH": ":".join(map(str, paths))}


@contextmanager
def serve(
    name: str,
    home: Path,
    *,
    limit: int = 0,
    tls: bool = False,
    listen: str = "",
    host: str = "",
) -> Iterator[Server]:
    """Run a server.

    Args:
      name: `vsftpd`, `proftpd`, or `openssh`, which has no limit.
      home: The folder to serve.
      limit: The number of connections that it allows. Default: many.
      tls: True to require TLS for both connections. Default: plain FTP.
      listen: The address on which it listens. Default: a new one of this machine.
      host: The address at which clients reach it. Default: `listen`.
    """
    listen = listen or _new_address()
    host = host or listen
    folder = Path(tempfile.mkdtemp(prefix="ftp-"))
    folder.chmod(0o755)
    port = _free_port(listen)
    login: dict[str, Any] = {"certificate": _certificate(folder)} if tls else {}
    if name == SSH:
        arguments, login = _openssh(folder, port, listen)
    else:
        start = _vsftpd if name == "vsftpd" else _proftpd
        arguments = start(folder, home, port, limit, listen, host, tls=tls)
    log = folder / "log"
    try:
        with program(arguments, environment(), log) as pid:
            wait_until(lambda: _answers(listen, port) or ended(pid), f"{name} did not answer")
            if ended(pid):
                raise RuntimeError(f"{name} exited: {log.read_text()[-2_000:]}")
            yield Server(name, home, host, port, **login)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_address() -> str:
    """Return a loopback address that no server of this process had.

    A closed data connection keeps its port for a minute. After thousands of them, the search for a
    free port at the same address takes milliseconds, and a server that lets the system choose
    becomes slow.
    """
    number = next(_NUMBERS)
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def _free_port(listen: str) -> int:
    """Return a free port below those that the system gives to outgoing connections."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server((listen, port)):
            return port
    raise RuntimeError("no free port")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), 2) as connection:
            return connection.recv(3) in (b"220", b"SSH")
    except OSError:
        return False


def _certificate(folder: Path) -> str:
    """Write a certificate and its key, which the accounts pin. Returns the certificate in PEM."""
    key, certificate = folder / "tls.key", folder / "tls.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=benchmark", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o600)
    return certificate.read_text()


def _vsftpd(
    folder: Path, home: Path, port: int, limit: int, listen: str, host: str, *, tls: bool
) -> Sequence[str]:
    empty = folder / "empty"
    empty.mkdir(mode=0o555)
    settings = {
        "listen": "YES", "listen_ipv6": "NO", "listen_port": port, "listen_address": listen,
        "pasv_address": host, "background": "NO", "anonymous_enable": "YES", "local_enable": "NO",
        "anon_root": home, "no_anon_password": "YES", "secure_chroot_dir": empty,
        "seccomp_sandbox": "NO", "max_clients": limit, "anon_world_readable_only": "NO",
        "ftp_username": "bin",
    }  # fmt: skip
    if tls:
        settings |= {
            "ssl_enable": "YES", "allow_anon_ssl": "YES", "force_anon_logins_ssl": "YES",
            "force_anon_data_ssl": "YES", "ssl_ciphers": "HIGH", "require_ssl_reuse": "NO",
            "rsa_cert_file": folder / "tls.pem", "rsa_private_key_file": folder / "tls.key",
        }  # fmt: skip
    config = folder / "vsftpd.conf"
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    config.chmod(0o600)
    return [unpacked("vsftpd"), str(config)]


def _proftpd(
    folder: Path, home: Path, port: int, limit: int, listen: str, host: str, *, tls: bool
) -> Sequence[str]:
    user = pwd.getpwuid(os.getuid()).pw_name
    config = folder / "proftpd.conf"
    config.write_text(f"""\
ServerName bench
ServerType standalone
DefaultServer on
DefaultAddress {listen}
MasqueradeAddress {host}
UseIPv6 off
Port {port}
User {user}
Group {user}
RootLogin on
AuthOrder mod_auth_unix.c
PidFile {folder}/pid
ScoreboardFile {folder}/scoreboard
SystemLog {folder}/system.log
WtmpLog off
TransferLog none
UseReverseDNS off
{f"MaxClients {limit}" if limit else ""}
{_proftpd_tls(folder) if tls else ""}
<Anonymous {home}>
  User {user}
  Group {user}
  UserAlias anonymous {user}
  RequireValidShell off
</Anonymous>
""")
    return [unpacked("proftpd"), "-n", "-q", "-c", str(config)]


def _proftpd_tls(folder: Path) -> str:
    return f"""\
ModulePath {FOLDER.resolve() / "usr/lib/proftpd"}
LoadModule mod_tls.c
TLSEngine on
TLSRequired on
TLSOptions NoSessionReuseRequired
TLSLog {folder}/tls.log
TLSECCertificateFile {folder}/tls.pem
TLSECCertificateKeyFile {folder}/tls.key
TLSVerifyClient off
"""


def _openssh(folder: Path, port: int, listen: str) -> tuple[Sequence[str], dict[str, Any]]:
    """OpenSSH runs as root only if a user `sshd` exists, so it runs as another one."""
    is_root = os.geteuid() == 0
    user = pwd.getpwuid(NOBODY if is_root else os.getuid())
    keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("host", "user")}
    for name, key in keys.items():
        key.write_private_key(folder / name)
        (folder / name).chmod(0o600)
        key.write_public_key(folder / f"{name}.pub")
    os.chown(folder / "host", user.pw_uid, -1)
    config = folder / "sshd_config"
    config.write_text(f"""\
ListenAddress {listen}
Port {port}
HostKey {folder}/host
PidFile none
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM yes
PasswordAuthentication no
Subsystem sftp internal-sftp
MaxStartups 100
""")
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    command = [str((FOLDER / "usr/sbin/sshd").resolve()), "-D", "-e", "-f", str(config)]
    login = {
        "username": user.pw_name, "key": folder / "user",
        "host_key": keys["host"].export_public_key().decode(),
    }  # fmt: skip
    return [*as_user, *command] if is_root else command, login


class Watcher:
    """Counts the control connections to a server, from outside.

    The kernel returns only the established connections to this port (`sock_diag`). To read
    `/proc/net/tcp` takes 10 ms for an empty table, so that it would slow down what it watches.
    Connections that are open at the beginning do not count.

    Attributes:
      peak: The largest number of connections at one time.
      connections: The number of connections in total.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._seen: set[int] = set()
        self._stop = threading.Event()
        self.peak = 0

    @property
    def connections(self) -> int:
        return len(self._seen)

    def __enter__(self) -> Self:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG)
        self._before = self._open()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._kernel.close()

    def _run(self) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            now = self._open() - self._before
            self.peak = max(self.peak, len(now))
            self._seen |= now

    def _open(self) -> set[int]:
        """Return the client's ports of the established connections."""
        place = struct.pack(">HH", 0, self._port) + bytes(36) + struct.pack("=II", *[NO_COOKIE] * 2)
        asked = struct.pack("=4BI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, ESTABLISHED) + place
        size = HEADER.size + len(asked)
        self._kernel.send(HEADER.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 0, 0) + asked)
        found: set[int] = set()
        while True:
            data = self._kernel.recv(1 << 18)
            while data:
                size, kind, *_ = HEADER.unpack_from(data)
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, HEADER.size)[0], "sock_diag")
                # Four bytes of facts precede the port.
                found.add(struct.unpack_from(">H", data, HEADER.size + 4)[0])
                data = data[(size + 3) & ~3 :]
